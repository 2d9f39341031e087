"""One video's worth of work, the same wherever it is done: path in, shard written, receipt out."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from pathlib import Path

from dask.system import CPU_COUNT

from extract.extractor import Extractor
from extract.inputs import Job
from extract.networks import extraction_device, locate_backbones
from extract.settings import ExtractSettings
from features.errors import AffuseError, RecordError
from features.record import MODALITIES, VideoFeatures
from features.store import FeatureStore


@dataclass(frozen=True)
class Recipe:
    """All that a process needs to extract as the others do. Paths are those the process itself sees; threads None are
    as many as it has cores."""

    settings: ExtractSettings
    weights_dir: Path | None
    allow_untrained: bool
    device: str
    threads: int | None

    def extractor(self) -> Extractor:
        """Find the weights; networks are built at their first use. Raises AffuseError where weights are missing."""
        located = locate_backbones(self.settings, self.weights_dir, self.allow_untrained)
        return Extractor(self.settings, located, extraction_device(self.device), self.threads or CPU_COUNT)


@dataclass(frozen=True)
class Receipt:
    """What became of one video; small, since it travels. `failure` is the reason where it failed.

    frames; duration of the video in seconds; statuses by modality; seconds of work per stage; details: the traceback
    of a defect of ours, for the log.
    """

    id: str
    failure: str | None
    frames: int = 0
    duration: float = 0.0
    statuses: dict[str, str] | None = None
    seconds: dict[str, float] | None = None
    details: str = ""


def receipt(video: VideoFeatures) -> Receipt:
    statuses = {modality: getattr(video, modality).status.value for modality in MODALITIES}
    return Receipt(video.id, video.failure, video.frames, video.duration, statuses, video.seconds)


def process(job: Job, extractor: Extractor, store: FeatureStore) -> Receipt:
    """Extract one video into the store.

    Raises AffuseError for what would fail every video alike: weights that do not fit, a store that cannot be
    written.
    """
    extractor.load()
    try:
        video = extractor(job)
    except AffuseError as error:
        return Receipt(job.id, str(error))
    except OSError as error:
        reason = error.strerror or error
        return Receipt(job.id, f"{job.path} cannot be read: {reason}. Check its permissions and its disk.")
    except Exception as error:
        what = f"{type(error).__name__}: {error}"
        reason = f"{job.path} made the extraction fail ({what}). Please report this."
        return Receipt(job.id, reason, details=traceback.format_exc())
    try:
        store.write(video, extractor.provenance)
    except RecordError as error:
        return Receipt(job.id, str(error))
    return receipt(video)
