"""The learning rate over whole runs, as the releases have it; restarts; a training that does not move."""

import logging

import numpy as np
import pytest
import torch

import tiny
from affuse import fuse
from affuse.fuse.training import learning
from affuse.fuse.training.checkpoint import read_tensors
from affuse.fuse.training.schedule import Schedule, at_rest
from affuse.fuse.training.settings import train_settings

pytestmark = pytest.mark.usefixtures("undrawn")

BATCHES = 4


def schedule(preset="released", **changes):
    settings = train_settings(preset=preset, **changes).model_dump()
    return Schedule(**{name: settings[name] for name in Schedule.__dataclass_fields__ if name in settings})


def followed(schedule, score, epochs=100):
    """Rates (epoch, batch) of a run whose epochs score so, and the epochs at which it was begun anew."""
    rates, restarts = [], []
    for epoch in range(epochs):
        if schedule.stop:
            break
        if schedule.spent:
            schedule.restart(epoch)
            restarts.append(epoch)
        rates.append([schedule.rate(epoch, batch, BATCHES) for batch in range(BATCHES)])
        schedule.observe(epoch, score(epoch))
    return np.array(rates), restarts


def test_a_released_run_restarts_twice_and_ends():
    rates, restarts = followed(schedule(), lambda epoch: min(epoch, 8))  # the last gain is that of epoch 8
    assert (restarts, len(rates)) == ([33, 62], 91)
    warm = [[1e-5 * b * (e + 1) / (25 * BATCHES) for b in range(BATCHES)] for e in range(5)]
    for start, full in ((0, 10), (33, 6), (62, 6)):
        np.testing.assert_allclose(rates[start : start + 5], warm, atol=1e-20)
        np.testing.assert_allclose(rates[start + 5 : start + 5 + full], 1e-5)
    cuts = [epoch for epoch in range(1, 91) if rates[epoch, -1] < 0.5 * rates[epoch - 1, -1]]
    assert [epoch for epoch in cuts if epoch not in restarts] == [15, 21, 27, 44, 50, 56, 73, 79, 85]
    np.testing.assert_allclose(rates[[15, 21, 27, 32], 0], [1e-6, 1e-7, 1e-8, 1e-8])


def test_the_early_stop_counts_from_the_second_full_epoch_and_anew_after_a_restart():
    rates, restarts = followed(schedule(stop_patience=3, plateau_factor=1.0), lambda epoch: 0)
    assert (restarts, len(rates)) == ([], 9)  # 6, 7 and 8; without a gain since epoch 0
    rates, restarts = followed(schedule(stop_patience=7, plateau_factor=1e-4), lambda epoch: 0)
    assert (restarts, len(rates)) == ([11, 22], 33)


def test_after_its_warmup_a_gain_puts_off_cut_and_stop():
    s = schedule(warmup_epochs=0, stop_patience=8)
    rates, _ = followed(s, lambda epoch: {0: 0.5, 6: 0.6}.get(epoch, 0.1))
    np.testing.assert_allclose(rates[:, 0], [1e-5] * 13 + [1e-6] * 2)
    assert s.stop


def test_linear_warmup_rises_to_the_full_rate_and_a_paper_without_restarts_goes_on():
    rates, restarts = followed(schedule("rcma"), lambda epoch: 0)
    np.testing.assert_allclose(rates[:5].ravel(), 1e-4 * np.arange(1, 21) / 20)
    assert (rates[5:11] == 1e-4).all()
    assert (restarts, len(rates)) == ([], 100)


def test_stairs_rise_from_epoch_to_epoch():
    rates, restarts = followed(schedule("lfan"), lambda epoch: 0)
    np.testing.assert_allclose(rates[:10], 1e-6 * np.arange(1, 11)[:, None] * np.ones(BATCHES))
    assert restarts == [28, 56]  # 10 of warm-up, three times six until the rate is below 1e-7


def test_the_releases_of_clips_let_the_rate_decay():
    rates, _ = followed(schedule("jca"), lambda epoch: 0, 12)
    np.testing.assert_allclose(rates[:, 0] / 1e-3, 0.8 ** np.array([0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 2, 3]))
    rates, _ = followed(schedule("ca"), lambda epoch: 0, 18)
    np.testing.assert_allclose(rates[:, 0] / 1e-4, [*[1] * 17, 0.8])


# ---- in a run


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.make_data(tmp_path_factory.mktemp("data"), 3, 1)


