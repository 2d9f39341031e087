"""The frame rate at which a model reads features, and videos of other rates: their own frames, and what is said."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from affuse.errors import AffuseError
from affuse.features import FeatureStore
from affuse.features.timeline import alike, frame_rate

SHOWN = 5  # videos that a message names


@dataclass(frozen=True)
class Frames:
    """A video's own frames: time (T,) seconds, present {modality: (T,) bool}, truth (T, targets) float32, annotated
    (T,) bool, where every target has a label."""

    time: np.ndarray
    present: dict[str, np.ndarray]
    truth: np.ndarray
    annotated: np.ndarray

    def only(self, rows: np.ndarray) -> Frames:
        """Those of rows (T,) bool."""
        present = {m: there[rows] for m, there in self.present.items()}
        return Frames(self.time[rows], present, self.truth[rows], self.annotated[rows])


def choose_rate(store: FeatureStore, videos: Iterable[str], wanted: float | str) -> float | None:
    """The rate, frames per second, at which a model trained on these videos reads them; None: each on its own frames.

    wanted: as the setting `fps` has it. Rates within 1 % of each other are one. Raises AffuseError, naming videos and
    rates, where they are several and "equal" is wanted.
    """
    if not isinstance(wanted, str):
        return wanted
    rates = {video: rate for video in videos if (rate := frame_rate(store.frame_times(video)))}
    if wanted == "own" or not rates:
        return None
    each = sorted(rates.values())
    # Of rates that count as one the most frequent, of equally frequent ones the lowest.
    common = max(each, key=lambda rate: (sum(alike(other, rate) for other in each), each.count(rate)))
    others = [f"{video} ({rate:g})" for video, rate in rates.items() if not alike(rate, common)]
    if wanted == "equal" and others:
        more = f" and {len(others) - SHOWN} more" if len(others) > SHOWN else ""
        raise AffuseError(
            f"The setting fps is equal, but the training videos in {store.path} have several frame rates: most "
            f"{common:g}, but {', '.join(others[:SHOWN])}{more}. Leave them out, bring all to one rate (--set "
            "fps=common, or a number), or train on every video's own frames (--set fps=own)."
        )
    return common


def read_otherwise(rates: list[float], fps: float | None) -> str:
    """The sentence on videos of these frame rates that were read at the run's; "" where there is none."""
    if not rates:
        return ""
    shown = dict.fromkeys(f"{rate:.4g}" + " uneven" * alike(rate, fps) for rate in sorted(rates))
    which = ", ".join(list(shown)[:SHOWN]) + ", …" * (len(shown) > SHOWN)
    who = "1 video of another frame rate" if len(rates) == 1 else f"{len(rates)} videos of other frame rates"
    return f"{who} ({which} fps) {'was' if len(rates) == 1 else 'were'} read at the run's {fps:g}"
