"""What a video's features are. This is the contract between extraction and fusion.

VideoFeatures ── visual: VisualFeatures   one row per video frame
              ├─ audio:  AudioFeatures    one row per video frame
              └─ text:   TextFeatures     one row per word
Provenance    how a store's features were made: settings, backbones, library versions
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import TYPE_CHECKING

import numpy as np

from affuse.errors import UsageError

if TYPE_CHECKING:
    import pandas as pd

FORMAT_VERSION = 1  # of the record and of the shard that keeps it; older code refuses newer shards
MODALITIES = ("visual", "audio", "text")


class Status(str, Enum):
    """Why a modality of a video has features, or has none."""

    OK = "ok"
    NO_VIDEO = "no_video"
    NO_FACE = "no_face"
    NO_AUDIO = "no_audio"
    NO_SPEECH = "no_speech"
    TOO_SHORT = "too_short"
    UNDECODABLE = "undecodable"
    SKIPPED = "skipped"


def checked_modalities(names: Iterable[str]) -> tuple[str, ...]:
    """The modalities of these names. Raises UsageError for what is none, or no list of them."""
    names = (names,) if isinstance(names, str) or not isinstance(names, Iterable) else tuple(names)
    for name in names:
        if name not in MODALITIES:
            raise UsageError(f"{name!r} is no modality. Known: {', '.join(MODALITIES)}.")
    return names


class _Part:
    """A modality of a video; shown by its facts instead of its arrays."""

    embedding: np.ndarray
    status: Status
    reason: str

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.facts}>"

    @property
    def facts(self) -> str:
        """ "250 × 2048", or why there is nothing: "no_face (no face found in 250 frames)"."""
        rows, width = self.embedding.shape
        why = f"{self.status.value} ({self.reason})"
        return f"{rows} × {width}" if self.status == Status.OK else why


@dataclass(frozen=True, repr=False)
class VisualFeatures(_Part):
    """Face embeddings, one row per video frame. A frame without a face is a row of zeros with valid False.

    embedding (T, D) float16; time (T,) float64, seconds; valid (T,) bool;
    box (T, 4) float32, left, top, right, bottom in pixels, NaN without a face;
    confidence (T,) float32 in [0, 1]; views {name: (T, D) float16}, the embeddings of other views of the same faces,
    such as the mirrored one, which training may draw instead of `embedding`.
    """

    embedding: np.ndarray
    time: np.ndarray
    valid: np.ndarray
    box: np.ndarray
    confidence: np.ndarray
    status: Status = Status.OK
    reason: str = ""
    views: dict[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def absent(cls, width: int, status: Status, reason: str) -> VisualFeatures:
        """No rows, and why."""
        rows = (np.zeros((0, width), np.float16), np.zeros(0), np.zeros(0, bool))
        return cls(*rows, np.zeros((0, 4), np.float32), np.zeros(0, np.float32), status, reason)


@dataclass(frozen=True, repr=False)
class AudioFeatures(_Part):
    """Sound embeddings, one row per video frame (25 a second where there is no video).

    embedding (T, D) float16; time (T,) float64, seconds. No rows unless status is ok.
    """

    embedding: np.ndarray
    time: np.ndarray
    status: Status = Status.OK
    reason: str = ""

    @classmethod
    def absent(cls, width: int, status: Status, reason: str) -> AudioFeatures:
        """No rows, and why."""
        return cls(np.zeros((0, width), np.float16), np.zeros(0), status, reason)


@dataclass(frozen=True, repr=False)
class TextFeatures(_Part):
    """Word embeddings, one row per spoken word.

    embedding (W, D) float16; start, end (W,) float64, seconds; word (W,) of str;
    confidence (W,) float32 in [0, 1]. No rows unless status is ok.
    """

    embedding: np.ndarray
    start: np.ndarray
    end: np.ndarray
    word: np.ndarray
    confidence: np.ndarray
    status: Status = Status.OK
    reason: str = ""

    @classmethod
    def absent(cls, width: int, status: Status, reason: str) -> TextFeatures:
        """No rows, and why."""
        rows = (np.zeros((0, width), np.float16), np.zeros(0), np.zeros(0), np.zeros(0, str))
        return cls(*rows, np.zeros(0, np.float32), status, reason)


@dataclass(frozen=True)
class Source:
    """The file a record was made from: its name below the video folder, bytes, sha256, and mtime in ns."""

    name: str
    size: int
    sha256: str
    mtime_ns: int = 0


@dataclass(frozen=True, repr=False)
class VideoFeatures:
    """Everything kept of one video. `fps` is the mean rate (0 without video); `duration` is in seconds."""

    id: str
    source: Source
    fps: float
    duration: float
    frames: int
    visual: VisualFeatures
    audio: AudioFeatures
    text: TextFeatures
    seconds: dict[str, float] = field(default_factory=dict)

    def __repr__(self) -> str:
        parts = ", ".join(f"{m} {getattr(self, m).facts}" for m in MODALITIES)
        return f"<VideoFeatures {self.id!r}: {self.duration:.1f} s, {self.frames} frames; {parts}>"

    def to_frame(self, embeddings: bool = False) -> pd.DataFrame:
        """One row per video frame (of its sound, where it has no frames): time, seconds; face, and its left, top,
        right, bottom in pixels and confidence; sound; word, "" where none is spoken; words, whether one is.

        embeddings: as well as columns visual_0, …, audio_0, …, text_0, …, zeros where there is none.
        """
        from affuse.features.facts import frame_of  # costs pandas

        return frame_of(self, embeddings)

    @classmethod
    def undecodable(cls, video_id: str, source: Source, reason: str, provenance: Provenance) -> VideoFeatures:
        """The record of a video of which nothing can be decoded."""
        why = (Status.UNDECODABLE, reason)
        visual = VisualFeatures.absent(provenance.width("visual"), *why)
        audio = AudioFeatures.absent(provenance.width("audio"), *why)
        text = TextFeatures.absent(provenance.width("text"), *why)
        return cls(video_id, source, 0.0, 0.0, 0, visual, audio, text)

    @property
    def transcript(self) -> str:
        """The spoken words in order, joined by spaces."""
        return " ".join(self.text.word)

    @property
    def failure(self) -> str | None:
        """Why nothing of what was asked for could be decoded; None where something was."""
        return failure_of((part.status, part.reason) for part in (self.visual, self.audio, self.text))


def failure_of(parts: Iterable[tuple[str, str]]) -> str | None:
    """The same from the status and reason of each modality."""
    nothing = {Status.UNDECODABLE, Status.NO_VIDEO, Status.NO_AUDIO, Status.SKIPPED}
    statuses, reasons = zip(*parts, strict=True)
    if Status.UNDECODABLE not in statuses or not set(statuses) <= nothing:
        return None
    return reasons[statuses.index(Status.UNDECODABLE)]


@dataclass(frozen=True)
class Backbone:
    """Where a frozen network came from. `sha256` is empty for an untrained one of our table; `width` its
    embedding's."""

    name: str
    source: str
    sha256: str
    trained: bool
    width: int
    precision: str = "float32"
    licence: str = ""


