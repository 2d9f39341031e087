"""The learning rate over training: warm-up by batch, then a plateau rule on the validation CCC; early stop."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Schedule:
    """Learning rate of every step and the decision to stop, as plain numbers that a checkpoint can hold.

    Epochs and batches count from 0. The plateau rule and the early stop look at epochs after the warm-up only, since
    the rate of a warm-up epoch says nothing about whether the full rate still helps.
    """

    learning_rate: float
    warmup: str  # "linear" or "sawtooth"
    warmup_epochs: int
    factor: float
    patience: int
    stop_patience: int  # 0: never
    best: float = float("-inf")
    scale: float = 1.0
    since_reduced: int = 0
    since_best: int = 0

    def rate(self, epoch: int, batch: int, batches: int) -> float:
        """Learning rate of one step.

        linear: from 0 to the full rate over the warm-up epochs. sawtooth (the code behind RJCMA, there for 5
        epochs): lr · b (e+1) / (25 n) for batch b = 1 … n, so that every epoch starts anew and climbs higher.
        """
        if epoch >= self.warmup_epochs:
            return self.learning_rate * self.scale
        if self.warmup == "linear":
            return self.learning_rate * (epoch * batches + batch + 1) / (self.warmup_epochs * batches)
        return self.learning_rate * (batch + 1) * (epoch + 1) / (self.warmup_epochs**2 * batches)

    def observe(self, epoch: int, score: float) -> bool:
        """Take in an epoch's validation CCC; True when it is the best so far."""
        improved = score > self.best
        if improved:
            self.best, self.since_reduced, self.since_best = score, 0, 0
        elif epoch >= self.warmup_epochs:
            self.since_best += 1
            self.since_reduced += 1
            if self.since_reduced >= self.patience:
                self.scale *= self.factor
                self.since_reduced = 0
        return improved

    @property
    def stop(self) -> bool:
        """True when the early stop's patience is used up."""
        return 0 < self.stop_patience <= self.since_best
