"""What `import affuse` offers: its names, what they cost, what they say to wrong arguments, and extract_videos."""

from __future__ import annotations

import ast
import doctest
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import affuse
from affuse.commands import main
from builders import provenance, random_video
from differences import differences
from media import talking_head

SEEDED = {"profile": "offline", "allow_untrained": True, "modalities": ["visual", "audio"], "threads": 1}
SEEDED |= {"visual": "ir50-ferplus"}  # small pictures


def test_importing_affuse_costs_none_of_its_libraries():
    code = (
        "import affuse, sys; affuse.fuse, affuse.features; print({'torch', 'h5py', 'numpy'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize("name", affuse.__all__)
def test_every_name_is_there(name):
    assert getattr(affuse, name) is not None
    assert name in dir(affuse)


def test_type_checkers_are_told_where_each_name_lives():
    tree = ast.parse(Path(affuse.__file__).read_text(encoding="utf-8"))
    (told,) = (node.body for node in tree.body if isinstance(node, ast.If))
    wings = {"extract", "features", "fuse", "pipelines"}
    homes = {
        a.asname: line.module + (f".{a.name}" if a.name in wings else "") for line in told for a in line.names
    }
    assert homes == affuse.HOMES


def test_an_unknown_name_says_the_nearest():
    for package in (affuse, affuse.features):
        with pytest.raises(
            AttributeError, match=r"has no attribute 'FeatureStor'; did you mean 'FeatureStore'\?"
        ):
            package.FeatureStor  # noqa: B018
    assert not hasattr(affuse, "_nothing")


@pytest.mark.parametrize("module", ["affuse", "affuse.features.store", "affuse.features.timeline"])
def test_examples_in_docstrings(module, tmp_path, monkeypatch):
    store = affuse.FeatureStore(tmp_path / "store", create=True)
    for seed, name in enumerate(("clip01", "clip02")):
        store.write(random_video(name, seed=seed), provenance())
    monkeypatch.chdir(tmp_path)
    names = {"FeatureStore": affuse.FeatureStore, "align": affuse.align, "np": np}
    module = __import__(module, fromlist=["__doc__"])
    failed, tried = doctest.testmod(module, extraglobs=names, optionflags=doctest.NORMALIZE_WHITESPACE)
    assert tried
    assert not failed


# ---- extract_videos


@pytest.fixture
def videos(tmp_path) -> Path:
    for name in ("a", "b"):
        talking_head(tmp_path / "videos" / f"{name}.mp4", seconds=0.4)
    return tmp_path / "videos"


def test_it_makes_what_the_command_makes(videos, tmp_path):
    options = ["--profile", "offline", "--allow-untrained", "--threads", "1", "--detect-every", "1"]
    command = ["extract", "--video-dir", videos, "--out", tmp_path / "cli", *options]
    command += ["--set", "modalities=[visual, audio]", "--set", "visual=ir50-ferplus"]
    assert CliRunner().invoke(main, [*map(str, command)]).exit_code == 0
    said = []
    store = affuse.extract_videos(
        str(videos), str(tmp_path / "store"), **SEEDED, detection={"every": 1}, announce=said.append
    )
    assert isinstance(store, affuse.FeatureStore)
    assert differences(affuse.FeatureStore(tmp_path / "cli"), store) == []
    assert any("2 videos, 2 to extract" in line for line in said)


def test_a_file_several_files_and_one_that_fails(videos, tmp_path, caplog):
    store = affuse.extract_videos(videos / "a.mp4", tmp_path / "store", **SEEDED)
    assert store.ids == ["a"]
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    with caplog.at_level(logging.WARNING, "affuse"):
        store = affuse.extract_videos(
            [videos / "a.mp4", str(videos / "b.mp4"), broken], tmp_path / "store", **SEEDED
        )
    assert "broken failed: " in caplog.text
    assert store.failed.keys() <= {"broken"}
    assert {"a", "b"} <= {*store.ids}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"videos": 5}, "not 5"),
        ({"out": 5}, "path of its folder, not by 5"),
        ({"profile": "papr"}, "did you mean 'paper'"),
        ({"modalites": ["visual"]}, "did you mean 'modalities'"),
        ({"detection": {"evry": 1}}, "did you mean 'every'"),
    ],
)
def test_wrong_arguments_get_a_sentence(videos, tmp_path, changes, message):
    arguments = {"videos": videos, "out": tmp_path / "store", **SEEDED, **changes}
    with pytest.raises(affuse.UsageError, match=message):
        affuse.extract_videos(**arguments)


def test_a_store_that_is_no_path_an_id_that_is_no_text_and_align_with_text(tmp_path):
    store = affuse.FeatureStore(tmp_path / "store", create=True)
    store.write(random_video(), provenance())
    video = store["clip01"]
    for wrong, message in (
        (lambda: affuse.FeatureStore(5), "path of its folder, not by 5"),
        (lambda: store[3], r"by their ids, such as \['clip01'\], not by 3"),
        (lambda: affuse.align("clip01", [0.0]), "align takes the features of a video"),
        (lambda: affuse.align(video, "now"), "the moments in seconds"),
        (lambda: affuse.align(video, 0.5), "the moments in seconds"),
        (lambda: affuse.align(video, [0.5], ["sound"]), "'sound' is no modality. Known: visual, audio, text"),
        (lambda: store.read("clip01", 5), "5 is no modality"),
    ):
        with pytest.raises(affuse.UsageError, match=message):
            wrong()
    assert affuse.align(video, [0.5], "audio").keys() == {"audio"}


# ---- the way in


def test_the_way_in_from_videos_to_a_prediction_that_is_looked_at(tmp_path):
    for index, name in enumerate("abc"):
        talking_head(tmp_path / "videos" / f"{name}.mp4", seconds=0.8)
        labels = tmp_path / "labels" / ("train" if index < 2 else "validation") / f"{name}.txt"
        labels.parent.mkdir(parents=True, exist_ok=True)
        rows = np.random.default_rng(index).uniform(-1, 1, (8, 2))
        labels.write_text("valence,arousal\n" + "".join(f"{v:.3f},{a:.3f}\n" for v, a in rows))
    store = affuse.extract_videos(tmp_path / "videos", tmp_path / "store", **SEEDED)
    small = {"channels": {"visual": [8], "audio": [8]}, "window": 8, "hop": 4, "epochs": 1, "tensorboard": False,
             "modalities": ["visual", "audio"], "device": "cpu"}  # fmt: skip
    run = affuse.train(store, tmp_path / "labels", tmp_path / "run", model="rjcma", **small)
    assert isinstance(run, affuse.Run)
    clip = talking_head(tmp_path / "clip.mp4", seconds=0.6)
    result = run.predict(clip, device="cpu")
    assert isinstance(result, affuse.Predictions)
    assert list(result) == ["clip"]
    frame = result["clip"].frame
    assert [*frame] == ["time", "valence", "arousal", "face", "sound", "valid"]
    assert len(frame) == 6
    assert frame["valid"].all()
    assert frame[["valence", "arousal"]].abs().max().max() <= 1
    assert len(result["clip"].plot().axes) == 2
    scores = run.evaluate(store, tmp_path / "labels", device="cpu", permutations=2)
    assert scores["ccc"] == run.best["ccc"]
    models = {"rjcma": {"model": "rjcma"}, "concat": {"model": "concat"}}
    settings = affuse.train_settings(**small)
    compared = affuse.compare(store, tmp_path / "labels", tmp_path / "compared", models, [0], settings)
    assert {"rjcma", "concat"} <= {*compared.text.split()}
