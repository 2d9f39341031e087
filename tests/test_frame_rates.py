"""A model belongs to a frame rate: it reads videos of any other at its own, and answers on their frames."""

import csv
import dataclasses
import logging

import numpy as np
import pandas as pd
import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import tiny
from affuse import __main__ as cli
from affuse import fuse
from affuse.errors import AffuseError, UsageError
from affuse.features import MODALITIES, FeatureStore, align, resample_store
from affuse.features.resampling import resampled
from affuse.features.timeline import SLACK, Spans, frame_rate, moments, on_clock
from affuse.fuse.data.clock import read_otherwise
from affuse.fuse.experiments.folds import Fold
from affuse.fuse.scoring.metrics import ccc
from affuse.fuse.training.checkpoint import read_tensors
from affuse.pipelines.prediction import Run
from builders import WIDTHS, random_video

pytestmark = pytest.mark.usefixtures("undrawn")

SECONDS = 20
RATES = (10, 5, 24, 25, 29.97, 30, 50, 60)


def even(fps, seconds=SECONDS):
    return np.arange(round(seconds * fps)) / fps


def uneven(seconds=SECONDS):
    steps = np.random.default_rng(3).uniform(1 / 40, 1 / 12, 40 * seconds)
    time = np.cumsum(steps) - steps[0]
    return time[time < seconds]


def make_data(folder, train, validation, timed=False):
    """A store of scenes seen with these clocks {video: times}, and labels of its frames, or of 4 rows a second."""
    store = FeatureStore(folder / "store", create=True)
    for scene, (name, time) in enumerate({**train, **validation}.items()):
        video, truth = tiny.sample(name, time, scene)
        store.write(video, tiny.provenance())
        path = folder / "labels" / ("train" if name in train else "validation") / name
        if timed:
            at = even(4)
            table = pd.DataFrame(tiny.sample(name, at, scene)[1], columns=["valence", "arousal"]).assign(
                time=at
            )
            path.parent.mkdir(parents=True, exist_ok=True)
            table.to_csv(f"{path}.csv", index=False)
        else:
            tiny.write_labels(path.with_name(f"{name}.txt"), truth)
    return store, folder / "labels"


def settings(**changes):
    return tiny.small(**{"window": 64, "hop": 64, "epochs": 2, "batch": 8, "warmup_epochs": 0, **changes})


def weights(path):
    tensors, facts = read_tensors(path / "model.safetensors")
    return tensors, facts["fps"]


