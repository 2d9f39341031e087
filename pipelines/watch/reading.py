"""The value now: what a run says of the last frame of its window, each time the clock has come one frame further.

It is what the run predicts for the last frame of a video that ends there: that frame is in one window only, the one
that ends with it, so nothing that comes later has a part in it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from affuse.fuse.data.corpus import Corpus
from affuse.fuse.scoring.predict import SEEN_AS
from affuse.fuse.training.run import Run
from affuse.pipelines.watch.lanes import begin
from affuse.pipelines.watch.memory import Memory, Window

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


def value_of(run: Run, window: Window, clock: Callable[[], float] = time.monotonic) -> Value:
    """What the run says of the last frame of a window."""
    rows = {m: [torch.from_numpy(part).to(run.device) for part in parts] for m, parts in window.rows.items()}
    features, present = ({m: parts[i] for m, parts in rows.items()} for i in (0, 1))
    frames, targets = len(window.time), run.model.targets
    nothing = torch.zeros(frames, len(targets), device=run.device)
    corpus = Corpus(
        ["live"], list(targets), np.array([0, frames]), window.time, features, present, nothing,
        torch.zeros(frames, dtype=torch.bool, device=run.device),
    )  # fmt: skip
    values, deviation = run.estimate(corpus)
    last = {SEEN_AS[m]: bool(there[-1]) for m, (_, there) in window.rows.items()}
    return Value(
        float(window.time[-1]),
        dict(zip(targets, values[-1].tolist(), strict=True)),
        None if deviation is None else dict(zip(targets, deviation[-1].tolist(), strict=True)),
        last,
        any(last.values()),
        window.taken,
        clock() - window.taken,
    )


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
    """The lane that makes values of a memory, always of the latest moment; `told` hears of each.

    shown: how many were made; seen: of these, with a face, sound, words.
    """

    def __init__(self, run: Run, memory: Memory, told: Callable[[Value], None]):
        self.run, self.memory, self.told = run, memory, told
        self.delays, self.shown, self.number = Delays(), 0, -1
        self.seen = dict.fromkeys((SEEN_AS[m] for m in memory.modalities), 0)

    def work(self, stopped: threading.Event) -> None:
        begin("values")
        memory = self.memory
        while not stopped.is_set():
            with memory.changed:
                number = memory.moment()
                if number is None or number <= self.number:
                    if memory.complete:
                        return
                    memory.changed.wait(1.0)
                    continue
            self.number = number
            if (window := memory.window(number)) is not None:
                value = value_of(self.run, window)
                self.shown += 1
                for name, there in value.present.items():
                    self.seen[name] += there
                self.delays.add(value.delay)
                self.told(value)
