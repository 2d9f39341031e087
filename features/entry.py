"""What is told of a record without reading its arrays: it stands in the seal of its shard and in the store's index."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import NamedTuple

from affuse.features.parts import MODALITIES, Status
from affuse.features.record import Provenance, Source, VideoFeatures, check_types, failure_of


class Part(NamedTuple):
    """A modality in an entry: why it has features or has none, and how many rows of what width."""

    status: Status
    reason: str
    rows: int
    width: int


@dataclass(frozen=True)
class Entry:
    """A record in short. `views` names the further views of its faces; `faces` is the number of frames with one;
    `features_digest` is the same for equal features."""

    id: str
    settings_hash: str
    source: Source
    fps: float
    duration: float
    frames: int
    people: int
    visual: Part
    audio: Part
    text: Part
    views: tuple[str, ...]
    faces: int
    features_digest: str

    @classmethod
    def of(cls, video: VideoFeatures, provenance: Provenance, features_digest: str) -> Entry:
        """That of a record made so."""
        parts = {}
        for modality in MODALITIES:
            part = getattr(video, modality)
            parts[modality] = Part(Status(part.status), part.reason, *map(int, part.embedding.shape))
        return cls(
            video.id,
            provenance.settings_hash,
            Source(video.source.name, int(video.source.size), video.source.sha256, int(video.source.mtime_ns)),
            float(video.fps),
            float(video.duration),
            int(video.frames),
            int(video.people),
            **parts,
            views=tuple(video.visual.views),
            faces=int(video.visual.valid.sum()),
            features_digest=features_digest,
        )

    @classmethod
    def from_row(cls, row: list) -> Entry:
        """What `row` made this of. Raises TypeError or ValueError for what is no such row."""
        video_id, made, source, fps, duration, frames, people, *parts, views, faces, digest = row
        visual, audio, text = (Part(Status(status), *rest) for status, *rest in parts)
        source = Source(*source)
        return cls(
            *(video_id, made, source, fps, duration, frames, people, visual, audio, text, tuple(views), faces, digest)
        )

    @classmethod
    def checked(cls, row: list) -> Entry:
        """The same of a row that anybody may have written."""
        entry = cls.from_row(row)
        check_types(entry, Entry)
        return entry

    @staticmethod
    def told(row: list) -> dict:
        """What `FeatureStore.info` says of a video, of its row: making entries of very many would take longer."""
        _, _, _, fps, duration, frames, _, *parts, views, faces, _ = row
        facts: dict = {"fps": fps, "duration": duration, "frames": frames, "faces": faces}
        facts |= {m: dict(zip(Part._fields, part, strict=True)) for m, part in zip(MODALITIES, parts, strict=True)}
        facts["visual"]["views"] = views
        return facts

    @property
    def row(self) -> tuple:
        """All fields in their order, as plain JSON once it is written."""
        return astuple(self)

    @property
    def failure(self) -> str | None:
        """See `VideoFeatures.failure`."""
        return failure_of((getattr(self, m).status, getattr(self, m).reason) for m in MODALITIES)
