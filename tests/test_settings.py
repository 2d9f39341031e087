"""The presets against what was published and what their page says; precedence; settings that cannot be; their list."""

import json
import re
from functools import partial
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from affuse import fuse
from affuse.commands import main
from affuse.errors import UsageError
from affuse.extract.extraction import extract_settings
from affuse.fuse.training.presets import PRESETS
from affuse.fuse.training.settings import TrainSettings, train_settings
from affuse.pipelines.settings import spelt

PUBLISHED = {  # optimiser, rate, weight decay, batch, epochs, warm-up and its epochs, restarts, least rate, early stop
    "released": ("adam", 1e-5, 1e-3, 12, 100, "sawtooth", 5, 2, 1e-8, 50),
    "rcma": ("adam", 1e-4, 5e-4, 12, 100, "linear", 5, 0, 0, 0),
    "grjca": ("adam", 1e-4, 1e-3, 12, 100, "sawtooth", 5, 2, 1e-8, 50),
    "lfan": ("adam", 1e-5, 1e-3, 8, 100, "stairs", 10, 2, 1e-7, 20),
    "jca": ("adam", 1e-3, 0, 96, 30, "sawtooth", 0, 0, 0, 0),
    "rjca": ("adam", 1e-3, 0, 64, 50, "sawtooth", 0, 0, 0, 0),
    "dca": ("adamw", 1e-3, 1e-5, 64, 100, "sawtooth", 0, 0, 0, 0),
    "ca": ("adam", 1e-4, 0, 16, 60, "sawtooth", 0, 0, 0, 0),
}
DATA = {  # gaps, normalisation, order of the windows
    **dict.fromkeys(("released", "grjca", "lfan"), ("close", "text", "once")),
    "rcma": ("mask", "channels", "epoch"),
    **dict.fromkeys(("jca", "ca"), ("mask", "none", "epoch")),
    **dict.fromkeys(("rjca", "dca"), ("mask", "none", "once")),
}


def test_presets_are_what_was_published():
    assert set(PRESETS) - {"affuse"} == set(PUBLISHED) == set(DATA)
    for name, published in PUBLISHED.items():
        s = train_settings(preset=name)
        assert published == (
            *(s.optimiser, s.learning_rate, s.weight_decay, s.batch, s.epochs, s.warmup, s.warmup_epochs),
            *(s.restarts, s.min_learning_rate, s.stop_patience),
        )
        assert (s.gaps, s.normalisation, s.shuffle) == DATA[name]
        assert (s.loss, s.modality_dropout) == ("ccc", 0)
        assert (s.plateau_patience, s.window, s.hop) == (5, 300, 200)
        of_clips = name in ("jca", "rjca", "dca", "ca")
        assert (s.plateau_factor, s.decay) == ((1, 0.8) if of_clips else (0.1, 1))
        assert s.reload_best is not (of_clips or name == "rcma")
    assert train_settings() == train_settings(preset="affuse") == TrainSettings()
    for name, dropouts in (("released", (0.6, 0.1, 0)), ("rcma", (0.5, 0.1, 0.8))):
        options = train_settings(preset=name).model_options({"visual": 8, "audio": 8, "text": 8})
        with torch.device("meta"):
            dropout = fuse.build_model(**options).config["dropout"]
        assert (dropout["attention"], dropout["encoder"], dropout["head"]) == dropouts


def test_the_page_tells_the_presets_as_they_are():
    """Rows | `name` | optimiser, rate, weight decay | batch, epochs | … of the page's first table."""
    text = (Path(__file__).parents[1] / "docs" / "presets.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| `(\w+)` \| (.*) \|$", text.split("\n\n")[2], re.MULTILINE))
    assert set(rows) == set(PRESETS)
    for name, row in rows.items():
        s = train_settings(preset=name)
        rates = f"{s.optimiser}, {s.learning_rate:.0e}, {s.weight_decay:.0e}".replace("e-0", "e-").replace(
            "0e+00", "0"
        )
        data = f"{s.gaps}, {s.normalisation}, {s.shuffle}"
        assert row.split(" | ")[1:] == [rates, f"{s.batch}, {s.epochs}", data, str(s.restarts)]


def test_precedence_is_preset_file_option_assignment(tmp_path):
    config = tmp_path / "c.yaml"
    config.write_text("preset: rcma\nbatch: 3\nepochs: 3\nseed: 3\n")
    settings = train_settings(config, ["seed=5", "dropout.head=0.2"], epochs=4, model=None)
    assert (settings.batch, settings.epochs, settings.seed, settings.weight_decay) == (3, 4, 5, 5e-4)
    assert settings.dropout == {"attention": 0.5, "head": 0.2}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("preset=relased", "did you mean 'released'"),
        ("learing_rate=1", "did you mean 'learning_rate'"),
        ("batch=0", "batch"),
        ("hop=301", r"longer than the window \(300\)"),
        ("modalities=[visual,txt]", "did you mean 'text'"),
        ("modalities=[]", "at least one"),
        ("min_learning_rate=1", "min_learning_rate: it is above learning_rate"),
    ],
)
def test_settings_that_cannot_be(assignment, message):
    with pytest.raises(UsageError, match=message):
        train_settings(None, [assignment])


