"""What training minimises: each loss against NumPy, masks, and what it is for."""

import numpy as np
import pytest
import torch
from scipy.stats import norm

import tiny
from affuse.errors import UsageError
from affuse.fuse import build_model, load_run, train, train_settings
from affuse.fuse.models.registry import MODELS
from affuse.fuse.scoring.metrics import ccc
from affuse.fuse.training.losses import LOSSES


@pytest.fixture
def windows():
    generator = torch.Generator().manual_seed(0)
    truth, prediction = (torch.rand(2, 4, 30, 2, generator=generator, dtype=torch.float64) * 2 - 1).unbind(0)
    valid = torch.rand(4, 30, generator=generator) < 0.7
    valid[3] = False
    return prediction, truth, valid


def fitting(name, windows):
    """With a standard deviation of every prediction, where the loss is of them, too."""
    prediction, truth, valid = windows
    return (
        (torch.cat([prediction, 0.3 + prediction.abs()], -1) if name == "gaussian" else prediction),
        truth,
        valid,
    )


def test_a_normal_density_is_scipys(windows):
    prediction, truth, valid = fitting("gaussian", windows)
    mean, deviation = np.split(prediction[valid].numpy(), 2, axis=1)
    expected = -norm.logpdf(truth[valid].numpy(), mean, deviation).mean() - np.log(2 * np.pi) / 2
    assert float(LOSSES["gaussian"](prediction, truth, valid)) == pytest.approx(expected, abs=1e-12)


def test_a_model_learns_how_sure_it_may_be(tmp_path):
    """Trained by the density, it gives a deviation for every prediction, within bounds, and they are in its file."""
    store, labels = tiny.make_data(tmp_path)
    train(store, labels, tmp_path / "run", tiny.small(loss="gaussian", epochs=3, gaps="mask"))
    run = load_run(tmp_path / "run")
    made = run.predict(store)["set/v0"]
    assert made.deviation.shape == made.values.shape
    assert made.deviation.std() > 0
    assert (made.deviation >= np.sqrt(np.exp(-8) + run.noise) - 1e-6).all()
    assert set(run.evaluate(store, labels)["within"]) == {"valence", "arousal", "mean"}
    assert list(run.explain(store)["set/v0"])[:5] == [
        "time",
        "valence",
        "arousal",
        "valence_deviation",
        "arousal_deviation",
    ]
    train(store, labels, tmp_path / "plain", tiny.small(epochs=1))
    assert load_run(tmp_path / "plain").predict(store)["set/v0"].deviation is None
    with pytest.raises(UsageError, match="deviations"):
        train_settings(loss="mse", deviations=True)


@pytest.mark.parametrize(
    "model", [name for name in MODELS if name not in ("mean", "linear", "linear-rescaled")]
)
def test_every_model_has_deviations(model):
    widths = dict(list(tiny.WIDTHS.items())[: MODELS[model].modalities[1]])
    made = build_model(model, widths, window=16, deviations=True)(
        {m: torch.randn(2, 16, d) for m, d in widths.items()}
    )
    assert made.shape == (2, 16, 4)
    assert (made[..., 2:] >= np.exp(-4)).all()
    assert (made[..., 2:] <= np.exp(1)).all()


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
    prediction, truth, valid = fitting(name, windows)
    hidden = ~valid[..., None]
    loss = LOSSES[name](prediction.masked_fill(hidden, 1e6), truth.masked_fill(hidden, torch.nan), valid)
    assert float(loss) == float(LOSSES[name](prediction, truth, valid))
    assert float(LOSSES[name](prediction, truth, torch.zeros_like(valid))) == 0
    assert torch.autograd.gradcheck(lambda p: LOSSES[name](p, truth, valid), prediction.requires_grad_())


@pytest.mark.parametrize("name", LOSSES)
def test_halves_are_computed_in_float32(windows, name):
    prediction, truth, valid = fitting(name, windows)
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
