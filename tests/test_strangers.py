"""A stranger's backbone and a stranger's fusion, two files outside the package, from videos to a prediction."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from affuse.commands import main
from affuse.features import FeatureStore
from media import face_frames, talking_head

HERE = Path(__file__).parent
SETTINGS = {
    "modalities": ["visual", "audio"],
    "channels": {"visual": [8, 8], "audio": [8, 8]},
    "window": 8,
    "hop": 4,
    "epochs": 2,
    "tensorboard": False,
}


def affuse(*arguments):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result


def sets(settings):
    return [word for key, value in settings.items() for word in ("--set", f"{key}={json.dumps(value)}")]


def test_two_files_from_outside_go_from_videos_to_a_prediction(tmp_path, monkeypatch):
    lines = [
        (HERE / name).read_text().strip().count("\n") + 1 for name in ("own_fusion.py", "own_backbone.py")
    ]
    assert max(lines) < 30
    for name in ("own_fusion.py", "own_backbone.py"):
        shutil.copy(HERE / name, tmp_path)
    monkeypatch.chdir(tmp_path)
    for name, partition in (("a", "train"), ("b", "train"), ("c", "validation")):
        talking_head(tmp_path / "videos" / f"{name}.mp4", frames=face_frames(12, drift=1 + ord(name) % 3))
        labels = np.random.default_rng(ord(name)).uniform(-1, 1, (12, 2))
        (tmp_path / "labels" / partition).mkdir(parents=True, exist_ok=True)
        head = "valence,arousal"
        np.savetxt(
            tmp_path / "labels" / partition / f"{name}.txt", labels, "%.3f", ",", header=head, comments=""
        )
    own = {"visual": "own_backbone.py:Grid", "audio": "own_backbone.py:Loudness"}
    kinds = [word for part, name in own.items() for word in ("--set", f"{part}={name}")]
    affuse(
        "extract", "--video-dir", "videos", "--out", "store", *kinds, "--set", "modalities=[visual, audio]"
    )
    assert FeatureStore("store").widths == {"visual": 48, "audio": 4}
    train = ["fuse", "train", "--features", "store", "--labels", "labels", "--out", "run", *sets(SETTINGS)]
    trained = json.loads(affuse(*train, "--model", "own_fusion.py:mbt", "--json").stdout)
    scores = affuse("fuse", "evaluate", "--run", "run", "--features", "store", "--labels", "labels", "--json")
    assert json.loads(scores.stdout)["ccc"] == trained["best"]["ccc"]
    affuse("predict", "--run", "run", "--out", "out", "videos/c.mp4")
    first = np.genfromtxt("out/c.csv", delimiter=",", names=True)
    again = np.genfromtxt("run/predictions/c.csv", delimiter=",", names=True)
    assert first["valence"] == pytest.approx(again["valence"], abs=1e-6)
    assert len(first) == 12
