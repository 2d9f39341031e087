"""Training on views: one a window, drawn evenly and again the same; all else sees the centre."""

from dataclasses import replace

import numpy as np
import pytest
import torch

import tiny
from affuse import fuse
from affuse.errors import AffuseError
from affuse.features import FeatureStore
from affuse.features.exporting import export_features
from affuse.fuse.data.labels import read_track
from affuse.fuse.data.partitions import find_labels
from affuse.fuse.data.pool import load_corpus
from affuse.fuse.data.windows import Normalisation, Windows
from affuse.fuse.training.checkpoint import read_tensors
from test_train import read_metrics

pytestmark = pytest.mark.usefixtures("undrawn")

VIEWS = ("flip", "top-left", "bottom-right")
STEP = 50  # what each view adds to the one before it: far more than frames differ by


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A store whose faces have views, the same without them, and their labels. One video in each has no picture."""
    folder = tmp_path_factory.mktemp("views")
    plain, labels = tiny.make_data(folder, without=("visual",))
    store = FeatureStore(folder / "views", create=True)
    settings = {**plain.provenance.settings, "views": ["centre", "flip", "corners"]}
    made = replace(plain.provenance, settings=settings, settings_hash="f" * 64)
    for video_id in plain.ids:
        video = plain[video_id]
        faces = video.visual.valid[:, None] * np.float16(STEP)
        views = {view: video.visual.embedding + k * faces for k, view in enumerate(VIEWS, start=1)}
        if video.visual.valid.any():
            video = replace(video, visual=replace(video.visual, views=views))
        store.write(video, made)
    return store, plain, labels


def load(store, labels, **changes):
    files = find_labels(labels)["train"]
    tracks = {video: read_track(path) for video, path in files.items()}
    return load_corpus(store, files, ["visual", "audio"], ["valence"], tracks, **changes)


def views_of(windows: Windows, batch) -> list[int]:
    """Which view each window of a batch shows, told from its values: one for all its frames."""
    mean, std = windows.normalisation.mean["visual"], windows.normalisation.std["visual"]
    values = (batch.inputs["visual"] * std + mean).mean(2) / STEP
    shown = []
    for row, seen in zip(values.round().int(), batch.mask["visual"], strict=True):
        assert row[seen].unique().numel() <= 1
        shown += row[seen][:1].tolist()
    return shown


def test_each_window_shows_one_view_drawn_evenly(data):
    store, _, labels = data
    corpus = load(store, labels, views=True)
    windows = Windows(corpus, 16, 12, Normalisation.fit(corpus))
    epochs = [
        [view for b in windows.shuffled(4, seed) for view in views_of(windows, b)] for seed in range(60)
    ]
    share = np.bincount(np.concatenate(epochs), minlength=4) / sum(map(len, epochs))
    np.testing.assert_allclose(share, 1 / 4, atol=0.03)
    assert epochs[0] == [view for b in windows.shuffled(4, 0) for view in views_of(windows, b)]
    assert epochs[0] != epochs[1]
    assert {view for b in windows.ordered(4) for view in views_of(windows, b)} == {0}


def test_views_change_faces_only_and_order_not_at_all(data):
    store, plain, labels = data
    seen, centre = load(store, labels, views=True), load(plain, labels, views=True)
    assert list(seen.views) == list(VIEWS)
    assert load(store, labels).views == centre.views == {}
    normalisation = Normalisation.fit(seen)
    for m, mean in Normalisation.fit(centre).mean.items():
        assert torch.equal(mean, normalisation.mean[m])
    pair = (Windows(corpus, 32, 20, normalisation) for corpus in (seen, centre))
    for one, other in zip(*(windows.shuffled(5, 3) for windows in pair), strict=True):
        assert torch.equal(one.truth, other.truth)
        assert torch.equal(one.inputs["audio"], other.inputs["audio"])
        assert torch.equal(one.mask["visual"], other.mask["visual"])
        assert not torch.equal(one.inputs["visual"], other.inputs["visual"])


def test_closing_gaps_takes_the_same_frames_out_of_every_view(data):
    store, _, labels = data
    corpus = load(store, labels, views=True).closed("train")
    faces = corpus.present["visual"][:, None].half() * STEP
    assert corpus.annotated.all()
    for k, rows in enumerate(corpus.views.values(), start=1):
        assert torch.equal(rows[:], corpus.features["visual"][:] + k * faces)


SETTINGS = {"epochs": 4, "warmup_epochs": 1, "learning_rate": 3e-3}


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    store, _, labels = data
    out = tmp_path_factory.mktemp("finished") / "run"
    fuse.train(store, labels, out, tiny.small(**SETTINGS))
    return out


def same_model(one, other) -> bool:
    (a, _), (b, _) = (read_tensors(run / "model.safetensors") for run in (one, other))
    return all(torch.equal(a[name], b[name]) for name in {**a, **b})


def test_a_stopped_run_goes_on_with_the_same_views(data, finished, tmp_path):
    store, _, labels = data

    class Stop(Exception):
        pass

    def stop(row):
        if row["epoch"] == 2:
            raise Stop

    with pytest.raises(Stop):
        fuse.train(store, labels, tmp_path / "run", tiny.small(**SETTINGS), stop)
    assert fuse.train(store, labels, tmp_path / "run", tiny.small(**SETTINGS))["resumed_at"] == 2
    assert same_model(tmp_path / "run", finished)
    assert read_metrics(tmp_path / "run") == read_metrics(finished)


def test_views_are_used_unless_switched_off(data, finished, tmp_path):
    store, plain, labels = data
    off, without = tmp_path / "off", tmp_path / "without"
    fuse.train(store, labels, off, tiny.small(**SETTINGS, views=False))
    fuse.train(plain, labels, without, tiny.small(**SETTINGS))
    assert same_model(off, without)
    assert read_metrics(off) == read_metrics(without)
    assert not same_model(off, finished)
    assert "views: false" in (off / "config.yaml").read_text()
    assert "views: true" in (finished / "config.yaml").read_text()
    assert "one of 4 views" in (finished / "card.md").read_text()
    assert "views" not in (off / "card.md").read_text()


def test_a_ridge_sees_the_centre_alone(data, tmp_path):
    store, plain, labels = data
    for name, features in (("views", store), ("plain", plain)):
        fuse.train(features, labels, tmp_path / name, tiny.small(model="linear"))
    assert same_model(tmp_path / "views", tmp_path / "plain")
    assert "views" not in (tmp_path / "views" / "card.md").read_text()


def test_validation_and_prediction_see_the_centre(data, finished, tmp_path):
    """A run trained on views scores and predicts alike on a store with and one without them."""
    store, plain, labels = data
    one, other = (fuse.evaluate(finished, place, labels, "validation", "cpu") for place in (store, plain))
    assert one == other
    assert one["ccc"]["mean"] == fuse.load_run(finished).best["ccc"]["mean"]
    for place in (store, plain):
        fuse.predict(finished, place, tmp_path / place.path.name, ["t1"], "cpu", figures=False)
    assert (tmp_path / "views" / "t1.csv").read_text() == (tmp_path / "store" / "t1.csv").read_text()


def test_features_that_differ_in_more_than_views_are_still_refused(data, finished, tmp_path):
    _, plain, _ = data
    other = FeatureStore(tmp_path / "other", create=True)
    made = replace(plain.provenance, settings={"fps": "own", "size": 96}, settings_hash="a" * 64)
    other.write(plain["t1"], made)
    with pytest.raises(AffuseError, match=r"settings\.size: 224 → 96\."):
        fuse.predict(finished, other, tmp_path / "out")


def test_folds_are_trained_on_views(data, tmp_path):
    store, _, labels = data
    (tmp_path / "videos.csv").write_text(
        "".join(["video,fold\n", *(f"{v},{'ab'[i % 2]}\n" for i, v in enumerate(store.ids))])
    )
    folds = fuse.choose_folds(labels, tmp_path / "videos.csv")
    settings = tiny.small(epochs=1)
    result = fuse.crossval(store, labels, tmp_path / "cv", folds, settings)
    assert result["videos"] == len(store)
    assert "one of 4 views" in (tmp_path / "cv" / "a" / "card.md").read_text()


def test_export_takes_the_centre(data, tmp_path):
    store, plain, _ = data
    for place in (store, plain):
        export_features(place, tmp_path / place.path.name, "npz")
    one, other = (np.load(tmp_path / name / "visual" / "t1.npz") for name in ("views", "store"))
    assert one.files == other.files
    assert all((one[name] == other[name]).all() for name in one.files)
