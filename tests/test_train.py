"""Training: what it records, and that a run killed at any moment ends as if it were not."""

import csv
import json
import logging
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import tiny
from affuse import fuse
from affuse.errors import AffuseError, UsageError
from affuse.fuse.training import learning
from affuse.fuse.training.checkpoint import read_tensors
from affuse.fuse.training.losses import LOSSES
from processes import ROOT, Started

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.make_data(tmp_path_factory.mktemp("data"), without=("text",))


PATHS = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
EPOCHS = {"epochs": 6, "warmup_epochs": 1, "learning_rate": 3e-3}


@pytest.fixture(scope="module")
def finished(data, tmp_path_factory):
    """A run that nothing interrupted, its result and the rows it reported."""
    store, labels = data
    rows, out = [], tmp_path_factory.mktemp("finished") / "run"
    return out, fuse.train(store, labels, out, tiny.small(**EPOCHS), rows.append), rows


@pytest.fixture(scope="module")
def whole(data, finished, tmp_path_factory):
    """{precision: such a run}"""
    half = tmp_path_factory.mktemp("half") / "run"
    fuse.train(*data, half, tiny.small(**EPOCHS, precision="bfloat16"))
    return {"float32": finished[0], "bfloat16": half}


def read_metrics(run):
    with open(run / "metrics.csv") as file:
        return [
            {key: float(value) for key, value in row.items() if key != "seconds"}
            for row in csv.DictReader(file)
        ]


def test_training_learns_and_records(finished):
    out, result, rows = finished
    assert result["best"]["ccc"]["mean"] > 0.4
    assert result["epochs"] == len(rows) == 6
    assert rows[-1]["loss"] < rows[0]["loss"]
    recorded = read_metrics(out)
    assert [row["ccc_mean"] for row in recorded] == [row["ccc_mean"] for row in rows]
    assert max(recorded, key=lambda row: row["ccc_mean"])["epoch"] == result["best"]["epoch"]


def test_another_seed_is_another_run_and_torchs_random_state_is_left_alone(data, tmp_path, finished):
    before = torch.random.get_rng_state()
    fuse.train(*data, tmp_path / "run", tiny.small(**{**EPOCHS, "epochs": 1, "seed": 1}))
    assert (torch.random.get_rng_state() == before).all()
    assert read_metrics(tmp_path / "run")[0]["loss"] != finished[2][0]["loss"]


def test_after_a_worse_epoch_the_best_weights_come_back(data, tmp_path, monkeypatch):
    store, labels = data
    scores = iter([0.5, 0.4, 0.3])
    real = learning.score
    monkeypatch.setattr(
        learning,
        "score",
        lambda *a: {**real(*a), "ccc": {"valence": 0, "arousal": 0, "mean": next(scores, 0)}},
    )
    weights = []
    monkeypatch.setattr(
        learning.Learning,
        "_save",
        lambda self: weights.append({k: v.clone() for k, v in self.model.state_dict().items()}),
    )
    for reload, same in ((True, True), (False, False)):
        weights.clear()
        scores = iter([0.5, 0.4, 0.3])
        settings = tiny.small(epochs=3, reload_best=reload, gaps="mask")
        fuse.train(store, labels, tmp_path / str(reload), settings)
        assert all(torch.equal(weights[0][k], weights[2][k]) for k in weights[0]) is same
    # What is kept are the best weights, not the last: predictions from the file are those in the folder.
    run = tmp_path / "False"
    fuse.predict(run, store, tmp_path / "out", ids=["set/v0"], figures=False)
    kept, again = (
        np.loadtxt(f / "set%2Fv0.csv", delimiter=",", skiprows=1)
        for f in (run / "predictions", tmp_path / "out")
    )
    np.testing.assert_allclose(kept, again, atol=2e-6)


