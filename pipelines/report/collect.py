"""The facts of a page, in plain types that JSON takes: per video its curves, words and gaps; of a run its scores."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from datetime import date
from pathlib import Path

import numpy as np
import pandas as pd

from affuse.errors import AffuseError, first_line
from affuse.features.parts import Status, TextFeatures
from affuse.features.record import VideoFeatures
from affuse.features.seal import DamagedError
from affuse.features.timeline import ends, rows_at
from affuse.fuse.data.track import Track
from affuse.fuse.scoring.estimate import REACH
from affuse.fuse.scoring.evaluate import judge
from affuse.fuse.scoring.predict import SEEN_AS, Prediction
from affuse.fuse.training.checkpoint import RunFolder
from affuse.fuse.training.run import Run
from affuse.pipelines.report.attention import attention_of
from affuse.pipelines.report.series import boxes, gaps, moments_each, plain, rounded, thin
from affuse.pipelines.report.sources import Reported, frames_of, outline, read_labels
from affuse.pipelines.report.truth import laid_on, paired
from affuse.version import VERSION


@dataclass(frozen=True)
class Clip:
    """A video on the page.

    seconds: its length. curves: "time" and, of each target, what is predicted, "<target> low" and "<target> high" of
    the band that nine of ten truths are to be in, and "<target> truth"; thinned: whether there are fewer rows than
    frames.
    gaps {face | sound | words: [[from, to] …]}; words [[start, end, word] …]; boxes as `series.boxes` gives them.
    summary: its row in the table. pairs {target: [[truth …], [prediction …]]}. file: its name below the video folder.
    reasons {face | sound | words: what its record says of it}.
    """

    id: str
    seconds: float
    curves: dict[str, list]
    frames: int
    thinned: bool
    gaps: dict[str, list]
    words: list[list]
    boxes: list[list]
    summary: dict[str, float | None]
    pairs: dict[str, list] = field(default_factory=dict)
    file: str = ""
    reasons: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Facts:
    """All that a page says. about: [what, how] of a run, a store or a comparison; histories: learning curves by seed;
    scores as `judge` gives them, or a run's own CCC alone; failed {video: why}; untrained, as `Reported` has it;
    attention as `attention_of` gives it, comparison as `collect_comparison`."""

    kind: str
    name: str
    made: str
    targets: list[str]
    clips: list[Clip] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    about: list[list[str]] = field(default_factory=list)
    histories: dict[str, dict[str, list]] = field(default_factory=dict)
    scores: dict = field(default_factory=dict)
    untrained: list[str] = field(default_factory=list)
    attention: dict | None = None
    comparison: dict | None = None

    def as_dict(self) -> dict:
        return asdict(self)


def collect(source: Reported, labels: Path | str | None = None) -> Facts:
    """The facts of a source, with the truth beside them where there are labels. Raises AffuseError for labels or
    features that do not fit the videos."""
    rate = None if source.run is None else source.run.settings.label_rate
    tracks = {} if labels is None else read_labels(labels, source.ids, rate)
    first = next(iter(source.predictions.values() or tracks.values()), None)
    targets = [] if first is None else list(first.targets)
    failed = {video: why for store in source.stores for video, why in store.failed.items()} if source.stores else {}
    failed |= source.failed
    failed |= {p.video or p.file: f"damaged: {p.reason}" for store in source.stores for p in store.damaged}
    if source.kind != "store":
        failed = {video: why for video, why in failed.items() if video not in source.predictions}
    clips, pairs, most = [], {}, moments_each(len(source.ids))
    for video in source.ids:
        if video in failed:
            continue
        try:
            clip, pair = _clip(source, video, tracks.get(video), targets, most)
        except DamagedError as error:
            failed[video] = first_line(error)
            continue
        clips.append(clip)
        if pair is not None and len(pair[0]):
            pairs[video] = pair
    scores = judge(pairs, targets) if pairs else _own_scores(source.run)
    clips = [_scored(clip, scores, pairs.get(clip.id), targets, most) for clip in clips]
    return Facts(
        source.kind,
        source.path.resolve().name,
        f"affuse {VERSION}, {date.today().isoformat()}",
        targets,
        clips,
        failed,
        _about(source),
        _histories(source),
        scores,
        source.untrained,
        attention_of(source),
    )


def _clip(
    source: Reported, video: str, track: Track | None, targets: list[str], most: int
) -> tuple[Clip, tuple[np.ndarray, np.ndarray] | None]:
    """One video, of its prediction, its record, or both; and its truth and prediction, where there are both. Raises
    AffuseError where they are of different videos."""
    prediction, store = source.predictions.get(video), source.store_of(video)
    record = None if store is None else outline(store, video)
    clock = prediction.time if store is None else store.frame_times(video)
    time, frames = clock, np.arange(len(clock))
    if prediction is not None and store is not None:
        time, frames = prediction.time, frames_of(prediction, clock, store, source.closed)
    columns, pair = _predicted(prediction), None
    if track is not None and len(time):
        truth = laid_on(track, targets, time, clock, frames, source.closed)
        columns |= {f"{target} truth": values for target, values in zip(targets, truth.T, strict=True)}
        pair = None if prediction is None else paired(prediction, track, truth)
    seconds, present = _length(clock, record), _present(prediction, record, clock)
    rows = thin(np.stack([*columns.values()], axis=1), most) if columns else np.zeros(0, int)
    return Clip(
        video,
        rounded(seconds),
        {"time": plain(time[rows]), **{name: plain(values[rows]) for name, values in columns.items()}},
        len(clock),
        bool(columns) and len(rows) < len(time),
        {name: gaps(clock, there, seconds) for name, there in present.items()},
        [] if record is None else _words(record.text),
        [] if record is None else boxes(record.visual.time, record.visual.valid, record.visual.box),
        _summary(prediction, present, seconds, len(clock), record),
        file="" if record is None else record.source.name,
        reasons={} if record is None else _reasons(record),
    ), pair


def _predicted(prediction: Prediction | None) -> dict[str, np.ndarray]:
    """{curve: values (T,)} of a prediction: each target, and the band around it."""
    if prediction is None:
        return {}
    columns = dict(zip(prediction.targets, prediction.values.T, strict=True))
    if prediction.deviation is not None:
        for target, off in zip(prediction.targets, prediction.deviation.T, strict=True):
            low, high = columns[target] - REACH * off, columns[target] + REACH * off
            columns |= {f"{target} low": low, f"{target} high": high}
    return columns


def _present(prediction: Prediction | None, record: VideoFeatures | None, clock: np.ndarray) -> dict[str, np.ndarray]:
    """{face | sound | words: whether there is one (T,)} at the frames: of all that the record was made with, else of
    what the model takes."""
    if record is None:
        return {SEEN_AS[m]: there for m, there in prediction.present.items()}
    made = [m for m in SEEN_AS if getattr(record, m).status != Status.SKIPPED]
    return {SEEN_AS[m]: rows_at(record, m, clock)[1] for m in made}


def _words(said: TextFeatures) -> list[list]:
    """[start, end, word] of each, seconds, in order of their starts."""
    rows = zip(said.start, said.end, said.word, strict=True)
    return sorted(([rounded(start), rounded(end), str(word)] for start, end, word in rows), key=lambda row: row[0])


def _length(time: np.ndarray, record: VideoFeatures | None) -> float:
    """Seconds of a video: what its record says, and at least all its frames at `time` (T,)."""
    return ends(time) if record is None else max(ends(time), record.duration)


def _summary(prediction, present: Mapping[str, np.ndarray], seconds: float, frames: int, record) -> dict:
    """The row of a video: seconds, frames; mean and spread of each target; shares of frames with a face, sound, words;
    how many words."""
    row: dict = {"seconds": rounded(seconds, 1)}
    if prediction is not None:
        for target, values in zip(prediction.targets, prediction.values.T, strict=True):
            row |= {f"{target} mean": rounded(values.mean()), f"{target} spread": rounded(values.std())}
    row |= {f"{name} seen": rounded(there.mean()) if len(there) else 0.0 for name, there in present.items()}
    return {**row, "frames": frames, **({} if record is None else {"words": len(record.text.word)})}


def _reasons(record: VideoFeatures) -> dict[str, str]:
    """Why a record has nothing of a modality, of those that it lacks or that have something to say."""
    parts = {SEEN_AS[m]: getattr(record, m) for m in SEEN_AS}
    return {name: part.reason for name, part in parts.items() if part.reason}


def _scored(clip: Clip, scores: dict, pair: tuple | None, targets: list[str], most: int) -> Clip:
    """With its own CCC in its row, and its truth and prediction for the scatter plot."""
    if pair is None:
        return clip
    own, (truth, predicted) = scores["per_video"][clip.id], pair
    agreement = {"CCC": rounded(own["mean"]), **{f"{target} CCC": rounded(own[target]) for target in targets}}
    rows = thin(np.concatenate([truth, predicted], axis=1), most)
    return replace(
        clip,
        summary={"seconds": clip.summary["seconds"], **agreement, **clip.summary},
        pairs={target: [plain(truth[rows, k]), plain(predicted[rows, k])] for k, target in enumerate(targets)},
    )


def _own_scores(run: Run | None) -> dict:
    """What a run knows of itself, without labels: the CCC that chose its epoch."""
    return {} if run is None else {"ccc": run.best["ccc"]}


# ---- what a run or a store is


def _about(source: Reported) -> list[list[str]]:
    if source.run is not None:
        return _about_run(source.run)
    if source.kind == "store":
        return _about_store(source)
    smoothed = f"moving mean of {source.made['smooth']:g} s" if source.made.get("smooth") else ""
    known = "what is known then, not what comes later" if source.made.get("stream") else ""
    told = [["predicted by", source.made.get("run", "")], ["smoothed", smoothed], ["each frame by", known]]
    return [[what, how] for what, how in told if how]


def _about_run(run: Run) -> list[list[str]]:
    settings, together = run.settings, [run, *run.others]
    seeds = ", ".join(str(each.settings.seed) for each in together)
    parameters = sum(p.numel() for p in run.model.parameters())
    clock = f"{run.fps:.4g} frames per second" if run.fps else "every video's own frames"
    return [
        ["model", f"{settings.model}, {', '.join(run.model.modalities)}"],
        ["preset", str(settings.preset)],
        ["seed" if len(together) == 1 else "seeds", seeds],
        ["parameters", f"{parameters:,}"],
        ["reads features at", clock],
    ]


def _about_store(source: Reported) -> list[list[str]]:
    (store,) = source.stores
    try:
        provenance = store.provenance
    except AffuseError as error:
        return [["settings", str(error)]]
    parts = [[part, f"{b.name}, {b.width} wide" if b.width else b.name] for part, b in provenance.backbones.items()]
    return [["settings", provenance.settings_hash[:12]], *parts]


def _histories(source: Reported) -> dict[str, dict[str, list]]:
    """{seed: {column of metrics.csv: values}} of a run's learning curves, where it has any."""
    if source.run is None:
        return {}
    found = {}
    for run in (source.run, *source.run.others):
        folder = RunFolder(source.path)
        folder = folder.member(run.settings.seed) if folder.ensemble.exists() else folder
        if folder.metrics.exists():
            try:
                table = pd.read_csv(folder.metrics).select_dtypes("number")
            except (OSError, ValueError) as error:
                raise AffuseError(
                    f"{folder.metrics} cannot be read: {first_line(error)}. Train the run again."
                ) from None
            found[str(run.settings.seed)] = {name: plain(values, 4) for name, values in table.items()}
    return found