def test_one_modality_is_never_dropped():
    widths = {"visual": 8, "audio": 8}
    assert train_settings(modalities=["visual", "audio"]).model_options(widths)["modality_dropout"] == 0.2
    assert (
        train_settings(model="unimodal", modalities=["visual"]).model_options(widths)["modality_dropout"] == 0
    )


def settings(*arguments, code=0):
    result = CliRunner().invoke(main, ["settings", *arguments])
    assert result.exit_code == code, result.output
    return result


def test_every_setting_is_listed_with_its_meaning():
    listed = json.loads(settings("--json").stdout)
    fuse_names = [row["name"] for row in listed["fuse"]]
    assert sorted(fuse_names) == sorted(TrainSettings.model_fields)
    assert {"backbones.visual", "detection.every", "language"} <= {row["name"] for row in listed["extract"]}
    text = " ".join(settings().stdout.split())
    for row in listed["extract"] + listed["fuse"]:
        assert row["meaning"].endswith("."), row["name"]
        assert row["meaning"] in text
    assert not {"backbones", "detection"} & {row["name"] for row in listed["extract"]}


@pytest.mark.parametrize("preset", PRESETS)
def test_what_is_listed_can_be_given(preset):
    """All of it together makes the same settings again."""
    lines = settings("fuse", "--preset", preset).stdout.splitlines()
    given = [line.split("  (")[0].replace(" = ", "=") for line in lines[2:] if not line.startswith(" ")]
    assert len(given) == len(TrainSettings.model_fields)
    assert train_settings(None, given) == train_settings(preset=preset)


def test_what_is_listed_of_extract_can_be_given():
    listed = json.loads(settings("extract", "--profile", "offline", "--json").stdout)["extract"]
    given = [f"{row['name']}={spelt(row['value'])}" for row in listed]
    assert extract_settings("paper", None, given) == extract_settings("offline") != extract_settings("paper")


@pytest.mark.parametrize(
    ("which", "name", "allowed"),
    [
        ("extract", "detection.every", "whole number from 1 to 32"),
        ("extract", "views", "list of: centre, flip, corners"),
        ("extract", "precision", "float32, bfloat16, or auto"),
        ("fuse", "window", "whole number from 2 to 100000"),
        ("fuse", "gates", "spec, dca, grjca, hgrjca, none"),
        ("fuse", "fps", "number above 0 to 1000, or common, equal, own"),
        ("fuse", "channels", "{name: list of: whole number}, or null"),
        ("fuse", "plateau_factor", "number above 0 to 1"),
    ],
)
def test_choices_and_bounds_are_listed(which, name, allowed):
    (row,) = [row for row in json.loads(settings(which, "--json").stdout)[which] if row["name"] == name]
    assert row["allowed"] == allowed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fuse", "--profile", "paper"], "--profile is of `affuse settings extract`"),
        (["extract", "--preset", "rcma"], "--preset is of `affuse settings fuse`"),
        (["--preset", "lfam"], "did you mean 'lfan'"),
        (["--profile", "papr"], "did you mean 'paper'"),
    ],
)
def test_settings_of_what_is_not_asked_for(arguments, message):
    assert message in settings(*arguments, code=2).stderr


@pytest.mark.parametrize(
    ("make", "assignment", "said"),
    [
        (train_settings, "channels=16", "--set 'channels={audio: [32], visual: [64, 64]}'"),
        (train_settings, "channels={visual: 16}", "--set 'channels={audio: [32], visual: [64, 64]}'"),
        (train_settings, "dropout=0.5", "--set 'dropout={attention: 0.3}'"),
        (train_settings, "modalities=visual", "--set 'modalities=[visual, audio]'"),
        (partial(extract_settings, "paper"), "modalities=visual", "--set 'modalities=[visual, audio]'"),
        (partial(extract_settings, "paper"), "detection=4", "It is set by detection.short_side, detection."),
    ],
)
def test_what_is_no_plain_value_is_shown_by_an_example(make, assignment, said):
    with pytest.raises(UsageError) as refused:
        make(config=None, assignments=[assignment])
    assert said in str(refused.value)
    if "--set" in said:  # it can be given
        make(config=None, assignments=[said.removeprefix("--set ").strip("'")])
