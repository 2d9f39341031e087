"""A run in a notebook: predictions that show, plot and save themselves; wrong types; one interval; one display."""

import io
import sys

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner
from matplotlib.figure import Figure

import tiny
from affuse import commands as cli
from affuse import console, fuse
from affuse.errors import AffuseError, UsageError
from affuse.fuse import progress
from affuse.fuse.reports.figures import traces
from affuse.fuse.reports.tables import score_table
from affuse.fuse.scoring.evaluate import judge
from affuse.fuse.scoring.metrics import RESAMPLES, ccc, ccc_of_moments, moments, paired_bootstrap
from affuse.fuse.scoring.predict import Prediction, Predictions
from affuse.fuse.training.outputs import MADE


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("predictions")
    store, labels = tiny.make_data(folder, 3, 3, frames=50, without=("audio", "text"))
    fuse.train(store, labels, folder / "run", tiny.small(epochs=2))
    return folder / "run", store, labels


@pytest.fixture(scope="module")
def predictions(trained):
    return fuse.load_run(trained[0]).predict(trained[1])


def test_predictions_are_a_mapping_that_says_what_it_is(trained, predictions):
    _, store, _ = trained
    assert list(predictions) == store.ids
    assert len(predictions) == 6
    assert predictions.failed == {}
    assert "t1" in predictions
    assert "6 videos" in repr(predictions)
    assert "\n" not in repr(predictions)
    assert "<table" in predictions._repr_html_()
    with pytest.raises(KeyError, match="did you mean 't1'"):
        predictions["t11"]


def test_a_frame_has_what_was_there(trained, predictions):
    _, store, _ = trained
    frame = predictions["t0"].frame
    assert list(frame) == ["time", "valence", "arousal", "face", "sound", "words", "valid"]
    assert not frame[["sound", "words"]].any(axis=None)  # t0 has neither
    np.testing.assert_array_equal(frame["face"], store["t0"].visual.valid)
    np.testing.assert_array_equal(frame["valid"], frame["face"])
    np.testing.assert_array_equal(frame["time"], store["t0"].visual.time)
    assert predictions["t1"].frame["sound"].any()
    assert "'t0'" in repr(predictions["t0"])
    assert "\n" not in repr(predictions["t0"])
    assert "<table" in predictions["t0"]._repr_html_()
    assert isinstance(predictions["t0"].plot(), Figure)


def test_the_table_is_what_a_hand_makes_of_the_frames(trained, predictions):
    table = predictions.table()
    assert list(table.index) == list(predictions)
    for video, row in table.iterrows():
        frame = predictions[video].frame
        assert row["frames"] == len(frame)
        assert row["seconds"] == pytest.approx(len(frame) / tiny.FPS)
        assert row["valid"] == pytest.approx(frame["valid"].mean())
        for name in ("face", "sound", "words"):
            assert row[name] == pytest.approx(frame[name].mean())
        assert row["arousal"] == pytest.approx(frame["arousal"].mean())
        assert row["arousal_sd"] == pytest.approx(frame["arousal"].std(ddof=0))


def test_saved_is_what_fuse_predict_writes(trained, predictions, tmp_path):
    run, store, _ = trained
    streamed = fuse.predict(run, str(store.path), tmp_path / "a")
    saved = predictions.save(tmp_path / "b")
    assert streamed.keys() == saved.keys()
    names = {path.name for path in (tmp_path / "a").iterdir()} - {MADE}
    assert len(names) == 13
    summary = pd.read_csv(tmp_path / "a" / "summary.csv", index_col="video")
    pd.testing.assert_frame_equal(
        summary, predictions.table().astype({"failure": float}), atol=1e-6, check_dtype=False
    )
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    written, frame = pd.read_csv(tmp_path / "b" / "t0.csv"), predictions["t0"].frame
    assert list(written) == list(frame)
    for name in ("face", "sound", "words", "valid"):
        assert written[name].tolist() == frame[name].astype(int).tolist()
    assert streamed["written"]["t0"]["face"] == frame["face"].sum() < streamed["written"]["t0"]["frames"]


