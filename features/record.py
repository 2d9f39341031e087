"""What a video's features are. This is the contract between extraction and fusion.

VideoFeatures ── visual: VisualFeatures   one row per video frame
              ├─ audio:  AudioFeatures    one row per video frame
              └─ text:   TextFeatures     one row per word
Provenance    how a store's features were made: settings, backbones, library versions
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

import numpy as np

from affuse.errors import counted
from affuse.features.parts import MODALITIES, AudioFeatures, Status, TextFeatures, VisualFeatures
from affuse.features.timeline import align, rows_at

if TYPE_CHECKING:
    import pandas as pd

EDGES = ("left", "top", "right", "bottom")  # of a face's box
SHOWN = 12  # of a digest, how many characters a message has
FORMAT_VERSION = 2  # of the record and of the shard that keeps it; older code refuses newer shards


@dataclass(frozen=True)
class Source:
    """The file a record was made from: its name below the video folder, bytes, sha256, and mtime in ns."""

    name: str
    size: int
    sha256: str
    mtime_ns: int = 0


@dataclass(frozen=True, repr=False)
class VideoFeatures:
    """Everything kept of one video, or of one of its people. `fps` is the mean rate (0 without video); `duration` is in
    seconds; `people`, how many records its file has, of as many people."""

    id: str
    source: Source
    fps: float
    duration: float
    frames: int
    visual: VisualFeatures
    audio: AudioFeatures
    text: TextFeatures
    seconds: dict[str, float] = field(default_factory=dict)
    people: int = 1

    def __repr__(self) -> str:
        parts = ", ".join(f"{m} {getattr(self, m).facts}" for m in MODALITIES)
        return f"<VideoFeatures {self.id!r}: {self.duration:.1f} s, {counted(self.frames, 'frame')}; {parts}>"

    def to_frame(self, embeddings: bool = False) -> pd.DataFrame:
        """One row per video frame (of its sound, where it has no frames): time, seconds; face, and its left, top,
        right, bottom in pixels and confidence; sound; word, "" where none is spoken; words, whether one is.

        embeddings: as well as columns visual_0, …, audio_0, …, text_0, …, zeros where there is none.
        """
        import pandas as pd  # slow to import

        seen, said = self.visual, self.text
        time = seen.time if len(seen.time) else self.audio.time
        (face_row, face), (_, sound), (word_row, spoken) = (rows_at(self, m, time) for m in MODALITIES)
        face_row, word_row = np.where(face, face_row, -1), np.where(spoken, word_row, -1)  # -1: what is put last
        box = np.vstack([seen.box, np.full((1, 4), np.nan, np.float32)])[face_row]
        columns = {
            "time": time,
            "face": face,
            **dict(zip(EDGES, box.T, strict=True)),
            "confidence": np.append(seen.confidence, np.float32(0))[face_row],
            "sound": sound,
            "word": np.append(said.word, "")[word_row],
            "words": spoken,
        }
        if embeddings:
            for m, (embedding, _) in align(self, time).items():
                columns |= {f"{m}_{i}": values for i, values in enumerate(embedding.astype(np.float32).T)}
        return pd.DataFrame(columns).rename_axis("frame")

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


def check_types(value: Any, kind: Any, name: str = "it") -> None:
    """Raise ValueError, saying what, unless a value and all in it are of the types that their classes say and numbers
    are finite."""
    plain, inner = get_origin(kind) or kind, get_args(kind)
    right = isinstance(value, (int, float) if plain is float else plain) and isinstance(value, bool) == (plain is bool)
    if not right or (plain is float and not math.isfinite(value)):
        raise ValueError(f"{name} cannot be {value!r:.80}")
    if fields := types_of(plain):
        for part, own in fields.items():
            check_types(getattr(value, part), own, part)
    elif isinstance(value, dict) and inner:
        for item in value.values():
            check_types(item, inner[1], name)
    elif isinstance(value, tuple):
        for item in value:
            check_types(item, inner[0], name)


@cache
def types_of(record: Any) -> dict[str, Any]:
    """{field: type} of a dataclass or named tuple; of another class nothing."""
    return get_type_hints(record)


def person_id(video_id: str, number: int) -> str:
    """The id of the record of a video's person number 1, 2 …, the most prominent first: "clip01#1"."""
    return f"{video_id}#{number}"


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
                was, now = (str(facts[key])[:SHOWN] for facts in (one, other))
                lines.append(f"{part} backbone {one['name']}: {key} {was} → {now}")
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
