"""The baselines without descent, against plain NumPy: the ridge, its smoothing and its spread, and the mean."""

import json

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import tiny
from affuse import commands as cli
from affuse import fuse
from affuse.errors import AffuseError, UsageError
from affuse.features import (
    AudioFeatures,
    FeatureStore,
    Source,
    Status,
    TextFeatures,
    VideoFeatures,
    VisualFeatures,
)
from affuse.fuse.data.labels import read_track
from affuse.fuse.data.partitions import find_labels
from affuse.fuse.data.pool import load_corpus
from affuse.fuse.experiments.folds import Fold
from affuse.fuse.reports.tables import not_above
from affuse.fuse.scoring.metrics import ccc
from affuse.fuse.training import closed_form
from affuse.fuse.training.closed_form import RIDGES, SMOOTHINGS

pytestmark = pytest.mark.usefixtures("undrawn")

MODALITIES = ["visual", "audio", "text"]
TARGETS = ["valence", "arousal"]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.make_data(tmp_path_factory.mktemp("data"), 4, 3, frames=90, without=("text",))


def laid(store, labels, partition, targets=TARGETS):
    files = find_labels(labels)[partition]
    tracks = {video: read_track(path) for video, path in files.items()}
    return load_corpus(store, files, MODALITIES, targets, tracks)


def averaged(x, there, frames):
    """Of every frame the mean of the last rows that are there, one frame after the other."""
    out = np.zeros(x.shape)
    for t in range(len(x)):
        rows = [s for s in range(max(0, t - frames + 1), t + 1) if there[s]]
        out[t] = np.mean(x[rows], 0) if rows else 0
    return out


def inputs(run, corpus, frames):
    """(F, width): standardised, zero where missing, averaged within each video."""
    sides = []
    for m in MODALITIES:
        mean, std = (part[m].double().numpy() for part in (run.normalisation.mean, run.normalisation.std))
        x, there = (corpus.features[m][:].double().numpy() - mean) / std, corpus.present[m].numpy()
        spans = [corpus.frames(video) for video in range(len(corpus.videos))]
        sides.append(np.concatenate([averaged(x[s], there[s], frames) for s in spans]))
    return np.concatenate(sides, 1)


def ridge(x, y, share):
    """By least squares on rows that pull the weights to zero, the intercept left alone."""
    centre, n, width = x.mean(0), *x.shape
    weight = share * (x - centre).var(0).mean() * n
    rows = np.concatenate([x - centre, np.sqrt(weight) * np.eye(width)])
    w = np.linalg.lstsq(rows, np.concatenate([y - y.mean(0), np.zeros((width, y.shape[1]))]), rcond=None)[0]
    return w, y.mean(0) - centre @ w


