"""What a page can be made of: a folder of predictions, a run, or a feature store, read without any embeddings."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_float_dtype

from affuse.config import nearest
from affuse.errors import AffuseError, UsageError, counted, first_line
from affuse.features.contents import is_store
from affuse.features.index import SHARDS
from affuse.features.parts import AudioFeatures, TextFeatures, VisualFeatures
from affuse.features.record import VideoFeatures
from affuse.features.store import FeatureStore
from affuse.features.timeline import nearest_row
from affuse.files import as_path, name_of_file
from affuse.fuse.data.labels import read_track
from affuse.fuse.data.partitions import find_labels
from affuse.fuse.data.track import Track
from affuse.fuse.scoring.predict import SEEN_AS, SUMMARY, Prediction
from affuse.fuse.training.checkpoint import RunFolder
from affuse.fuse.training.loading import load_run
from affuse.fuse.training.outputs import MADE
from affuse.fuse.training.run import Run

log = logging.getLogger("affuse")

FEATURES = "features"  # below a folder of predictions: the stores that `affuse predict` keeps
DEMO = {"predictions": "predictions", "store": "store", "labels": "data/labels", "videos": "data/videos"}  # below it
DEVIATION = "_deviation"
SLACK = 1e-3  # seconds; by so much a CSV's times may differ from a record's
OUTLINE = (
    *("visual/time", "visual/valid", "visual/box", "visual/confidence", "audio/time"),
    *("text/start", "text/end", "text/word", "text/confidence"),
)


@dataclass(frozen=True)
class Reported:
    """What a page is made of: its kind, "predictions", "run" or "store", and what lies in it; failed {video: why} of
    those that could not be predicted; untrained, the backbones with seeded weights behind it, as "part (name)"; made,
    by what predictions were, as `read_made` gives it."""

    kind: str
    path: Path
    predictions: dict[str, Prediction] = field(default_factory=dict)
    stores: tuple[FeatureStore, ...] = ()
    run: Run | None = None
    failed: dict[str, str] = field(default_factory=dict)
    untrained: list[str] = field(default_factory=list)
    made: dict = field(default_factory=dict)

    @property
    def closed(self) -> bool:
        """Whether predictions lack the frames that are not annotated, as those of a run with gaps=close do."""
        return self.run is not None and self.run.settings.gaps == "close"

    @property
    def ids(self) -> list[str]:
        """The videos that the page is about."""
        return [*self.predictions] if self.kind != "store" else self.stores[0].ids

    def store_of(self, video: str) -> FeatureStore | None:
        """The store that has the video; of several the last to be written to."""
        return max((s for s in self.stores if video in s), key=lambda s: s.version(video), default=None)


def read_source(source: Path | str, features: Path | str | None = None) -> Reported:
    """The source in a folder, with the store `features` in the place of any store of its own.

    Raises UsageError for a folder that is none of the three, or features of other videos; AffuseError for predictions
    or a run that cannot be read.
    """
    path = as_path("a folder of predictions, a run or a feature store", source)
    if not path.is_dir():
        raise UsageError(f"{path} is not a folder. Give a folder of predictions, a run or a feature store.")
    if (path / SHARDS).is_dir():
        if features is not None:
            raise UsageError(f"{path} is a feature store itself. Leave --features out.")
        stores = (FeatureStore(path),)
        return Reported("store", path, stores=stores, untrained=untrained_of(stores))
    folder = RunFolder(path)
    if not folder.ensemble.exists() and any(path.glob("seed*/config.yaml")):
        raise AffuseError(f"The run in {path} is not finished. Go on with the same train command and --out.")
    run = load_run(path) if folder.config.exists() or folder.ensemble.exists() else None
    made = read_made(path) if run is None else {"untrained": run.provenance.untrained}
    predictions = read_predictions(path if run is None else folder.predictions)
    if not predictions and run is not None:
        raise UsageError(
            f"The run {path} has no predictions of its validation videos in {folder.predictions}. Predict with "
            "`affuse predict --run`, and give its --out."
        )
    failed = read_failures(path) if run is None else {}
    if not predictions and not failed:
        raise UsageError(
            f"{path} is no folder of predictions, no run and no feature store: it has no CSV of predictions, no model "
            "and no shards in it. Give the --out of `affuse predict`, `affuse fuse train` or `affuse extract`."
        )
    stores = (_store(features, predictions),) if features is not None else _kept_stores(path)
    untrained = [*dict.fromkeys([*made.get("untrained", []), *untrained_of(stores)])]
    return Reported("run" if run else "predictions", path, predictions, stores, run, failed, untrained, made)


def untrained_of(stores: Iterable[FeatureStore]) -> list[str]:
    """The backbones with seeded weights of stores, as far as they can be read."""
    found: dict[str, None] = {}
    for store in stores:
        with suppress(AffuseError):
            found |= dict.fromkeys(store.provenance.untrained)
    return [*found]


def read_made(folder: Path) -> dict:
    """By what a folder's predictions were made: {"run", "untrained", "smooth", "stream"}, as `Outputs` keeps it
    there, or nothing where it has not. Raises AffuseError where it cannot be read, UsageError for what `affuse fuse
    explain` has made."""
    path = folder / MADE
    if not path.exists():
        return {}
    try:
        made = json.loads(path.read_bytes())
        kept = {
            "run": str(made["run"]),
            "untrained": [str(name) for name in made["untrained"]],
            "smooth": float(made.get("smooth", 0)),
            "stream": bool(made.get("stream")),
        }
    except (OSError, LookupError, TypeError, ValueError) as error:
        raise AffuseError(f"{path} cannot be read: {first_line(error)}. Predict again, or remove it.") from None
    if "explained" in made:
        raise UsageError(
            f"{folder} holds what `affuse fuse explain` wrote, of which no page is made. The page of the run "
            f"{kept['run']} says it in words, with --features."
        )
    return kept


def parts_of_demo(source: Path | str) -> dict[str, Path]:
    """The parts, as DEMO names them, of the folder that `affuse demo` has left; none of any other folder."""
    found = {name: Path(source, place) for name, place in DEMO.items()} if isinstance(source, (str, Path)) else {}
    return found if all(map(Path.is_dir, found.values())) else {}


def _store(features: Path | str, wanted: Iterable[str]) -> FeatureStore:
    store = FeatureStore(features)
    check_some("--features", f"the store {store.path}", store, wanted)
    return store


def _kept_stores(path: Path) -> tuple[FeatureStore, ...]:
    """The stores below a folder of predictions, one for each kind of features."""
    return tuple(map(FeatureStore, filter(is_store, sorted(path.glob(f"{FEATURES}/*")))))


def check_some(option: str, what: str, known: Iterable[str], wanted: Iterable[str]) -> None:
    """Raise UsageError unless `known` has one of the videos wanted, where there are any."""
    wanted, known = list(wanted), list(known)
    if wanted and not {*wanted} & {*known}:
        raise UsageError(
            f"{option}: {what} has none of {counted(len(wanted), 'video')}: no {wanted[0]!r}"
            f"{nearest(wanted[0], known)} Give that of the same videos, named alike."
        )


# ---- predictions


def read_predictions(folder: Path) -> dict[str, Prediction]:
    """{video: its prediction} of the CSVs in a folder, as `Prediction.save` writes them. Raises AffuseError for one
    that is damaged; another table is left out, with a warning unless it is their summary."""
    made = {}
    for path in sorted(folder.glob("[!.]*.csv")):
        table = read_table(path)
        if {"time", "valid"} <= {*table}:
            prediction = read_prediction(path, table)
            made[prediction.id] = prediction
        elif path.name != SUMMARY:
            log.warning("%s is no table of predictions (no columns time and valid), and is left out", path)
    return made


def read_failures(folder: Path) -> dict[str, str]:
    """{video: why it has no prediction} of the summary in a folder. Raises AffuseError where it cannot be read."""
    path = folder / SUMMARY
    table = read_table(path, dtype=str, keep_default_na=False) if path.exists() else pd.DataFrame()
    if not {"video", "failure"} <= {*table}:
        return {}
    return {video: why for video, why in zip(table["video"], table["failure"], strict=True) if why}


def read_table(path: Path, **how: Any) -> pd.DataFrame:
    """A CSV, read as pandas is told to. Raises AffuseError where it cannot be."""
    try:
        return pd.read_csv(path, **how)
    except (OSError, ValueError) as error:
        raise AffuseError(f"{path} cannot be read: {first_line(error)}. Predict again, or remove it.") from None


def read_prediction(path: Path, table: pd.DataFrame) -> Prediction:
    """The prediction in the table of a CSV. Raises AffuseError where it is damaged, UsageError where its rows stand for
    several frames: shares have a point, what a frame has is 0 or 1."""
    names = [str(name) for name in table]
    if is_float_dtype(table["valid"]):
        raise UsageError(
            f"{path} has a row for several frames; a page is made of predictions of each. Predict again without "
            "--every, into another --out."
        )
    present = {m: table[name].to_numpy() == 1 for m, name in SEEN_AS.items() if name in names}
    kept = {"time", "valid", *SEEN_AS.values()}
    targets = tuple(name for name in names if name not in kept and not name.endswith(DEVIATION))
    try:
        values, time = table[list(targets)].to_numpy(np.float64), table["time"].to_numpy(np.float64)
        sure = [f"{target}{DEVIATION}" for target in targets]
        deviation = table[sure].to_numpy(np.float64) if {*sure} <= {*names} and sure else None
    except ValueError as error:
        raise AffuseError(f"{path} has what is no number: {first_line(error)}. Predict again.") from None
    if not len(time) or not targets or not present or not np.isfinite(values).all() or not (np.diff(time) >= 0).all():
        raise AffuseError(
            f"{path} is not as predictions are: rows in order of time, numbers for each target, and whether there was "
            "a face, sound or words. Predict again, or remove it."
        )
    return Prediction(name_of_file(path.stem), time, targets, values, present, deviation)


# ---- records


def outline(store: FeatureStore, video: str) -> VideoFeatures:
    """A record without its embeddings: rows of no width. Raises as `FeatureStore.read` does."""
    entry, (time, valid, box, sure, heard, start, end, word, heard_as) = store.overview(video, *OUTLINE)

    def empty(rows: np.ndarray) -> np.ndarray:
        return np.zeros((len(rows), 0), np.float16)

    return VideoFeatures(
        *(video, entry.source, entry.fps, entry.duration, entry.frames),
        VisualFeatures(empty(time), time, valid, box, sure, entry.visual.status, entry.visual.reason),
        AudioFeatures(empty(heard), heard, entry.audio.status, entry.audio.reason),
        TextFeatures(empty(start), start, end, word, heard_as, entry.text.status, entry.text.reason),
        people=entry.people,
    )


def frames_of(prediction: Prediction, clock: np.ndarray, store: FeatureStore, closed: bool) -> np.ndarray:
    """Which of a record's frames at `clock` (T,) the rows of a prediction are: all, or, where it was `closed`, the
    nearest ones. Raises AffuseError where they are not the same video's."""
    time, rows = prediction.time, len(prediction.time)
    if rows == len(clock) or (closed and rows < len(clock)):
        row = nearest_row(clock, time)
        if np.abs(clock[row] - time).max() <= SLACK:
            return row
    raise AffuseError(
        f"Video {prediction.id!r} in the store {store.path} is not the one that was predicted: it has {len(clock)} "
        f"frames, the prediction {rows} rows, or they are at other times. Give the store it was predicted from."
    )


# ---- labels


def read_labels(labels: Path | str, wanted: Iterable[str], rate: float | None = None) -> dict[str, Track]:
    """{video: its track} of the wanted videos that a folder of labels has, in whatever partition. Raises UsageError
    where it has none of them, and as `find_labels` and `read_track` do."""
    partitions = find_labels(as_path("a folder of labels", labels)).values()
    files = {video: path for partition in partitions for video, path in partition.items()}
    check_some("--labels", f"the folder {labels}", files, wanted)
    return {video: read_track(files[video], rate) for video in wanted if video in files}
