"""What follows from the amount of data: how wide layers are, and how many steps an epoch has."""

import pytest
import torch

import tiny
from affuse import fuse
from affuse.fuse.training.settings import train_settings, widest

PUBLISHED = {"visual": [512, 512, 256, 256], "audio": [128, 128, 128, 128], "text": [256, 256, 128, 128]}


def trained(tmp_path, **changes):
    store, labels = tiny.make_data(tmp_path, 3, 2)
    own = {key: value for key, value in tiny.SMALL.items() if key not in ("preset", "channels")}
    result = fuse.train(store, labels, tmp_path / "run", train_settings(**{**own, "epochs": 1, **changes}))
    return fuse.load_run(result["run"]).model.options.channels


@pytest.mark.parametrize(
    ("frames", "width"),
    [
        (0, 32),
        (32_767, 32),
        (32_769, 64),
        (131_073, 128),
        (524_289, 256),
        (2_097_151, 256),
        (2_097_153, 512),
        (10**9, 512),
    ],
)
def test_weights_grow_with_the_frames(frames, width):
    assert widest(frames) == width


def test_few_frames_make_narrow_layers_unless_said(tmp_path):
    assert trained(tmp_path / "data") == dict.fromkeys(tiny.WIDTHS, [32] * 4)
    assert trained(tmp_path / "published", size="published") == PUBLISHED
    assert trained(tmp_path / "released", preset="released") == PUBLISHED
    named = trained(tmp_path / "named", channels={"visual": [48, 8]})
    assert named == {**dict.fromkeys(tiny.WIDTHS, [32] * 4), "visual": [48, 8]}
    assert trained(tmp_path / "jca", model="jca", modalities=["visual", "audio"])["audio"] == [32]


@pytest.mark.parametrize("preset", fuse.PRESETS)
def test_only_the_default_fits_itself_to_the_data(preset):
    settings = train_settings(preset=preset)
    assert (settings.size, settings.steps) == (("data", 8) if preset == "affuse" else ("published", 0))


@pytest.mark.parametrize(("steps", "taken"), [(0, 3), (3, 3), (4, 6), (9, 9)])
def test_few_windows_are_gone_through_as_often_as_it_takes(tmp_path, monkeypatch, steps, taken):
    """11 windows are 3 batches of 4, two rounds 6, three 9."""
    seen, step = [], torch.optim.Adam.step
    store, labels = tiny.make_data(tmp_path, 3, 2)
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self, *args: (seen.append(1), step(self, *args))[1])
    fuse.train(store, labels, tmp_path / "run", tiny.small(gaps="mask", epochs=1, steps=steps))
    assert len(seen) == taken


def test_every_round_has_every_window_once(tmp_path):
    store, labels = tiny.make_data(tmp_path, 3, 2)
    fuse.train(store, labels, tmp_path / "run", tiny.small(gaps="mask", epochs=1))
    run = fuse.load_run(tmp_path / "run")
    corpus, _ = run.predict_partition(store, labels, "train")
    windows = run.windows(corpus)
    found = torch.cat([batch.truth[:, 0, 0] for batch in windows.shuffled(4, seed=0, rounds=2)]).split(
        len(windows)
    )
    once = torch.cat([batch.truth[:, 0, 0] for batch in windows.ordered(4)])
    assert [part.sort().values.tolist() for part in found] == [once.sort().values.tolist()] * 2
    assert found[0].tolist() != found[1].tolist()
