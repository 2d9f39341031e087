"""Stage two: features and labels in, a trained fusion and its predictions out. No video, no backbone."""

import importlib

_HOME = {
    "FusionModel": "fuse.models",
    "build_model": "fuse.models",
    "describe": "fuse.models",
    "Run": "fuse.run",
    "load_run": "fuse.run",
    "PRESETS": "fuse.settings",
    "TrainSettings": "fuse.settings",
    "train_settings": "fuse.settings",
    "train": "fuse.training",
    "choose_folds": "fuse.cross_validation",
    "crossval": "fuse.cross_validation",
    "evaluate": "fuse.evaluation",
    "predict": "fuse.prediction",
    "explain": "fuse.explanation",
    "compare": "fuse.comparison",
    "ablate": "fuse.ablation",
}

__all__ = list(_HOME)


def __getattr__(name: str):
    """Import a public name when it is first asked for, so that `import fuse` itself costs no torch."""
    if name not in _HOME:
        raise AttributeError(f"module 'fuse' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value
