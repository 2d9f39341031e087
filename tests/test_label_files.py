"""CSV labels: what is read, laid on frames, scored at their own rate; a folder's new split; closed gaps."""

from pathlib import Path

import numpy as np
import pytest

import tiny
from affuse import fuse
from affuse.errors import AffuseError, UsageError
from affuse.fuse.data.labels import read_track
from affuse.fuse.data.partitions import Split, find_labels
from affuse.fuse.data.pool import load_corpus
from affuse.fuse.data.track import Track, lay, on_rows, resample
from affuse.fuse.scoring.metrics import ccc
from affuse.fuse.training.settings import train_settings


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def test_columns_are_known_by_their_names_in_any_order(tmp_path):
    path = write(tmp_path / "a.csv", "dominance, Time, valence", "0.1,0.0,0.2", ",0.5,-5", "-1, 1.0 ,1")
    track = read_track(path)
    assert track.targets == ("dominance", "valence")
    np.testing.assert_array_equal(track.time, [0, 0.5, 1])
    assert track.valid.tolist() == [True, False, True]
    values, usable = track.pick(["valence"])
    np.testing.assert_array_equal(values[usable, 0], np.float32([0.2, 1]))
    semicolons = write(tmp_path / "b.csv", "valence;arousal", "0.5;0", "0.25;")
    track = read_track(semicolons, 2)
    np.testing.assert_array_equal(track.time, [0, 0.5])
    assert track.pick(["valence"])[1].tolist() == [True, True]
    assert track.pick(["valence", "arousal"])[1].tolist() == [True, False]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["time,valence", "0,0", "0.1,1.5"], "line 3: valence is 1.5, but labels lie in"),
        (["time,valence", "0,0", "0.1,nan"], "line 3: valence is 'nan', not a number"),
        (["time,valence", "0,x"], "line 2: valence is 'x'"),
        (["time,valence", "0,0", "0.2,0", "0.1,0"], "line 4: time 0.1 does not come after 0.2"),
        (["time,valence", "0,0", "0,0"], "line 3: time 0 does not come after 0"),
        (["time,valence", ",0"], "line 2: time is empty"),
        (["time,valence", "0,0", "", "1,0"], "line 3: 0 fields under 2 column names"),
        (["time,valence", "0,0,0"], "line 2: 3 fields"),
        (["time,valence,valence", "0,0,0"], "line 1: the column 'valence' is there twice"),
        (["0.0,0.5", "0.1,0.5"], "line 1: The file seems to have no header"),
        (["time,", "0,0"], "line 1: A column has no name"),
        (["time", "0"], "line 1: no target"),
        (["time,valence"], "no rows"),
        ([""], "is empty"),
        (["valence", "0"], "--rate 25"),
        (["start,valence", "0,0"], "line 1: the columns start do not say"),
        (
            ["time,valence", "0,0", "1e300,0"],
            "line 3: the row is at 1e+300 s; labels go on for 24 hours at most",
        ),
        (["start,end,valence", "0,1,0", "1,1e5,0"], "line 3: the row is at 100000 s; labels go on"),
        (["time,valence", "-1e300,0"], "line 2: the row is at 1e+300 s"),
        (["time,valence", f"0,{'9' * 200_000}"], "field larger than field limit"),
        (["start,end,valence", "0,0,0"], "line 2: the row ends at 0, not after"),
        (["start,end,valence", "0,2,0", "1,3,0"], "line 3: the row starts at 1, before the line above ends"),
    ],
)
def test_a_bad_csv_is_named_with_its_line(tmp_path, lines, message):
    path = write(tmp_path / "clip07.csv", *lines)
    with pytest.raises(AffuseError) as error:
        read_track(path)
    assert str(path) in str(error.value)
    assert message in str(error.value)


def test_two_files_for_one_video_are_refused(tmp_path):
    write(tmp_path / "a.csv", "time,valence", "0,0")
    write(tmp_path / "a.txt", "valence,arousal", "0,0")
    with pytest.raises(AffuseError, match=r"a\.csv and .*a\.txt both label video 'a'"):
        find_labels(tmp_path)


def test_suffixes_count_whatever_their_case_and_what_is_no_file_is_named(tmp_path):
    path = write(tmp_path / "train" / "v0.CSV", "time,valence", "0,0")
    assert find_labels(tmp_path) == {"train": {"v0": path}}
    assert read_track(path).targets == ("valence",)
    for name, make in (("x.csv", Path.mkdir), ("y.TXT", lambda link: link.symlink_to(tmp_path / "nowhere"))):
        make(tmp_path / "train" / name)
        with pytest.raises(AffuseError, match=rf"{name} has the name of a label file, but is no file"):
            find_labels(tmp_path)
        (tmp_path / "train" / name).rename(tmp_path / f"{name}.elsewhere")


