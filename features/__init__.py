"""The contract between extraction and fusion: what a video's features are, and the store that keeps them."""

import importlib

_HOME = {
    "AffuseError": "features.errors",
    "UsageError": "features.errors",
    "MODALITIES": "features.record",
    "AudioFeatures": "features.record",
    "Backbone": "features.record",
    "Provenance": "features.record",
    "Source": "features.record",
    "Status": "features.record",
    "TextFeatures": "features.record",
    "VideoFeatures": "features.record",
    "VisualFeatures": "features.record",
    "FeatureStore": "features.store",
    "align": "features.timeline",
}

__all__ = list(_HOME)


def __getattr__(name: str):
    """Import a public name when it is first asked for, so that the command line's help costs no h5py."""
    if name not in _HOME:
        raise AttributeError(f"module 'features' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value
