"""What training minimises: each loss against NumPy, masks, and what it is for."""

import numpy as np
import pytest
import torch

import tiny
from affuse.errors import UsageError
from affuse.fuse import train, train_settings
from affuse.fuse.scoring.metrics import ccc
from affuse.fuse.training.losses import LOSSES


@pytest.fixture
def windows():
    generator = torch.Generator().manual_seed(0)
    truth, prediction = (torch.rand(2, 4, 30, 2, generator=generator, dtype=torch.float64) * 2 - 1).unbind(0)
    valid = torch.rand(4, 30, generator=generator) < 0.7
    valid[3] = False
    return prediction, truth, valid


def test_over_the_batch_it_is_the_ccc_of_all_its_frames(windows):
    prediction, truth, valid = windows
    x, y = truth[valid].numpy(), prediction[valid].numpy()
    expected = np.mean([1 - ccc(x[:, k], y[:, k]) for k in range(2)])
    assert float(LOSSES["ccc-batch"](*windows)) == pytest.approx(expected, abs=1e-6)
    error = np.mean((x - y) ** 2)
    assert float(LOSSES["mse"](*windows)) == pytest.approx(error, abs=1e-12)
    assert float(LOSSES["ccc+mse"](*windows)) == pytest.approx(expected + error, abs=1e-6)


@pytest.mark.parametrize("name", LOSSES)
def test_frames_that_do_not_count_have_no_part(windows, name):
    prediction, truth, valid = windows
    hidden = ~valid[..., None].expand_as(truth)
    loss = LOSSES[name](prediction.masked_fill(hidden, 1e6), truth.masked_fill(hidden, torch.nan), valid)
    assert float(loss) == float(LOSSES[name](*windows))
    assert float(LOSSES[name](prediction, truth, torch.zeros_like(valid))) == 0
    assert torch.autograd.gradcheck(lambda p: LOSSES[name](p, truth, valid), prediction.requires_grad_())


@pytest.mark.parametrize("name", LOSSES)
def test_halves_are_computed_in_float32(windows, name):
    prediction, truth, valid = windows
    with torch.autocast("cpu", torch.bfloat16):
        loss = LOSSES[name](prediction.bfloat16(), truth.float(), valid)
    assert loss.dtype == torch.float32


def test_slow_ratings_have_a_gradient_over_the_batch_that_windows_do_not_give():
    """Each window is rated a level: within a window there is nothing to agree on, over the batch there is."""
    level = torch.tensor([-0.5, 0.5])[:, None, None].expand(2, 50, 1)
    prediction, valid = 0.5 * level + 1e-3, torch.ones(2, 50, dtype=torch.bool)
    assert float(LOSSES["ccc"](prediction, level, valid)) == pytest.approx(1, abs=1e-3)
    assert float(LOSSES["ccc-batch"](prediction, level, valid)) < 0.3


@pytest.mark.parametrize("name", LOSSES)
def test_a_model_is_trained_by_each(tmp_path, name):
    store, labels = tiny.make_data(tmp_path)
    result = train(store, labels, tmp_path / "run", tiny.small(loss=name, epochs=2))
    assert np.isfinite(result["best"]["ccc"]["mean"])


def test_an_unknown_loss_is_wrong_usage():
    with pytest.raises(UsageError, match="loss"):
        train_settings(loss="huber")
