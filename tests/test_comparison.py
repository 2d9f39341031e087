"""Comparisons: the bootstrap against a slow one and for coverage, tables by hand, stopping and going on, bad input."""

import json
import os
import signal
import statistics
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import tiny
from affuse import commands as cli
from affuse import fuse
from affuse.errors import AffuseError, UsageError
from affuse.fuse import train_settings
from affuse.fuse.experiments.trials import make_entries, run_trials
from affuse.fuse.models.registry import MODELS
from affuse.fuse.options import parse_seeds
from affuse.fuse.training.losses import LOSSES

# ---- what is compared


def test_names_variants_modalities_and_all():
    entries = make_entries("rjcma:paper@audio+visual, dca,lfan", tiny.small(), tiny.WIDTHS)
    assert [e.folder for e in entries] == ["rjcma-paper-audio+visual", "dca", "lfan"]
    assert entries[0].settings.variant == "paper"
    assert entries[0].settings.modalities == ["audio", "visual"]
    assert entries[1].settings.modalities == ["visual", "audio"]  # as published
    assert entries[2].settings.modalities == ["visual", "audio", "text"]
    family = [e.name for e in make_entries("all", tiny.small(), tiny.WIDTHS)]
    alone = [m for m in MODELS if m not in ("mean", "unimodal")]
    assert family == [*alone, "unimodal@visual", "unimodal@audio", "unimodal@text"]
    named = make_entries("grjca,jca,rjcma", tiny.small(modalities=["visual", "audio", "text"]), tiny.WIDTHS)
    assert {len(e.settings.modalities) for e in named} == {3}
    assert parse_seeds("2,0,2") == [2, 0]


def test_published_sizes_by_name_are_not_those_that_follow_the_data():
    published = {m: list(c) for m, c in MODELS["rjcma"].channels.items()}
    changes = {"fitting": {}, "wide": {"channels": published}, "published": {"size": "published"}}
    settings = train_settings(model="rjcma")
    assert len({entry.identity for entry in make_entries(changes, settings, tiny.WIDTHS)}) == 3


def test_own_names_with_own_settings():
    wide = {"channels": {"visual": [10, 10]}, "window": 16, "hop": 8}
    entries = make_entries(
        {"narrow": {"model": "concat"}, "wide": {"model": "concat", **wide}}, tiny.small(), tiny.WIDTHS
    )
    assert entries[1].settings.channels == {**tiny.SMALL["channels"], "visual": [10, 10]}
    assert (entries[0].settings.window, entries[1].settings.window) == (32, 16)
    assert entries[0].identity != entries[1].identity
    same = make_entries("rjcma,rjcma:released@text+audio+visual", tiny.small(recursions=2), tiny.WIDTHS)
    assert same[0].identity == same[1].identity


@pytest.mark.parametrize(
    ("models", "changes", "message"),
    [
        ("rjcm", {}, "Unknown model 'rjcm'; did you mean 'rjcma'"),
        ("rjcma:papers", {}, "Unknown variant 'papers' in 'rjcma:papers'; did you mean 'paper'"),
        ("concat:paper", {}, "'concat' has no variants"),
        ("rjcma@visual+txt", {}, "unknown modality 'txt'; did you mean 'text'"),
        ("concat,ca@visual+audio+text", {}, "ca@.*takes exactly 2 modalities, not 3"),
        ("jca@visual", {}, "jca@visual: .*takes 2 to 3 modalities, not 1"),
        ("rjcma,unimodal", {"modalities": ["visual", "audio"]}, "unimodal: .*baseline of one modality"),
        ("grjca", {"recursions": 0}, "recursions=0 there are none"),
        ("rjcma,lfan", {"gates": "dca"}, "lfan: gates='dca' choose among the results of recursions"),
        ("rjcma", {"gates": "grjaa"}, "did you mean 'grjca'"),
        ({"a b": {"model": "ca"}, "a-b": {"model": "jca"}}, {}, "would share the folder 'a-b'"),
        ({"v": {"target": "valence"}, "a": {"target": "arousal"}}, {}, "compared on the same targets"),
        ({"v": {"epoch": 3}}, {}, "did you mean 'epochs'"),
        (" , ", {}, "No model is named"),
    ],
)
def test_what_cannot_be_compared_is_said_before_anything_is_trained(models, changes, message, tmp_path, data):
    with pytest.raises(UsageError, match=message):
        fuse.compare(*data, tmp_path / "out", models, settings=tiny.small(**changes))
    assert not (tmp_path / "out").exists()


def test_more_that_cannot_be(tmp_path, data):
    with pytest.raises(UsageError, match="Reference 'concta' is not among the models; did you mean 'concat'"):
        fuse.compare(*data, tmp_path / "out", "concat,ca", settings=tiny.small(), reference="concta")
    with pytest.raises(UsageError, match="whole numbers"):
        parse_seeds("1,-2")
    (tmp_path / "holiday.jpg").touch()
    with pytest.raises(UsageError, match="not empty and holds no such runs"):
        fuse.compare(*data, tmp_path, "concat", settings=tiny.small())
    with pytest.raises(UsageError, match="cannot be made"):
        fuse.compare(*data, tmp_path / "holiday.jpg" / "out", "concat", settings=tiny.small())


