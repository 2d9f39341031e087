"""A model belongs to a frame rate: it reads videos of any other at its own, and answers on their frames."""

import dataclasses
import logging

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import tiny
from affuse import commands as cli
from affuse import fuse
from affuse.errors import AffuseError, UsageError
from affuse.features import MODALITIES, FeatureStore, align
from affuse.fuse.data.clock import read_otherwise
from affuse.fuse.experiments.folds import Fold
from affuse.fuse.scoring.metrics import ccc
from affuse.pipelines.prediction import Run
from scenes import SECONDS, even, make_data, same, sample, settings, uneven, weights

pytestmark = pytest.mark.usefixtures("undrawn")

RATES = (10, 5, 24, 25, 29.97, 30, 50, 60)


@pytest.fixture(scope="module")
def at_ten(tmp_path_factory):
    """A run that was trained at 10 frames a second, well enough to follow."""
    folder = tmp_path_factory.mktemp("ten")
    data = make_data(folder, {f"t{i}": even(10, 30) for i in range(5)}, {"v0": even(10, 30)})
    fuse.train(*data, folder / "run", settings(epochs=20, learning_rate=1e-2, warmup_epochs=5))
    return fuse.load_run(folder / "run")


@pytest.fixture(scope="module")
def clocks(tmp_path_factory):
    """One scene seen at any rate: {video: times}, and the store."""
    times = {**{f"{rate:g}": even(rate) for rate in RATES}, "uneven": uneven()}
    store = FeatureStore(tmp_path_factory.mktemp("clocks"), create=True)
    for name, time in times.items():
        store.write(sample(name, time, scene=50)[0], tiny.provenance())
    return times, store


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    train = {"a": even(10), "b": even(10), "c": even(30), "d": uneven()}
    store, labels = make_data(tmp_path_factory.mktemp("mixed"), train, {"v": even(25), "w": even(10)})
    store.write(sample("unlabelled", even(50), 9)[0], store.provenance)
    return store, labels


# ---- what a run says of videos of other rates


def test_at_every_rate_the_run_says_what_it_says_at_its_own(at_ten, clocks):
    times, store = clocks
    found = at_ten.predict(store)
    reference = found["10"]
    for name, time in times.items():
        np.testing.assert_array_equal(found[name].time, time)
        for one, other in zip(reference.values.T, found[name].values.T, strict=True):
            assert ccc(one, np.interp(reference.time, time, other)) >= 0.95, name
    # Read on its own frames, as any model was before, the same video is another one.
    other = dataclasses.replace(at_ten, fps=None).predict(store, ["60"])["60"]
    assert ccc(reference.values[:, 0], np.interp(reference.time, other.time, other.values[:, 0])) < 0.9


def test_what_was_there_is_what_was_there_in_the_video(at_ten, clocks):
    times, store = clocks
    for name, made in at_ten.predict(store, ["30", "uneven", "5"]).items():
        aligned = align(store[name], times[name])
        for m in MODALITIES:
            np.testing.assert_array_equal(made.present[m], aligned[m][1])
        assert not made.present["visual"].all()
        assert np.abs(made.values).max() <= 1


def test_it_is_said_once(at_ten, clocks, tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "affuse"):
        at_ten.predict(clocks[1], ["10", "25", "29.97", "30"])
    assert caplog.messages == ["3 videos of other frame rates (25, 29.97, 30 fps) were read at the run's 10"]
    command = ["fuse", "predict", "--run", at_ten.path, "--features", clocks[1].path, "--out", tmp_path]
    answer = CliRunner().invoke(cli.main, list(map(str, command)))
    assert answer.exit_code == 0
    assert "8 videos of other frame rates (5, 18.28, 24, 25, 29.97, … fps) were read" in answer.stderr
    assert len(pd.read_csv(tmp_path / "60.csv")) == 60 * SECONDS


def test_what_is_said_of_the_rates():
    assert read_otherwise([], 10) == ""
    assert read_otherwise([25], 10) == "1 video of another frame rate (25 fps) was read at the run's 10"
    assert "2 videos of other frame rates (9.95 uneven, 29.97 fps) were read" in read_otherwise(
        [29.97, 9.95], 10
    )


