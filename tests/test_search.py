"""A search: what is drawn, that stopping changes nothing, that the best can be had again, and what is refused."""

from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path

import pandas as pd
import pytest
import torch
import yaml
from click.testing import CliRunner

import tiny
from affuse import commands, fuse, train_settings
from affuse.errors import AffuseError, UsageError
from affuse.fuse.experiments.search import JOURNAL
from affuse.fuse.experiments.space import Drawn, choices, split_space
from affuse.fuse.training.checkpoint import read_tensors
from affuse.fuse.training.losses import LOSSES
from processes import ROOT, Started, wait_until

optuna = pytest.importorskip("optuna")
pytestmark = pytest.mark.usefixtures("undrawn")
SPACE = {"learning_rate": "1e-5..1e-2", "dropout.attention": "0.1,0.5"}
SCORES = ["valence", "arousal", "mean"]
SHORT = tiny.small(epochs=1, modalities=["visual", "audio"])


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    store, labels = tiny.make_data(tmp_path_factory.mktemp("data"), train=3, validation=2, frames=40)
    tiny.write_labels(labels / "test" / "set/v9.txt", [[9, 9]])  # neither in the store nor a label
    return store, labels


@pytest.fixture(scope="module")
def found(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("search") / "out"
    return out, fuse.search(*data, out, SPACE, SHORT, budget=3)


def test_trials_are_drawn_scored_and_told(found):
    out, result = found
    table = pd.read_csv(out / "trials.csv")
    assert list(table.columns) == [
        "trial", "learning_rate", "dropout.attention", "valence", "arousal", "mean", "run", "failure",
    ]  # fmt: skip
    assert table["learning_rate"].between(1e-5, 1e-2).all()
    assert set(table["dropout.attention"]) <= {0.1, 0.5}
    assert table["learning_rate"].nunique() == 3
    for row in table.itertuples():
        run = fuse.load_run(row.run)
        assert run.best["ccc"]["mean"] == row.mean
        assert run.settings.learning_rate == row.learning_rate
        assert run.settings.dropout["attention"] == row._3
    assert result.best["mean"] == table["mean"].max()
    assert json.loads((out / "results.json").read_text()) == result.facts
    assert f"Best: trial {result.best['trial']}, validation CCC {result.best['mean']:.3f}" in result.text
    assert "which flatters it" in result.text


def test_the_best_is_trained_again_by_the_command_that_is_given(found):
    out, result = found
    command = result.best["train"].split()
    assert command[:3] == ["affuse", "fuse", "train"]
    answer = CliRunner().invoke(commands.main, command[1:])
    assert answer.exit_code == 0, answer.output
    here, there = (
        read_tensors(run / "model.safetensors")[0] for run in (out / "best", Path(result.best["run"]))
    )
    assert all(torch.equal(here[name], there[name]) for name in there)


def test_with_a_larger_budget_it_goes_further(found, data, tmp_path):
    out = Path(shutil.copytree(found[0], tmp_path / "out"))
    said = []
    more = fuse.search(*data, out, SPACE, SHORT, 4, announce=said.append)
    assert [text[:5] for text in said] == ["[4/4]", "[4/4]"]
    assert len(more.table) == 4
    columns = ["trial", *SPACE, *SCORES]
    pd.testing.assert_frame_equal(more.table[columns][:3], found[1].table[columns], check_exact=True)


def kill(run: Started, gate: Path, held: int) -> None:
    """By SIGKILL, once so many of its processes wait at the gate."""
    try:
        run.until(lambda: len(list(gate.parent.glob("*.held"))) == held, "the gate")
        workers = run.workers()
    finally:
        run.process.kill()
    assert run.wait() == -signal.SIGKILL
    wait_until(lambda: not any(worker.is_running() for worker in workers), "the workers' end")
    for path in gate.parent.glob("*.held"):
        path.unlink()


@pytest.mark.usefixtures("no_waiting_for_ever")
def test_a_search_that_is_killed_draws_and_finds_the_same(data, tmp_path, monkeypatch):
    """Killed with both trials of its first round at work, and again in the second trial, when the first has ended and
    is not told before the round has. Uninterrupted it is the same model, by the name that it has without a gate."""
    (store, labels), out, gate = data, tmp_path / "out", tmp_path / "gate" / "epochs"
    for place, model in (("config.yaml", "waiting_fusion.py:waiting"), ("free.yaml", "own_fusion.py:mbt")):
        own = {**SHORT.model_dump(), "epochs": 2, "model": str(ROOT / "tests" / model)}
        (tmp_path / place).write_text(yaml.safe_dump(own))
    with monkeypatch.context() as patch:
        patch.setattr("affuse.fuse.experiments.search.how_many", lambda jobs, trainings: 2)
        free = train_settings(tmp_path / "free.yaml")
        whole = fuse.search(store, labels, tmp_path / "whole", SPACE, free, budget=4).table
    command = ["-m", "affuse", "fuse", "search", "--features", store.path, "--labels", labels, "--out", out]
    command += ["--budget", 4, "--config", tmp_path / "config.yaml"]
    command += [word for key, text in SPACE.items() for word in ("--set", f"{key}={text}")]
    paths = {
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}",
        "GATE": str(gate),
        "RUNS": str(out / "runs"),
    }
    gate.parent.mkdir()
    for jobs, epochs, finished in ((2, 0, []), (1, 3, ["trial000"])):
        gate.write_text(str(epochs))
        kill(Started(tmp_path / f"{jobs}.log", [*command, "--jobs", jobs], **paths), gate, held=jobs)
        assert [path.parent.name for path in out.glob("runs/*/model.safetensors")] == finished
        storages = optuna.storages
        storage = storages.JournalStorage(storages.journal.JournalFileBackend(str(out / JOURNAL)))
        study = optuna.load_study(study_name="search", storage=storage)
        assert [trial.state.name for trial in study.trials] == ["RUNNING"] * 2
    gate.write_text("")
    run = Started(tmp_path / "last.log", [*command, "--jobs", 1], **paths)
    assert run.wait() == 0, run.said
    found = pd.DataFrame(json.loads((out / "results.json").read_text())["trials"])
    columns = ["trial", *SPACE, *SCORES]
    pd.testing.assert_frame_equal(found[columns], whole[columns], check_exact=True)


