"""Stage two: features and labels in, a trained fusion and its predictions out. No video, no backbone."""

from fuse.models import FusionModel, build_model, describe

__all__ = ["FusionModel", "build_model", "describe"]
