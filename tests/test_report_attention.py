"""`affuse report`: what attention and gates of a run did, in words."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import affuse
import tiny
from affuse import fuse
from affuse.features import FeatureStore
from affuse.pipelines.report.attention import attention_of, percent, step_names, weights_of
from affuse.pipelines.report.sources import read_source
from test_report import facts_in
from test_report_browser import Looking, browser  # noqa: F401 - a fixture


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A store and labels; the first validation video has no words."""
    return tiny.make_data(tmp_path_factory.mktemp("data"), 3, 2, without=("text",))


@pytest.fixture(scope="module")
def gated(data, tmp_path_factory, undrawn):
    """A run of gates that choose among gates, over two recursions."""
    run = tmp_path_factory.mktemp("gated") / "run"
    fuse.train(*data, run, tiny.small(model="hgrjca", epochs=1, modalities=["visual", "audio", "text"]))
    return run


def test_shares_are_the_means_of_what_explain_writes(gated, data, tmp_path):
    told = attention_of(read_source(gated, data[0].path))
    assert (told["videos"], told["of"], told["models"], told["reason"]) == (2, 2, 1, "")
    assert told["steps"] == ["before attention", "after the first recursion", "after the last recursion"]
    assert [each["name"] for each in told["modalities"]] == ["face", "sound", "words"]
    fuse.explain(gated, data[0], tmp_path, ["set/v0", "set/v1"])
    table = pd.concat([pd.read_csv(path) for path in tmp_path.glob("*.csv")])
    for m, each in zip(("visual", "audio", "text"), told["modalities"], strict=True):
        there = table.dropna(subset=f"norm_{m}")
        assert each["frames"] == len(there)
        g1, g2 = there[f"gate_{m}_G1"], there[f"gate_{m}_G2"]
        first = g1 * there[f"gate_{m}_G1_X1"] + g2 * there[f"gate_{m}_G2_X1"]
        last = g2 * there[f"gate_{m}_G2_X2"]
        expected = [1 - first.mean() - last.mean(), first.mean(), last.mean()]
        assert each["taken"] == pytest.approx(expected, abs=2e-3)
        changed = [there[f"update_{m}_{i}"].mean() / there[f"norm_{m}"].mean() for i in (1, 2)]
        assert each["changed"] == pytest.approx(changed, abs=2e-3)
        most = max(expected)
        assert f"For the {each['name']}, {percent(most)} of what is used is the features " in each["said"]
        assert f"The first recursion changes the features by {percent(changed[0])} of their" in each["said"]
    assert told["modalities"][2]["frames"] < told["modalities"][1]["frames"]


def test_weights_of_a_flat_gate_are_its_own_and_of_nested_ones_their_product():
    flat = pd.DataFrame(
        {"gate_audio_X0": [0.2, 0.4], "gate_audio_X2": [0.8, 0.6], "gate_visual_X0": [1.0, 1.0]}
    )
    assert {step: [*values] for step, values in weights_of(flat, "audio").items()} == {
        "X0": [0.2, 0.4],
        "X2": [0.8, 0.6],
    }
    nested = {"G1": 0.25, "G2": 0.75, "G1_X0": 0.4, "G1_X1": 0.6, "G2_X0": 0.2, "G2_X1": 0.3, "G2_X2": 0.5}
    found = weights_of(pd.DataFrame({f"gate_text_{name}": [value] for name, value in nested.items()}), "text")
    assert {step: values[0] for step, values in found.items()} == pytest.approx(
        {"X0": 0.25, "X1": 0.375, "X2": 0.375}
    )
    assert weights_of(flat, "text") == {}


def test_steps_have_names_that_a_reader_knows():
    assert step_names(1) == ["before attention", "after attention"]
    assert step_names(3)[1:3] == ["after the first recursion", "after recursion 2"]
    told = [percent(share).replace("\N{NO-BREAK SPACE}", " ") for share in (0.0, 0.001, 0.724, 1.0)]
    assert told == ["0 %", "less than 1 %", "72 %", "100 %"]


def test_without_gates_it_is_told_how_much_is_changed_alone(data, tmp_path, undrawn):
    fuse.train(*data, tmp_path / "run", tiny.small(recursions=1, epochs=1))
    told = attention_of(read_source(tmp_path / "run", data[0].path))
    for each in told["modalities"]:
        (changed,) = each["changed"]
        assert each["taken"] == []
        assert each["said"] == f"Attention changes the features by {percent(changed)} of their size."
        assert changed > 0


def test_several_seeds_are_told_together(data, tmp_path, undrawn):
    fuse.train_seeds(*data, tmp_path / "run", [0, 1], tiny.small(model="dca", epochs=1))
    both, *each = (
        attention_of(read_source(path, data[0].path))
        for path in (tmp_path / "run", tmp_path / "run/seed0", tmp_path / "run/seed1")
    )
    assert both["models"] == 2
    for k, own in enumerate(both["modalities"]):
        assert own["taken"] == pytest.approx(
            np.mean([one["modalities"][k]["taken"] for one in each], axis=0), abs=2e-3
        )


def test_what_has_no_attention_has_no_such_section(data, tmp_path, gated, undrawn):
    fuse.train(*data, tmp_path / "run", tiny.small(model="concat", epochs=1))
    page = affuse.report(tmp_path / "run", tmp_path / "run.html", features=data[0].path)
    assert facts_in(page)["attention"] is None
    assert facts_in(affuse.report(data[0].path, tmp_path / "store.html"))["attention"] is None


def test_explanations_are_not_taken_for_predictions(gated, data, tmp_path):
    fuse.explain(gated, data[0], tmp_path / "explained", ["set/v1"])
    with pytest.raises(affuse.UsageError, match=r"what `affuse fuse explain` wrote.*with --features"):
        affuse.report(tmp_path / "explained", tmp_path / "page.html")


def test_why_nothing_is_told_is_said(gated, data, tmp_path):
    told = attention_of(read_source(gated))
    assert "--features" in told["reason"]
    assert told["modalities"] == []
    store = FeatureStore(tmp_path / "other", create=True)
    for video in ("set/v0", "set/v1"):
        store.write(data[0][video], tiny.provenance("iresnet50"))
    told = attention_of(read_source(gated, store.path))
    assert "resnet50 → iresnet50" in told["reason"]
    assert told["modalities"] == []


def test_bars_are_as_long_as_the_shares(browser, gated, data, tmp_path):  # noqa: F811
    made = affuse.report(gated, tmp_path / "page.html", features=data[0].path)
    looking = Looking(browser, made, drawn="#attention-list .bar")
    told = facts_in(made)["attention"]["modalities"]
    assert looking("return [...document.querySelectorAll('#attention-list dt')].map((e) => e.textContent)") == [
        "face", "sound", "words",
    ]  # fmt: skip
    assert looking.text("#attention-list dd") == told[0]["said"]
    parts = "return [...document.querySelectorAll('#attention-list .bar')].map((bar) => "
    parts += "[...bar.children].map((part) => part.getBoundingClientRect().width / bar.clientWidth))"
    most = max(1, *(sum(each["changed"]) for each in told))
    expected = [row for each in told for row in (each["taken"], [share / most for share in each["changed"]])]
    for found, shares in zip(looking(parts), expected, strict=True):
        assert found == pytest.approx(shares, abs=0.01)
    assert "no cause" in looking.text("#attention-limits")
    looking = Looking(browser, affuse.report(gated, tmp_path / "alone.html"))
    assert "--features" in looking.text("#attention-note")
    assert looking("return document.querySelector('#attention-limits').hidden")