def some(time, values, valid, deviation=None) -> Prediction:
    """A prediction of valence alone, of a model of faces."""
    values, valid = np.asarray(values, float)[:, None], np.asarray(valid, bool)
    return Prediction("clip", np.asarray(time, float), ("valence",), values, {"visual": valid}, deviation)


def test_smoothing_is_a_centred_mean_that_ends_at_missing_frames():
    """Against a loop over the frames, at a variable rate, with a hole of two frames."""
    rng = np.random.default_rng(0)
    time, values = np.cumsum(rng.uniform(0.02, 0.1, 40)), rng.uniform(-1, 1, 40)
    valid = np.ones(40, bool)
    valid[[0, 17, 18]] = False
    deviation = rng.uniform(0.1, 0.3, (40, 1))
    made = some(time, values, valid, deviation).smoothed(0.5)
    for i in np.flatnonzero(valid):
        near = [
            j for j in range(40) if abs(time[j] - time[i]) <= 0.25 and valid[min(i, j) : max(i, j) + 1].all()
        ]
        assert made.values[i, 0] == pytest.approx(values[near].mean())
        assert made.deviation[i, 0] == pytest.approx(deviation[near].mean())
    assert made.values[17, 0] == pytest.approx(np.interp(time[17], time[[16, 19]], made.values[[16, 19], 0]))
    assert made.values[0, 0] == pytest.approx(made.values[1, 0])
    assert some(time, values, valid).smoothed(0).values[:, 0].tolist() == values.tolist()


def test_a_row_per_half_second_is_the_mean_of_its_valid_frames():
    time = np.array([0.0, 0.1, 0.4, 0.5, 0.9, 1.0, 1.2, 2.3])
    valid = np.array([1, 1, 0, 1, 1, 0, 0, 1], bool)
    table = some(time, [0.1, 0.3, 0.9, 0.2, 0.6, 0.9, 0.9, 0.0], valid).every(0.5)
    assert list(table) == ["time", "valence", "face", "valid"]
    assert table["time"].tolist() == [0, 0.5, 1, 1.5, 2]
    np.testing.assert_allclose(
        table["valence"], [0.2, 0.4, 0.4 * 2 / 3, 0.4 / 3, 0]
    )  # 1.0 to 2.0 by the line between
    np.testing.assert_allclose(table["valid"], [2 / 3, 1, 0, 0, 1])
    assert table["face"].tolist() == table["valid"].tolist()


def test_tables_take_smoothing_and_spans_from_the_command_line(trained, predictions, tmp_path):
    run, store, _ = trained
    words = [
        "fuse",
        "predict",
        "--run",
        run,
        "--features",
        store.path,
        "--out",
        tmp_path,
        "--smooth",
        0.4,
        "--every",
        0.5,
    ]
    answer = CliRunner().invoke(cli.main, list(map(str, words)))
    assert answer.exit_code == 0, answer.output
    assert f"All videos: {tmp_path / 'summary.csv'}" in answer.stdout
    made = predictions["t1"].smoothed(0.4)
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "t1.csv"), made.every(0.5), atol=1e-6)
    summary = pd.read_csv(tmp_path / "summary.csv", index_col="video")
    assert summary.loc["t1", "valence_sd"] == pytest.approx(made.values[:, 0].std(), abs=1e-6)
    for given, sentence in (("--smooth", "no length of time"), ("--every", "at least 0.01")):
        for wrong in ("-1", "nan", "inf"):
            refused = CliRunner().invoke(cli.main, [*map(str, words[:-4]), given, wrong])
            assert refused.exit_code == 2
            assert sentence in refused.stderr


