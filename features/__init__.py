"""The contract between extraction and fusion: what a video's features are, and the store that keeps them."""

from affuse.errors import AffuseError, UsageError
from affuse.names import homes_of, lazily

_RECORD = "MODALITIES Status VideoFeatures VisualFeatures AudioFeatures TextFeatures Source Backbone Provenance"
_OFFERED = {"record": _RECORD.split(), "store": ("FeatureStore",), "timeline": ("align",)}
_HOMES = homes_of(__name__, _OFFERED)

__all__ = ["AffuseError", "UsageError", *_HOMES]
__getattr__, __dir__ = lazily(__name__, _HOMES)
