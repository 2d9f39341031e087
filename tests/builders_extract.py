"""Extractors with seeded visual and sound backbones, for tests that need no real weights."""

from __future__ import annotations

import torch

from affuse.extract.extractor import Extractor
from affuse.extract.networks import locate_backbones
from affuse.extract.profiles import PROFILES
from affuse.extract.settings import ExtractSettings

CPU = torch.device("cpu")


def seeded_extractor(threads: int = 1, device: torch.device = CPU, **settings) -> Extractor:
    """Faces and sound only, unless `modalities` says otherwise."""
    settings = {"backbones": PROFILES["offline"], "modalities": ("visual", "audio"), **settings}
    resolved = ExtractSettings(**settings)
    located = locate_backbones(resolved, None, allow_untrained=True)
    return Extractor(resolved, located, device, threads)