@pytest.mark.parametrize("rate", [float("inf"), 1e300, float("nan")])
def test_a_rate_that_cannot_be_is_refused(rate):
    with pytest.raises(UsageError, match="Setting label_rate"):
        train_settings(label_rate=rate)


# ---- from one clock to another


def track_of(tmp_path, time, values, end=None):
    values = np.asarray(values, np.float32).reshape(len(time), -1)
    valid = ~np.isnan(values).any(1)
    return Track(tmp_path, ("valence",), values, valid, np.asarray(time, float), end)


def test_sparse_labels_are_lines_on_the_frames_and_gaps_stay_gaps(tmp_path):
    # 2 Hz labels at 0, .5, 1, 1.5, 2 of which the one at 1 s is missing; frames every 0.25 s
    track = track_of(tmp_path, [0, 0.5, 1, 1.5, 2], [0, 1, np.nan, -1, 0])
    values, valid = lay(track, ["valence"], np.arange(12) * 0.25)
    assert (
        valid.tolist() == [True] * 4 + [False] + [True] * 5 + [False] * 2
    )  # 0.75 and 1.25 are half a row away
    np.testing.assert_allclose(values[:, 0], [0, 0.5, 1, 1, 0, -1, -1, -0.5, 0, 0, 0, 0])


def test_no_line_is_drawn_over_rows_that_are_not_in_the_file(tmp_path):
    track = track_of(tmp_path, [0, 0.5, 1.5, 2], [0, 1, -1, 0])  # there is no row at 1 s
    values, valid = lay(track, ["valence"], np.arange(5) / 2)
    assert valid.tolist() == [True, True, False, True, True]
    np.testing.assert_allclose(values[:, 0], [0, 1, 0, -1, 0])


def test_dense_labels_are_means_on_the_frames(tmp_path):
    # 8 Hz labels, frames at 2 Hz: labels within a quarter second, its end not included
    track = track_of(tmp_path, np.arange(12) / 8, [0, 1, 2, 3, 4, 5, np.nan, 7, 8, 9, 10, 11])
    values, valid = lay(track, ["valence"], np.array([0, 0.5, 1.0]))
    assert valid.all()
    np.testing.assert_allclose(values[:, 0], [(0 + 1) / 2, (2 + 3 + 4 + 5) / 4, (7 + 8 + 9) / 3])


def test_spans_hold_from_start_to_end(tmp_path):
    track = track_of(tmp_path, [0.2, 1.0], [0.5, -0.5], np.array([0.6, 1.2]))
    time = np.arange(8) * 0.2
    values, valid = lay(track, ["valence"], time)
    assert valid.tolist() == [False, True, True, False, False, True, False, False]
    np.testing.assert_allclose(values[valid, 0], [0.5, 0.5, -0.5])
    truth, prediction = on_rows(track, ["valence"], time, np.arange(8.0)[:, None])
    np.testing.assert_allclose(truth[:, 0], [0.5, -0.5])
    np.testing.assert_allclose(prediction[:, 0], [1.5, 5])


def slowly(time, values, valid, at):
    """`resample` in the words of its docstring, a moment at a time."""
    spacing, step = np.median(np.diff(time)), np.median(np.diff(at))
    laid, there = np.zeros(len(at)), np.zeros(len(at), bool)
    for i, t in enumerate(at):
        if step > 1.5 * spacing:
            near = [
                v
                for s, v, ok in zip(time, values, valid, strict=True)
                if ok and t - step / 2 <= s < t + step / 2
            ]
            if near:
                laid[i], there[i] = np.mean(near), True
            continue
        for a in range(len(time) - 1):
            if (
                time[a] <= t <= time[a + 1]
                and valid[a]
                and valid[a + 1]
                and time[a + 1] - time[a] <= 1.5 * spacing
            ):
                part = (t - time[a]) / (time[a + 1] - time[a])
                laid[i], there[i] = values[a] * (1 - part) + values[a + 1] * part, True
        if not there[i]:
            near = [(abs(s - t), a) for a, s in enumerate(time) if valid[a] and abs(s - t) <= spacing / 2]
            if near:
                laid[i], there[i] = values[min(near)[1]], True
    return laid, there


