"""Predictions of every frame as a person holds them: to look at, plot and save, of one video and of many."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from affuse.config import nearest
from affuse.errors import UsageError, counted
from affuse.features.timeline import ends
from affuse.files import as_path, file_name, make_folder, write_text
from affuse.fuse.data.corpus import Corpus
from affuse.fuse.data.track import SLACK, mean_between
from affuse.fuse.reports.figures import headline, save_figure, traces
from affuse.fuse.reports.tables import as_csv, write_csv
from affuse.fuse.scoring.estimate import REACH, Estimate, bridge
from affuse.fuse.scoring.metrics import ccc, each_target

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEEN_AS = {"visual": "face", "audio": "sound", "text": "words"}  # what a frame has where the modality is there
SUMMARY = "summary.csv"  # the table of all videos, beside those of each
SHORTEST = 0.01  # s that a row of several frames may stand for


@dataclass(frozen=True, eq=False, repr=False)
class Prediction:
    """One video's: time (T,) seconds, values (T, targets) in [-1, 1], present {modality: (T,) bool}; deviation
    (T, targets), how far off the values may be (a standard deviation), of several models and of those that say; model,
    the name of what predicted.

    A frame without any modality is not valid: its values are interpolated between its neighbours, or, where
    nothing later is known, those of the last valid one.
    """

    id: str
    time: np.ndarray
    targets: tuple[str, ...]
    values: np.ndarray
    present: dict[str, np.ndarray]
    deviation: np.ndarray | None = None
    model: str = ""

    @property
    def valid(self) -> np.ndarray:
        """(T,) bool: at least one modality was there."""
        return np.any(list(self.present.values()), axis=0)

    @property
    def frame(self) -> pd.DataFrame:
        """One row per frame: time, the targets, `<target>_deviation` where there is one, then face, sound and words of
        the modalities that the model takes (True where the modality was there), and valid."""
        columns = {"time": self.time, **dict(zip(self.targets, self.values.T, strict=True))}
        if self.deviation is not None:
            columns |= {f"{target}_deviation": d for target, d in zip(self.targets, self.deviation.T, strict=True)}
        return pd.DataFrame({**columns, **{SEEN_AS[m]: at for m, at in self.present.items()}, "valid": self.valid})

    @property
    def numbers(self) -> pd.DataFrame:
        """`frame` as files have it, with 0 and 1 for what was there or was not."""
        return self.frame.astype(dict.fromkeys([*map(SEEN_AS.get, self.present), "valid"], int))

    @property
    def measured(self) -> np.ndarray:
        """(T, columns): the values and, where there is one, their deviation."""
        return self.values if self.deviation is None else np.hstack([self.values, self.deviation])

    def smoothed(self, seconds: float) -> Prediction:
        """With the mean of the frames up to seconds/2 before and after in the place of every value and deviation, by
        the video's own clock. The mean ends where a frame is not valid; what stands there is interpolated anew. 0
        leaves all as it is. Raises UsageError for what is no length of time."""
        check_spans(smooth=seconds)
        if not seconds or not self.valid.any():
            return self
        begins = np.flatnonzero(np.diff(self.valid)) + 1  # of stretches of frames that are all valid, or all not
        stretch = np.searchsorted(begins, np.arange(len(self.time)), side="right")
        first, last = self.time[np.append(0, begins)][stretch], self.time[np.append(begins, 0) - 1][stretch]
        low = np.maximum(self.time - seconds / 2, first) - SLACK
        high = np.minimum(self.time + seconds / 2, last) + SLACK
        means, _ = mean_between(self.time, self.measured, self.valid, low, high)
        bridge(self.time, means, self.valid)
        return replace(self, **Estimate.of(means, len(self.targets))._asdict())

    def every(self, seconds: float) -> pd.DataFrame:
        """`frame` with one row per so many seconds, counted from 0: time, when they begin; means of their valid frames;
        of face, sound, words and valid the shares of all their frames.

        Without a valid frame a row is interpolated between its neighbours. Raises UsageError for less than SHORTEST.
        """
        check_spans(every=seconds)
        begin = seconds * np.arange(int(self.time[-1] / seconds + SLACK) + 1)
        spans = begin - SLACK, begin + seconds - SLACK
        means, there = mean_between(self.time, self.measured, self.valid, *spans)
        if there.any():
            bridge(begin, means, there)
        seen = np.stack([*self.present.values(), self.valid], axis=1)
        shares, _ = mean_between(self.time, seen, np.ones(len(self.time), bool), *spans)
        return pd.DataFrame(np.column_stack([begin, means, shares]), columns=list(self.frame))

    @property
    def seen(self) -> dict[str, int]:
        """In how many frames there is a face, sound, words, of the modalities that the model takes."""
        return {SEEN_AS[m]: int(there.sum()) for m, there in self.present.items()}

    def facts(self) -> dict[str, float]:
        """frames and seconds; face, sound, words, of the modalities that the model takes, and valid: the shares of
        frames with them; of every target the mean, `<target>_sd`, its spread over the frames, and where there is one
        `<target>_deviation`, the mean of the frames' own."""
        facts = {"frames": len(self.time), "seconds": ends(self.time)}
        facts |= {name: count / len(self.time) for name, count in self.seen.items()}
        facts["valid"] = float(self.valid.mean())
        for i, target in enumerate(self.targets):
            facts |= {target: float(self.values[:, i].mean()), f"{target}_sd": float(self.values[:, i].std())}
            if self.deviation is not None:
                facts[f"{target}_deviation"] = float(self.deviation[:, i].mean())
        return facts

    def plot(self, truth: np.ndarray | None = None) -> Figure:
        """Each target over time, the band that nine of ten truths are to be in, and the truth (T, targets) where it is
        known (NaN elsewhere), with its CCC in the title."""
        reach = None if self.deviation is None else REACH * self.deviation
        face = self.present.get("visual")
        known = np.zeros(len(self.time), bool) if truth is None else ~np.isnan(truth).any(axis=1)
        scores = each_target(ccc, list(self.targets), truth[known], self.values[known]) if known.any() else {}
        title = headline(", ".join(filter(None, [self.id, self.model])), scores)
        return traces(title, self.targets, self.time, self.values, self.valid, truth, face, reach)

    def csv(self, every: float | None = None) -> str:
        """One row per frame, `frame` in numbers: time in seconds, each target, face, sound and words of the modalities
        that the model takes, and valid, 1 where any of them was there. Or one row per so many seconds, see `every`."""
        return as_csv(self.numbers if every is None else self.every(every), "%.6f")

    def write_csv(self, path: Path, every: float | None = None) -> None:
        """Write what `csv` gives."""
        make_folder(path.parent)
        write_text(path, self.csv(every))

    def save(
        self, folder: Path | str, figures: bool = True, every: float | None = None, truth: np.ndarray | None = None
    ) -> dict:
        """Write `<folder>/<video>.csv`, what `csv` gives, and, with `figures`, a figure beside it, with the truth as
        `plot` takes it.

        Gives {"csv", "figure", "frames", "face", "sound", "words", "valid"}: the files, the number of frames, and of
        those with each modality that the model takes and with any.
        """
        name = file_name(self.id)
        table, figure = (as_path("a folder to save in", folder) / f"{name}{suffix}" for suffix in (".csv", ".png"))
        self.write_csv(table, every)
        if figures:
            save_figure(self.plot(truth), figure)
        return {
            "csv": str(table),
            "figure": str(figure) if figures else None,
            "frames": len(self.time),
            **self.seen,
            "valid": int(self.valid.sum()),
        }

    def __repr__(self) -> str:
        facts = self.facts()
        means = ", ".join(f"{target} {facts[target]:+.2f} ± {facts[f'{target}_sd']:.2f}" for target in self.targets)
        return (
            f"<Prediction {self.id!r}: {facts['seconds']:.1f} s, {counted(facts['frames'], 'frame')}, "
            f"{facts['valid']:.0%} with a modality; {means}>"
        )

    def _repr_html_(self) -> str:
        return _html(self, self.frame.to_html(max_rows=10, index=False, float_format="{:.3f}".format))


