"""Figures say what they show: titles with the CCC, whole epochs, bars with intervals, legends beside the curves."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.layout_engine import ConstrainedLayoutEngine

from affuse.fuse.reports.figures import (
    ablation_figure,
    comparison_figure,
    learning_curve,
    save_figure,
    traces,
)
from affuse.fuse.scoring.metrics import ccc
from affuse.fuse.scoring.predict import Prediction

HISTORY = [
    {
        "epoch": i,
        "loss": 1 - i / 10,
        "ccc_valence": i / 10,
        "ccc_arousal": i / 5,
        "ccc_mean": 0.15 * i,
        "best": i < 3,
    }
    for i in (1, 2, 3)
]


FITTED = ConstrainedLayoutEngine.execute


@pytest.fixture(autouse=True)
def fitted(monkeypatch):
    """Axes make room for what is written, as they do everywhere but in other tests."""
    monkeypatch.setattr(ConstrainedLayoutEngine, "execute", FITTED)


def named(figure) -> list[str]:
    """What the figure's one legend, which no axis has, says."""
    assert not any(axis.get_legend() for axis in figure.axes)
    (legend,) = figure.legends
    return [text.get_text() for text in legend.get_texts()]


def clear_of_axes(figure) -> bool:
    """Whether the legend covers no axis."""
    figure.canvas.draw()
    box = figure.legends[0].get_window_extent()
    return not any(box.overlaps(axis.get_window_extent()) for axis in figure.axes)


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_learning_curve_has_whole_epochs_and_its_best_in_the_title(epochs):
    figure = learning_curve(HISTORY[:epochs], "rjcma")
    figure.canvas.draw()
    low, high = figure.axes[1].get_xlim()
    ticks = [tick for tick in figure.axes[1].get_xticks() if low <= tick <= high]
    assert ticks == [*range(1, epochs + 1)]
    best = min(epochs, 2)
    scores = f"valence {best / 10:.3f}, arousal {best / 5:.3f}, mean {0.15 * best:.3f}"
    assert figure.axes[0].get_title() == f"rjcma: CCC {scores}"
    assert named(figure) == ["valence", "arousal", "mean", f"best epoch, {best}"]
    assert clear_of_axes(figure)


def test_models_are_bars_beside_how_far_they_are_from_the_reference():
    table = pd.DataFrame(
        {"valence": [0.2, 0.6], "arousal": [0.4, 0.4], "mean": [0.3, 0.5], "mean_sd": [0.05, np.nan]},
        index=["audio", "rjcma"],
    )
    rows = [("audio", "valence", 0.4, 0.3, 0.6), ("audio", "mean", 0.2, 0.1, 0.35)]
    differences = pd.DataFrame(rows, columns=["model", "target", "difference", "low", "high"])
    figure = comparison_figure(table, differences, "rjcma", ["valence", "arousal"])
    bars, gaps = figure.axes
    assert [tick.get_text() for tick in bars.get_yticklabels()] == ["audio", "rjcma"]
    assert [bar.get_width() for bar in bars.patches] == [0.3, 0.5]
    (whiskers,) = gaps.containers
    (point, _, (span,)) = whiskers
    assert point.get_xdata()[0] == -0.2
    np.testing.assert_allclose(span.get_segments()[0][:, 0], [-0.35, -0.1])
    assert "less that of rjcma" in gaps.get_xlabel()
    assert named(figure) == ["valence", "arousal", "mean"]
    assert clear_of_axes(figure)


def test_an_ablation_has_its_legend_beside_it():
    table = pd.DataFrame(
        {"valence": [0.1, 0.2], "valence_sd": [0, 0.1], "mean": [0.1, 0.2], "mean_sd": [0, 0.1]}
    )
    figure = ablation_figure("recursions", table, ["valence"], ordered=True)
    assert named(figure) == ["valence", "mean"]
    assert clear_of_axes(figure)


def test_a_prediction_beside_the_truth_has_its_model_and_ccc_in_the_title():
    rng = np.random.default_rng(0)
    values, truth = rng.uniform(-1, 1, (2, 30, 1))
    truth[:5] = np.nan
    made = Prediction(
        "clip", np.arange(30) / 10, ("valence",), values, {"visual": np.ones(30, bool)}, model="rjcma"
    )
    score = f"{ccc(truth[5:, 0], values[5:, 0]):.3f}"
    assert made.plot(truth).axes[0].get_title() == f"clip, rjcma: CCC valence {score}, mean {score}"
    assert made.plot().axes[0].get_title() == "clip, rjcma"
    assert clear_of_axes(made.plot(truth))


def test_the_band_is_seen_where_there_is_no_face():
    time, seen = np.arange(20) / 10, np.arange(20) < 10
    figure = traces("clip", ["valence"], time, np.zeros((20, 1)), seen, None, seen, np.full((20, 1), 0.5))
    order = {part.get_label(): part.get_zorder() for part in figure.axes[0].collections}
    assert order["no features"] < order["9 of 10 valence"]


@pytest.mark.parametrize("name", ["$_$", r"a $\frac$ b", "新"])
def test_any_name_may_stand_over_a_figure(tmp_path, name, recwarn):
    time, seen = np.arange(3) / 10, np.ones(3, bool)
    save_figure(traces(name, ["valence"], time, np.zeros((3, 1)), seen), tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size
    assert not [warning for warning in recwarn if "Glyph" in str(warning.message)]
