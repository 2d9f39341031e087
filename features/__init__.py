"""The contract between extraction and fusion: what a video's features are, and the store that keeps them."""

from affuse.errors import AffuseError, UsageError
from affuse.names import lazily

_RECORD = ("MODALITIES", "AudioFeatures", "Backbone", "Provenance", "Source", "Status", "TextFeatures",
           "VideoFeatures", "VisualFeatures")  # fmt: skip
_HOMES = {
    **dict.fromkeys(_RECORD, "affuse.features.record"),
    "FeatureStore": "affuse.features.store",
    "align": "affuse.features.timeline",
}

__all__ = ["AffuseError", "UsageError", *_HOMES]
__getattr__, __dir__ = lazily(__name__, _HOMES)