def same(one, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


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
        store.write(tiny.sample(name, time, scene=50)[0], tiny.provenance())
    return times, store


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    train = {"a": even(10), "b": even(10), "c": even(30), "d": uneven()}
    return make_data(tmp_path_factory.mktemp("mixed"), train, {"v": even(25), "w": even(10)})


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
    truth = tiny.sample("v", even(30), 1)[1]
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


def test_labels_of_their_own_clock_and_closed_gaps(tmp_path):
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
    result = fuse.train(store, labels, tmp_path / "gaps-run", settings(gaps="close"))
    scored = fuse.evaluate(tmp_path / "gaps-run", store, labels, permutations=0)
    assert scored["ccc"] == pytest.approx(result["best"]["ccc"], abs=1e-6)
    assert scored["per_video"]["v"]["frames"] == 30 * SECONDS - 100


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
    folds = [Fold("one", ("a", "c", "v")), Fold("two", ("b", "d"))]
    found = fuse.crossval(store, labels, tmp_path / "cv", folds, settings(epochs=1))
    assert {fuse.load_run(tmp_path / "cv" / fold.name).fps for fold in folds} == {10}
    assert found["per_video"]["c"]["frames"] == 30 * SECONDS
    with (tmp_path / "cv" / "ensemble" / "w.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 10 * SECONDS
    result = fuse.compare(
        store, labels, tmp_path / "compared", {"one": {}, "other": {"fps": 25}}, settings=settings(epochs=1)
    )
    assert list(result.table["videos"]) == [2, 2]
    assert list(result.differences["videos"]) == [2, 2, 2]


# ---- stores at another rate


def test_a_store_at_another_rate_is_what_a_run_at_that_rate_reads(tmp_path):
    clocks = {"a": even(30), "b": uneven(), "c": even(5)}
    store, labels = make_data(tmp_path, clocks, {"v": even(25)}, timed=True)
    command = ["features", "resample", str(store.path), "--fps", "5", "--out", str(tmp_path / "slow")]
    answer = CliRunner().invoke(cli.main, command)
    assert (answer.exit_code, answer.stdout) == (
        0, f"4 written, 0 kept, 0 failed: {tmp_path / 'slow'}, 5 frames a second.\n"
    )  # fmt: skip
    slow = FeatureStore(tmp_path / "slow")
    assert slow.provenance.settings == {**store.provenance.settings, "resample": 5.0}
    assert slow.provenance.settings_hash != store.provenance.settings_hash
    assert (slow["a"].fps, slow["a"].frames, slow["a"].duration) == (5, 5 * SECONDS, store["a"].duration)
    assert slow["a"].transcript == store["a"].transcript
    assert slow.verify().problems == []
    fuse.train(store, labels, tmp_path / "one", settings(fps=5))
    fuse.train(slow, labels, tmp_path / "other", settings())
    (one, fps), (other, same_fps) = weights(tmp_path / "one"), weights(tmp_path / "other")
    assert same(one, other)
    assert fps == same_fps == 5
    run = fuse.load_run(tmp_path / "other")
    there, here = run.predict(slow, ["a"])["a"], run.predict(store, ["a"])["a"]
    np.testing.assert_allclose(here.values[::6], there.values, atol=1e-6)
    assert len(here.time) == 30 * SECONDS


def test_a_store_is_resampled_once_and_what_is_there_is_kept(mixed, tmp_path):
    store = FeatureStore(mixed[0].path)
    assert resample_store(store, tmp_path / "out", 5)["written"] == store.ids
    tiny_change, _ = tiny.sample("a", even(20), 0)
    (tmp_path / "copy").mkdir()
    copy = FeatureStore(tmp_path / "copy", create=True)
    for video in store:
        copy.write(tiny_change if video == "a" else store[video], store.provenance)
    again = resample_store(copy, tmp_path / "out", 5)
    assert (again["written"], len(again["kept"])) == (["a"], len(store) - 1)
    with pytest.raises(UsageError, match=r"resampled already, to 5 frames"):
        resample_store(FeatureStore(tmp_path / "out"), tmp_path / "more", 2)
    with pytest.raises(
        UsageError, match=r"of another kind: settings.resample: 4.0 → 5.0. Choose another --out"
    ):
        resample_store(store, tmp_path / "out", 4)
    with pytest.raises(UsageError, match="--fps 0 is no frame rate"):
        resample_store(store, tmp_path / "more", 0)


def test_views_and_boxes_go_along():
    video = random_video(frames=100, views=("flip",))
    slow = resampled(video, video.visual.time, 5)
    five = slice(18, 23)  # 25 a second, around 0.8 s
    valid = video.visual.valid[five]
    for name, rows in (("embedding", video.visual.embedding), ("flip", video.visual.views["flip"])):
        found = slow.visual.embedding if name == "embedding" else slow.visual.views[name]
        np.testing.assert_array_equal(
            found[4], rows[five][valid].astype(np.float32).mean(0).astype(np.float16)
        )
    np.testing.assert_allclose(slow.visual.box[4], video.visual.box[five][valid].mean(0), rtol=1e-6)
    np.testing.assert_allclose(
        slow.visual.confidence[4], video.visual.confidence[five][valid].mean(), rtol=1e-6
    )
    assert resampled(video, video.visual.time, 25.1) is video
    sound = dataclasses.replace(video, fps=0.0, frames=0, visual=random_video(frames=0).visual)
    slow = resampled(sound, sound.audio.time, 5)
    assert (slow.fps, slow.frames, len(slow.visual.time), len(slow.audio.time)) == (0, 0, 0, 20)


def test_an_import_at_another_rate(tmp_path):
    video, _ = tiny.sample("a", even(30), 0)
    for m in ("visual", "audio"):
        (tmp_path / "mine" / m).mkdir(parents=True)
        np.save(tmp_path / "mine" / m / "a.npy", getattr(video, m).embedding.astype(np.float32))

    def bring(store, *options):
        command = ["features", "import", tmp_path / store, "--from", tmp_path / "mine", *options]
        answer = CliRunner().invoke(cli.main, list(map(str, command)))
        assert answer.exit_code == 0, answer.output
        return answer.stdout.split(":")[0]

    assert (
        bring("whole", "--rate", 30)
        == bring("slow", "--rate", 30, "--resample", 5)
        == "1 written, 0 kept, 0 failed"
    )
    resample_store(FeatureStore(tmp_path / "whole"), tmp_path / "other", 5)
    slow, other = FeatureStore(tmp_path / "slow"), FeatureStore(tmp_path / "other")
    assert slow.provenance == other.provenance
    assert slow.header("a").features_digest == other.header("a").features_digest
    assert slow["a"].frames == 5 * SECONDS
    # The clock that is given is one of the settings.
    assert bring("whole", "--rate", 30) == "0 written, 1 kept, 0 failed"
    assert bring("whole", "--rate", 25) == "1 written, 0 kept, 0 failed"
    assert FeatureStore(tmp_path / "whole").provenance.settings["rates"] == {"visual": 25, "audio": 25}
    assert bring("whole", "--rate", 25, "--time-column", "seconds") == "1 written, 0 kept, 0 failed"


def test_a_clock_is_no_other_kind_of_features(at_ten, tmp_path):
    made = at_ten.provenance
    for clock in ({"resample": 5.0}, {"rates": {"visual": 25.0}}, {"time_column": "seconds"}):
        other = dataclasses.replace(made, settings={**made.settings, **clock}, settings_hash="other")
        assert at_ten.differences(other) == ""
    other = dataclasses.replace(made, settings={**made.settings, "size": 112}, settings_hash="other")
    assert at_ten.differences(other) == "settings.size: 224 → 112"


def test_a_run_on_a_resampled_store_of_extracted_features_takes_videos(at_ten, tmp_path):
    from affuse.extract.settings import PROFILES, ExtractSettings

    extracted = {**ExtractSettings(backbones=PROFILES["offline"]).model_dump(mode="json"), "resample": 5.0}
    run = Run(**{**vars(at_ten), "provenance": dataclasses.replace(at_ten.provenance, settings=extracted)})
    with pytest.raises(UsageError, match="no-such"):  # and not that these settings are unknown
        run.predict(tmp_path / "no-such.mp4")


# ---- the operator

clock_times = st.lists(st.integers(0, 640), min_size=1, max_size=40).map(lambda n: np.sort(n) / 64)
rates = st.sampled_from([1, 2, 4, 7.5, 10, 16, 25, 64])


@given(time=clock_times, fps=rates)
def test_moments_lie_inside_and_are_even(time, fps):
    made = moments(time, fps)
    assert made[0] == time[0]
    assert made[-1] <= time[-1] + SLACK
    assert time[-1] - made[-1] < 1 / fps
    np.testing.assert_allclose(np.diff(made), 1 / fps, atol=1e-9)
    assert on_clock(made, fps)


@given(rows=clock_times, fps=rates, data=st.data())
def test_rows_at_moments_are_what_a_slow_look_finds(rows, fps, data):
    valid = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
    values = np.random.default_rng(len(rows)).normal(size=(len(rows), 3)).astype(np.float16)
    time = moments(rows, fps)
    spans = Spans(rows, valid, time, 1 / fps)
    found, constant = spans(values), spans(np.full((len(rows), 2), 0.7, np.float16))
    reach = np.median(np.diff(rows)) / 2 if len(rows) > 1 else 0.5
    for i, t in enumerate(time):
        inside = (rows >= t - 0.5 / fps - SLACK) & (rows < t + 0.5 / fps - SLACK)
        nearest = np.abs(rows - t).argmin()
        near = not inside.any() and abs(rows[nearest] - t) <= reach + SLACK
        alone = np.array([nearest] if near and valid[nearest] else [], int)
        which = np.flatnonzero(inside & valid) if inside.any() else alone
        assert spans.there[i] == bool(len(which))
        expected = values[which].astype(np.float64).mean(0) if len(which) else np.zeros(3)
        np.testing.assert_allclose(found[i], expected, atol=1e-3, rtol=1e-3)
        np.testing.assert_allclose(constant[i], np.float16(0.7) if len(which) else 0, rtol=1e-3)


@given(frames=st.integers(2, 50), fps=rates, seed=st.integers(0, 9))
def test_on_its_own_clock_a_video_stays_as_it_is(frames, fps, seed):
    video = random_video(frames=frames, seed=seed)
    time = 0.5 + np.arange(frames) / fps
    spans = Spans(time, video.visual.valid, moments(time, frame_rate(time)), 1 / fps)
    np.testing.assert_array_equal(spans(video.visual.embedding), video.visual.embedding)
    np.testing.assert_array_equal(spans.there, video.visual.valid)
    assert video.visual.embedding.shape[1] == WIDTHS["visual"]
    assert frame_rate(time) == pytest.approx(fps)
    assert on_clock(time, fps * 1.009)
    assert not on_clock(time, fps * 1.011)
