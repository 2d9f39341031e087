"""The last seconds of sound, 16 kHz mono, as they are heard."""

from __future__ import annotations

from threading import Condition

import av
import numpy as np

from affuse.extract.sound import SAMPLE_RATE, Blocks

KEPT = 60.0  # s


class RecentSound:
    """A ring of samples; number 0 is second 0 of the source. What its clock leaves out is silence, what overlaps is
    heard once. Any thread may ask; `changed` is notified when there is more."""

    def __init__(self, kept: float = KEPT):
        self.changed = Condition()
        self.kept = round(kept * SAMPLE_RATE)  # samples
        self.samples = np.zeros(2 * self.kept, np.float32)
        self.first = self.end = 0  # the numbers of the oldest sample there, and of the one that comes next
        self.ended = False
        self._blocks = Blocks(self._put)

    @property
    def heard(self) -> float:
        """Seconds of the source whose sound is known."""
        return self.end / SAMPLE_RATE

    def hear(self, time: float, frame: av.AudioFrame) -> None:
        """A block of sound that begins at `time`, seconds; one that cannot be resampled is silence."""
        self._blocks(time, frame)

    def finish(self) -> None:
        """There is no more."""
        self._blocks.finish()
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def since(self, begin: float) -> tuple[float, np.ndarray]:
        """What is there of the sound from a second on: the second at which it begins, and samples (n,)."""
        with self.changed:
            number = min(max(self.first, round(begin * SAMPLE_RATE)), self.end)
            return number / SAMPLE_RATE, self.samples[number - self.first : self.end - self.first].copy()

    def _put(self, place: int, samples: np.ndarray) -> None:
        """Samples (n,) from that number on."""
        skipped, silent = max(0, self.end - place), max(0, place - self.end)
        if not len(samples[skipped:]):
            return
        with self.changed:
            if silent > self.kept:
                self.first = self.end = self.end + silent - self.kept
            self._append(np.zeros(min(silent, self.kept), np.float32))
            self._append(samples[skipped:])
            self.changed.notify_all()

    def _append(self, samples: np.ndarray) -> None:
        there = self.end - self.first
        if there + len(samples) > len(self.samples):
            there = self.kept
            self.samples[:there] = self.samples[self.end - self.first - there : self.end - self.first].copy()
            self.first = self.end - there
        self.samples[there : there + len(samples)] = samples
        self.end += len(samples)
