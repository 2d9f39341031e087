"""What people rated, on the scale they rated on, and the one value in [−1, 1] that a model learns from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from affuse.errors import AffuseError, UsageError

Scales = Mapping[str, tuple[float, float]]  # of each target: the lowest and the highest rating
GOLD = ("published", "mean", "ewe")
DISAGREEMENT = "_disagreement"


@dataclass(frozen=True)
class Ratings:
    """What one recording was rated as, on the data set's own scale, NaN where nobody rated.

    gold (rows, targets): as released, None where the release has raters only; raters {name: (rows, targets)}.
    time (rows,), seconds, and end (rows,) where a row holds until then; neither: a row per frame, or per part of a
    recording in parts. lines: of each row, in `path`.
    """

    path: Path
    targets: tuple[str, ...]
    lines: Sequence[int]
    gold: np.ndarray | None = None
    raters: dict[str, np.ndarray] = field(default_factory=dict)
    time: np.ndarray | None = None
    end: np.ndarray | None = None

    @property
    def stacked(self) -> np.ndarray:
        """(raters, rows, targets)"""
        return np.stack(list(self.raters.values()))


def to_unit(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """Ratings from low to high on [−1, 1]."""
    return 2 * (values - low) / (high - low) - 1


def from_unit(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """The way back."""
    return low + (values + 1) * (high - low) / 2


def check_scale(ratings: Ratings, scales: Scales) -> None:
    """Raise AffuseError naming file and line for a rating off the scale, by a rater or as released."""
    for values in (*([] if ratings.gold is None else [ratings.gold]), *ratings.raters.values()):
        for k, target in enumerate(ratings.targets):
            low, high = scales[target]
            off = (values[:, k] < low) | (values[:, k] > high)
            if off.any():
                row = int(off.argmax())
                raise AffuseError(
                    f"{ratings.path}, line {ratings.lines[row]}: {target} is {values[row, k]:g}, but is rated from "
                    f"{low:g} to {high:g}. Take the file as it was released."
                )


def trust(everything: Iterable[Ratings]) -> dict[str, np.ndarray]:
    """The weight of every rater {name: (targets,)} for the evaluator-weighted estimator (Grimm & Kroschel 2005).

    It is the correlation of his ratings with the mean of all raters, over all rows that two or more rated, and 0 where
    that is negative or he never moved.
    """
    own: dict[str, list[np.ndarray]] = {}
    mean: dict[str, list[np.ndarray]] = {}
    for ratings in everything:
        if len(ratings.raters) > 1:
            shared = (~np.isnan(ratings.stacked)).sum(axis=0) > 1
            together = np.where(shared, _mean(ratings.stacked), np.nan)
            for name, values in ratings.raters.items():
                own.setdefault(name, []).append(values)
                mean.setdefault(name, []).append(together)
    return {name: _correlation(np.concatenate(own[name]), np.concatenate(mean[name])).clip(0) for name in own}


def gold_standard(ratings: Ratings, how: str, weights: Mapping[str, np.ndarray]) -> np.ndarray:
    """The value of each row (rows, targets), NaN where there is none.

    published: as released, and the mean where the release has raters only; mean: of the raters; ewe:
    x̂ = Σ_k r_k x_k / Σ_k r_k with the weights of `trust`, and the mean where they are all 0. Raises UsageError for
    another name, AffuseError where there are no raters.
    """
    if how not in GOLD:
        raise UsageError(f"Unknown gold standard {how!r}. Known: {', '.join(GOLD)}.")
    if how == "published" and ratings.gold is not None:
        return ratings.gold
    if not ratings.raters:
        raise AffuseError(
            f"{ratings.path} has no ratings of single raters to make a gold standard of: --gold published."
        )
    if how != "ewe":
        return _mean(ratings.stacked)
    zero = np.zeros(len(ratings.targets))
    r = np.stack([weights.get(name, zero) for name in ratings.raters])[:, None]
    weighed = _mean(ratings.stacked, r)
    return np.where(np.isnan(weighed), _mean(ratings.stacked), weighed)


def settle(everything: Mapping[str, Ratings], how: str) -> dict[str, Ratings]:
    """The same with the gold standard that is asked for. Raises as `gold_standard` does."""
    weights = trust(everything.values()) if how == "ewe" else {}
    return {name: replace(own, gold=gold_standard(own, how, weights)) for name, own in everything.items()}


def disagreement(ratings: Ratings) -> np.ndarray:
    """The standard deviation of a row's raters (rows, targets), on their scale; NaN where fewer than two rated."""
    spread = np.sqrt(_mean((ratings.stacked - _mean(ratings.stacked)) ** 2))
    return np.where((~np.isnan(ratings.stacked)).sum(axis=0) > 1, spread, np.nan)


def _mean(values: np.ndarray, weights: np.ndarray | float = 1.0) -> np.ndarray:
    """Over the first axis, of what is there; NaN where nothing is."""
    there = ~np.isnan(values) * weights
    total = np.where(np.isnan(values), 0, values * weights).sum(axis=0)
    count = there.sum(axis=0)
    return np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)


def _correlation(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Pearson's r of each column of x and y (rows, targets), over the rows that both have; 0 for a constant."""
    both = ~(np.isnan(x) | np.isnan(y))
    x, y = (np.where(both, z, np.nan) for z in (x, y))
    dx, dy = x - _mean(x), y - _mean(y)
    covariance, scale = _mean(dx * dy), np.sqrt(_mean(dx**2) * _mean(dy**2))
    return np.divide(covariance, scale, out=np.zeros_like(scale), where=scale > 0)


def apart(ratings: Ratings) -> Ratings:
    """Spans in order, each cut where the next one begins: a moment has one label. Those of no length go."""
    if ratings.end is None or ratings.time is None:
        return ratings
    order = np.argsort(ratings.time, kind="stable")
    start = ratings.time[order].clip(0)
    end = np.minimum(ratings.end[order], np.append(start[1:], np.inf))
    keep = order[end > start]
    return replace(
        ratings,
        lines=[ratings.lines[row] for row in keep],
        gold=None if ratings.gold is None else ratings.gold[keep],
        raters={name: values[keep] for name, values in ratings.raters.items()},
        time=start[end > start],
        end=end[end > start],
    )


def label_file(ratings: Ratings, scales: Scales) -> tuple[str, str]:
    """A label file of affuse, its suffix and text: the gold standard in [−1, 1], and beside each target what raters
    disagree by, `<target>_disagreement`, their standard deviation on the same scale. A row per frame is the ABAW
    challenge's."""
    columns = {target: to_unit(ratings.gold[:, k], *scales[target]) for k, target in enumerate(ratings.targets)}
    if ratings.time is None:
        rows = np.nan_to_num(np.column_stack([columns["valence"], columns["arousal"]]), nan=-5.0)
        return ".txt", "valence,arousal\n" + "".join(f"{v:.6g},{a:.6g}\n" for v, a in rows)
    if len(ratings.raters) > 1:
        spread = disagreement(ratings)
        columns |= {
            target + DISAGREEMENT: spread[:, k] * 2 / (scales[target][1] - scales[target][0])
            for k, target in enumerate(ratings.targets)
        }
    clock = {"time": ratings.time} if ratings.end is None else {"start": ratings.time, "end": ratings.end}
    head = ",".join([*clock, *columns])
    table = np.column_stack([*clock.values(), *columns.values()])
    lines = (",".join("" if np.isnan(value) else f"{value:.9g}" for value in row) for row in table)
    return ".csv", "\n".join([head, *lines]) + "\n"
