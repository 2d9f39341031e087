"""Features at another frame rate: stores, imports, and which rows stand for a moment."""

import dataclasses

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import tiny
from affuse import commands as cli
from affuse import fuse
from affuse.errors import UsageError
from affuse.features import FeatureStore, VideoFeatures, resample_store
from affuse.features.resampling import resampled
from affuse.features.timeline import SLACK, Spans, frame_rate, moments, on_clock
from builders import WIDTHS, random_video
from scenes import SECONDS, even, make_data, same, sample, settings, uneven, weights

pytestmark = pytest.mark.usefixtures("undrawn")


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


def test_a_store_is_resampled_once_and_what_is_there_is_kept(tmp_path):
    store, made = FeatureStore(tmp_path / "store", create=True), tiny.provenance()
    video, _ = sample("b", even(30), 1)
    store.write(sample("a", even(30), 0)[0], made)
    store.write(VideoFeatures.undecodable("b", video.source, "its worker died", made), made)
    store.write(sample("c", even(30), 2)[0], made)

    def bring():
        found = resample_store(FeatureStore(store.path), tmp_path / "out", 5)
        return found["written"], found["kept"], found["failed"]

    assert bring() == (["a", "b", "c"], [], {})
    assert bring() == ([], ["a", "b", "c"], {})
    store.write(sample("a", even(24), 0)[0], made)  # another source
    store.write(video, made)  # the same, extracted again with more luck
    assert bring() == (["a", "b"], ["c"], {})
    assert FeatureStore(tmp_path / "out")["b"].frames == 5 * SECONDS
    path = store.shard("c")
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 1
    path.write_bytes(whole)
    command = ["features", "resample", str(store.path), "--fps", "5", "--out", str(tmp_path / "new")]
    answer = CliRunner().invoke(cli.main, command)
    assert (answer.exit_code, answer.stdout[:27]) == (1, "2 written, 0 kept, 1 failed")
    assert "failed: c: " in answer.stderr
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
    video, _ = sample("a", even(30), 0)
    for m in ("visual", "audio"):
        (tmp_path / "mine" / m).mkdir(parents=True)
        np.save(tmp_path / "mine" / m / "a.npy", getattr(video, m).embedding.astype(np.float32))

    def bring(store, *options):
        command = ["features", "import", tmp_path / store, "--from", tmp_path / "mine", *options]
        answer = CliRunner().invoke(cli.main, list(map(str, command)))
        assert answer.exit_code == 0, answer.output
        return answer.stdout.split(".")[0]

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
