"""Continuous valence and arousal from video: all that a script or a notebook needs, each imported at its first use.

>>> import affuse
>>> store = affuse.FeatureStore("store")
>>> store
<FeatureStore store: 2 videos, 3.2 s; visual 24, audio 8, text 12 wide>
>>> store["clip01"]
<VideoFeatures 'clip01': 1.6 s, 40 frames; visual 40 × 24, audio 40 × 8, text 6 × 12>
>>> store["clip01"].to_frame()[["time", "face", "sound", "word"]].head(2)
       time  face  sound    word
frame
0      0.00  True   True
1      0.04  True   True  Straße
"""

from __future__ import annotations

from affuse.errors import AffuseError, UsageError
from affuse.names import homes_of, lazily
from affuse.version import VERSION

TYPE_CHECKING = False  # as in typing, which would be slow to import
OFFERED = {  # the imports below say the same to editors and type checkers
    "extract.extraction": ("extract_videos",),
    "features.parts": ("MODALITIES",),
    "features.store": ("FeatureStore",),
    "features.resampling": ("resample_store",),
    "features.timeline": ("align",),
    "fuse.experiments.ablate": ("ablate",),
    "fuse.experiments.compare": ("compare",),
    "fuse.experiments.crossval": ("choose_folds", "crossval"),
    "fuse.models.model": ("build_model",),
    "fuse.models.registry": ("register",),
    "fuse.scoring.predict": ("Prediction", "Predictions"),
    "fuse.training.settings": ("train_settings",),
    "pipelines.prediction": ("Run", "load_run", "train"),
    "pipelines.report.page": ("report",),
}
HOMES = homes_of(__name__, OFFERED) | {wing: f"affuse.{wing}" for wing in ("extract", "features", "fuse", "pipelines")}
__version__ = VERSION
__all__ = ["AffuseError", "UsageError", "__version__", *HOMES]

if TYPE_CHECKING:
    from affuse import extract as extract
    from affuse import features as features
    from affuse import fuse as fuse
    from affuse import pipelines as pipelines
    from affuse.extract.extraction import extract_videos as extract_videos
    from affuse.features.parts import MODALITIES as MODALITIES
    from affuse.features.resampling import resample_store as resample_store
    from affuse.features.store import FeatureStore as FeatureStore
    from affuse.features.timeline import align as align
    from affuse.fuse.experiments.ablate import ablate as ablate
    from affuse.fuse.experiments.compare import compare as compare
    from affuse.fuse.experiments.crossval import choose_folds as choose_folds
    from affuse.fuse.experiments.crossval import crossval as crossval
    from affuse.fuse.models.model import build_model as build_model
    from affuse.fuse.models.registry import register as register
    from affuse.fuse.scoring.predict import Prediction as Prediction
    from affuse.fuse.scoring.predict import Predictions as Predictions
    from affuse.fuse.training.settings import train_settings as train_settings
    from affuse.pipelines.prediction import Run as Run
    from affuse.pipelines.prediction import load_run as load_run
    from affuse.pipelines.prediction import train as train
    from affuse.pipelines.report.page import report as report
else:
    __getattr__, __dir__ = lazily(__name__, HOMES)
