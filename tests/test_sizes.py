"""What follows from the amount of data: how wide layers are."""

import pytest

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
    assert widest(frames, 768) == width


@pytest.mark.parametrize(
    ("features", "width"), [(1, 32), (8, 32), (17, 68), (23, 92), (128, 128), (2048, 128)]
)
def test_narrow_features_make_narrow_layers(features, width):
    assert widest(200_000, features) == width


def test_few_frames_make_narrow_layers_unless_said(tmp_path):
    assert trained(tmp_path / "data") == dict.fromkeys(tiny.WIDTHS, [32] * 4)
    assert trained(tmp_path / "published", size="published") == PUBLISHED
    assert trained(tmp_path / "released", preset="released") == PUBLISHED
    named = trained(tmp_path / "named", channels={"visual": [48, 8]})
    assert named == {**dict.fromkeys(tiny.WIDTHS, [32] * 4), "visual": [48, 8]}
    assert trained(tmp_path / "jca", model="jca", modalities=["visual", "audio"])["audio"] == [32]


@pytest.mark.parametrize("preset", fuse.PRESETS)
def test_only_the_default_fits_itself_to_the_data(preset):
    assert train_settings(preset=preset).size == ("data" if preset == "affuse" else "published")