# ---- tables


MODELS_HERE = "concat,ca,unimodal@audio"


def test_a_preset_among_the_changes_brings_its_settings():
    changes = {"grjca": {"preset": "grjca", "epochs": 7}, "affuse": {"preset": "affuse"}}
    one, other = make_entries(
        {name: {"model": "rjcma", **own} for name, own in changes.items()}, tiny.small(), tiny.WIDTHS
    )
    assert (one.settings.learning_rate, one.settings.epochs, one.settings.size) == (1e-4, 7, "published")
    assert (other.settings.loss, other.settings.size, other.settings.batch) == ("ccc-batch", "data", 12)
    assert one.settings.window == other.settings.window == tiny.SMALL["window"]  # which no preset decides
    with pytest.raises(UsageError, match="did you mean 'released'"):
        make_entries({"x": {"preset": "releasd"}}, tiny.small(), tiny.WIDTHS)


PROTOCOL = {"epochs": 2, "warmup_epochs": 0, "learning_rate": 3e-3, "preset": "grjca"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.make_data(tmp_path_factory.mktemp("data"), 4, 3, frames=50)


@pytest.fixture(scope="module")
def compared(data, tmp_path_factory):
    out, said = tmp_path_factory.mktemp("compared") / "out", []
    return (
        out,
        fuse.compare(*data, out, MODELS_HERE, [0, 1], tiny.small(**PROTOCOL), announce=said.append),
        said,
    )


def test_the_table_is_what_a_hand_makes_of_the_runs(compared, data):
    out, result, said = compared
    table = pd.read_csv(out / "table.csv", index_col="model")
    assert list(table.index) == MODELS_HERE.split(",")
    for name, row in table.iterrows():
        runs = [out / "runs" / f"{name.replace('@', '-')}-seed{seed}" for seed in (0, 1)]
        scored = [fuse.evaluate(run, *data)["ccc"] for run in runs]
        for key in ("valence", "arousal", "mean"):
            values = [ccc[key] for ccc in scored]
            assert row[key] == pytest.approx(sum(values) / 2, abs=1e-12)
            assert row[f"{key}_sd"] == pytest.approx(statistics.stdev(values), abs=1e-12)
        assert row["parameters"] == sum(p.numel() for p in fuse.load_run(runs[0]).model.parameters())
        seconds = [statistics.median(pd.read_csv(run / "metrics.csv")["seconds"]) for run in runs]
        assert row["seconds_per_epoch"] == pytest.approx(statistics.median(seconds))
        cell = f"{row['mean']:.3f} ± {row['mean_sd']:.3f}"
        assert cell in (out / "table.md").read_text()
        assert cell in result.text
    assert len(pd.read_csv(out / "scores.csv")) == 6
    assert len(said) == 12
    assert (out / "comparison.png").stat().st_size > 10_000


def test_differences_are_from_the_best_to_every_other(compared):
    out, result, _ = compared
    best = result.table["mean"].idxmax()
    against = pd.read_csv(out / "differences.csv")
    assert result.facts["reference"] == best
    assert set(against["model"]) == set(result.table.index) - {best}
    for row in against.itertuples():
        expected = result.table.loc[best, row.target] - result.table.loc[row.model, row.target]
        assert row.difference == pytest.approx(expected, abs=1e-9)
        assert row.low <= row.difference <= row.high
        assert row.videos == 3

    def no_constants(name):
        raise AssertionError(f"{name} is not JSON")

    facts = json.loads((out / "results.json").read_text(), parse_constant=no_constants)
    assert facts == result.facts
    assert facts["protocol"]["epochs"] == 2
    said = (out / "table.md").read_text()
    for setting in ("preset grjca", "window 32", "channels {'visual': [8, 8]"):
        assert setting in said  # those that a reader expects, and whatever else is not the preset's
    assert "checkpoint_seconds" not in said
    assert "plateau" not in said
    for text in (said, result.text):
        assert f"{best} is the best of these models on these same videos, which flatters it" in text


def test_runs_already_made_are_not_made_again_and_others_are_added(compared, data):
    out, before, _ = compared
    kept = {path: path.stat().st_mtime_ns for path in out.rglob("model.safetensors")}
    said = []
    again = fuse.compare(
        *data,
        out,
        "ca,concat,ca@audio+visual",
        [0],
        tiny.small(**PROTOCOL),
        reference="ca",
        announce=said.append,
    )
    assert all("(trained before)" in text for text in said)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("model.safetensors")} == kept
    assert np.isnan(again.table.loc["ca", "mean_sd"])
    assert "±" not in again.text
    assert "flatters it" not in again.text
    assert list(again.differences["model"]) == ["concat"] * 3 + ["ca@audio+visual"] * 3
    assert not again.differences["difference"][3:].any()  # the same model by another name
    one = before.scores.set_index(["model", "seed"]).loc[("ca", 0)]
    assert (again.scores.iloc[0][["mean", "run"]] == one[["mean", "run"]]).all()


