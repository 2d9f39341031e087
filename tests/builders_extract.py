"""Extractors with seeded visual and sound backbones, for tests that need no real weights, and single backbones."""

from __future__ import annotations

import torch

from affuse.extract.extraction import extract_settings
from affuse.extract.extractor import Extractor
from affuse.extract.networks import build, locate_backbones
from affuse.extract.profiles import PROFILES
from affuse.extract.settings import ExtractSettings

CPU = torch.device("cpu")


def seeded_extractor(threads: int = 1, device: torch.device = CPU, **settings) -> Extractor:
    """Faces and sound only, unless `modalities` says otherwise."""
    settings = {"backbones": PROFILES["offline"], "modalities": ("visual", "audio"), **settings}
    resolved = ExtractSettings(**settings)
    located = locate_backbones(resolved, None, allow_untrained=True)
    return Extractor(resolved, located, device, threads)


def located(part, name, weights_dir=None, allow_untrained=False):
    """The backbone of a part by this name."""
    settings = extract_settings("offline", None, [f"modalities=[{part}]", f"{part}={name}"])
    if part == "text":
        settings = settings.model_copy(update={"transcripts": "given"})
    return locate_backbones(settings, weights_dir, allow_untrained)[part]


def built(part, found, dtype=torch.float32):
    """Its encoder."""
    return build(part, found, extract_settings("offline"), CPU, dtype)
