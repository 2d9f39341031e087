"""Stage two: features and labels in, a trained fusion and its predictions out. No video, no backbone."""

from affuse.names import homes_of, lazily

_OFFERED = {
    "models.model": ("FusionModel", "build_model", "describe"),
    "models.registry": ("register",),
    "training.ensemble": ("train_seeds",),
    "training.loading": ("load_run",),
    "training.run": ("Run",),
    "training.saving": ("evaluate", "predict", "explain"),
    "training.presets": ("PRESETS",),
    "training.settings": ("TrainSettings", "train_settings"),
    "training.train": ("train",),
    "scoring.predict": ("Prediction", "Predictions"),
    "experiments.crossval": ("choose_folds", "crossval"),
    "experiments.compare": ("compare",),
    "experiments.ablate": ("ablate",),
    "experiments.search": ("search",),
}
_HOMES = homes_of(__name__, _OFFERED)

__all__ = list(_HOMES)
__getattr__, __dir__ = lazily(__name__, _HOMES)
