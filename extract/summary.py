"""What became of a video, and what a run did so far: for the person watching, in lines, and for programs, as JSON lines
beside the log."""

from __future__ import annotations

import json
import math
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from pathlib import Path

from affuse.console import PAUSE
from affuse.errors import counted, listed
from affuse.extract.videos import Job
from affuse.features.parts import MODALITIES
from affuse.features.record import VideoFeatures


@dataclass(frozen=True)
class Receipt:
    """What became of one video; small, since it travels. `failure` is the reason where it failed.

    frames; duration of the video in seconds; statuses by modality, of its most prominent person; seconds of work per
    stage; details: the traceback of a defect of ours, for the log; people, how many have a record; worker, the name of
    that which did it, where it was one of a cluster.
    """

    id: str
    failure: str | None
    frames: int = 0
    duration: float = 0.0
    statuses: dict[str, str] | None = None
    seconds: dict[str, float] | None = None
    details: str = ""
    people: int = 1
    worker: str = ""

    @classmethod
    def of(cls, job: Job, video: VideoFeatures) -> Receipt:
        statuses = {modality: getattr(video, modality).status.value for modality in MODALITIES}
        return cls(job.id, video.failure, video.frames, video.duration, statuses, video.seconds, "", video.people)


@dataclass
class Summary:
    """What a run did, so far. `made` are ids, `failed` is id → reason; times in seconds.

    kept: videos that were there already; earlier: of these, those that failed in an earlier run, and so are in `failed`
    too. people: records that were made; todo: videos to extract; bytes_todo, bytes_done: of their files. stages:
    seconds of work, on all threads together. reasons: failures of this run by their reason, without the names in it.
    workers: by name, how many videos each of a cluster's has made, and how many failed there.
    """

    todo: int = 0
    made: list[str] = field(default_factory=list)
    kept: int = 0
    earlier: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    reasons: Counter[str] = field(default_factory=Counter)
    workers: dict[str, dict[str, int]] = field(default_factory=dict)
    statuses: dict[str, dict[str, int]] = field(default_factory=lambda: {m: {} for m in MODALITIES})
    stages: dict[str, float] = field(default_factory=dict)
    people: int = 0
    frames: int = 0
    video_seconds: float = 0.0
    seconds: float = 0.0
    bytes_todo: int = 0
    bytes_done: int = 0
    done: int = 0

    def add(self, receipt: Receipt, job: Job, size: int) -> None:
        """What became of one more video; `size` is that of its files, in bytes."""
        self.done += 1
        self.bytes_done += size
        if receipt.worker:
            own = self.workers.setdefault(receipt.worker, {"made": 0, "failed": 0})
            own["failed" if receipt.failure else "made"] += 1
        if receipt.failure is not None:
            self.failed[job.id] = receipt.failure
            self.reasons[without_names(receipt.failure, job)] += 1
            return
        self.made.append(job.id)
        self.people += receipt.people
        self.frames += receipt.frames
        self.video_seconds += receipt.duration
        for modality, status in (receipt.statuses or {}).items():
            counts = self.statuses[modality]
            counts[status] = counts.get(status, 0) + 1
        for stage, spent in (receipt.seconds or {}).items():
            self.stages[stage] = self.stages.get(stage, 0.0) + spent

    @property
    def frames_per_second(self) -> float:
        return self.frames / max(self.seconds, 1e-9)

    @property
    def real_time(self) -> float:
        """Seconds of video per second of the run."""
        return self.video_seconds / max(self.seconds, 1e-9)

    @property
    def to_do(self) -> float:
        """What is left for every part that is done, by the size of the files."""
        return (self.bytes_todo - self.bytes_done) / max(self.bytes_done, 1)

    @property
    def line(self) -> str:
        """The state of the run in a line."""
        left = f", about {clock(self.seconds * self.to_do)} left" if 0 < self.done < self.todo else ""
        return (
            f"{self.done} of {counted(self.todo, 'video')}, {self.reasons.total()} failed; "
            f"{clock(self.video_seconds)} of video done, about {clock(self.video_seconds * self.to_do)} to do; "
            f"{self.frames_per_second:.1f} frames/s{left}"
        )

    def as_dict(self) -> dict:
        return asdict(self) | {"frames_per_second": self.frames_per_second, "real_time": self.real_time}


def clock(seconds: float) -> str:
    """3725 → "1:02:05"."""
    minutes, second = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"


def without_names(reason: str, job: Job) -> str:
    """A reason with "…" for what names its video, so that those of one kind can be counted."""
    for name in (str(job.path.absolute()), str(job.path), job.name, job.path.name, repr(job.id)):
        reason = reason.replace(name, "…")
    return reason


def describe(summary: Summary) -> str:
    """The run in a few lines: what was made, statuses by modality, time by stage, failures by reason, workers."""
    people = f" ({summary.people} people)" if summary.people > len(summary.made) else ""
    earlier = summary.earlier
    told = f"{len(summary.made)} extracted{people}, {summary.kept - earlier} already there"
    told += f", {len(summary.failed)} failed" + (f", {earlier} of them in an earlier run" if earlier else "")
    lines = [f"{told}, in {summary.seconds:.1f} s." + " --retry-failed tries these again." * bool(earlier)]
    if summary.made:
        lines.append(
            f"{counted(summary.frames, 'frame')}, {summary.video_seconds:.1f} s of video: "
            f"{summary.frames_per_second:.1f} frames per second, {summary.real_time:.2f} × real time."
        )
        for modality in MODALITIES:
            counts = ", ".join(f"{status} {n}" for status, n in summary.statuses[modality].items())
            lines.append(f"  {modality:<7} {counts}")
        stages = ", ".join(f"{stage} {spent:.1f} s" for stage, spent in summary.stages.items())
        lines.append(f"  stages  {stages}")
    if summary.workers:
        each = [f"{name} {own['made']}" + f" ({own['failed']} failed)" * bool(own["failed"])
                for name, own in sorted(summary.workers.items())]  # fmt: skip
        lines.append(f"  workers {listed(each)}")
    lines += [f"  failed  {many} × {reason}" for reason, many in summary.reasons.most_common()]
    return "\n".join(lines)


class Bulletin:
    """The state of a run as JSON lines in a file, one every `PAUSE` seconds and one at its end; in none where `path` is
    None, or the file cannot be written."""

    def __init__(self, path: Path | None):
        self.path = path
        self.told = -math.inf

    def tell(self, summary: Summary) -> None:
        last = summary.done == summary.todo
        if self.path is None or (time.monotonic() - self.told < PAUSE and not last):
            return
        self.told = time.monotonic()
        line = {
            "time": f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}",
            "seconds": round(summary.seconds, 1),
            "seconds_left": round(summary.seconds * summary.to_do, 1),
            "videos": summary.todo,
            "done": summary.done,
            "failed": summary.reasons.total(),
            "video_seconds": round(summary.video_seconds, 1),
            "frames_per_second": round(summary.frames_per_second, 1),
            "reasons": summary.reasons,
            "workers": summary.workers,
        }
        with suppress(OSError), self.path.open("a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(json.dumps(line) + "\n")
