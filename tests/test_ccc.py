"""The CCC against its definition and known values; the loss against the metric, masks and float32."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from affuse.fuse.scoring.metrics import ccc, ccc_loss, pearson, rmse


def test_values_by_hand():
    # mean 2 and 3, variances 2/3 and 2/3, covariance 2/3: 2·(2/3) / (4/3 + 1) = 4/7
    assert ccc([1, 2, 3], [2, 3, 4]) == pytest.approx(4 / 7, abs=1e-15)
    assert ccc([1, 2, 3], [3, 2, 1]) == pytest.approx(-1, abs=1e-15)
    assert ccc([1, 2, 3], [2, 2, 2]) == 0
    assert ccc([0.1] * 7, [0.1] * 7) == 0  # a constant carries nothing that one could agree on
    assert np.isnan(ccc([], []))
    assert rmse([0, 0], [3, 4]) == pytest.approx(np.sqrt(12.5))


def test_pearson_and_rmse_equal_scipy_and_numpy():
    from scipy.stats import pearsonr

    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, 500))
    y += x
    assert pearson(x, y) == pytest.approx(pearsonr(x, y)[0], abs=1e-12)
    assert rmse(x, y) == pytest.approx(np.sqrt(np.mean((x - y) ** 2)), abs=1e-12)
    assert pearson(x, np.full(500, 0.1)) == 0


@settings(deadline=None)
@given(st.integers(0, 10_000))
def test_ccc_is_symmetric_below_pearson_and_one_only_for_the_truth(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-1, 1, (2, 50))
    assert ccc(x, y) == pytest.approx(ccc(y, x), abs=1e-12)
    assert abs(ccc(x, y)) <= abs(pearson(x, y)) + 1e-12
    assert ccc(x, x) == pytest.approx(1, abs=1e-12)


@pytest.fixture
def windows():
    generator = torch.Generator().manual_seed(0)
    truth, prediction = (torch.rand(2, 4, 30, 2, generator=generator, dtype=torch.float64) * 2 - 1).unbind(0)
    valid = torch.rand(4, 30, generator=generator) < 0.7
    return prediction, truth, valid


def test_loss_is_one_minus_the_metric_averaged_over_windows_and_targets(windows):
    prediction, truth, valid = windows
    valid[3] = False
    valid[3, 5] = True  # one frame: no loss from this window
    expected = [
        1 - ccc(truth[b, valid[b], k].numpy(), prediction[b, valid[b], k].numpy())
        for b in range(3)
        for k in range(2)
    ]
    assert float(ccc_loss(prediction, truth, valid)) == pytest.approx(np.mean(expected), abs=1e-6)


def test_what_is_not_valid_has_no_say(windows):
    prediction, truth, valid = windows
    reference = ccc_loss(prediction, truth, valid)
    hidden = ~valid[..., None].expand_as(truth)
    prediction = prediction.masked_fill(hidden, 7.0).requires_grad_()
    loss = ccc_loss(prediction, truth.masked_fill(hidden, torch.nan), valid)
    loss.backward()
    assert loss == reference
    assert (prediction.grad[hidden] == 0).all()
    assert prediction.grad.isfinite().all()


def test_gradient_is_that_of_finite_differences(windows):
    prediction, truth, valid = windows
    assert torch.autograd.gradcheck(lambda p: ccc_loss(p, truth, valid), prediction.requires_grad_())


@pytest.mark.parametrize("truth", [0.0, 0.3])
def test_constants_give_numbers_in_float32(truth):
    target = torch.full((2, 50, 1), truth)
    for value in (truth, 0.0, 1.0):
        prediction = torch.full((2, 50, 1), value, requires_grad=True)
        loss = ccc_loss(prediction, target, torch.ones(2, 50, dtype=torch.bool))
        loss.backward()
        assert float(loss.detach()) == pytest.approx(1, abs=1e-3)
        assert prediction.grad.isfinite().all()


def test_a_perfect_prediction_has_no_loss_and_an_empty_batch_neither():
    truth = torch.linspace(-0.1, 0.1, 50)[None, :, None]
    valid = torch.ones(1, 50, dtype=torch.bool)
    assert ccc_loss(truth, truth, valid) == pytest.approx(0, abs=1e-4)
    assert ccc_loss(truth, truth, ~valid) == 0


def test_half_precision_is_scored_in_single():
    truth = torch.linspace(-1, 1, 400)[None, :, None]
    noisy = (truth + 0.1 * torch.sin(37 * truth)).bfloat16()
    valid = torch.ones(1, 400, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        loss = ccc_loss(noisy, truth, valid)
    assert loss.dtype == torch.float32
    expected = 1 - ccc(truth[0, :, 0].numpy(), noisy.float()[0, :, 0].numpy())
    assert float(loss) == pytest.approx(expected, abs=1e-5)
