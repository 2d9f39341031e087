"""`affuse report` of models that were compared: a forest plot, and the same as a table."""

from __future__ import annotations

import json

import pandas as pd
import pytest

import affuse
import tiny
from affuse import fuse
from affuse.pipelines.report.comparison import collect_comparison
from pages import HOSTILE, write_comparison
from test_report import facts_in
from test_report_browser import Looking, browser  # noqa: F401 - a fixture


def test_what_compare_writes_is_what_the_page_says(tmp_path, undrawn):
    store, labels = tiny.make_data(tmp_path, 3, 3, made=tiny.provenance(trained=False))
    out = tmp_path / "compared"
    fuse.compare(store, labels, out, "concat,unimodal@audio,ca", [0, 1], tiny.small(epochs=1))
    facts = facts_in(affuse.report(out, tmp_path / "page.html"))
    assert (facts["kind"], facts["clips"], len(facts["untrained"])) == ("comparison", [], 4)
    table = pd.read_csv(out / "table.csv", index_col="model").sort_values("mean", ascending=False)
    against = pd.read_csv(out / "differences.csv").query("target == 'mean'").set_index("model")
    rows = facts["comparison"]["rows"]
    assert [row["model"] for row in rows] == [*table.index]
    for row in rows:
        assert row["mean"] == pytest.approx(table.loc[row["model"], "mean"])
        if row["model"] == facts["comparison"]["reference"]:
            assert row["difference"] is row["low"] is None
            continue
        other = against.loc[row["model"]]
        turned = (-other["difference"], -other["high"], -other["low"])
        assert (row["difference"], row["low"], row["high"]) == pytest.approx(turned)


def test_models_are_sorted_and_those_told_apart_are_named(tmp_path):
    facts = collect_comparison(write_comparison(tmp_path))
    told = facts.comparison
    assert [row["model"] for row in told["rows"]] == [HOSTILE, "rjcma", "concat", "unimodal@audio"]
    assert told["verdict"] == (
        f"Below rjcma by more than the interval: concat, unimodal@audio. Not told apart from rjcma: {HOSTILE}."
    )
    assert told["notes"][0] == "Not above concat: unimodal@audio."
    assert any("which flatters it" in note for note in told["notes"])
    assert ["stop patience", "3"] in facts.about
    alone = collect_comparison(
        write_comparison(tmp_path, {"rjcma": 0.6}, {}, baselines=[], reference_named=True)
    )
    assert (alone.comparison["verdict"], alone.comparison["notes"]) == ("", [])


def test_what_cannot_be_is_said_in_a_sentence(tmp_path):
    folder = write_comparison(tmp_path / "compared")
    with pytest.raises(affuse.UsageError, match="Leave out --features and --labels"):
        affuse.report(folder, tmp_path / "page.html", features=tmp_path, labels=tmp_path)
    for damaged in ("{", "[]", "{}", json.dumps({"targets": 5})):
        (folder / "results.json").write_text(damaged)
        with pytest.raises(affuse.AffuseError, match=r"results\.json cannot be read"):
            affuse.report(folder, tmp_path / "page.html")
    (folder / "results.json").write_text('{"targets": []}')
    with pytest.raises(affuse.AffuseError, match="it has no 'environment'"):
        affuse.report(folder, tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()


FOREST = "document.querySelector('[data-name=forest]')"


@pytest.mark.parametrize("width", [1280, 390])
def test_the_plot_and_the_table_say_the_same(browser, tmp_path, width):  # noqa: F811
    made = affuse.report(write_comparison(tmp_path), tmp_path / "page.html")
    looking = Looking(browser, made, width, drawn="#forest .point")
    dots = looking(f"return [...{FOREST}.querySelectorAll('.point')].map(d => d.getBoundingClientRect().x)")
    bars = looking(f"return [...{FOREST}.querySelectorAll('.xerror')].map(b => b.getBBox().width)")
    (line,) = looking(
        f"return [...{FOREST}.querySelectorAll('.shapelayer path')].map(s => s.getBoundingClientRect().x)"
    )
    best, reference, concat, audio = dots
    assert audio < concat < reference < best
    assert (reference - audio) / (reference - concat) == pytest.approx(3, rel=0.05)
    assert reference < line + 10
    assert bars[3] / bars[2] == pytest.approx(0.2 / 0.12, rel=0.1)
    heads = looking(f"return [...{FOREST}.querySelectorAll('.annotation-text')].map(a => a.textContent)")
    assert heads[0].startswith(HOSTILE[:39] + "…")
    assert [head.split()[0] for head in heads[1:]] == ["rjcma", "concat", "unimodal@audio"]
    cells = "return [...document.querySelectorAll('#compared-table tbody tr')].map(r => r.children[2].textContent)"
    assert looking(cells) == [
        "+0.020 [−0.040, +0.080]", "–", "−0.100 [−0.160, −0.040]", "−0.300 [−0.400, −0.200]",
    ]  # fmt: skip
    assert looking("return document.documentElement.scrollWidth") <= width
    absent = ["watch", "summary", "skip", "attention", "learning"]
    assert looking("return arguments[0].every((id) => document.getElementById(id).hidden)", absent)
    assert [entry for entry in browser.get_log("browser") if entry["level"] != "INFO"] == []
