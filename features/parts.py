"""The modalities of a video, and the features of each."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol, runtime_checkable

import numpy as np

from affuse.errors import UsageError

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
        return f"{rows} × {width}" if self.status == Status.OK else f"{self.status.value} ({self.reason})"


@dataclass(frozen=True, repr=False)
class VisualFeatures(_Part):
    """Face embeddings, one row per video frame. A frame without a face is a row of zeros with valid False.

    embedding (T, D) float16; time (T,) float64, seconds; valid (T,) bool;
    box (T, 4) float32, left, top, right, bottom in square pixels of the frame, NaN without a face;
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


@runtime_checkable
class Parts(Protocol):
    """The modalities of one video, as a record has them."""

    @property
    def id(self) -> str: ...
    @property
    def visual(self) -> VisualFeatures: ...
    @property
    def audio(self) -> AudioFeatures: ...
    @property
    def text(self) -> TextFeatures: ...