def test_the_summary_has_failures_and_no_video_has_its_name(trained, tmp_path):
    run, store, _ = trained
    made = Predictions({"a": some([0, 1], [0, 1], [1, 1])}, {"b": "three.mp4 cannot be opened."})
    made.save(tmp_path, figures=False)
    a, b = pd.read_csv(tmp_path / "summary.csv").to_dict("records")
    assert (a["video"], a["frames"], a["seconds"], a["face"], a["valence"], a["valence_sd"]) == (
        "a",
        2,
        2,
        1,
        0.5,
        0.5,
    )
    assert b["failure"] == "three.mp4 cannot be opened."
    assert np.isnan(b["frames"])
    with pytest.raises(UsageError, match="'Summary' would have the name of"):
        fuse.predict(run, store, tmp_path, ["Summary"])
    with pytest.raises(UsageError, match="Rename the video"):
        Predictions({"summary": made["a"]}).save(tmp_path)


def test_the_terminal_says_how_many_frames_had_a_face(trained, predictions, tmp_path):
    run, store, _ = trained
    for command in ("predict", "explain"):
        words = ["fuse", command, "--run", run, "--features", store.path, "--out", tmp_path / command]
        answer = CliRunner().invoke(cli.main, list(map(str, words)))
        assert answer.exit_code == 0, answer.output
        for video, made in predictions.items():
            faces = f"{len(made.time)} frames, {made.present['visual'].sum()} with a face, "
            assert f"{video}: {faces}{made.valid.sum()} valid: " in answer.stdout


def test_a_figure_tells_no_face_from_no_features(predictions):
    time, seen = np.arange(40) / 10, np.ones(40, bool)
    face, valid = np.where(time < 1, False, seen), np.where(time > 3, False, seen)
    figure = traces(
        "clip", ["valence", "arousal"], time, np.zeros((40, 2)), valid, np.zeros((40, 2)), face & valid
    )
    (legend,) = figure.legends
    said = [text.get_text() for text in legend.get_texts()]
    assert sorted(said) == ["annotated", "no face", "no features", "predicted arousal", "predicted valence"]
    assert not any(axis.get_legend() for axis in figure.axes)
    for axis in figure.axes:
        shades = {band.get_label(): band.get_facecolor()[0][0] for band in axis.collections}
        assert shades["no features"] < shades["no face"] < 1
        left, right = (band.get_paths()[0].get_extents() for band in axis.collections)
        assert left.x1 < 1.1 < 2.9 < right.x0
    assert "no face" not in str(
        [
            text.get_text()
            for text in traces("clip", ["valence"], time, np.zeros((40, 1)), seen, None, seen)
            .legends[0]
            .get_texts()
        ]
    )
    assert isinstance(predictions["t0"].plot(), Figure)


def test_a_video_with_nothing_fails_and_says_why(trained, tmp_path):
    store, _ = tiny.make_data(tmp_path, 2, 1, without=("visual", "audio", "text"))
    found = fuse.load_run(trained[0]).predict(store, ["t0", "t1"])
    assert list(found) == ["t1"]
    assert "no_face" in found.failed["t0"]
    assert found.failed["t0"].startswith("Video 't0' has no features to work on: no visual")
    assert "1 failed" in repr(found)
    with pytest.raises(KeyError, match="no_face"):
        found["t0"]
    assert list(fuse.load_run(trained[0]).predict(store, "t1")) == ["t1"]


def test_run_explains_and_evaluates_itself(trained):
    path, store, labels = trained
    run = fuse.load_run(path)
    assert "\n" not in repr(run)
    assert run.evaluate(store, labels, permutations=3) == fuse.evaluate(path, store, labels, permutations=3)
    tables = run.explain(store, ["t1"])
    np.testing.assert_allclose(tables["t1"]["valence"], run.predict(store, ["t1"])["t1"].frame["valence"])
    assert tables["t1"].filter(like="update_").notna().any(axis=None)