@pytest.mark.parametrize(
    ("rate", "at_rate"), [(2, 25), (10, 25), (25, 25), (25, 10), (100, 25), (25, 2), (30, 24.7)]
)
def test_resampling_is_that_of_a_slow_obvious_implementation(rate, at_rate):
    rng = np.random.default_rng(int(rate * at_rate))
    time, at = np.arange(0.013, 8, 1 / rate), np.arange(0, 9, 1 / at_rate)
    time = np.delete(time, slice(len(time) // 3, len(time) // 2))  # rows that are not there at all
    values, valid = rng.normal(size=len(time)), rng.random(len(time)) < 0.8
    expected, there = slowly(time, values, valid, at)
    laid, seen = resample(time, values[:, None], valid, at)
    assert seen.tolist() == there.tolist()
    np.testing.assert_allclose(laid[:, 0], expected, atol=1e-12)


def test_labels_that_go_on_after_the_video_are_refused(tmp_path):
    track = track_of(tmp_path / "a.csv", np.arange(100) / 10, np.zeros(100))
    with pytest.raises(AffuseError, match=r"a\.csv goes on to 9\.90 s, its video ends at 8\.00 s"):
        lay(track, ["valence"], np.arange(200) / 25)
    assert lay(track, ["valence"], np.arange(230) / 25)[1].all()


# ---- through training and scoring


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    """Videos with valence alone, at 5 Hz, without a time column."""
    folder = tmp_path_factory.mktemp("sparse")
    store, labels = tiny.make_data(folder, 3, 2)
    for path in sorted(labels.rglob("*.txt")):
        values = np.loadtxt(path, delimiter=",", skiprows=1)[::5, 0]
        write(path.with_suffix(".csv"), "valence", *("" if v == -5 else f"{v:.4f}" for v in values))
        path.unlink()
    return store, labels


def test_labels_are_scored_at_their_own_rate(sparse, tmp_path):
    store, labels = sparse
    settings = tiny.small(epochs=2, target="valence", label_rate=5, gaps="mask")
    result = fuse.train(store, labels, tmp_path / "run", settings)
    scored = fuse.evaluate(tmp_path / "run", store, labels)
    assert scored["ccc"] == result["best"]["ccc"]
    fuse.predict(tmp_path / "run", store, tmp_path / "out", ["set/v0", "set/v1"], figures=False)
    truth, prediction = [], []
    for video, path in find_labels(labels)["validation"].items():
        made = np.genfromtxt(
            tmp_path / "out" / f"{video.replace('/', '%2F')}.csv", delimiter=",", skip_header=1
        )
        for i, text in enumerate(path.read_text().split("\n")[1:-1]):
            if text:  # the mean of the frames from half a row before to half a row after
                near = (made[:, 0] >= i / 5 - 0.1 - 1e-6) & (made[:, 0] < i / 5 + 0.1 - 1e-6)
                truth.append(float(text))
                prediction.append(made[near, 1].mean())
    assert scored["frames"] == len(truth)
    assert scored["ccc"]["valence"] == pytest.approx(ccc(truth, prediction), abs=1e-5)
    with pytest.raises(AffuseError, match="--rate 25"):
        fuse.train(store, labels, tmp_path / "other", tiny.small(target="valence"))


def test_a_new_split_never_takes_a_test_video(tmp_path):
    for partition, video in (("train", "a"), ("train", "b"), ("validation", "c"), ("test", "d")):
        write(tmp_path / partition / f"{video}.csv", "time,valence", "0,0")
    split = find_labels(tmp_path, Split(["a"], resplit=True))
    assert {name: list(files) for name, files in split.items()} == {
        "train": ["b", "c"],
        "validation": ["a"],
        "test": ["d"],
    }
    with pytest.raises(UsageError, match="'d' is in the test partition"):
        find_labels(tmp_path, Split(["a", "d"], resplit=True))
    with pytest.raises(UsageError, match="'x' has no label file"):
        find_labels(tmp_path, Split(["x"], resplit=True))


def test_closed_gaps_take_frames_out_and_masked_ones_keep_the_clock(tmp_path):
    store, labels = tiny.make_data(tmp_path, 2, 1)
    files = find_labels(labels)["train"]
    tracks = {video: read_track(path) for video, path in files.items()}
    corpus = load_corpus(store, files, ["visual", "audio"], ["valence", "arousal"], tracks)
    closed = corpus.closed("train")
    assert np.diff(corpus.start).tolist() == [70, 77]
    assert np.diff(closed.start).tolist() == [67, 74]
    assert closed.annotated.all()
    kept = np.delete(np.arange(147), [3, 4, 5, 73, 74, 75])
    np.testing.assert_array_equal(closed.time, corpus.time[kept])
    np.testing.assert_array_equal(closed.features["audio"][:], corpus.features["audio"][:][kept])
    run = fuse.train(store, labels, tmp_path / "run", tiny.small(epochs=1, gaps="close"))
    assert fuse.evaluate(tmp_path / "run", store, labels)["ccc"] == run["best"]["ccc"]
