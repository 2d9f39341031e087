"""The last seconds of sound, 16 kHz mono, as they are heard."""

from __future__ import annotations

from threading import Condition

import av
import numpy as np

from affuse.extract.media import LOUDEST, SAMPLE_RATE, SLACK

KEPT = 60.0  # s


class Sound:
    """A ring of samples; number 0 is second 0 of the source. What its clock leaves out is silence, what overlaps is
    heard once. Any thread may ask; `changed` is notified when there is more."""

    def __init__(self, kept: float = KEPT):
        self.changed = Condition()
        self.kept = round(kept * SAMPLE_RATE)  # samples
        self.samples = np.zeros(2 * self.kept, np.float32)
        self.first = self.end = 0  # the numbers of the oldest sample there, and of the one that comes next
        self.ended = False
        self._resampler, self._kind, self._due, self._place = None, None, None, 0

    @property
    def heard(self) -> float:
        """Seconds of the source whose sound is known."""
        return self.end / SAMPLE_RATE

    def hear(self, time: float, frame: av.AudioFrame) -> None:
        """A block of sound that begins at `time`, seconds; one that cannot be resampled is silence."""
        kind = frame.format.name, frame.layout.name, frame.sample_rate
        apart = self._due is None or abs(time - self._due) > SLACK
        if apart or kind != self._kind:
            self._put(self._resampled(None))
            self._resampler, self._kind = av.AudioResampler(format="flt", layout="mono", rate=SAMPLE_RATE), kind
        if apart:
            self._due, self._place = time, round(time * SAMPLE_RATE)
        self._due += frame.samples / frame.sample_rate
        self._put(self._resampled(frame))

    def finish(self) -> None:
        """There is no more."""
        self._put(self._resampled(None))
        with self.changed:
            self.ended = True
            self.changed.notify_all()

    def since(self, begin: float) -> tuple[float, np.ndarray]:
        """What is there of the sound from a second on: the second at which it begins, and samples (n,)."""
        with self.changed:
            number = min(max(self.first, round(begin * SAMPLE_RATE)), self.end)
            return number / SAMPLE_RATE, self.samples[number - self.first : self.end - self.first].copy()

    def _resampled(self, frame: av.AudioFrame | None) -> np.ndarray:
        try:
            made = [piece.to_ndarray()[0] for piece in self._resampler.resample(frame)] if self._resampler else []
        except (av.error.FFmpegError, ValueError):
            self._resampler = self._kind = self._due = None
            made = []
        samples = np.concatenate([np.zeros(0, np.float32), *made])
        return np.where(np.abs(samples) <= LOUDEST, samples, np.float32(0))

    def _put(self, samples: np.ndarray) -> None:
        """Samples that go on from the last ones, or begin where the source's clock says."""
        skipped = max(0, self.end - self._place)
        silent = max(0, self._place - self.end)
        self._place += len(samples)
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
