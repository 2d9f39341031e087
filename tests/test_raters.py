"""Several raters and one gold standard, their scale, and their spans, without any data set."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from affuse.pipelines.recipes.ratings import (
    Ratings,
    apart,
    disagreement,
    from_unit,
    gold_standard,
    to_unit,
    trust,
)


def many(rng, clips=4, raters=5, targets=2):
    """Raters who follow the truth more or less, one of whom turns it over, and who skip rows."""
    everything = []
    for clip in range(clips):
        truth = rng.normal(size=(30, targets))
        own = {}
        for k in range(raters):
            values = truth * (-1 if k == 4 else 1) + rng.normal(size=truth.shape) * 0.4 * (k % 4 + 1)
            values[rng.random(truth.shape) < 0.2] = np.nan
            own[f"r{k}"] = values
        if clip == 1:
            del own["r0"]
        everything.append(Ratings(None, ("valence", "arousal"), range(30), raters=own))
    return everything


def test_the_evaluator_weighted_estimator_by_loops():
    """Grimm & Kroschel 2005: r_k of each rater with the mean of all, x̂_n = Σ_k r_k x_nk / Σ_k r_k."""
    everything = many(np.random.default_rng(0))
    weights = trust(everything)
    for target in range(2):
        r = {}
        for k in range(5):
            mine, mean = [], []
            for ratings in everything:
                for n in range(30):
                    row = {
                        name: v[n, target]
                        for name, v in ratings.raters.items()
                        if v[n, target] == v[n, target]
                    }
                    if f"r{k}" in row and len(row) > 1:
                        mine.append(row[f"r{k}"])
                        mean.append(sum(row.values()) / len(row))
            r[f"r{k}"] = max(0.0, np.corrcoef(mine, mean)[0, 1])
            assert weights[f"r{k}"][target] == pytest.approx(r[f"r{k}"], abs=1e-12)
        assert r["r4"] == 0 < r["r0"]
        for ratings in everything:
            found = gold_standard(ratings, "ewe", weights)[:, target]
            for n in range(30):
                row = {
                    name: v[n, target] for name, v in ratings.raters.items() if v[n, target] == v[n, target]
                }
                r_n = {name: r[name] if sum(map(r.get, row)) else 1.0 for name in row}
                expected = (
                    sum(r_n[name] * x for name, x in row.items()) / sum(r_n.values()) if row else np.nan
                )
                np.testing.assert_allclose(found[n], expected, atol=1e-12)


def test_raters_nobody_agrees_with_leave_the_mean():
    still = Ratings(None, ("valence",), [1], raters={"a": np.array([[0.2]]), "b": np.array([[0.6]])})
    np.testing.assert_allclose(gold_standard(still, "ewe", trust([still])), [[0.4]])
    np.testing.assert_allclose(disagreement(still), [[0.2]])
    lone = Ratings(None, ("valence",), [1], raters={"a": np.array([[0.2]]), "b": np.array([[np.nan]])})
    np.testing.assert_allclose(gold_standard(lone, "mean", {}), [[0.2]])
    assert np.isnan(disagreement(lone)).all()


@given(st.floats(-100, 100), st.floats(0.01, 100), st.lists(st.floats(0, 1), min_size=1, max_size=9))
def test_a_scale_there_and_back(low, width, shares):
    high = low + width
    values = low + np.array(shares) * width
    unit = to_unit(values, low, high)
    assert (np.abs(unit) <= 1 + 1e-9).all()
    np.testing.assert_allclose(from_unit(unit, low, high), values, atol=1e-9 * max(abs(low), abs(high), 1))
    np.testing.assert_allclose(
        to_unit(np.array([low, (low + high) / 2, high]), low, high), [-1, 0, 1], atol=1e-6
    )


def test_spans_are_put_in_order_and_never_overlap():
    spans = Ratings(
        None, ("valence",), [2, 3, 4], np.array([[0.1], [0.2], [0.3]]), time=np.array([2.0, 0.0, 0.0]),
        end=np.array([3.0, 2.5, 1.0]),
    )  # fmt: skip
    own = apart(spans)
    assert (own.time.tolist(), own.end.tolist()) == ([0.0, 2.0], [1.0, 3.0])
    assert (own.gold[:, 0].tolist(), own.lines) == ([0.3, 0.1], [4, 2])
