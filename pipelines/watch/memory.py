"""What is known of the last seconds, from which a model reads its window, and of all of them, where they are kept.

Rows come as they do in a record: a face for each picture that was looked at, sound at the times of these pictures,
words with their spans. They are laid on the run's clock, which begins with the first picture, by the same functions
that read a record.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from threading import Condition

import numpy as np

from affuse.extract.media import LONGEST
from affuse.extract.transcripts import Word
from affuse.features.parts import AudioFeatures, Status, TextFeatures, VisualFeatures
from affuse.features.record import Source, VideoFeatures
from affuse.features.resampling import laid
from affuse.features.timeline import SLACK, align, frame_rate

NOT_TAKEN = "not among the modalities that the run takes"
NOWHERE = np.full(4, np.nan, np.float32)
EARLY = 0.25  # of a step by which a picture may come before its moment, and be its picture all the same
BEFORE = 4.0  # s of rows kept before the window: for what lies between them, and for moments that wait


@dataclass(frozen=True)
class Face:
    """What was seen in one picture: its time, seconds of the source; taken, of time.monotonic; embedding (D,) float16,
    box (4,) float32, in pixels of the picture, both None without a face; confidence."""

    time: float
    taken: float
    embedding: np.ndarray | None = None
    box: np.ndarray | None = None
    confidence: float = 0.0


@dataclass(frozen=True)
class Said:
    """Words and their embeddings (W, D) float16, None where there are none."""

    words: Sequence[Word] = ()
    embedding: np.ndarray | None = None


@dataclass(frozen=True)
class Window:
    """Frames as a model reads them: time (L,), seconds; rows {modality: embedding (L, D) float16, there (L,) bool};
    taken, of time.monotonic, when the picture nearest to the last of them was taken."""

    time: np.ndarray
    rows: dict[str, tuple[np.ndarray, np.ndarray]]
    taken: float


class Memory:
    """Rows of the last seconds, written and read by any thread; `changed` is notified of new ones.

    modalities that the run takes; widths {modality: D}; fps, the rate of its clock, None for the pictures' own; frames,
    how many of them its window has; waits {"audio", "text"}, seconds that a value waits at most for what the run takes
    of sound, and always of words; kept, whether all rows are kept for a record, the first LONGEST seconds of them.
    """

    def __init__(
        self,
        modalities: Sequence[str],
        widths: dict[str, int],
        fps: float | None,
        frames: int,
        waits: Mapping[str, float],
        kept: bool = False,
    ):
        self.modalities, self.widths, self.fps, self.frames = modalities, widths, fps, frames
        self.waits = {m: wait for m, wait in waits.items() if m in modalities}
        self.changed = Condition()
        self.faces: deque[Face] = deque()
        self.sound: deque[tuple[float, np.ndarray]] = deque()
        self.said = Said()
        self.origin: float | None = None
        self.forgotten = 0  # faces
        self.finished = False
        self.reached = dict.fromkeys(self.waits, -math.inf)  # s up to which nothing more comes of sound and words
        self.all_faces: list[Face] | None = [] if kept else None
        self.all_sound: list[tuple[float, np.ndarray]] = []

    # ---- writing

    def saw(self, face: Face) -> None:
        with self.changed:
            self.origin = face.time if self.origin is None else self.origin
            self.faces.append(face)
            if self.all_faces is not None and face.time <= LONGEST:
                self.all_faces.append(face)
            self._forget()
            self.changed.notify_all()

    def heard(self, time: Sequence[float], embedding: np.ndarray, reached: float) -> None:
        """Sound at these times (n,), embedding (n, D); all up to the second `reached` was listened to."""
        with self.changed:
            rows = list(zip(time, embedding, strict=True))
            self.sound.extend(rows)
            if self.all_faces is not None:
                self.all_sound.extend(row for row in rows if row[0] <= LONGEST)
            self.reached["audio"] = reached
            self.changed.notify_all()

    def understood(self, said: Said) -> None:
        """The words of the last seconds, as they are known now. They come in pieces of seconds, and may change: so a
        value waits as long as is allowed for them, whatever is known."""
        with self.changed:
            self.said = said
            self.changed.notify_all()

    def finish(self) -> None:
        """No more faces will come."""
        with self.changed:
            self.finished = True
            self.changed.notify_all()

    def hush(self, modality: str) -> None:
        """No more of sound, or of words, will come."""
        with self.changed:
            if modality in self.reached:
                self.reached[modality] = math.inf
            self.changed.notify_all()

    # ---- reading

    def moment(self) -> int | None:
        """The number, on the clock, of the latest moment of which all is known that is waited for."""
        with self.changed:
            if not self.faces:
                return None
            known = self._known()
            if not self.fps:
                return self.forgotten + sum(face.time <= known + SLACK for face in self.faces) - 1
            return math.floor((known - self.origin) * self.fps + EARLY)

    def waiting(self, after: int) -> list[int]:
        """The moments after that one, of which all is known that is waited for, and that have a picture that was looked
        at."""
        with self.changed:
            latest = self.moment()
            if latest is None or not self.fps:
                return list(range(after + 1, (-1 if latest is None else latest) + 1))
            numbers = {math.floor((face.time - self.origin) * self.fps + EARLY) for face in self.faces}
            return sorted(number for number in numbers if after < number <= latest)

    @property
    def complete(self) -> bool:
        """Whether nothing more will come that is waited for."""
        with self.changed:
            return self.finished and (not self.faces or self._known() == self.faces[-1].time)

    def _known(self) -> float:
        """The last second of which all is known that is waited for, or was for long enough."""
        last = self.faces[-1].time
        return min([last, *(max(self.reached[m], last - wait) for m, wait in self.waits.items())])

    def window(self, number: int) -> Window | None:
        """The frames up to that moment, as a model reads them; None where nothing is known of any."""
        with self.changed:
            record, taken = self._recent(), [face.taken for face in self.faces]
            count = number - self.forgotten + 1  # of the faces, where they are the clock
        time = record.visual.time
        if self.fps:
            clock = self.origin + np.arange(max(0, number + 1 - self.frames), number + 1) / self.fps
            record = laid(record, clock, self.fps) if len(clock) else record
        else:
            clock = time[max(0, count - self.frames) : max(0, count)]
        aligned = align(record, clock, self.modalities, self.widths)
        if not any(there.any() for _, there in aligned.values()):
            return None
        return Window(clock, aligned, taken[int(np.abs(time - clock[-1]).argmin())])

    def record(self, name: str, source: Source, said: Said, noted: str) -> VideoFeatures:
        """All that was kept, as the record of a video, with a note on its pictures; `said` are all words."""
        whole = self._record(name, source, self.all_faces, self.all_sound, said)
        reason = "; ".join(filter(None, [whole.visual.reason, noted]))
        return replace(whole, visual=replace(whole.visual, reason=reason))

    # ---- rows

    def _forget(self) -> None:
        while self._needless():
            self.faces.popleft()
            self.forgotten += 1
        while self.sound and self.sound[0][0] < self.faces[0].time:
            self.sound.popleft()

    def _needless(self) -> bool:
        """Whether neither the window nor what lies between its moments can need the oldest face."""
        oldest = self.faces[-1].time - max(self.waits.values(), default=0.0) - BEFORE
        if self.fps:
            return self.faces[0].time < oldest - self.frames / self.fps
        return len(self.faces) > self.frames and self.faces[self.frames].time < oldest

    def _recent(self) -> VideoFeatures:
        return self._record("live", Source("live", 0, ""), self.faces, self.sound, self.said)

    def _record(self, name: str, source: Source, faces: Iterable[Face], sound, said: Said) -> VideoFeatures:
        time = np.array([face.time for face in faces])
        audio = np.array([moment for moment, _ in sound])
        duration = max([0.0, *time[-1:], *audio[-1:], *(word.end for word in said.words)])
        return VideoFeatures(
            name, source, frame_rate(time), duration, len(time),
            self._visual(faces, time), self._audio(sound, audio), self._text(said),
        )  # fmt: skip

    def _visual(self, faces: Iterable[Face], time: np.ndarray) -> VisualFeatures:
        there = np.array([face.embedding is not None for face in faces], bool)
        embedding = np.zeros((len(time), self.widths["visual"]), np.float16)
        for row, face in enumerate(faces):
            if face.embedding is not None:
                embedding[row] = face.embedding
        box = np.array([NOWHERE if face.box is None else face.box for face in faces], np.float32).reshape(-1, 4)
        confidence = np.array([face.confidence for face in faces], np.float32)
        status, reason = Status.OK, ""
        if not there.any():
            status, reason = Status.NO_FACE, f"no face found in {len(time)} frames"
        if "visual" not in self.modalities:
            status, reason = Status.SKIPPED, NOT_TAKEN
        return VisualFeatures(embedding, time, there, box, confidence, status, reason)

    def _audio(self, sound, time: np.ndarray) -> AudioFeatures:
        if len(time):
            return AudioFeatures(np.stack([row for _, row in sound]), time)
        why = (Status.NO_AUDIO, "there was no sound") if "audio" in self.modalities else (Status.SKIPPED, NOT_TAKEN)
        return AudioFeatures.absent(self.widths["audio"], *why)

    def _text(self, said: Said) -> TextFeatures:
        if not said.words:
            taken = "text" in self.modalities
            why = (Status.NO_SPEECH, "no speech was recognised") if taken else (Status.SKIPPED, NOT_TAKEN)
            return TextFeatures.absent(self.widths["text"], *why)
        start, end, text = (np.array([getattr(word, key) for word in said.words]) for key in ("start", "end", "text"))
        confidence = np.array([word.confidence for word in said.words], np.float32)
        return TextFeatures(said.embedding, start, end, text, confidence)
