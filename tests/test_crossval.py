"""Folds that never share a subject, runs that are not made twice, out-of-fold scores, and models put together."""

import csv
import json
import re

import numpy as np
import pytest
from click.testing import CliRunner

import affuse
import tiny
from affuse import commands as cli
from affuse import fuse
from affuse.errors import AffuseError, UsageError
from affuse.features import FeatureStore
from affuse.fuse.data.labels import read_abaw
from affuse.fuse.data.partitions import Split, find_labels, partition_files
from affuse.fuse.experiments.crossval import combine
from affuse.fuse.experiments.folds import Fold, grouped_folds, listed_folds, read_videos
from affuse.fuse.reports.tables import fold_table
from affuse.fuse.scoring.metrics import ccc

pytestmark = pytest.mark.usefixtures("undrawn")


def table(path, *lines):
    path.write_text("\n".join(lines) + "\n")
    return path


def test_a_fold_for_each_value(tmp_path):
    path = table(tmp_path / "t.csv", "video,fold,subject", "a,1,p", "b,0,q", "c,1,p", "d,2,r")
    found = listed_folds(read_videos(path, "abcd"))
    assert found == [Fold("0", ("b",)), Fold("1", ("a", "c")), Fold("2", ("d",))]
    assert [fold.validation for fold in listed_folds(read_videos(path, "abcd"), "subject")] == [
        ("a", "c"), ("b",), ("d",)
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("lines", "error", "message"),
    [
        (["video,fold", "a,0", "x,1"], AffuseError, "line 3: video 'x' has no label file"),
        (["video,fold", "a,0", "b,1", "a,1"], AffuseError, "line 4: video 'a' is in line 2 too"),
        (["video,fold", "a,0", "t,1"], UsageError, "line 3: video 't' is in the test partition"),
        (["video,fold", "a,0"], AffuseError, "lacks 1 labelled video: b"),
        (["video,fold", "a,0", "b,"], AffuseError, "line 3: expected a value in each"),
        (["video,fold", "a,0", "b"], AffuseError, "line 3: expected a value in each"),
        (["name,fold", "a,0", "b,1"], UsageError, "line 1: expected different column names"),
        (["video,fold", "a,0", "b,0"], UsageError, "gives one fold only"),
        (["video,part", "a,0", "b,1"], UsageError, "has no column 'fold'"),
        (["video,fold,subject", "a,0,p", "b,1,p"], AffuseError,
         "subject 'p' is in fold 0 with 'a' (line 2) and in fold 1 with 'b' (line 3)"),
        ([], UsageError, "is empty"),
    ],
)  # fmt: skip
def test_a_bad_table_is_named_with_its_line(tmp_path, lines, error, message):
    path = tmp_path / "t.csv"
    path.write_text("\n".join(lines))
    with pytest.raises(error) as raised:
        listed_folds(read_videos(path, ["a", "b"], ["t"]))
    assert str(path) in str(raised.value)
    assert message in str(raised.value)


def test_k_folds_keep_subjects_together_and_are_even(tmp_path):
    sizes = {"p": 5, "q": 3, "r": 3, "s": 2, "t": 1, "u": 1}
    rows = [f"{subject}{i},{subject}" for subject, n in sizes.items() for i in range(n)]
    path = table(tmp_path / "t.csv", "video,subject", *rows)
    videos = read_videos(path, [row.split(",")[0] for row in rows])
    found = grouped_folds(videos, 3)
    assert sorted(len(fold.validation) for fold in found) == [5, 5, 5]
    assert sorted(v for fold in found for v in fold.validation) == sorted(videos.rows)
    for subject in sizes:
        assert sum(any(v.startswith(subject) for v in fold.validation) for fold in found) == 1
    assert grouped_folds(videos, 3) == found
    for k in (1, 7):
        with pytest.raises(UsageError, match="folds cannot be made"):
            grouped_folds(videos, k)


@pytest.mark.parametrize(("one", "other"), [("a#1", "a#2"), ("a_left", "a_right"), ("a", "a_right")])
def test_the_people_of_a_file_in_two_folds_are_named(tmp_path, one, other):
    path = table(tmp_path / "t.csv", "video,fold,subject", f"{one},0,p", f"{other},1,q")
    message = f"file 'a' is in fold 0 with '{one}' (line 2) and in fold 1 with '{other}' (line 3)"
    with pytest.raises(AffuseError, match=re.escape(message)):
        listed_folds(read_videos(path, [one, other]))


