"""Stage two: features and labels in, a trained fusion and its predictions out. No video, no backbone."""

from affuse.names import lazily

HOMES = {
    "FusionModel": "affuse.fuse.models.model",
    "build_model": "affuse.fuse.models.model",
    "describe": "affuse.fuse.models.model",
    "register": "affuse.fuse.models.registry",
    "Run": "affuse.fuse.training.run",
    "load_run": "affuse.fuse.training.run",
    "Prediction": "affuse.fuse.scoring.predict",
    "Predictions": "affuse.fuse.scoring.predict",
    "PRESETS": "affuse.fuse.training.settings",
    "TrainSettings": "affuse.fuse.training.settings",
    "train_settings": "affuse.fuse.training.settings",
    "train": "affuse.fuse.training.train",
    "choose_folds": "affuse.fuse.experiments.crossval",
    "crossval": "affuse.fuse.experiments.crossval",
    "evaluate": "affuse.fuse.training.run",
    "predict": "affuse.fuse.training.run",
    "explain": "affuse.fuse.training.run",
    "compare": "affuse.fuse.experiments.compare",
    "ablate": "affuse.fuse.experiments.ablate",
}

__all__ = list(HOMES)
__getattr__, __dir__ = lazily(__name__, HOMES)