class Predictions(dict[str, Prediction]):
    """Predictions by video id; failed {id: why} are the videos that have none."""

    def __init__(self, predictions: Mapping[str, Prediction], failed: Mapping[str, str] | None = None):
        super().__init__(predictions)
        self.failed = dict(failed or {})

    def __missing__(self, video: str) -> Prediction:
        why = f": {self.failed[video]}" if video in self.failed else nearest(video, self)
        raise KeyError(f"no prediction of {video!r}{why}")

    def table(self) -> pd.DataFrame:
        """One row per video, as `Prediction.facts` has it, and `failure`: why it has no prediction, else None."""
        return summarised({video: prediction.facts() for video, prediction in self.items()}, self.failed)

    def save(self, folder: Path | str, figures: bool = True, every: float | None = None) -> dict:
        """Write a CSV and, with `figures`, a figure of every video, and `table` in SUMMARY, as `affuse fuse predict`
        does.

        Gives {"written": {id: what `Prediction.save` gives}, "failed": {id: why}, "summary": the file}.
        """
        check_names(self)
        written = {video: prediction.save(folder, figures, every) for video, prediction in self.items()}
        return {"written": written, "failed": self.failed, "summary": write_summary(folder, self.table())}

    def __repr__(self) -> str:
        seconds = sum(prediction.facts()["seconds"] for prediction in self.values())
        targets = ", ".join(dict.fromkeys(target for prediction in self.values() for target in prediction.targets))
        failed = f"; {len(self.failed)} failed" if self.failed else ""
        return f"<Predictions of {counted(len(self), 'video')}, {seconds:.1f} s: {targets or 'none'}{failed}>"

    def _repr_html_(self) -> str:
        return _html(self, self.table().to_html(max_rows=20, float_format="{:.3f}".format))


