"""The contract between extraction and fusion: what a video's features are, and the store that keeps them."""

from affuse.errors import AffuseError, UsageError
from affuse.names import homes_of, lazily

_OFFERED = {
    "parts": ("MODALITIES", "Status", "VisualFeatures", "AudioFeatures", "TextFeatures"),
    "record": ("VideoFeatures", "Source", "Backbone", "Provenance"),
    "store": ("FeatureStore",),
    "timeline": ("align",),
    "resampling": ("resample_store",),
}
_HOMES = homes_of(__name__, _OFFERED)

__all__ = ["AffuseError", "UsageError", *_HOMES]
__getattr__, __dir__ = lazily(__name__, _HOMES)