def test_the_people_of_a_file_are_never_parted(tmp_path):
    """Their subjects hang together through the file, and a subject's other videos with them."""
    rows = ["c#1,p", "c#2,q", "d,q", "e_left,r", "e_right,s", "f,t", "g,u"]
    path = table(tmp_path / "t.csv", "video,subject", *rows)
    videos = read_videos(path, [row.split(",")[0] for row in rows])
    for k in (2, 3, 4):
        sides = [set(fold.validation) for fold in grouped_folds(videos, k)]
        assert len(sides) == k
        for whole in ({"c#1", "c#2", "d"}, {"e_left", "e_right"}):
            assert any(whole <= side for side in sides)
    with pytest.raises(
        UsageError, match="has 4 values in 'subject', those of one file's people taken together"
    ):
        grouped_folds(videos, 5)


def test_a_table_that_does_not_know_the_subjects_warns(tmp_path, caplog):
    known = table(tmp_path / "known.csv", "video,fold,subject", "a,0,p", "b,1,q")
    listed_folds(read_videos(known, "ab"))
    assert not caplog.messages
    listed_folds(read_videos(table(tmp_path / "t.csv", "video,fold", "a,0", "b,1"), "ab"))
    assert len(caplog.messages) == 1
    assert "t.csv has no column 'subject': a person may be in training and validation" in caplog.messages[0]


def test_ccc_centring_by_hand():
    x = np.array([[0.0, 1, 2], [1, 2, 3], [2, 1, 0]])[:, :, None] / 4
    np.testing.assert_allclose(combine(x)[:, 0], np.array([1, 4 / 3, 5 / 3]) / 4)
    # CCC 4/7 between the first two, −1 and −4/7 with the third: weights are not all positive, so shares are even
    np.testing.assert_allclose(combine(x, "ccc"), combine(x))
    y = np.array([[0.0, 1, 2], [0, 1, 2], [1, 2, 3]])[:, :, None] / 4
    # CCC with a shift of 1: 2·(2/3) / (2/3 + 2/3 + 1) = 4/7; weights (1 + 4/7)/2, (1 + 4/7)/2, 4/7
    w = np.array([11 / 14, 11 / 14, 8 / 14])
    level = (w * np.array([1, 1, 2])).sum() / w.sum() / 4
    np.testing.assert_allclose(combine(y, "ccc")[:, 0], level + np.array([-1, 0, 1]) / 4)
    np.testing.assert_allclose(combine(y[:1], "ccc"), y[0])
    with pytest.raises(UsageError, match="Unknown ensemble"):
        combine(y, "median")


@pytest.mark.parametrize("name", ["predictions", "Ensemble", ".", "..", "", "folds.csv", "results.json"])
def test_a_fold_is_not_named_as_what_lies_beside_it(tmp_path, name):
    store, labels = tiny.make_data(tmp_path, 2, 2, frames=20)
    folds = [Fold(name, ("t0",)), Fold("b", ("t1", "set/v0", "set/v1"))]
    with pytest.raises(UsageError, match=f"fold cannot be named '{name}'"):
        fuse.crossval(store, labels, tmp_path / "out", folds, tiny.small(epochs=1), on_epoch=pytest.fail)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("partition", ["validation", "test"])
def test_an_empty_partition_does_not_matter(tmp_path, partition):
    for name in "abcd":
        tiny.write_labels(tmp_path / "labels/train" / f"{name}.txt", np.zeros((3, 2)))
    (tmp_path / "labels" / partition).mkdir()
    path = table(tmp_path / "t.csv", "video,fold", "a,1", "b,0", "c,1", "d,2")
    assert len(fuse.choose_folds(tmp_path / "labels", path)) == 3
    split = find_labels(tmp_path / "labels", Split(["a"], resplit=True))
    assert (list(split["train"]), list(split["validation"])) == (["b", "c", "d"], ["a"])
    with pytest.raises(AffuseError, match=f"partition '{partition}' holds no label files"):
        partition_files(tmp_path / "labels", partition)


# ---- the whole of it


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crossval")
    store, labels = tiny.make_data(folder, 4, 2, frames=50)
    for seed, name in enumerate(("x", "y"), start=50):  # one of the test partition, one without labels
        video, truth = tiny.make_video(name, 60, seed)
        store.write(video, tiny.provenance())
        if name == "x":
            tiny.write_labels(labels / "test" / "x.txt", truth)
    rows = ["t0,a", "t1,b", "t2,a", "t3,c", "set/v0,b", "set/v1,c"]
    path = table(folder / "videos.csv", "video,subject", *rows)
    folds = fuse.choose_folds(labels, path, "subject")
    settings = tiny.small(epochs=2, warmup_epochs=1, gaps="mask", normalisation="channels")
    heard = []
    result = fuse.crossval(
        store, labels, folder / "out", folds, settings, "ccc", True, on_fold=lambda *fold: heard.append(fold)
    )
    return folder, store, labels, path, folds, settings, result, heard