RUN = """
import signal
from pathlib import Path
import tiny
from affuse import fuse
from affuse.fuse.training.losses import LOSSES
done, steps = 0, 0
def hold():
    if (done, steps) == {moment!r}:
        print("held", flush=True)
        signal.pause()
def on_epoch(row):
    global done, steps
    done, steps = row["epoch"], 0
    hold()
def loss(*given, loss=LOSSES["ccc"]):
    global steps
    steps += 1
    hold()
    return loss(*given)
LOSSES["ccc"] = loss
fuse.train(Path({store!r}), Path({labels!r}), Path({out!r}), tiny.small(**{settings!r}), on_epoch)
"""


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("moment", [(1, 0), (4, 2)], ids=["an epoch has ended", "a step is half done"])
def test_a_killed_run_goes_on_and_ends_bit_for_bit_the_same(data, whole, tmp_path, moment, precision):
    """Held at that moment, epochs and the steps since, it is killed by SIGKILL."""
    (store, labels), out, settings = data, tmp_path / "run", {**EPOCHS, "precision": precision}
    names = {"store": str(store.path), "labels": str(labels), "out": str(out)}
    run = Started(tmp_path / "log", ["-c", RUN.format(**names, settings=settings, moment=moment)], **PATHS)
    try:
        run.until(lambda: "held" in run.said, "the moment")
    finally:
        run.process.kill()
    assert run.wait() == -signal.SIGKILL
    with pytest.raises(AffuseError, match="not finished"):
        fuse.load_run(out)
    assert fuse.train(store, labels, out, tiny.small(**settings))["resumed_at"] == moment[0]
    (tensors, facts), (expected, known) = (
        read_tensors(run / "model.safetensors") for run in (out, whole[precision])
    )
    assert facts["settings"]["precision"] == precision
    assert all(torch.equal(tensors[name], expected[name]) for name in {**tensors, **expected})
    assert {**facts, "git": ""} == {**known, "git": ""}  # somebody may commit while this runs
    assert read_metrics(out) == read_metrics(whole[precision])


def test_a_run_resumes_only_on_the_data_it_began_with(data, tmp_path):
    store, labels = data
    changed = tiny.copy_labels(labels, tmp_path / "labels")
    with pytest.raises(tiny.Stop):
        fuse.train(store, labels, tmp_path / "run", tiny.small(), tiny.stop_after(2))
    tiny.change_label(changed / "train/t2.txt")
    (changed / "validation/set/v0.txt").rename(changed / "train/v0.txt")
    told = "video 'set/v0' is gone; labels of video 't2' have changed; video 'v0' is new. Bring the data back"
    with pytest.raises(AffuseError, match=f"began with other data: {told}"):
        fuse.train(store, changed, tmp_path / "run", tiny.small())
    assert fuse.train(store, labels, tmp_path / "run", tiny.small(checkpoint_seconds=5))["resumed_at"] == 2


def test_a_run_does_not_resume_on_features_made_anew(tmp_path):
    store, labels = tiny.make_data(tmp_path, 2, 1)
    with pytest.raises(tiny.Stop):
        fuse.train(store, labels, tmp_path / "run", tiny.small(), tiny.stop_after(1))
    was, _ = tiny.make_video("t1", store.header("t1").frames, 1)
    tiny.extract_again(store, "t1", seed=77)
    with pytest.raises(AffuseError, match="began with other data: features of video 't1' have changed"):
        fuse.train(store, labels, tmp_path / "run", tiny.small())
    store.write(was, tiny.provenance())  # the same features, written again
    assert fuse.train(store, labels, tmp_path / "run", tiny.small(epochs=6))["resumed_at"] == 1


def test_before_its_first_checkpoint_a_run_begins_with_the_data_as_they_are(data, tmp_path):
    store, labels = data
    changed = tiny.copy_labels(labels, tmp_path / "labels")
    with pytest.raises(tiny.Stop):
        fuse.train(store, labels, tmp_path / "run", tiny.small(checkpoint_seconds=99), tiny.stop_after(1))
    tiny.change_label(changed / "train/t2.txt")
    fuse.train(store, changed, tmp_path / "run", tiny.small(epochs=6))
    with pytest.raises(UsageError, match="with these settings: nothing to do"):
        fuse.train(store, changed, tmp_path / "run", tiny.small())