RESTARTING = {  # a plateau after one epoch without gain, below the least rate at once
    "epochs": 20, "warmup_epochs": 1, "plateau_patience": 1, "plateau_factor": 1e-9, "min_learning_rate": 1e-8,
}  # fmt: skip


@pytest.fixture
def scored(monkeypatch):
    """The validation CCC falls from the second epoch on, whatever is learned."""
    real = learning.score
    scores = {"ccc": {"valence": 0.0, "arousal": 0.0, "mean": 0.0}}

    def score(corpus, prediction):
        scores["ccc"]["mean"] -= 0.1
        return {**real(corpus, prediction), "ccc": dict(scores["ccc"])}

    monkeypatch.setattr(learning, "score", score)
    return scores


def test_a_restart_begins_anew_from_the_best_weights(data, tmp_path, scored, monkeypatch):
    began, best = [], {}
    restart = learning.Learning._restart

    def watched(self):
        restart(self)
        began.append((self.progress.epoch, dict(self.optimiser.state)))
        best.update(self.progress.weights)
        for name, tensor in self.model.state_dict().items():
            assert torch.equal(tensor, best[name]), name

    monkeypatch.setattr(learning.Learning, "_restart", watched)
    rows = []
    fuse.train(*data, tmp_path / "run", tiny.small(**RESTARTING, reload_best=False), rows.append)
    assert began == [(3, {}), (6, {})]
    assert len(rows) == 9
    assert [row["best"] for row in rows] == [1, *[0] * 8]


@pytest.mark.parametrize("epoch", [2, 3, 4])  # before the restart, just where it is due, and in its warm-up
def test_a_run_stopped_around_a_restart_ends_as_if_it_had_not_been(data, tmp_path, scored, epoch):
    settings = tiny.small(**RESTARTING)
    fuse.train(*data, tmp_path / "whole", settings)
    scored["ccc"]["mean"] = 0.0
    with pytest.raises(tiny.Stop):
        fuse.train(*data, tmp_path / "run", settings, tiny.stop_after(epoch))
    assert fuse.train(*data, tmp_path / "run", settings)["resumed_at"] == epoch
    whole, again = (read_tensors(tmp_path / run / "model.safetensors")[0] for run in ("whole", "run"))
    assert all(torch.equal(whole[name], again[name]) for name in {**whole, **again})
    metrics = [
        [line.rsplit(",", 1)[0] for line in (tmp_path / run / "metrics.csv").read_text().splitlines()]
        for run in ("whole", "run")
    ]
    assert metrics[0] == metrics[1]
    assert len(metrics[0]) == 10


def test_adamw_is_another_optimiser(data, tmp_path):
    rows = []
    for optimiser in ("adam", "adamw"):
        settings = tiny.small(epochs=2, warmup_epochs=0, optimiser=optimiser, weight_decay=0.5)
        fuse.train(*data, tmp_path / optimiser, settings, rows.append)
    assert rows[1]["loss"] != rows[3]["loss"]


def history(losses, scores):
    return [{"loss": loss, "ccc_mean": ccc} for loss, ccc in zip(losses, scores, strict=True)]


def test_at_rest_is_when_neither_loss_nor_ccc_has_moved():
    noise = [0.01, -0.01] * 5
    still, up = [1 + n for n in noise], [0.01 * e for e in range(10)]
    assert at_rest(history(still, noise))
    assert not at_rest(history(still[:9], noise[:9]))
    assert not at_rest(history([*still, 1], [*noise, 0]))
    assert not at_rest(history([1 - u for u in up], noise))
    assert not at_rest(history(still, up))


def test_a_training_that_does_not_move_says_so_once(data, tmp_path, caplog):
    still = {"model": "jca", "modalities": ["visual", "audio"], "channels": None, "epochs": 12}
    with caplog.at_level(logging.WARNING, "affuse"):
        fuse.train(*data, tmp_path / "still", tiny.small(**still, learning_rate=1e-7))
        said = [record.getMessage() for record in caplog.records]
        assert len(said) == 1
        assert said[0].startswith("10 epochs have moved neither the loss (")
        assert said[0].endswith("Try a higher learning_rate than 1e-07, or another preset.")
        caplog.clear()
        fuse.train(*data, tmp_path / "moving", tiny.small(**still, warmup_epochs=1, learning_rate=3e-3))
        assert not caplog.records