def test_explained_on_the_videos_own_frames(at_ten, clocks):
    times, store = clocks
    own, fine = (at_ten.explain(store, [name])[name] for name in ("10", "30"))
    np.testing.assert_array_equal(fine["time"], times["30"])
    np.testing.assert_array_equal(fine["valence"], at_ten.predict(store, ["30"])["30"].values[:, 0])
    seen = align(store["30"], times["30"], ["visual"])["visual"][1]
    np.testing.assert_array_equal(fine["update_visual_1"].notna(), seen)
    assert fine["update_audio_1"].notna().all()
    both = own["update_visual_1"].notna() & fine["update_visual_1"][::3].notna().to_numpy()
    one, other = own["update_visual_1"][both], fine["update_visual_1"][::3][both.to_numpy()]
    assert ccc(one.to_numpy(), other.to_numpy()) > 0.8


def test_a_video_of_30_is_scored_on_all_its_rows(at_ten, tmp_path):
    store, labels = make_data(tmp_path, {"a": even(30)}, {"v": even(30), "w": uneven()})
    for rows in (0, 1):  # the row too many that is tolerated
        path = labels / "validation" / "v.txt"
        path.write_text(path.read_text() + "0,0\n" * rows)
        found = at_ten.evaluate(store, labels, permutations=0)
        assert {video: each["frames"] for video, each in found["per_video"].items()} == {
            "v": 30 * SECONDS, "w": len(uneven())
        }  # fmt: skip
    assert found["ccc"]["mean"] > 0.7
    made = at_ten.predict(store, ["v"])["v"]
    truth = sample("v", even(30), 1)[1]
    expected = ccc(truth[:, 0], made.values[:, 0])
    assert found["per_video"]["v"]["valence"] == pytest.approx(expected, abs=1e-5)
    path.write_text("\n".join(path.read_text().splitlines()[:-4]) + "\n")
    with pytest.raises(
        AffuseError, match=f"has {30 * SECONDS - 3} rows, its video has {30 * SECONDS} frames"
    ):
        at_ten.evaluate(store, labels)


# ---- training on several rates


@pytest.mark.parametrize(
    ("wanted", "fps", "read_otherwise"),
    [("common", 10, 3), ("own", None, 0), (12.5, 12.5, 6), (30, 30, 5)],
)
def test_a_mixed_set_is_read_at_one_rate_or_as_it_is(mixed, tmp_path, caplog, wanted, fps, read_otherwise):
    store, labels = mixed
    with caplog.at_level(logging.WARNING, "affuse"):
        result = fuse.train(store, labels, tmp_path / "run", settings(fps=wanted))
    said = [message for message in caplog.messages if "frame rates" in message]
    assert [message.split()[0] for message in said] == [str(read_otherwise)] * bool(read_otherwise)
    run = fuse.load_run(tmp_path / "run")
    assert run.fps == fps
    card = (tmp_path / "run" / "card.md").read_text()
    assert (f"at {fps:g} frames per second" if fps else "every video's own frames") in card.replace("\n", " ")
    assert (f"at {fps:g} frames per second" if fps else "any video's own frames") in repr(run)
    scored = run.evaluate(store, labels, permutations=0)
    assert scored["ccc"] == pytest.approx(result["best"]["ccc"], abs=1e-6)
    assert scored["frames"] == 35 * SECONDS
    for name in ("v", "w"):
        written = pd.read_csv(tmp_path / "run" / "predictions" / f"{name}.csv")
        made = run.predict(store, [name])[name]
        np.testing.assert_allclose(written["time"], store.frame_times(name), atol=1e-6)
        np.testing.assert_allclose(written["arousal"], made.values[:, 1], atol=2e-6)


def test_one_rate_can_be_asked_for(mixed, tmp_path):
    store, labels = mixed
    with pytest.raises(AffuseError, match=r"most 10, but c \(30\), d \(18\.2833\)\. Leave them out"):
        fuse.train(store, labels, tmp_path / "run", settings(fps="equal"))
    with pytest.raises(UsageError, match="Setting fps: expected common, equal, own, or frames per second"):
        settings(fps="commno")
    for wrong in (0, -1, float("nan"), float("inf")):
        with pytest.raises(UsageError, match="Setting fps"):
            settings(fps=wrong)