@pytest.mark.parametrize(("share", "seconds"), [(0.1, 0), (1.0, 2)])
@pytest.mark.parametrize("model", ["linear", "linear-rescaled"])
def test_the_weights_are_those_of_plain_least_squares(data, tmp_path, monkeypatch, model, share, seconds):
    store, labels = data
    monkeypatch.setattr(closed_form, "RIDGES", (share,))
    monkeypatch.setattr(closed_form, "SMOOTHINGS", (seconds,))
    # a preset that standardises nothing, and windows shorter than what is averaged
    result = fuse.train(
        store, labels, tmp_path / "run", tiny.small(model=model, preset="jca", window=16, hop=8)
    )
    run, frames = fuse.load_run(tmp_path / "run"), max(1, round(seconds * tiny.FPS))
    assert int(run.model.fusion.frames) == frames
    assert all((std != 1).all() for std in run.normalisation.std.values())
    corpus = laid(store, labels, "train")
    counted = (corpus.annotated & corpus.any_present()).numpy()
    assert not counted.all()
    x, y = inputs(run, corpus, frames)[counted], corpus.truth.double().numpy()[counted]
    w, b = ridge(x, y, share)
    if model == "linear-rescaled":
        w = w * y.std(0) / (x @ w).std(0)
        b = y.mean(0) - x.mean(0) @ w
    state = run.model.state_dict()
    np.testing.assert_allclose(state["head.outer.0.weight"].numpy().T, w, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(state["head.outer.0.bias"].numpy(), b, rtol=1e-4, atol=1e-5)
    (row,) = pd.read_csv(tmp_path / "run" / "metrics.csv").to_dict("records")
    assert row["loss"] == pytest.approx(float(np.square(x @ w + b - y).mean()), rel=1e-4)
    corpus, (predicted, _) = run.predict_partition(store, labels, "validation", "cpu")
    expected, seen = (inputs(run, corpus, frames) @ w + b).clip(-1, 1), corpus.any_present().numpy()
    np.testing.assert_allclose(predicted[seen], expected[seen], atol=1e-4)
    assert result["best"]["ccc"]["valence"] == pytest.approx(
        ccc(corpus.truth.numpy()[corpus.annotated, 0], predicted[corpus.annotated.numpy(), 0])
    )


def test_a_likelihood_means_nothing_to_them_and_they_say_so_once(data, tmp_path, caplog):
    fuse.compare(*data, tmp_path / "out", "linear,concat", [0, 1], tiny.small(epochs=1, loss="gaussian"))
    said = [text for text in caplog.messages if "loss=gaussian" in text]
    assert said == [
        "loss=gaussian means nothing to linear, which has no loss: it does not say how sure it is"
    ]
    runs = {name: fuse.load_run(tmp_path / "out" / "runs" / f"{name}-seed0") for name in ("linear", "concat")}
    assert {name: run.model.options.deviations for name, run in runs.items()} == {
        "linear": False, "concat": True
    }  # fmt: skip


def test_rescaled_is_as_spread_as_the_training_labels(data, tmp_path):
    store, labels = data
    spread = {}
    for model in ("linear", "linear-rescaled"):
        fuse.train(store, labels, tmp_path / model, tiny.small(model=model))
        run = fuse.load_run(tmp_path / model)
        corpus = laid(store, labels, "train")
        counted = (corpus.annotated & corpus.any_present()).numpy()
        x = inputs(run, corpus, int(run.model.fusion.frames))[counted]
        state, y = run.model.state_dict(), corpus.truth.double().numpy()[counted]
        said = (
            x @ state["head.outer.0.weight"].double().numpy().T + state["head.outer.0.bias"].double().numpy()
        )
        np.testing.assert_allclose(said.mean(0), y.mean(0), atol=1e-5)
        spread[model] = said.std(0) / y.std(0)
    np.testing.assert_allclose(spread["linear-rescaled"], 1, atol=1e-5)
    assert (spread["linear"] < 0.999).all()


# ---- what is chosen, and by what


def scalar_video(name, truth, said, time):
    """A video whose audio is `said` (frames, columns) and which has nothing else."""
    n = len(time)
    none = (np.zeros((0, 8), np.float16), np.zeros(0))
    return VideoFeatures(
        name, Source(f"{name}.mp4", n, f"{abs(hash(name)):064d}"[:64]), 1 / (time[1] - time[0]), n / 5, n,
        visual=VisualFeatures(np.zeros((n, 12), np.float16), time, np.zeros(n, bool), np.zeros((n, 4), np.float32),
                              np.zeros(n, np.float32), Status.NO_FACE, "dark"),
        audio=AudioFeatures(said.astype(np.float16), time),
        text=TextFeatures(none[0], none[1], none[1], np.zeros(0, str), np.zeros(0, np.float32), Status.NO_SPEECH, "-"),
    ), truth  # fmt: skip


def slow_data(folder, videos=6, minutes=3, fps=5.0, columns=6):
    """Two noisy columns of each target, of which the ratings are the mean over the last 20 s."""
    store, labels = FeatureStore(folder / "store", create=True), folder / "labels"
    n, rng = int(minutes * 60 * fps), np.random.default_rng(0)
    time = np.arange(n) / fps
    for i in range(videos):
        clean = np.cumsum(rng.normal(size=(n, 2)), 0)
        clean = 0.6 * np.sin(clean / 12)
        said = np.repeat(clean, columns // 2, 1) + 0.8 * rng.normal(size=(n, columns))
        truth = averaged(clean, np.ones(n, bool), int(20 * fps))
        partition = "train" if i < 4 else "validation"
        store.write(scalar_video(f"v{i}", truth, said, time)[0], tiny.provenance())
        tiny.write_labels(labels / partition / f"v{i}.txt", truth)
    return store, labels


def test_slow_ratings_are_found_to_be_slow(tmp_path):
    store, labels = slow_data(tmp_path)
    result = fuse.train(
        store, labels, tmp_path / "run", tiny.small(model="linear", modalities=["audio"], channels=None)
    )
    tried = pd.read_csv(tmp_path / "run" / "metrics.csv")
    assert list(zip(tried["smoothing"], tried["ridge"], strict=True)) == [
        (s, r) for s in SMOOTHINGS for r in RIDGES
    ]
    best = tried.groupby("smoothing")["ccc_mean"].max()
    assert result["best"]["smoothing"] > 2
    assert best.max() > best[0] + 0.1
    assert tried["ccc_mean"].max() == pytest.approx(result["best"]["ccc"]["mean"], abs=0)
    assert tried["best"][result["best"]["epoch"] - 1] == 1
    assert f"{result['best']['smoothing']} s of smoothing" in (tmp_path / "run" / "card.md").read_text()


def test_cross_validation_chooses_the_ridge_on_the_inner_fold(data, tmp_path):
    store, labels = data
    folds = [Fold("a", ("t0", "t1")), Fold("b", ("t2", "set/v0")), Fold("c", ("t3", "set/v1", "set/v2"))]
    settings = tiny.small(model="linear", choose="inner")
    result = fuse.crossval(store, labels, tmp_path / "cv", folds, settings)
    assert result["ccc"]["mean"] > 0.5
    run = fuse.load_run(tmp_path / "cv" / "a")
    assert (run.settings.validation, run.settings.held_out) == (["t2", "set/v0"], ["t0", "t1"])
    inner = fuse.evaluate(run, store, labels, "validation", permutations=0)["ccc"]["mean"]
    tried = pd.read_csv(tmp_path / "cv" / "a" / "metrics.csv")
    assert inner == pytest.approx(tried["ccc_mean"].max(), abs=1e-9)
    said = []
    fuse.crossval(
        store, labels, tmp_path / "cv", folds, settings, on_fold=lambda fold, made: said.append(made)
    )
    assert said == [False] * 3


# ---- the mean


def test_the_mean_is_that_of_all_predictions_that_are_there(data, tmp_path):
    store, labels = data  # audio: 3 × (valence, arousal), visual 6, text 4
    fuse.train(store, labels, tmp_path / "run", tiny.small(model="mean", preset="affuse"))
    run = fuse.load_run(tmp_path / "run")
    corpus, (predicted, _) = run.predict_partition(store, labels, "validation", "cpu")
    rows = {m: corpus.features[m][:].double().numpy().reshape(len(predicted), -1, 2) for m in MODALITIES}
    there, seen = {m: corpus.present[m].numpy() for m in MODALITIES}, corpus.any_present().numpy()
    assert len({tuple(there[m][t] for m in MODALITIES) for t in range(len(seen))}) > 3
    for t in np.flatnonzero(seen):
        expected = np.concatenate([rows[m][t] for m in MODALITIES if there[m][t]]).mean(0).clip(-1, 1)
        np.testing.assert_allclose(predicted[t], expected, atol=1e-6)
    assert "Nothing was fitted" in (tmp_path / "run" / "card.md").read_text()
    history = pd.read_csv(tmp_path / "run" / "metrics.csv")
    corpus, (predicted, _) = run.predict_partition(store, labels, "train", "cpu")
    counted = (corpus.annotated & corpus.any_present()).numpy()
    assert history["loss"].tolist() == pytest.approx(
        [np.square(predicted - corpus.truth.numpy())[counted].mean()], rel=1e-5
    )


# ---- as any other model


@pytest.fixture(scope="module")
def compared(data, tmp_path_factory):
    out, said = tmp_path_factory.mktemp("compared") / "out", []
    names = "rjcma,linear,linear-rescaled,mean,concat,linear@audio"
    result = fuse.compare(*data, out, names, settings=tiny.small(epochs=1), announce=said.append)
    return out, result, said


def test_a_comparison_says_which_models_are_not_above_a_baseline(compared):
    out, result, _ = compared
    ccc = result.table["mean"]
    assert ccc["linear"] > max(ccc["rjcma"], ccc["concat"])
    assert result.facts["baselines"] == ["linear", "linear-rescaled", "mean", "linear@audio"]
    for text in (result.text, (out / "table.md").read_text()):
        assert "Not above linear: rjcma, concat." in text
        assert "Not above linear: rjcma, concat, mean" not in text
        below = [name for name in ("rjcma", "concat") if ccc[name] <= ccc["mean"]]
        assert ("Not above mean: " in text) is bool(below)
    assert list(result.table["parameters"][["linear", "linear@audio", "mean"]]) == [26 * 2 + 2, 6 * 2 + 2, 0]


def test_a_table_without_baselines_or_above_them_says_nothing():
    table = pd.DataFrame({"mean": [0.5, 0.4, 0.5]}, index=["rjcma", "linear", "mean"])
    assert not_above(table, []) == []
    assert not_above(table, ["linear", "mean"]) == ["Not above mean: rjcma."]


def test_what_is_made_is_not_made_again(compared, data, tmp_path):
    out, before, _ = compared
    said = []
    again = fuse.compare(*data, out, "linear,mean", settings=tiny.small(epochs=1), announce=said.append)
    assert all("(trained before)" in text for text in said)
    assert again.table["mean"].tolist() == before.table["mean"][["linear", "mean"]].tolist()
    with pytest.raises(UsageError, match="finished run with these settings: nothing to do"):
        fuse.train(*data, out / "runs" / "linear-seed0", tiny.small(epochs=1, model="linear"))
    with pytest.raises(tiny.Stop):
        fuse.train(*data, tmp_path / "run", tiny.small(model="linear"), tiny.stop_after(5))
    with pytest.raises(AffuseError, match="not finished"):
        fuse.load_run(tmp_path / "run")
    result = fuse.train(*data, tmp_path / "run", tiny.small(model="linear"))
    assert (result["resumed_at"], result["epochs"]) == (0, len(RIDGES) * len(SMOOTHINGS))


def test_a_run_folder_predicts_and_evaluates_without_its_training_data(compared, data, tmp_path):
    (store, labels), (out, result, _) = data, compared
    run = out / "runs" / "linear-seed0"
    assert fuse.evaluate(run, store, labels)["ccc"]["mean"] == pytest.approx(result.table["mean"]["linear"])
    command = [
        "fuse",
        "predict",
        "--run",
        run,
        "--features",
        store.path,
        "--out",
        tmp_path / "out",
        "--device",
        "cpu",
    ]
    answer = CliRunner().invoke(cli.main, [*map(str, command), "--json"])
    assert answer.exit_code == 0, answer.output
    assert set(json.loads(answer.stdout)["written"]) == set(store.ids)
    with pytest.raises(UsageError, match="no joint or cross-attention"):
        fuse.explain(run, store, tmp_path / "explained")


def test_an_ablation_asks_what_each_modality_is_worth(data, tmp_path):
    result = fuse.ablate(*data, tmp_path / "out", "linear", settings=tiny.small())
    assert list(result.tables) == ["modalities"]
    assert result.skipped["encoder"] == "linear takes features as they are"


@pytest.mark.parametrize(
    ("models", "changes", "message"),
    [
        (
            "mean",
            {"target": ["valence", "arousal", "dominance", "power"]},
            "a multiple of 4. That of audio is 6",
        ),
        ("linear", {"encoder": "tcn"}, "'linear' takes features as they are; encoder='tcn' means nothing"),
        ("linear,linear-rescald", {}, "did you mean 'linear-rescaled'"),
        ("linear:rescaled", {}, "Unknown variant 'rescaled'"),
    ],
)
def test_what_cannot_be_is_said_before_anything_is_trained(models, changes, message, data, tmp_path):
    with pytest.raises(UsageError, match=message):
        fuse.compare(*data, tmp_path / "out", models, settings=tiny.small(**changes))
    assert not (tmp_path / "out").exists()


def test_labels_and_inputs_that_do_not_vary_predict_their_mean(tmp_path):
    store, labels = tiny.make_data(tmp_path, 2, 1, frames=40)
    for path in (labels / "train").iterdir():
        tiny.write_labels(path, np.full((path.read_text().count("\n") - 1, 2), 0.25))
    for model in ("linear", "linear-rescaled"):
        fuse.train(store, labels, tmp_path / model, tiny.small(model=model))
        for made in fuse.load_run(tmp_path / model).predict(store, device="cpu").values():
            np.testing.assert_allclose(made.values, 0.25, atol=1e-6)


def test_neither_the_order_of_modalities_nor_whose_clock_matters(data, tmp_path):
    settings = tiny.small(model="linear", modalities=["text", "audio", "visual"])
    fuse.train(*data, tmp_path / "a", settings)
    fuse.train(*data, tmp_path / "b", tiny.small(model="linear", fps="own"))
    one, other = (fuse.load_run(tmp_path / name).model.state_dict() for name in "ab")
    for key, value in one.items():
        np.testing.assert_array_equal(value, other[key])