def test_every_video_is_scored_by_the_model_that_did_not_train_on_it(done):
    folder, _, labels, _, folds, _, result, heard = done
    assert heard == [("a", True), ("b", True), ("c", True)]
    truth, prediction = [], []
    for fold in folds:
        run = fuse.load_run(folder / "out" / fold.name)
        assert run.settings.validation == list(fold.validation)
        for video in fold.validation:
            name = f"{video.replace('/', '%2F')}.csv"
            with open(folder / "out" / "predictions" / name) as file:
                rows = [[float(row["valence"]), float(row["arousal"])] for row in csv.DictReader(file)]
            own = (folder / "out" / fold.name / "predictions" / name).read_text()
            assert own == (folder / "out" / "predictions" / name).read_text()
            track = read_abaw(next(labels.rglob(f"{video}.txt")))
            truth.append(track.values[track.valid])
            prediction.append(np.array(rows)[track.valid])
    x, y = np.concatenate(truth), np.concatenate(prediction)
    assert result["videos"] == 6
    for k, target in enumerate(("valence", "arousal")):
        assert result["ccc"][target] == pytest.approx(ccc(x[:, k], y[:, k]), abs=1e-5)
    assert {name: fold["videos"] for name, fold in result["folds"].items()} == {"a": 2, "b": 2, "c": 2}
    assert json.loads((folder / "out/results.json").read_text())["ccc"] == result["ccc"]
    low, high = result["interval"]["ccc"]["mean"]
    assert low < result["ccc"]["mean"] < high


def test_statistics_of_a_fold_come_from_its_training_videos_alone(done):
    folder, store, _, _, folds, _, _, _ = done
    for fold in folds:
        run = fuse.load_run(folder / "out" / fold.name)
        training = [v for other in folds if other is not fold for v in other.validation]
        rows = np.concatenate([store[v].audio.embedding for v in training]).astype(np.float64)
        np.testing.assert_allclose(run.normalisation.mean["audio"].numpy(), rows.mean(0), atol=1e-5)
        everything = np.concatenate([store[v].audio.embedding for v in store.ids]).astype(np.float64)
        assert np.abs(run.normalisation.mean["audio"].numpy() - everything.mean(0)).max() > 1e-3


def test_all_folds_predict_the_other_videos_together(done):
    folder, store, labels, _, folds, _, result, _ = done
    assert result["ensemble"] == {"method": "ccc", "videos": ["x", "y"], "failed": {}}
    each = []
    for fold in folds:
        fuse.predict(folder / "out" / fold.name, store, folder / fold.name, ["x", "y"], figures=False)
        each.append(np.genfromtxt(folder / fold.name / "x.csv", delimiter=",", skip_header=1)[:, 1:3])
    together = np.genfromtxt(folder / "out" / "ensemble" / "x.csv", delimiter=",", skip_header=1)[:, 1:3]
    expected = combine(np.stack(each), "ccc")
    np.testing.assert_allclose(together, expected, atol=3e-6)
    truth = read_abaw(labels / "test" / "x.txt")
    assert result["test"]["ccc"]["valence"] == pytest.approx(
        ccc(truth.values[:, 0], expected[:, 0]), abs=1e-4
    )


def test_finished_folds_are_not_made_again(done):
    folder, store, labels, _, folds, settings, result, _ = done
    before = {p: p.stat().st_mtime_ns for p in (folder / "out").rglob("model.safetensors")}
    heard = []
    again = fuse.crossval(
        store, labels, folder / "out", folds, settings, "ccc", True, on_fold=lambda *f: heard.append(f)
    )
    assert heard == [("a", False), ("b", False), ("c", False)]
    assert again == result
    assert before == {p: p.stat().st_mtime_ns for p in (folder / "out").rglob("model.safetensors")}
    with pytest.raises(UsageError, match="other settings"):
        fuse.crossval(store, labels, folder / "out", folds, tiny.small(epochs=3))
    with pytest.raises(UsageError, match="name one split"):
        fuse.crossval(store, labels, folder / "o", folds, tiny.small(validation=["t0"]))


