"""The contract between extraction and fusion: what a video's features are, and the store that keeps them."""

from features.errors import AffuseError, UsageError
from features.record import (
    MODALITIES,
    AudioFeatures,
    Backbone,
    Provenance,
    Source,
    Status,
    TextFeatures,
    VideoFeatures,
    VisualFeatures,
)
from features.store import FeatureStore
from features.timeline import align

__all__ = [
    "MODALITIES",
    "AffuseError",
    "AudioFeatures",
    "Backbone",
    "FeatureStore",
    "Provenance",
    "Source",
    "Status",
    "TextFeatures",
    "UsageError",
    "VideoFeatures",
    "VisualFeatures",
    "align",
]