def test_runs_of_other_settings_or_other_data_are_refused(compared, data, tmp_path):
    out, (store, labels) = compared[0], data
    with pytest.raises(
        UsageError, match="concat-seed0 holds a finished run with other settings: batch is 4 there and 5"
    ):
        fuse.compare(store, labels, out, "jca,concat", settings=tiny.small(**PROTOCOL, batch=5))
    assert not (out / "runs" / "jca-seed0").exists()
    changed = tiny.copy_labels(labels, tmp_path / "labels")
    tiny.change_label(changed / "train/t3.txt")
    with pytest.raises(AffuseError, match="made from other data: labels of video 't3' have changed"):
        fuse.compare(store, changed, out, "concat", settings=tiny.small(**PROTOCOL))


def test_videos_that_only_one_model_can_predict_do_not_count_between_them(tmp_path):
    store, labels = tiny.make_data(tmp_path, 3, 3, frames=40, without=("audio",))
    entries = make_entries("unimodal@visual,unimodal@audio", tiny.small(epochs=1), store.widths)
    trials = run_trials(store, labels, tmp_path / "out", entries, [0], lambda text: None)
    assert list(trials.scores["videos"]) == [3, 2]
    found, videos = trials.difference("unimodal@visual", "unimodal@audio")
    assert videos == 2
    whole = trials.scores["mean"][0] - trials.scores["mean"][1]
    assert found.value[-1] != pytest.approx(whole, abs=1e-9)


def test_a_failing_training_names_its_model(data, tmp_path, monkeypatch):
    monkeypatch.setitem(LOSSES, "ccc", lambda p, *_: p.sum() * float("nan"))
    with pytest.raises(AffuseError, match=r"^ca, seed 3: Training diverged"):
        fuse.compare(*data, tmp_path / "out", "ca", [3], tiny.small())


# ---- stopping and going on, as a process


RUN = """
import signal
from itertools import count
from pathlib import Path
import tiny
from affuse import fuse
epochs = count(1)
def on_epoch(row):
    print("epoch", flush=True)
    if next(epochs) == 3:  # the first run is finished, the second has one epoch behind it
        signal.pause()
fuse.compare(Path({store!r}), Path({labels!r}), Path({out!r}), {models!r}, [0, 1], tiny.small(**{settings!r}),
             announce=lambda text: print(text, flush=True), on_epoch=on_epoch)
"""


def test_a_killed_comparison_goes_on_and_ends_the_same(compared, data, tmp_path):
    (store, labels), out = data, tmp_path / "out"
    names = {"store": str(store.path), "labels": str(labels), "out": str(out)}
    script = RUN.format(**names, models=MODELS_HERE, settings=PROTOCOL)
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": f"{here.parent}{os.pathsep}{here}"}
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, env=environment
    )
    epochs = 0
    for line in process.stdout:
        epochs += line == "epoch\n"
        if epochs == 3:
            process.send_signal(signal.SIGKILL)
            break
    process.stdout.close()
    assert process.wait() == -signal.SIGKILL
    first = out / "runs" / "concat-seed0" / "model.safetensors"
    made = first.stat().st_mtime_ns
    assert not (out / "table.csv").exists()
    assert (out / "runs" / "concat-seed1" / "checkpoint.safetensors").exists()
    result = fuse.compare(store, labels, out, MODELS_HERE, [0, 1], tiny.small(**PROTOCOL))
    assert first.stat().st_mtime_ns == made
    columns = ["model", "seed", "valence", "arousal", "mean", "epochs", "best_epoch"]
    pd.testing.assert_frame_equal(result.scores[columns], compared[1].scores[columns], check_exact=True)
    pd.testing.assert_frame_equal(result.differences, compared[1].differences, check_exact=True)


def test_from_the_command_line(compared, data):
    (store, labels), out = data, compared[0]
    settings = tiny.small(**PROTOCOL).model_dump(exclude={"modalities", "seed", "model"})
    config = out.parent / "protocol.yaml"
    config.write_text(json.dumps(settings))
    options = ["--features", str(store.path), "--labels", str(labels), "--config", str(config)]
    command = ["fuse", "compare", "--models", MODELS_HERE, "--seeds", "0,1", "--out", str(out), *options]
    answer = CliRunner().invoke(cli.main, command)
    assert answer.exit_code == 0, answer.output
    assert compared[1].text in answer.stdout
    answer = CliRunner().invoke(cli.main, [*command, "--json"])
    assert json.loads(answer.stdout)["models"] == compared[1].facts["models"]
    answer = CliRunner().invoke(cli.main, [*command[:3], "ca@visual", *command[4:]])
    assert answer.exit_code == 2
    assert "takes exactly 2 modalities" in answer.stderr
