"""The contract between extraction and fusion: what a video's features are, and the store that keeps them."""

from affuse.errors import AffuseError, UsageError
from affuse.names import lazily

_HOME = {
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

__all__ = ["AffuseError", "UsageError", *_HOME]
__getattr__, __dir__ = lazily(__name__, _HOME)