@pytest.mark.parametrize("wrong", [None, 5, pd.DataFrame(), {"store"}])
def test_what_is_no_store_run_or_folder_is_said(trained, tmp_path, wrong):
    path, store, labels = trained
    run, settings = fuse.load_run(path), tiny.small()
    for use in (
        lambda: run.predict(wrong),
        lambda: run.evaluate(wrong, labels),
        lambda: run.evaluate(store, wrong),
        lambda: fuse.predict(wrong, store, tmp_path / "out"),
        lambda: fuse.explain(wrong, store, tmp_path / "out"),
        lambda: fuse.predict(run, store, wrong),
        lambda: fuse.evaluate(wrong, store, labels),
        lambda: fuse.load_run(wrong),
        lambda: fuse.train(wrong, labels, tmp_path / "out", settings),
        lambda: fuse.train(store, wrong, tmp_path / "out", settings),
        lambda: fuse.train(store, labels, wrong, settings),
        lambda: fuse.compare(wrong, labels, tmp_path / "out", "concat", settings=settings),
        lambda: fuse.compare(store, wrong, tmp_path / "out", "concat", settings=settings),
        lambda: fuse.ablate(store, wrong, tmp_path / "out", settings=settings),
        lambda: fuse.crossval(wrong, labels, tmp_path / "out", [], settings),
        lambda: fuse.choose_folds(wrong, tmp_path / "videos.csv"),
    ):
        with pytest.raises(UsageError, match=f"not a {type(wrong).__name__}"):
            use()
    assert not (tmp_path / "out").exists()


def test_a_constant_scores_zero_however_it_is_asked():
    x, flat = np.linspace(-1, 1, 9)[:, None], np.full((9, 1), 0.1)
    for truth, prediction in ((x, flat), (flat, x), (flat, flat)):
        assert ccc(truth[:, 0], prediction[:, 0]) == 0
        assert ccc_of_moments(moments(truth, prediction)) == 0
    small = 1e-7 * x  # not constant, however little it moves
    assert ccc(small[:, 0], small[:, 0]) == pytest.approx(1)
    assert ccc_of_moments(moments(small, small)) == pytest.approx(1)


def test_differences_and_scores_have_the_same_kind_of_interval():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(6, 40, 1))
    one, other = (np.array([[moments(t, t + rng.normal(size=t.shape)) for t in x]]) for _ in range(2))
    found = paired_bootstrap(one, other)
    np.testing.assert_allclose(found.high - found.value, found.value - found.low)


def test_what_interval_it_is_stands_where_it_is_printed():
    x = np.linspace(-1, 1, 9)[:, None]
    judged = judge({"a": (x, x), "b": (x, x**3)}, ["valence"])
    text = score_table({"partition": "all", "left_out": {}, **judged})
    assert f"Student's t from {RESAMPLES} resamples of the videos, on Fisher's z" in text


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


EPOCH = {"epoch": 1, "epochs": 3, "loss": 0.75, "ccc_mean": 0.5}


def test_progress_is_seen_on_a_terminal(monkeypatch):
    for stream, seen in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr("sys.stderr", stream)
        console.show_progress("1 of 2 videos", None, False)
        console.show_progress("2 of 2 videos", "b: it is no video", True)
        progress._Epochs().show(EPOCH)
        console.say("done")
        text = stream.getvalue()
        assert ("1 of 2 videos" in text) is seen
        assert "epoch 1 of 3: loss 0.750, CCC 0.500" in text
        assert "failed: b: it is no video" in text
        assert text.endswith("done\n")


def test_in_a_pipe_training_says_now_and_then_where_it_is(monkeypatch):
    clock = iter([100.0, 100.0, 101.0, 109.9, 110.0, 110.0, 119.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    monkeypatch.setattr("sys.stderr", io.StringIO())
    show = progress._Epochs().show
    for epoch in range(1, 6):
        show({**EPOCH, "epoch": epoch})
    said = [f"  epoch {epoch} of 3: loss 0.750, CCC 0.500" for epoch in (1, 4)]
    assert sys.stderr.getvalue().splitlines() == said


def test_features_of_another_kind_are_refused(trained, tmp_path):
    other, _ = tiny.make_data(tmp_path, 1, 1, made=tiny.provenance("iresnet50"))
    with pytest.raises(AffuseError, match="resnet50 → iresnet50"):
        fuse.load_run(trained[0]).predict(other)
