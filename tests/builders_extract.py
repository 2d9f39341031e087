"""Extractors with seeded visual and sound backbones, for tests that need no real weights."""

from __future__ import annotations

import torch

from extract.extractor import Extractor, locate_backbones
from extract.settings import PROFILES, ExtractSettings


def seeded_extractor(**settings) -> Extractor:
    """Faces and sound only, unless `modalities` says otherwise."""
    settings = {"backbones": PROFILES["offline"], "modalities": ("visual", "audio"), **settings}
    resolved = ExtractSettings(**settings)
    return Extractor(resolved, locate_backbones(resolved, None, allow_untrained=True), torch.device("cpu"))
