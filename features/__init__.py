"""The contract between extraction and fusion: what a video's features are, and the store that keeps them."""

import importlib

_HOME = {
    "AffuseError": "affuse.errors",
    "UsageError": "affuse.errors",
    "MODALITIES": "affuse.features.record",
    "AudioFeatures": "affuse.features.record",
    "Backbone": "affuse.features.record",
    "Provenance": "affuse.features.record",
    "Source": "affuse.features.record",
    "Status": "affuse.features.record",
    "TextFeatures": "affuse.features.record",
    "VideoFeatures": "affuse.features.record",
    "VisualFeatures": "affuse.features.record",
    "FeatureStore": "affuse.features.store",
    "align": "affuse.features.timeline",
}

__all__ = list(_HOME)


def __getattr__(name: str):
    """Import a public name when it is first asked for, so that the command line's help costs no h5py."""
    if name not in _HOME:
        raise AttributeError(f"module 'features' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value