def test_labels_of_their_own_clock_and_closed_gaps(tmp_path, caplog):
    train, validation = {"a": even(10), "b": even(10), "c": even(30)}, {"v": even(30), "w": uneven()}
    store, labels = make_data(tmp_path / "timed", train, validation, timed=True)
    result = fuse.train(store, labels, tmp_path / "timed-run", settings())
    scored = fuse.evaluate(tmp_path / "timed-run", store, labels, permutations=0)
    assert scored["ccc"] == pytest.approx(result["best"]["ccc"], abs=1e-6)
    assert scored["per_video"]["v"]["frames"] == 4 * SECONDS
    store, labels = make_data(tmp_path / "gaps", train, validation)
    path = labels / "validation" / "v.txt"
    rows = path.read_text().splitlines()
    rows[100:200] = ["-5,-5"] * 100
    path.write_text("\n".join(rows) + "\n")
    caplog.clear()
    with caplog.at_level(logging.WARNING, "affuse"):
        result = fuse.train(store, labels, tmp_path / "gaps-run", settings(gaps="close"))
    rates = "18.28, 30"  # of whole videos, not of what is left of them
    assert caplog.messages == [f"3 videos of other frame rates ({rates} fps) were read at the run's 10"]
    scored = fuse.evaluate(tmp_path / "gaps-run", store, labels, permutations=0)
    assert scored["ccc"] == pytest.approx(result["best"]["ccc"], abs=1e-6)
    assert scored["per_video"]["v"]["frames"] == 30 * SECONDS - 100
    assert len(pd.read_csv(tmp_path / "gaps-run" / "predictions" / "v.csv")) == 30 * SECONDS - 100


def test_where_all_rates_are_one_nothing_is_resampled(tmp_path):
    clocks = {"a": even(30), "b": even(29.97), "c": even(30), "d": np.round(even(30), 3)}
    data = make_data(tmp_path, clocks, {"v": even(30)})
    found = {}
    for wanted in ("common", "equal", "own", 30):
        fuse.train(*data, tmp_path / str(wanted), settings(fps=wanted))
        found[wanted] = weights(tmp_path / str(wanted))
    tensors, fps = found["own"]
    assert fps is None
    for wanted in ("common", "equal", 30):
        assert same(tensors, found[wanted][0])
        assert found[wanted][1] == 30


def test_folds_and_comparisons_of_mixed_rates(mixed, tmp_path):
    store, labels = mixed
    folds = [Fold("one", ("a", "b", "w")), Fold("two", ("c", "d", "v"))]
    found = fuse.crossval(store, labels, tmp_path / "cv", folds, settings(epochs=1))
    assert {fuse.load_run(tmp_path / "cv" / fold.name).fps for fold in folds} == {10}
    assert found["per_video"]["c"]["frames"] == 30 * SECONDS
    assert len(pd.read_csv(tmp_path / "cv" / "ensemble" / "unlabelled.csv")) == 50 * SECONDS
    result = fuse.compare(
        store, labels, tmp_path / "compared", {"one": {}, "other": {"fps": 25}}, settings=settings(epochs=1)
    )
    assert list(result.table["videos"]) == [2, 2]
    assert list(result.differences["videos"]) == [2, 2, 2]


# ---- what is no other kind of features


def test_a_clock_is_no_other_kind_of_features(at_ten, tmp_path):
    made = at_ten.provenance
    for clock in ({"resample": 5.0}, {"rates": {"visual": 25.0}}, {"time_column": "seconds"}):
        other = dataclasses.replace(made, settings={**made.settings, **clock}, settings_hash="other")
        assert at_ten.differences(other) == ""
    other = dataclasses.replace(made, settings={**made.settings, "size": 112}, settings_hash="other")
    assert at_ten.differences(other) == "settings.size: 224 → 112"


def test_a_run_on_a_resampled_store_of_extracted_features_takes_videos(at_ten, tmp_path):
    from affuse.extract.profiles import PROFILES
    from affuse.extract.settings import ExtractSettings

    extracted = {**ExtractSettings(backbones=PROFILES["offline"]).model_dump(mode="json"), "resample": 5.0}
    run = Run(**{**vars(at_ten), "provenance": dataclasses.replace(at_ten.provenance, settings=extracted)})
    with pytest.raises(UsageError, match="no-such"):  # and not that these settings are unknown
        run.predict(tmp_path / "no-such.mp4")