def summarised(facts: Mapping[str, dict], failed: Mapping[str, str]) -> pd.DataFrame:
    """`Predictions.table` of what `Prediction.facts` gives of each video, and of why others failed."""
    rows = {**{video: {**own, "failure": None} for video, own in facts.items()},
            **{video: {"failure": why} for video, why in failed.items()}}  # fmt: skip
    table = pd.DataFrame.from_dict(rows, "index").rename_axis("video")
    return table.astype({"frames": "Int64"}) if facts else table


def write_summary(folder: Path | str, table: pd.DataFrame) -> str:
    """Write the table of all videos in the folder; gives the file."""
    path = make_folder(as_path("a folder to save in", folder)) / SUMMARY
    write_csv(path, table.reset_index(), "%.6f")
    return str(path)


def check_names(videos: Iterable[str]) -> None:
    """Raise UsageError where a video's table would have the name of the summary."""
    if taken := [video for video in videos if f"{file_name(video)}.csv".lower() == SUMMARY]:
        raise UsageError(f"The table of the video {taken[0]!r} would have the name of {SUMMARY}. Rename the video.")


def check_spans(smooth: float = 0.0, every: float | None = None, stream: bool = False) -> None:
    """Raise UsageError where either is no length of time, or one of too many rows, or would look ahead."""
    if not 0 <= smooth < float("inf"):
        raise UsageError(f"--smooth {smooth:g} is no length of time. Give seconds, for example 1.")
    if stream and (smooth or every is not None):
        raise UsageError("--smooth and --every take means over later frames, too. Leave them out, or --stream.")
    if every is not None and not SHORTEST <= every < float("inf"):
        raise UsageError(f"--every {every:g} cannot be: give seconds, at least {SHORTEST:g}, for example 1.")


def _html(shown: object, table: str) -> str:
    return f"<p>{escape(repr(shown))}</p>{table}"


def by_video(corpus: Corpus, estimate: Estimate, model: str = "") -> dict[str, Prediction]:
    """What a model estimates for all frames of a corpus, video by video, each on its own frames."""
    made = {}
    for video, name in enumerate(corpus.videos):
        own = corpus.own(video)
        values, deviation = (None if part is None else corpus.on_own(video, part) for part in estimate)
        made[name] = Prediction(name, own.time, tuple(corpus.targets), values, own.present, deviation, model)
    return made
