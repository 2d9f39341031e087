"""Comparisons, folds and seeds: features are read once however many runs there are, and nothing else is different."""

from __future__ import annotations

import pandas as pd
import pytest

import tiny
from affuse import fuse
from affuse.fuse.data.partitions import find_labels
from affuse.fuse.experiments import trials
from affuse.fuse.experiments.folds import Fold
from affuse.fuse.training.run import Run

pytestmark = pytest.mark.usefixtures("undrawn")

SHORT = tiny.small(epochs=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.make_data(tmp_path_factory.mktemp("data"), train=4, validation=2, without=("text",))


def arrays(store, *modalities):
    """All of a store's, but for the text that two videos do not have."""
    every = [(video, f"{m}/embedding") for video in store.ids for m in modalities]
    return sorted(set(every) - {("t0", "text/embedding"), ("set/v0", "text/embedding")})


def test_a_comparison_reads_each_array_once_and_predicts_what_it_trained_once(
    data, tmp_path, read, monkeypatch
):
    store, labels = data
    told, predict = [], Run.predict_partition
    monkeypatch.setattr(
        Run,
        "predict_partition",
        lambda run, *args, **rest: told.append(run.path) or predict(run, *args, **rest),
    )
    models = "concat,dca,unimodal@text"
    first = fuse.compare(store, labels, tmp_path / "out", models, [0, 1], SHORT)
    assert sorted(read) == arrays(store, "audio", "text", "visual")
    assert told == []
    read.clear()
    again = fuse.compare(store, labels, tmp_path / "out", models, [0, 1], SHORT)
    pd.testing.assert_frame_equal(again.scores, first.scores, check_exact=True)
    pd.testing.assert_frame_equal(again.differences, first.differences, check_exact=True)
    assert len(told) == 6
    assert sorted(read) == [
        own for own in arrays(store, "audio", "text", "visual") if own[0].startswith("set/")
    ]


def test_runs_that_share_features_are_those_that_do_not(data, tmp_path):
    store, labels = data
    made = fuse.compare(store, labels, tmp_path / "out", "rjcma,unimodal@audio", [0, 1], SHORT)
    for row in made.scores.to_dict("records"):
        settings = tiny.small(epochs=2, seed=row["seed"], **trials.parse_name(row["model"]))
        alone = fuse.train(store, labels, tmp_path / row["model"] / str(row["seed"]), settings)
        assert alone["best"]["ccc"] == {name: row[name] for name in ("valence", "arousal", "mean")}


def test_an_ablation_reads_each_array_once(data, tmp_path, read):
    store, labels = data
    fuse.ablate(store, labels, tmp_path / "out", "concat", [0], SHORT)
    assert sorted(read) == arrays(store, "audio", "text", "visual")


def test_folds_read_each_array_once_and_are_as_runs_of_their_own(data, tmp_path, read):
    store, labels = data
    files = [video for part in find_labels(labels).values() for video in part]
    folds = [Fold(str(k), tuple(files[k::3])) for k in range(3)]
    found = fuse.crossval(store, labels, tmp_path / "out", folds, SHORT)
    assert sorted(read) == arrays(store, "audio", "text", "visual")
    for fold in folds:
        own = tiny.small(epochs=2, validation=list(fold.validation), resplit=True, fps=tiny.FPS)
        alone = fuse.train(store, labels, tmp_path / fold.name, own)
        assert alone["best"]["ccc"] == found["folds"][fold.name]["ccc"]


def test_seeds_read_each_array_once(data, tmp_path, read):
    store, labels = data
    fuse.train_seeds(store, labels, tmp_path / "out", [0, 1], SHORT)
    assert sorted(read) == arrays(store, "audio", "text", "visual")
