"""Trainings side by side: the same as one after another, over features that are in memory once, whoever dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from pathlib import Path

import pandas as pd
import psutil
import pytest
import torch

import tiny
from affuse import fuse
from affuse.config import read_yaml
from affuse.errors import AffuseError, UsageError
from affuse.features import FeatureStore
from affuse.fuse.data import corpus
from affuse.fuse.data.partitions import find_labels
from affuse.fuse.data.pool import Pool, Want
from affuse.fuse.experiments.folds import Fold
from affuse.fuse.progress import epochs_shown
from affuse.fuse.training import parallel
from affuse.fuse.training.checkpoint import RunFolder, read_tensors
from processes import ROOT, wait_until

pytestmark = pytest.mark.usefixtures("no_waiting_for_ever", "undrawn")
WAITING = f"{ROOT / 'tests' / 'waiting_fusion.py'}:waiting"
SHORT = tiny.small(epochs=2)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.make_data(tmp_path_factory.mktemp("data"), train=4, validation=2, without=("text",))


@pytest.fixture
def gate(tmp_path, monkeypatch):
    path = tmp_path / "gate" / "open"
    path.parent.mkdir()
    monkeypatch.setenv("GATE", str(path))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{ROOT / 'tests'}")
    return path


def weights(run: Path) -> dict[str, torch.Tensor]:
    return read_tensors(run / "model.safetensors")[0]


def same(one: Path, other: Path) -> bool:
    here, there = weights(one), weights(other)
    return here.keys() == there.keys() and all(torch.equal(here[name], there[name]) for name in here)


# ---- the same


def test_side_by_side_is_one_after_another(data, tmp_path, read):
    store, labels = data
    models, rows = "rjcma,concat,linear", []
    alone = fuse.compare(store, labels, tmp_path / "alone", models, [0, 1], SHORT)
    read.clear()
    together = fuse.compare(
        store, labels, tmp_path / "together", models, [0, 1], SHORT, on_epoch=rows.append, jobs=2
    )
    assert len(read) == len(set(read))  # by this process, and once
    columns = ["model", "seed", "valence", "arousal", "mean", "epochs", "best_epoch"]
    pd.testing.assert_frame_equal(together.scores[columns], alone.scores[columns], check_exact=True)
    for name in models.split(","):
        run = Path("runs", f"{name}-seed1")
        assert same(tmp_path / "alone" / run, tmp_path / "together" / run)
    assert {row["run"] for row in rows} == {f"{n}, seed {k}" for n in models.split(",") for k in (0, 1)}
    assert max(len(row["at_work"]) for row in rows) == 2
    again = fuse.compare(store, labels, tmp_path / "together", models, [0, 1], SHORT, jobs=2)
    pd.testing.assert_frame_equal(again.scores[columns], alone.scores[columns], check_exact=True)


def test_folds_and_seeds_side_by_side_are_one_after_another(data, tmp_path):
    store, labels = data
    files = [video for part in find_labels(labels).values() for video in part]
    folds = [Fold(str(k), tuple(files[k::3])) for k in range(3)]
    alone, together = (
        fuse.crossval(store, labels, tmp_path / f"folds{jobs}", folds, SHORT, jobs=jobs) for jobs in (1, 2)
    )
    assert {**alone, "run": ""} == {**together, "run": ""}
    one, other = (
        fuse.train_seeds(store, labels, tmp_path / f"seeds{jobs}", [0, 1], SHORT, jobs=jobs)
        for jobs in (1, 2)
    )
    assert {**one, "run": ""} == {**other, "run": ""}
    ensembles = [(tmp_path / f"seeds{jobs}" / "ensemble.json").read_text() for jobs in (1, 2)]
    assert ensembles[0] == ensembles[1]


def see_and_change(pipe, pool: Pool, want: Want) -> None:
    """In another process: a corpus of the pool, then another value in it."""
    FeatureStore.read_rows = lambda *_: pytest.fail("read again")
    (corpus,) = pool.corpora([want], ["visual", "audio"], ["valence"])
    pipe.send({m: float(own[:].double().sum()) for m, own in corpus.features.items()})
    corpus.features["visual"].values[1] = 7


@pytest.mark.parametrize("free", [2**40, 2000], ids=["in memory", "on the disk"])
def test_another_process_has_the_same_features_not_a_copy(data, monkeypatch, free):
    store, _ = data
    monkeypatch.setattr("affuse.fuse.data.room.free_memory", lambda device: free)
    pool, want = Pool(store, shared=True), Want(["t0", "t1"])
    (corpus,) = pool.corpora([want], ["visual", "audio"], ["valence"])
    before = {m: float(own[:].double().sum()) for m, own in corpus.features.items()}
    context = multiprocessing.get_context("spawn")
    pipe, theirs = context.Pipe()
    process = context.Process(target=see_and_change, args=(theirs, pool, want))
    process.start()
    theirs.close()
    assert pipe.recv() == before
    process.join()
    assert process.exitcode == 0
    assert (corpus.features["visual"].values[1] == 7).all()


def test_statistics_of_the_same_frames_are_found_once(data, tmp_path, monkeypatch):
    found, statistics = [], corpus.mean_and_variance
    monkeypatch.setattr(
        corpus, "mean_and_variance", lambda rows: found.append(rows.shape) or statistics(rows)
    )
    fuse.compare(*data, tmp_path / "out", "concat,rjcma,unimodal@audio", [0, 1], SHORT)
    assert len(found) == len(tiny.WIDTHS) - 2  # `released` normalises text alone
    found.clear()
    settings = tiny.small(epochs=1, normalisation="channels")
    fuse.compare(*data, tmp_path / "other", "concat,rjcma,unimodal@audio", [0, 1], settings)
    assert len(found) == len(tiny.WIDTHS)


# ---- threads


def test_a_run_keeps_the_threads_it_began_with(data, tmp_path):
    store, labels = data
    with pytest.raises(tiny.Stop):
        fuse.train(store, labels, tmp_path / "run", SHORT, tiny.stop_after(1))
    assert read_yaml(tmp_path / "run" / "config.yaml")["threads"] == 1
    torch.set_num_threads(3)
    seen = []
    fuse.train(store, labels, tmp_path / "run", SHORT, lambda row: seen.append(torch.get_num_threads()))
    assert (seen, torch.get_num_threads()) == ([1], 3)
    seen.clear()
    fuse.train_seeds(
        store, labels, tmp_path / "seeds", [0, 1], SHORT, lambda row: seen.append(torch.get_num_threads())
    )
    assert seen == [1] * 4  # each of several, so that it does not matter how many are at work
    assert torch.get_num_threads() == 3
    fuse.train(store, labels, tmp_path / "alone", SHORT, lambda row: seen.append(torch.get_num_threads()))
    assert seen[4:] == [3, 3]
    with pytest.raises(UsageError, match="threads is 3 there and 2 here"):
        fuse.train(store, labels, tmp_path / "alone", tiny.small(epochs=2, threads=2))


def test_how_many_are_at_work(monkeypatch, tmp_path):
    def asked(jobs, runs=9, **changes):
        one = parallel.Training("x", RunFolder(tmp_path), tiny.small(**changes))
        return parallel.how_many(jobs, [one] * runs)

    monkeypatch.setattr(parallel, "CPU_COUNT", 6)
    assert [asked(None, 4), asked(None, threads=4), asked(8), asked(3), asked(3, 0)] == [4, 1, 8, 3, 1]
    assert [asked(None, runs) for runs in (6, 7, 9, 12, 23, 25)] == [6, 7, 9, 6, 6, 9]
    monkeypatch.setattr(parallel, "CPU_COUNT", 2)
    assert [asked(None, runs) for runs in (1, 2, 3, 5, 6, 39)] == [1, 2, 3, 3, 2, 2]
    with pytest.raises(UsageError, match="--jobs 0 would train nothing"):
        asked(0)
    monkeypatch.setattr(parallel, "pick_device", lambda name: torch.device("cuda"))
    assert asked(None) == 1
    with pytest.raises(UsageError, match="share features on a CPU only"):
        asked(2)


# ---- deaths


def test_a_process_that_dies_takes_nothing_else_with_it(data, tmp_path, gate):
    store, labels = data
    gate.write_text("die")
    models = {"bad": {"model": WAITING}, "good": {"model": "concat"}}
    arguments = (store, labels, tmp_path / "out", models, [0, 1], SHORT)
    with pytest.raises(
        AffuseError, match=r"bad, seed 0: the process .* signal 9(?s:.*)bad, seed 1"
    ) as caught:
        fuse.compare(*arguments, jobs=2)
    assert "good" not in str(caught.value)
    assert all((tmp_path / "out" / "runs" / f"good-seed{k}" / "model.safetensors").exists() for k in (0, 1))
    gate.write_text("")
    said = []
    fuse.compare(*arguments, announce=said.append, jobs=2)
    assert sum("(trained before)" in text for text in said) == 2


@pytest.mark.parametrize("how", ["Ctrl-C", "kill"])
def test_all_end_together_and_go_on(data, tmp_path, gate, how):
    (store, labels), out = data, tmp_path / "out"
    config = tmp_path / "config.yaml"
    config.write_text("\n".join(f"{key}: {value}" for key, value in tiny.SMALL.items() if key != "epochs"))
    command = [sys.executable, "-m", "affuse", "fuse", "compare", "--models", WAITING, "--seeds", "0,1"]
    command += ["--features", store.path, "--labels", labels, "--out", out, "--config", config, "--jobs", "2"]
    command = [str(word) for word in [*command, "--set", "epochs=2"]]
    with subprocess.Popen(
        command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        wait_until(lambda: len(list(gate.parent.glob("*.training"))) == 2, "both at work")
        workers = [int(path.stem) for path in gate.parent.glob("*.training")]
        assert process.pid not in workers
        if how == "kill":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGINT)
        said = process.stderr.read()
    wait_until(lambda: not any(map(psutil.pid_exists, workers)), "the workers' end")
    assert "Traceback" not in said
    if how == "Ctrl-C":
        assert process.returncode == 130
        assert "Stopped. What was finished is kept. To go on from there: affuse fuse compare" in said
    gate.touch()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "waiting" in done.stdout


def test_progress_of_several_is_one_line():
    rows = [
        {"run": f"rjcma, seed {k}", "epoch": k + 1, "epochs": 9, "loss": 0.5, "ccc_mean": k / 10}
        for k in range(3)
    ]
    assert epochs_shown(rows[:1], 80) == "  epoch 1 of 9: loss 0.500, CCC 0.000"
    assert epochs_shown(rows[:2], 100) == (
        "  rjcma, seed 0: epoch 1 of 9, CCC 0.000 | rjcma, seed 1: epoch 2 of 9, CCC 0.100"
    )
    assert epochs_shown(rows, 80) == "  3 at work, epochs 1 to 3, CCC 0.000 to 0.200"


UNGUARDED = """
import sys
from affuse import fuse
from affuse.fuse.data.pool import Pool
import tiny

made = Pool.__init__


def large(pool, *given, **more):  # more than a pipe holds
    made(pool, *given, **more)
    pool.more = bytes(2**20)


Pool.__init__ = large
fuse.compare(*sys.argv[1:], "rjcma,concat", settings=tiny.small(epochs=1), jobs=2)
"""


def test_a_script_without_a_guard_ends(data, gate, tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(UNGUARDED)
    store, labels = data
    command = [sys.executable, script, store.path, labels, tmp_path / "out"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 1
    assert "the process that trained it ended with status 1" in done.stderr