@dataclass(frozen=True, repr=False)
class Provenance:
    """How features were made. Two videos belong in one store only if their `settings_hash` is the same.

    backbones: by part, "visual", "audio", "speech" (the transcriber; width 0) and "text".
    """

    settings: dict
    settings_hash: str
    backbones: dict[str, Backbone]
    versions: dict[str, str]

    def __repr__(self) -> str:
        parts = (f"{part} {b.name}" + ("" if b.trained else " (untrained)") for part, b in self.backbones.items())
        return f"<Provenance {self.settings_hash[:12]}: {', '.join(parts)}>"

    @property
    def untrained(self) -> list[str]:
        """The backbones with seeded, untrained weights, as "part (name)"."""
        return [f"{part} ({b.name})" for part, b in self.backbones.items() if not b.trained]

    def width(self, part: str) -> int:
        """Of the embeddings of a part; 0 where it was not extracted."""
        return self.backbones[part].width if part in self.backbones else 0

    def as_dict(self) -> dict:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict) -> Provenance:
        return cls(**{**data, "backbones": {part: Backbone(**b) for part, b in data["backbones"].items()}})


def canonical(value: object) -> str:
    """JSON with one spelling per value: sorted keys, no spaces, ASCII. NaN and infinity are refused."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def settings_hash(settings: dict, backbones: dict[str, Backbone]) -> str:
    """sha256, in hex, of all that decides the features: the resolved settings, the format, and of each
    backbone what it computes (name, weights, width, precision), wherever its file lay."""
    decisive = {part: _decisive(backbone) for part, backbone in backbones.items()}
    text = canonical({"format": FORMAT_VERSION, "settings": settings, "backbones": decisive})
    return hashlib.sha256(text.encode()).hexdigest()


def _decisive(backbone: Backbone) -> dict:
    return {key: getattr(backbone, key) for key in ("name", "sha256", "trained", "width", "precision")}


def how_they_differ(old: Provenance, new: Provenance) -> list[str]:
    """What their `settings_hash` sees differ, a line each: "settings.audio_anchor: start → centre"."""
    lines = []
    for part in sorted({*old.backbones, *new.backbones}):
        one, other = (_decisive(p.backbones[part]) if part in p.backbones else {} for p in (old, new))
        if one.get("name") != other.get("name"):
            lines.append(f"{part} backbone: {one.get('name', 'none')} → {other.get('name', 'none')}")
            continue
        for key in ("trained", "width", "precision", "sha256"):
            if one[key] != other[key]:
                lines.append(f"{part} backbone {one['name']}: {key} {one[key]} → {other[key]}")
    told = {f"settings.backbones.{part}" for part in old.backbones.keys() & new.backbones.keys()}
    one, other = _dotted({"settings": old.settings}), _dotted({"settings": new.settings})
    for key in sorted({*one, *other} - told):
        if one.get(key) != other.get(key):
            lines.append(f"{key}: {one.get(key, 'not set')} → {other.get(key, 'not set')}")
    if not lines and old.settings_hash != new.settings_hash:
        lines.append("the format version of the features")
    return lines


def _dotted(tree: dict, prefix: str = "") -> dict:
    """{"a": {"b": 1}} → {"a.b": 1}"""
    leaves: dict = {}
    for key, value in tree.items():
        leaves |= _dotted(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return leaves
