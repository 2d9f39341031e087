"""A folder of videos to predictions on a new one, through the command line, with seeded backbones."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from affuse.commands import main
from affuse.errors import AffuseError
from affuse.extract.extraction import Compute
from affuse.extract.media import frame_count
from affuse.features.store import FeatureStore
from affuse.fuse import train
from affuse.pipelines import prediction
from media import plain_frames, talking_head, write_media
from processes import SEEDED
from tiny import make_data, small

SMALL = [
    "modalities=[visual, audio]",
    "channels={visual: [8, 8], audio: [8, 8]}",
    "window=8",
    "hop=4",
    "epochs=3",
    "learning_rate=1e-3",
    "tensorboard=false",
]


def affuse(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """Four short videos, their store, labels and a trained run."""
    place = tmp_path_factory.mktemp("place")
    generator = np.random.default_rng(0)
    for index, name in enumerate("abcd"):
        talking_head(place / "videos" / f"{name}.mp4", seconds=1.2)
        partition = "train" if index < 3 else "validation"
        (place / "labels" / partition).mkdir(parents=True, exist_ok=True)
        rows = [f"{v:.3f},{a:.3f}" for v, a in generator.uniform(-1, 1, (12, 2))]
        (place / "labels" / partition / f"{name}.txt").write_text(
            "valence,arousal\n" + "\n".join(rows) + "\n"
        )
    affuse("extract", "--video-dir", place / "videos", "--out", place / "store", *SEEDED, "--views", "flip")
    sets = [part for setting in SMALL for part in ("--set", setting)]
    train = ["fuse", "train", "--features", place / "store", "--labels", place / "labels", *sets]
    result = affuse(*train, "--out", place / "run", "--json")
    (place / "trained.json").write_text(result.stdout)
    assert "untrained backbones" in result.stderr
    return place


def test_evaluation_prints_what_training_recorded(place):
    trained = json.loads((place / "trained.json").read_text())
    evaluate = ["fuse", "evaluate", "--run", place / "run", "--features", place / "store", "--labels"]
    scores = json.loads(affuse(*evaluate, place / "labels", "--json").stdout)
    assert scores["ccc"] == trained["best"]["ccc"]
    assert f"{scores['ccc']['mean']:.4f}" in affuse(*evaluate, place / "labels").stdout
    assert "does not exist" in affuse(*evaluate, place / "gone", code=2).stderr


def test_new_videos_get_a_table_and_a_figure(place, tmp_path):
    new = talking_head(tmp_path / "new" / "one.mp4", seconds=1.0)
    fast = talking_head(tmp_path / "new" / "fast.mp4", seconds=1.0, fps=20)
    silent = write_media(tmp_path / "new" / "two.mp4", plain_frames(5))
    broken = tmp_path / "new" / "three.mp4"
    broken.write_text("not a video")
    predict = ["predict", "--run", place / "run", "--out", tmp_path / "out"]
    result = affuse(*predict, new, fast, silent, broken, code=1)
    assert "1 video of another frame rate (20 fps) was read at the run's 10" in result.stderr
    assert "fast: 20 frames, 20 with a face, 20 valid: " in result.stdout
    times = [float(row["time"]) for row in csv.DictReader((tmp_path / "out" / "fast.csv").open())]
    assert times == pytest.approx(np.arange(20) / 20, abs=2e-3)
    assert "failed: three: three.mp4 cannot be opened" in result.stderr
    assert "failed: two:" in result.stderr  # neither face nor sound: no number is made up
    assert "no_face" in result.stderr
    rows = list(csv.DictReader((tmp_path / "out" / "one.csv").open()))
    assert [float(row["time"]) for row in rows] == pytest.approx(np.arange(10) / 10, abs=2e-3)
    assert all(-1 <= float(row[target]) <= 1 for row in rows for target in ("valence", "arousal"))
    assert all(row["valid"] == "1" for row in rows)
    assert min(Image.open(tmp_path / "out" / "one.png").size) > 200
    assert not (tmp_path / "out" / "two.csv").exists()
    summary = {row["video"]: row for row in csv.DictReader((tmp_path / "out" / "summary.csv").open())}
    assert list(summary) == ["one", "fast", "three", "two"]
    assert (summary["fast"]["frames"], summary["one"]["face"]) == ("20", "1.000000")
    assert summary["three"]["failure"].startswith("three.mp4 cannot be opened")
    assert "no_face" in summary["two"]["failure"]
    assert "nothing to do" in affuse(*predict, new).stderr
    (made,) = (tmp_path / "out" / "features").iterdir()
    assert FeatureStore(made).header("one").views == ()  # only training draws from what the run's store has
    assert FeatureStore(place / "store").header("a").views == ("flip",)
    assert "of each face: centre, flip" in affuse("features", "info", place / "store").stdout


def test_folders_files_and_lists_are_taken_alike(place, tmp_path):
    (tmp_path / "folder").mkdir()
    for name in ("one", "folder/two"):
        (tmp_path / f"{name}.mp4").symlink_to(place / "videos" / "b.mp4")
    (tmp_path / "list.txt").write_text(f"# of one\n\none.mp4\n{place / 'videos' / 'a.mp4'}\n")
    predict = ["predict", "--run", place / "run", "--out", tmp_path / "out"]
    made = affuse(*predict, "--video", tmp_path / "list.txt", tmp_path / "folder", place / "videos" / "c.mp4")
    assert f"{tmp_path / 'out' / 'two.png'}, {tmp_path / 'out' / 'two-annotated.mp4'}" in made.stdout
    assert frame_count(tmp_path / "out" / "two-annotated.mp4") == 12
    assert "takes no words" in affuse(*predict, "--vtt", place / "videos" / "c.mp4", code=2).stderr
    rows = csv.DictReader((tmp_path / "out" / "summary.csv").open())
    assert [row["video"] for row in rows] == ["one", "a", "two", "c"]
    (tmp_path / "wrong.txt").write_text("gone.mp4\n")
    assert "gone.mp4 is not a folder of videos" in affuse(*predict, tmp_path / "wrong.txt", code=2).stderr
    (tmp_path / "wrong.txt").write_bytes(b"\xff\xfe\x00")
    assert "wrong.txt cannot be read" in affuse(*predict, tmp_path / "wrong.txt", code=2).stderr
    (tmp_path / "summary.mp4").symlink_to(place / "videos" / "b.mp4")
    assert "Rename the video" in affuse(*predict, tmp_path / "summary.mp4", code=2).stderr


@pytest.mark.parametrize(
    ("options", "compute"),
    [
        ([], Compute()),
        (
            ["--device", "cpu", "--workers", 2, "--threads", 3, "--time-limit", 5],
            Compute("cpu", workers=2, threads=3, time_limit=5.0),
        ),
        (["--scheduler", "tcp://127.0.0.1:1"], Compute(scheduler="tcp://127.0.0.1:1")),
    ],
)
def test_videos_are_extracted_where_predict_is_told(place, tmp_path, monkeypatch, options, compute):
    told = []

    def extract_jobs(*given, compute, **how):
        told.append(compute)
        raise AffuseError("No further.")

    monkeypatch.setattr(prediction, "extract_jobs", extract_jobs)
    predict = ["predict", "--run", place / "run", "--out", tmp_path / "out", place / "videos"]
    assert "No further." in affuse(*predict, *options, code=1).stderr
    assert told == [compute]
    assert "--tls-cert and --tls-key go together" in affuse(*predict, "--tls-ca", "a", code=2).stderr


def test_the_whole_store_is_predicted_as_single_videos_are(place, tmp_path):
    affuse(
        "fuse", "predict", "--run", place / "run", "--features", place / "store", "--out", tmp_path / "all"
    )
    affuse("predict", "--run", place / "run", "--out", tmp_path / "one", place / "videos" / "a.mp4")
    assert (tmp_path / "all" / "a.csv").read_bytes() == (tmp_path / "one" / "a.csv").read_bytes()


def test_other_weights_than_the_runs_are_refused_before_anything_is_extracted(place, tmp_path):
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "vggish.pth").write_text("never read")
    result = affuse(
        "predict", "--run", place / "run", "--out", tmp_path / "out", "--weights-dir", tmp_path / "weights",
        place / "videos" / "a.mp4", code=1,
    )  # fmt: skip
    assert "audio backbone vggish: trained False → True" in result.stderr
    assert "to extract" not in result.stderr
    assert not re.search("[0-9a-f]{13}", result.stderr)
    assert not (tmp_path / "out").exists()


def test_a_run_on_features_that_videos_do_not_give_is_refused(place, tmp_path):
    store, labels = make_data(tmp_path, train=2, validation=1)
    train(store.path, labels, tmp_path / "run", small(epochs=1))
    result = affuse(
        "predict", "--run", tmp_path / "run", "--out", tmp_path / "out", place / "videos" / "a.mp4", code=2
    )
    assert "features that `affuse extract` does not make" in result.stderr
    assert "affuse fuse predict --features" in result.stderr


def test_features_of_another_making_are_refused(place, tmp_path):
    affuse(
        "extract",
        "--video-dir",
        place / "videos",
        "--out",
        tmp_path / "other",
        *SEEDED,
        "--set",
        "audio_anchor=end",
    )
    result = affuse(
        "fuse",
        "predict",
        "--run",
        place / "run",
        "--features",
        tmp_path / "other",
        "--out",
        tmp_path / "out",
        code=1,
    )
    assert "audio_anchor" in result.stderr
    assert "start" in result.stderr
    assert "end" in result.stderr


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:5], "d.txt"),
        (lambda rows: ["arousal,valence", *rows[1:]], "d.txt"),
        (lambda rows: [*rows[:3], "0.1,7", *rows[4:]], "line 4"),
        (lambda rows: [*rows[:3], "0.1;0.2", *rows[4:]], "line 4"),
    ],
)
def test_labels_that_do_not_fit_are_named(place, tmp_path, change, message):
    for path in (place / "labels").rglob("*.txt"):
        target = tmp_path / "labels" / path.relative_to(place / "labels")
        target.parent.mkdir(parents=True, exist_ok=True)
        rows = path.read_text().split("\n")
        target.write_text("\n".join(change(rows) if path.stem == "d" else rows))
    result = affuse(
        "fuse", "train", "--features", place / "store", "--labels", tmp_path / "labels", "--out", tmp_path / "run",
        "--model", "unimodal", "--set", "modalities=[visual]", code=1,
    )  # fmt: skip
    assert message in result.stderr
    assert not (tmp_path / "run" / "model.safetensors").exists()
