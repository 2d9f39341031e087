"""The value now: what a run says of the last frame of its window, each time the clock has come one frame further.

It is what `Run.predict` says of that frame with `stream`, as far as it is known what was before: nothing that comes
later has a part in it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from affuse.extract.heap import give_back
from affuse.fuse.scoring.predict import SEEN_AS
from affuse.fuse.training.run import Run
from affuse.fuse.training.stream import RunStream
from affuse.pipelines.watch.lanes import begin
from affuse.pipelines.watch.memory import Memory, Window

WAITING = 16  # moments that may wait
SLOWEST = 60.0  # s; longer delays count as this


@dataclass(frozen=True)
class Value:
    """Of a moment, seconds of the source: values and, where there is one, deviation, by target; present, whether there
    was a face, sound, words, of what the run takes; valid, whether any; taken, of time.monotonic, when its picture was
    taken; delay, seconds from then until the value was there."""

    time: float
    values: dict[str, float]
    deviation: dict[str, float] | None
    present: dict[str, bool]
    valid: bool
    taken: float
    delay: float


def frames_of(run: Run) -> int:
    """How many frames the run's longest window has."""
    return max(each.model.memory for each in (run, *run.others))


def changed(before: Window, window: Window) -> tuple[int, int]:
    """How many of the last frames of the window before are no longer as they were, and from which frame of this one on
    it goes on from the others."""
    left = int(np.searchsorted(before.time, window.time[0]))  # the clock has gone on since
    common = min(len(before.time) - left, len(window.time))
    same = before.time[left : left + common] == window.time[:common]
    for m, parts in window.rows.items():
        for old, new in zip(before.rows[m], parts, strict=True):
            same &= (old[left : left + common] == new[:common]).all(axis=tuple(range(1, new.ndim)))
    kept = common if same.all() else int(same.argmin())
    return len(before.time) - left - kept, kept


class Delays:
    """How long values took, to the millisecond, in as much memory for a day as for a minute."""

    def __init__(self):
        self.counts = np.zeros(round(SLOWEST * 1000) + 1, np.int64)

    def add(self, seconds: float) -> None:
        self.counts[min(max(0, round(seconds * 1000)), len(self.counts) - 1)] += 1

    def quantile(self, share: float) -> float | None:
        """Seconds that this share of the values took at most; None where there is no value."""
        total = int(self.counts.sum())
        return int(np.searchsorted(np.cumsum(self.counts), share * total)) / 1000 if total else None


class Reader:
    """The lane that makes values of a memory, one for each moment with a picture that was looked at, and of the latest
    where more than WAITING wait; `told` hears of each.

    shown: how many were made; seen: of these, with a face, sound, words. What has changed in its window since the last
    value is computed anew, the rest is as it was.
    """

    def __init__(self, run: Run, memory: Memory, told: Callable[[Value], None]):
        self.run, self.memory, self.told = run, memory, told
        self.delays, self.shown, self.number = Delays(), 0, -1
        self.seen = dict.fromkeys((SEEN_AS[m] for m in memory.modalities), 0)
        self.stream, self.window, self.last = RunStream(run), None, None

    def work(self, stopped: threading.Event) -> None:
        begin("values")
        memory = self.memory
        while not stopped.is_set():
            with memory.changed:
                waiting = memory.waiting(self.number)
                if not waiting:
                    if memory.complete:
                        return
                    memory.changed.wait(1.0)
                    continue
            self.number = waiting[0] if len(waiting) <= WAITING else waiting[-1]
            if (window := memory.window(self.number)) and (value := self.value(window)):
                self.shown += 1
                for name, there in value.present.items():
                    self.seen[name] += there
                self.delays.add(value.delay)
                self.told(value)
            give_back()

    def value(self, window: Window, clock: Callable[[], float] = time.monotonic) -> Value | None:
        """Of the last frame of a window; one without face, sound and words has the value that was shown last, and none
        before the first."""
        self._read(window)
        present = {SEEN_AS[m]: bool(there[-1]) for m, (_, there) in window.rows.items()}
        if valid := any(present.values()):
            self.last = self.stream.values()
        if self.last is None:
            return None
        targets = self.run.model.targets
        values, deviation = (
            None if part is None else dict(zip(targets, part[0].tolist(), strict=True)) for part in self.last
        )
        return Value(float(window.time[-1]), values, deviation, present, valid, window.taken, clock() - window.taken)

    def _read(self, window: Window) -> None:
        """Give the stream what is new in a window; one that follows on none begins anew."""
        if self.window is None or window.time[0] > self.window.time[-1]:
            self.stream, kept = RunStream(self.run), 0
        else:
            gone, kept = changed(self.window, window)
            self.stream.forget(gone)
        rows = {m: [part[kept:] for part in parts] for m, parts in window.rows.items()}
        self.stream.add(*({m: parts[i] for m, parts in rows.items()} for i in (0, 1)))
        self.window = window
