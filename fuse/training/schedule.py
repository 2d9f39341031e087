"""The learning rate over training: warm-up by batch, a plateau rule on the validation CCC, restarts; the end of it."""

from __future__ import annotations

from dataclasses import dataclass

STILL = 10  # epochs after which a training should have moved
MOVED = 0.02  # of loss or CCC, between the halves of these epochs: more than chance does


@dataclass
class Schedule:
    """Learning rate of every step and the decision to stop, as plain numbers that a checkpoint can hold.

    Epochs and batches count from 0. The plateau rule looks at epochs after the warm-up only, since the rate of a
    warm-up epoch says nothing about whether the full rate still helps, and the early stop at those after the first
    full one. All of it is the code behind RJCMA (`MyWarmupScheduler` and `Trainer` of github.com/sucv/ABAW3, which it
    is made from), but for linear warm-up and decay.
    """

    learning_rate: float
    warmup: str  # "linear", "sawtooth" or "stairs"
    warmup_epochs: int
    decay: float  # 1: none
    decay_start: int
    decay_every: int
    plateau_factor: float
    plateau_patience: int
    min_learning_rate: float
    restarts: int
    stop_patience: int  # 0: never
    best: float = float("-inf")
    began: int = 0  # the epoch at which the warm-up last began
    restarted: int = 0
    scale: float = 1.0
    since_reduced: int = 0
    since_best: int = 0

    def rate(self, epoch: int, batch: int, batches: int) -> float:
        """Learning rate of one step.

        linear: from 0 to the full rate over the warm-up epochs. sawtooth: lr · b (e+1) / (W² n) for batch b = 0 … n − 1
        of W epochs, so that every epoch starts from 0 and climbs higher. stairs: lr · (e+1) / W throughout an epoch.
        Afterwards, with a decay d: lr · d^⌊(e − start) / every⌋ in epochs after the start.
        """
        epoch -= self.began
        if epoch >= self.warmup_epochs:
            decays = max(0, epoch - self.decay_start) // self.decay_every
            return self.learning_rate * self.scale * self.decay**decays
        stair = self.learning_rate * (epoch + 1) / self.warmup_epochs
        if self.warmup == "linear":
            return self.learning_rate * (epoch * batches + batch + 1) / (self.warmup_epochs * batches)
        return stair if self.warmup == "stairs" else stair * batch / (self.warmup_epochs * batches)

    def observe(self, epoch: int, score: float) -> bool:
        """Take in an epoch's validation CCC; True when it is the best so far. After more than `plateau_patience` epochs
        without a gain the rate is cut."""
        improved = score > self.best
        if improved:
            self.best, self.since_reduced, self.since_best = score, 0, 0
        else:
            self.since_reduced += epoch - self.began >= self.warmup_epochs
            self.since_best += epoch - self.began > self.warmup_epochs
        if self.since_reduced > self.plateau_patience:
            self.scale *= self.plateau_factor
            self.since_reduced = 0
        return improved

    @property
    def spent(self) -> bool:
        """Whether the plateau rule has brought the rate below the least."""
        return self.learning_rate * self.scale < self.min_learning_rate

    @property
    def stop(self) -> bool:
        """True when the early stop's patience is used up, or the rate that followed the last restart."""
        return 0 < self.stop_patience <= self.since_best or (self.spent and self.restarted == self.restarts)

    def restart(self, epoch: int) -> None:
        """Warm up again from this epoch on, to the full rate."""
        self.began, self.restarted, self.scale = epoch, self.restarted + 1, 1.0
        self.since_reduced = self.since_best = 0


def at_rest(history: list[dict]) -> bool:
    """Whether the first `STILL` epochs, just over, have changed nothing: the mean loss of their second half is not
    lower than that of the first by `MOVED`, nor is the mean validation CCC higher."""
    if len(history) != STILL:
        return False
    halves = history[: STILL // 2], history[STILL // 2 :]
    (loss, later_loss), (ccc, later_ccc) = (
        [sum(row[key] for row in half) / len(half) for half in halves] for key in ("loss", "ccc_mean")
    )
    return loss - later_loss < MOVED and later_ccc - ccc < MOVED
