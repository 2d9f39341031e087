"""What a run gives for the videos of a store, in files: each video's as soon as it is made."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from affuse.files import file_name
from affuse.fuse.data.corpus import Corpus, Features, as_store
from affuse.fuse.reports.figures import explanation, save_figure
from affuse.fuse.reports.tables import write_csv
from affuse.fuse.scoring.predict import SEEN_AS, Prediction, check_names, check_spans, summarised
from affuse.fuse.training.loading import as_run
from affuse.fuse.training.outputs import Outputs, tracks_of
from affuse.fuse.training.run import Run


def evaluate(run: Run | Path | str, store: Features, labels: Path | str, *args, **options) -> dict:
    """`Run.evaluate` of a run or the one at a path."""
    return as_run(run).evaluate(store, labels, *args, **options)


def predict(
    run: Run | Path | str | Iterable[Path | str],
    store: Features,
    out: Path | str,
    ids: Iterable[str] | None = None,
    device: str = "auto",
    figures: bool = True,
    smooth: float = 0.0,
    every: float | None = None,
    labels: Path | str | None = None,
    failed: Mapping[str, str] | None = None,
    beside: Callable[[Prediction], dict] = lambda made: {},
    stream: bool = False,
) -> dict:
    """`Run.predict` of a run or what `load_run` takes: every video saved in `out` as soon as it is made, and a summary.

    smooth: seconds, as `Prediction.smoothed` takes them; every: seconds that a row of the tables stands for, None a
    frame; labels: a folder of labels, whose truth is drawn beside predictions; failed: {id: why} of videos that never
    came into the store, for the summary; beside: makes more of each prediction, and gives its files; stream: as
    `Run.predict` has it, without smooth and every.

    Gives {"written": {id: what `Prediction.save` gives}, "failed": {id: why}, "summary": the file}; raises as
    `Run.predict` does, UsageError for seconds that cannot be, a folder that is another run's, and labels of none of the
    videos.
    """
    check_spans(smooth, every, stream)
    run, store, facts = as_run(run), as_store(store), {}
    ids = list(store.ids if ids is None else ids)
    check_names(ids)
    outputs = Outputs(out, run, smooth=smooth, every=every, stream=stream)
    tracks = {} if labels is None else tracks_of(labels, store, ids, run.settings.label_rate)

    def save(here: Run, corpus: Corpus) -> dict:
        outputs.claim()
        made = here.predicted(corpus, stream).smoothed(smooth)
        facts[made.id] = made.facts()
        own = corpus.own(0)
        truth = np.where(own.annotated[:, None], own.truth, np.nan) if made.id in tracks else None
        outputs.renew(made.id, made.csv(every))
        return {**made.save(outputs.folder, figures, every, truth), **beside(made)}

    written, unread = run.each_video(store, ids, device, save, tracks) if ids or not failed else ({}, {})
    failed = {**(failed or {}), **unread}
    outputs.forget(failed)
    outputs.say_removed()
    return {"written": written, "failed": failed, "summary": outputs.summarise(summarised(facts, failed))}


def explain(
    run: Run | Path | str, store: Features, out: Path | str, ids: Iterable[str] | None = None, device: str = "auto"
) -> dict:
    """`Run.explain` of a run or the one at a path: a CSV, empty where there is nothing, and a figure of every video in
    `out`. Gives and raises what `predict` does."""
    run = as_run(run)
    outputs = Outputs(out, run, explained=True)
    folder = outputs.folder

    def save(here: Run, corpus: Corpus) -> dict:
        (video,), table = corpus.videos, here.explained(corpus)
        csv, figure = (folder / f"{file_name(video)}{suffix}" for suffix in (".csv", ".png"))
        outputs.claim()
        write_csv(csv, table, "%.6f")
        save_figure(explanation(video, table, corpus.targets), figure)
        seen = {name: int(table[name].sum()) for name in (*SEEN_AS.values(), "valid") if name in table}
        return {"csv": str(csv), "figure": str(figure), "frames": len(table), **seen}

    written, failed = run.each_video(store, ids, device, save)
    outputs.forget(failed)
    return {"written": written, "failed": failed}
