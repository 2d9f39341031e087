"""Ablations: every level of every model can be built, equal levels are one run, tables follow from the runs."""

import json

import pandas as pd
import pytest
from click.testing import CliRunner

import tiny
from affuse import commands as cli
from affuse import fuse
from affuse.errors import UsageError
from affuse.fuse.experiments.ablate import plan
from affuse.fuse.experiments.trials import make_entries
from affuse.fuse.models.registry import MODELS


def levels(name, **changes):
    """{ablation: its levels as entries, or why it is left out}, and the model itself as an entry."""
    (base,) = make_entries([name], tiny.small(**changes), tiny.WIDTHS)
    found = {}
    for ablation in plan(base.settings, tiny.WIDTHS):
        made = ablation.why_not or make_entries(ablation.levels, base.settings, tiny.WIDTHS)
        found[ablation.name] = made if isinstance(made, str) else {entry.name: entry for entry in made}
    return found, base


@pytest.mark.parametrize("name", list(MODELS))
def test_every_level_of_every_model_can_be_built(name):
    found, base = levels(name)
    assert list(found) == ["recursions", "encoder", "modalities", "gates", "tied"]
    for ablation in ("recursions", "gates", "tied"):
        assert isinstance(found[ablation], str) is not MODELS[name].recursive
    assert isinstance(found["encoder"], str) is bool(MODELS[name].fit)
    for made in found.values():
        if not isinstance(made, str):  # levels differ from one another, and one of them is the model itself
            identities = [entry.identity for entry in made.values()]
            assert len(set(identities)) == len(identities) > 1
            assert base.identity in identities or (name == "rjca" and "tied" in made)


def test_levels_change_what_they_say():
    found, _ = levels("rjcma")
    assert [e.settings.recursions for e in found["recursions"].values()] == [0, 1, 2, 3, 4]
    assert {k: e.settings.encoder for k, e in found["encoder"].items()} == {"off": "linear", "on": "tcn"}
    assert found["modalities"]["without audio"].settings.modalities == ["visual", "text"]
    assert {k: e.settings.gates for k, e in found["gates"].items()} == {"off": "none", "on": "grjca"}
    assert {k: e.settings.tied for k, e in found["tied"].items()} == {"untied": False, "tied": True}
    found, _ = levels("hgrjca")
    assert list(found["recursions"]) == ["1", "2", "3", "4"]  # a gate needs something to choose from
    assert found["gates"]["on"].settings.gates == "hgrjca"
    assert found["modalities"]["without audio"].settings.model == "unimodal"
    found, _ = levels("rjca")
    assert {e.settings.recursions for e in found["tied"].values()} == {2}  # it has one of its own
    found, _ = levels("ca")
    assert {k: e.settings.encoder for k, e in found["encoder"].items()} == {"off": "none", "on": "tcn"}
    found, _ = levels("rjcma:paper", recursions=4, tied=True, modality_dropout=0.2, dropout={"head": 0.1})
    assert [e.settings.tied for e in found["recursions"].values()] == [False, False, True, True, True]
    found, _ = levels("unimodal@text")
    assert found["modalities"] == "unimodal has one modality only"


@pytest.fixture(scope="module")
def ablated(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ablation")
    data = tiny.make_data(folder, 3, 2, frames=40)
    settings = tiny.small(epochs=1, warmup_epochs=0)
    fuse.compare(*data, folder / "out", "rjcma,concat", [0], settings)
    said = []
    result = fuse.ablate(*data, folder / "out", "rjcma", [0], settings, announce=said.append)
    return folder / "out", data, settings, result, said


def test_tables_follow_from_the_runs(ablated):
    out, data, _, result, _ = ablated
    as_it_is = fuse.evaluate(out / "runs" / "rjcma-seed0", *data)["ccc"]["mean"]
    runs = {  # levels whose run is their own
        "recursions": {"0": "recursions-0", "3": "recursions-3"},
        "encoder": {"off": "encoder-off"},
        "modalities": {"without text": "modalities-without-text"},
        "gates": {"on": "gates-on"},
        "tied": {"tied": "tied-tied"},
    }
    for name, expected in runs.items():
        table = pd.read_csv(out / f"{name}.csv", index_col=name, dtype={name: str})
        for level, folder in expected.items():
            run = out / "runs" / f"rjcma-{folder}-seed0"
            ccc = fuse.evaluate(run, *data)["ccc"]
            row = table.loc[level]
            assert row["valence"] == pytest.approx(ccc["valence"], abs=1e-12)
            assert row["lost"] == pytest.approx(as_it_is - ccc["mean"], abs=1e-9)
            assert row["low"] <= row["lost"] <= row["high"]
            assert row["parameters"] == sum(p.numel() for p in fuse.load_run(run).model.parameters())
        (own,) = table.index[table["lost"].isna()]
        assert table.loc[own, "mean"] == pytest.approx(as_it_is, abs=1e-12)
        assert f"{table.loc[own, 'mean']:.3f}" in (out / f"{name}.md").read_text()
        assert (out / f"{name}.png").stat().st_size > 5_000
    no_attention = result.tables["recursions"].loc["0"]
    concatenation = fuse.evaluate(out / "runs" / "concat-seed0", *data)["ccc"]
    assert no_attention["mean"] == concatenation["mean"]


def test_equal_levels_are_one_run_and_runs_of_a_comparison_are_taken(ablated):
    out, data, settings, result, said = ablated
    assert "(trained before)" in said[0]
    names = sorted(path.name for path in (out / "runs").iterdir())
    assert len(names) == 12  # concat, rjcma, and ten levels that differ from it
    made = {path: path.stat().st_mtime_ns for path in out.rglob("model.safetensors")}
    again = fuse.ablate(*data, out, "rjcma", [0], settings)
    assert {path: path.stat().st_mtime_ns for path in out.rglob("model.safetensors")} == made
    assert again.text == result.text
    assert json.loads((out / "ablations.json").read_text()) == again.facts


def test_what_does_not_apply_is_left_out_and_said(tmp_path):
    store, labels = tiny.make_data(tmp_path, 2, 1, frames=40)
    command = ["fuse", "ablate", "--model", "unimodal@audio", "--features", store.path, "--labels", labels]
    options = ["epochs=1", "window=32", "hop=20", "channels.audio=[4]", "tensorboard=false", "device=cpu"]
    command = [*map(str, command), *(part for option in options for part in ("--set", option))]
    answer = CliRunner().invoke(cli.main, [*command, "--out", str(tmp_path / "out")])
    assert answer.exit_code == 0, answer.output
    assert "gates: left out, since unimodal has no recursions" in answer.stderr
    assert answer.stdout.startswith("encoder")
    assert sorted(path.suffix for path in (tmp_path / "out").glob("encoder.*")) == [".csv", ".md", ".png"]
    assert not list((tmp_path / "out").glob("gates.*"))


def test_an_unknown_model_names_the_nearest(tmp_path):
    store, labels = tiny.make_data(tmp_path, 2, 1, frames=40)
    with pytest.raises(UsageError, match="did you mean 'hgrjca'"):
        fuse.ablate(store, labels, tmp_path / "out", "hgrjka")
    assert not (tmp_path / "out").exists()