def test_tensorboard_gets_each_epoch_once(data, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    store, labels = data
    fuse.train(store, labels, tmp_path / "run", tiny.small(epochs=3, tensorboard=True))
    events = EventAccumulator(str(tmp_path / "run" / "events")).Reload()
    assert [event.step for event in events.Scalars("ccc_mean")] == [1, 2, 3]


# ---- data that does not fit


def test_untrained_backbones_are_warned_of(tmp_path, caplog):
    store, labels = tiny.make_data(tmp_path, 2, 1, made=tiny.provenance(trained=False))
    with caplog.at_level(logging.WARNING, "affuse"):
        fuse.train(store, labels, tmp_path / "run", tiny.small(epochs=1))
    assert "visual (resnet50)" in caplog.text
    assert "Untrained backbones: audio (audio-net)" in (tmp_path / "run" / "card.md").read_text()


def test_labels_and_store_must_fit(data, tmp_path):
    store, labels = data
    copied = tmp_path / "labels"
    for path in labels.rglob("*.txt"):
        (copied / path.relative_to(labels)).parent.mkdir(parents=True, exist_ok=True)
        (copied / path.relative_to(labels)).write_text(path.read_text())
    tiny.write_labels(copied / "train" / "stranger.txt", np.zeros((70, 2)))
    with pytest.raises(AffuseError, match=r"feature store .* lacks 1 labelled video: stranger"):
        fuse.train(store, copied, tmp_path / "run", tiny.small())
    assert not (tmp_path / "run").exists()
    result = fuse.train(store, copied, tmp_path / "run", tiny.small(epochs=1, allow_missing=True))
    assert result["unlabelled"] == 0
    (copied / "train" / "t1.txt").unlink()
    assert (
        fuse.train(store, copied, tmp_path / "r2", tiny.small(epochs=1, allow_missing=True))["unlabelled"]
        == 1
    )
    tiny.write_labels(copied / "train" / "t0.txt", np.zeros((90, 2)))
    with pytest.raises(AffuseError, match=r"t0\.txt has 90 rows, its video has 70 frames"):
        fuse.train(store, copied, tmp_path / "r3", tiny.small(allow_missing=True))
    tiny.write_labels(copied / "train" / "t0.txt", np.full((70, 2), -5))
    for path in (copied / "validation").rglob("*.txt"):
        tiny.write_labels(path, np.full((path.read_text().count("\n") - 1, 2), -5))
    with pytest.raises(AffuseError, match="No frame of the validation videos"):
        fuse.train(store, copied, tmp_path / "r4", tiny.small(allow_missing=True))


def test_a_modality_that_the_store_lacks_is_named(data, tmp_path):
    store, labels = data
    with pytest.raises(UsageError, match=r"no text, only visual, audio.*modalities=\[visual,audio\]"):
        tiny.small().model_options({"visual": 1, "audio": 1})
    with pytest.raises(UsageError, match="Device 'cuda:77' cannot be used"):
        fuse.train(store, labels, tmp_path / "run", tiny.small(device="cuda:77"))


def test_a_video_without_any_of_the_modalities_is_left_out_and_named(tmp_path, caplog):
    store, labels = tiny.make_data(tmp_path, 3, 2, without=("text", "visual"))
    result = fuse.train(
        store, labels, tmp_path / "run", tiny.small(epochs=1, modalities=["visual", "text"], channels=None)
    )
    assert set(result["left_out"]) == {"t0", "set/v0"}
    assert "no_face (no face in any frame)" in result["left_out"]["t0"]
    assert "set/v0 is left out" in caplog.text


def test_a_diverging_run_says_so(data, tmp_path, monkeypatch):
    store, labels = data
    monkeypatch.setitem(LOSSES, "ccc", lambda p, *_: p.sum() * torch.nan)
    with pytest.raises(AffuseError, match=r"diverged in epoch 1.*learning_rate"):
        fuse.train(store, labels, tmp_path / "run", tiny.small())


def test_importing_fuse_costs_no_torch():
    code = "import sys, affuse.fuse; print(json.dumps('torch' in sys.modules))".replace(
        "import sys", "import json, sys"
    )
    root = str(Path(__file__).resolve().parents[1])
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=root, check=True
    ).stdout
    assert json.loads(out) is False