def test_trials_that_fail_stay_in_the_table(data, tmp_path, monkeypatch):
    loss = LOSSES["ccc"]

    def diverge(prediction, *rest):
        made = next(calls)
        return prediction.sum() * float("nan") if made else loss(prediction, *rest)

    calls = iter([1] + [0] * 1000)
    monkeypatch.setitem(LOSSES, "ccc", diverge)
    space = {"hop": "20,40"}  # the longer one leaves frames out
    result = fuse.search(*data, tmp_path / "out", {"weight_decay": "0..0.1"}, SHORT, 2)
    assert result.table["failure"][0].startswith("Training diverged")
    assert result.best["trial"] == 1
    assert "Training diverged" in result.text
    with pytest.raises(UsageError, match="a hop longer than the window"):
        fuse.search(*data, tmp_path / "other", space, SHORT, 2)
    calls = iter([1] * 1000)
    with pytest.raises(AffuseError, match="All 2 trials failed; the first: Training diverged"):
        fuse.search(*data, tmp_path / "none", {"weight_decay": "0..0.1"}, SHORT, 2)


# ---- ranges and choices


def test_ranges_choices_and_what_holds_for_all():
    given = ["learning_rate=1e-5..1e-3", "dropout.attention=0.1,0.3", "epochs=3", "modalities=[visual,audio]"]
    space, fixed = split_space([*given, "loss=ccc,mse"])
    assert space == {"learning_rate": "1e-5..1e-3", "dropout.attention": "0.1,0.3", "loss": "ccc,mse"}
    assert fixed == given[2:]
    assert choices("1e-4,2") == [1e-4, 2]
    assert choices("[visual,audio],[visual]") == [["visual", "audio"], ["visual"]]


def test_distributions_are_what_the_setting_takes():
    settings = train_settings()
    rate, decay, batch, once = (
        Drawn.of(key, text, settings, tiny.WIDTHS).distribution()
        for key, text in (
            ("learning_rate", "1e-5..1e-3"),
            ("weight_decay", "0..1"),
            ("batch", "4..64"),
            ("window", "200..300"),
        )
    )
    assert (rate.log, rate.low, rate.high) == (True, 1e-5, 1e-3)
    assert (decay.log, decay.low, type(decay).__name__) == (False, 0.0, "FloatDistribution")
    assert (batch.log, batch.high, type(batch).__name__) == (True, 64, "IntDistribution")
    assert (once.log, type(once).__name__) == (False, "IntDistribution")
    loss = Drawn.of("loss", "ccc,mse", settings, tiny.WIDTHS)
    assert [loss.value(one) for one in loss.distribution().choices] == ["ccc", "mse"]


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"learning_rte": "1e-5..1e-3"}, "Unknown setting 'learning_rte'; did you mean 'learning_rate'"),
        ({"batch": "0..4"}, "Setting batch: .*greater than or equal to 1"),
        ({"learning_rate": "1e-3..1e-5"}, "from the lower value to the higher"),
        ({"model": "rjcma,rjcm"}, "did you mean 'rjcma'"),
        ({}, "Nothing is searched"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_is_made(data, tmp_path, space, message):
    with pytest.raises(UsageError, match=message):
        fuse.search(*data, tmp_path / "out", space, SHORT)
    assert not (tmp_path / "out").exists()


def test_another_search_and_other_data_are_refused(found, data, tmp_path):
    out, _ = found
    with pytest.raises(
        UsageError, match=r"another search: learning_rate is '1e-5\.\.1e-2' there and '1e-5\.\.1e-3'"
    ):
        fuse.search(*data, out, {**SPACE, "learning_rate": "1e-5..1e-3"}, SHORT)
    with pytest.raises(UsageError, match="another search: epochs is 1 there and 2 here"):
        fuse.search(*data, out, SPACE, SHORT.model_copy(update={"epochs": 2}))
    changed = tiny.copy_labels(data[1], tmp_path / "labels")
    tiny.change_label(changed / "train/t2.txt")
    with pytest.raises(AffuseError, match="made from other data: labels of video 't2' have changed"):
        fuse.search(data[0], changed, out, SPACE, SHORT)


def test_without_optuna_the_package_is_named(data, tmp_path, monkeypatch):
    monkeypatch.setattr("affuse.fuse.experiments.search.find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"pip install 'affuse\[search\]'"):
        fuse.search(*data, tmp_path / "out", SPACE, SHORT)


def test_the_command_line(found, data, tmp_path):
    (out, result), (store, labels) = found, data
    config = tmp_path / "config.yaml"
    config.write_text(yaml.safe_dump(SHORT.model_dump()))
    command = ["fuse", "search", "--features", store.path, "--labels", labels, "--out", out, "--jobs", 1]
    command += ["--budget", 3, "--config", config]
    command += [word for key, text in SPACE.items() for word in ("--set", f"{key}={text}")]
    answer = CliRunner().invoke(commands.main, [str(word) for word in command])
    assert answer.exit_code == 0, answer.output
    assert answer.stdout.rstrip() == result.text