def test_folds_of_other_data_are_trained_anew_and_say_why(tmp_path, caplog):
    """After a change every fold has the video, in training or validation; without one, none is made again."""
    store, labels = tiny.make_data(tmp_path, 3, 1, frames=40)
    folds = [Fold("a", ("t0", "t1")), Fold("b", ("t2", "set/v0"))]
    settings = tiny.small(epochs=2, warmup_epochs=1)

    def made(on_epoch=None):
        heard = []
        caplog.clear()
        fuse.crossval(
            store,
            labels,
            tmp_path / "out",
            folds,
            settings,
            on_epoch=on_epoch,
            on_fold=lambda *f: heard.append(f),
        )
        return heard, [text for text in caplog.messages if "anew" in text]

    def stop(row):
        if row["run"] == "fold b":
            raise KeyboardInterrupt

    assert made() == ([("a", True), ("b", True)], [])
    first = (tmp_path / "out/a/model.safetensors").read_bytes()
    tiny.change_label(labels / "train/t0.txt")
    why = [f"fold {fold} is trained anew: labels of video 't0' have changed" for fold in "ab"]
    assert made() == ([("a", True), ("b", True)], why)
    assert made() == ([("a", False), ("b", False)], [])
    assert (tmp_path / "out/a/model.safetensors").read_bytes() != first
    tiny.extract_again(store, "set/v0", seed=77)
    with pytest.raises(KeyboardInterrupt):
        made(stop)
    tiny.change_label(labels / "train/t2.txt")  # and again, while fold b was being trained
    why = [f"fold {fold} is trained anew: labels of video 't2' have changed" for fold in "ab"]
    assert made() == ([("a", True), ("b", True)], why)
    (tmp_path / "out/a/data.json").unlink()
    heard, why = made()
    assert sorted(heard) == [("a", True), ("b", False)]
    assert why == ["fold a is trained anew: data.json, which tells what was trained on, is gone or damaged"]
    left = (tmp_path / "out/a/model.safetensors").read_bytes()
    tiny.change_label(labels / "train/t1.txt")
    with pytest.raises(UsageError, match="other settings"):
        fuse.crossval(store, labels, tmp_path / "out", folds, tiny.small(epochs=3))
    assert (tmp_path / "out/a/model.safetensors").read_bytes() == left


def test_the_command_line(done):
    folder, store, labels, path, _, settings, result, _ = done
    config = folder / "c.yaml"
    config.write_text(json.dumps(settings.model_dump()))
    args = ["fuse", "crossval", "--features", store.path, "--labels", labels, "--out", folder / "out", "--videos", path,
            "--by", "subject", "--ensemble", "ccc", "--score-test", "--config", config]  # fmt: skip
    done_again = CliRunner().invoke(cli.main, [*map(str, args), "--json"])
    assert done_again.exit_code == 0, done_again.output
    assert json.loads(done_again.stdout)["ccc"] == result["ccc"]
    said = CliRunner().invoke(cli.main, list(map(str, args)))
    assert "out of 3 folds: 6 videos" in said.stdout
    assert "fold a: already there" in said.stderr
    wrong = CliRunner().invoke(cli.main, [*map(str, args), "--k", "9"])
    assert wrong.exit_code == 2
    assert FeatureStore(store.path).ids


def test_epochs_chosen_inside_are_chosen_without_the_fold_that_is_scored(tmp_path):
    """Of three folds each is scored by a run that it neither trained nor chose; the table says so."""
    store, labels = tiny.make_data(tmp_path, 4, 2, frames=40)
    folds = [Fold("a", ("t0", "t1")), Fold("b", ("t2", "t3")), Fold("c", ("set/v0", "set/v1"))]
    result = fuse.crossval(store, labels, tmp_path / "out", folds, tiny.small(epochs=2, choose="inner"))
    for fold, following, train in zip(
        folds, [*folds[1:], folds[0]], [folds[2], folds[0], folds[1]], strict=True
    ):
        data = json.loads((tmp_path / "out" / fold.name / "data.json").read_text())
        assert sorted(data["validation"]) == sorted(following.validation)
        assert sorted(data["train"]) == sorted(train.validation)
    assert set(result["per_video"]) == {v for fold in folds for v in fold.validation}
    assert "chosen on the videos of the next fold" in fold_table(result)
    assert "flatter" in fold_table(
        fuse.crossval(store, labels, tmp_path / "plain", folds, tiny.small(epochs=1))
    )
    with pytest.raises(UsageError, match="3 folds at least"):
        fuse.crossval(store, labels, tmp_path / "two", folds[:2], tiny.small(choose="inner"))


def test_who_is_held_out_neither_trains_nor_validates(tmp_path):
    store, labels = tiny.make_data(tmp_path, 4, 2, frames=40)
    split = find_labels(labels, Split(held_out=["t1", "set/v0"]))
    assert [sorted(split[name]) for name in ("train", "validation", "held_out")] == [
        ["t0", "t2", "t3"],
        ["set/v1"],
        ["set/v0", "t1"],
    ]
    with pytest.raises(UsageError, match=r"Setting held_out: 't9' is no labelled video of .*; did you mean"):
        find_labels(labels, Split(held_out=["t9"]))
    run = affuse.train(
        store, labels, tmp_path / "run", settings=tiny.small(epochs=1, held_out=["t1", "set/v0"])
    )
    assert set(run.evaluate(store, labels, "held_out")["per_video"]) == {"t1", "set/v0"}
