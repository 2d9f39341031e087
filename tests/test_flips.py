"""Bits flipped anywhere in a real store: each is seen, or carries nothing; repair and extraction make it whole."""

import os
import random

import numpy as np
from click.testing import CliRunner

from affuse.commands import main
from affuse.features.parts import MODALITIES
from affuse.features.shard import read_shard, verify_shard
from affuse.features.store import FeatureStore
from differences import differences
from media import talking_head
from processes import arguments

FLIPS = int(os.environ.get("AFFUSE_FLIPS", 60))


def affuse(*given):
    return CliRunner().invoke(main, [str(a) for a in given])


def arrays(path) -> dict[str, np.ndarray]:
    """Every array of a shard, by modality and name."""
    video, _ = read_shard(path, views=True)
    parts = {modality: vars(getattr(video, modality)) for modality in MODALITIES}
    return {
        f"{modality}/{name}": value
        for modality, part in parts.items()
        for name, value in {**part, **part.get("views", {})}.items()
        if isinstance(value, np.ndarray)
    }


def test_every_flipped_bit_is_seen_or_carries_nothing(tmp_path, capsys):
    videos = tmp_path / "videos"
    for name, seconds in (("a", 0.3), ("b", 0.5)):
        talking_head(videos / f"{name}.mp4", seconds=seconds)
    for store in ("whole", "store"):
        result = affuse(*arguments(videos, tmp_path / store, "--views", "flip"))
        assert result.exit_code == 0, result.output
    whole, store = FeatureStore(tmp_path / "whole"), FeatureStore(tmp_path / "store")
    shards = sorted((store.path / "shards").glob("*/*.h5"))
    rng = random.Random(FLIPS)
    seen = 0
    for _ in range(FLIPS):
        path = rng.choice(shards)
        data = path.read_bytes()
        spoiled = bytearray(data)
        bit = rng.randrange(8 * len(data))
        spoiled[bit // 8] ^= 1 << bit % 8
        expected = arrays(path)
        path.write_bytes(spoiled)
        if problems := verify_shard(path):
            seen += 1
            assert problems[0].file == path.name
        else:
            for name, value in arrays(path).items():
                assert value.tobytes() == expected[name].tobytes(), f"bit {bit} of {name} passed"
        path.write_bytes(data)
    with capsys.disabled():
        print(f" {seen} of {FLIPS} flipped bits seen, {FLIPS - seen} in bytes that carry nothing ", end="")
    assert store.verify().problems == []

    for path in shards:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)
    assert len(store.verify().problems) >= len(shards)
    assert affuse("features", "repair", store.path).exit_code == 0
    again = affuse(*arguments(videos, store.path, "--views", "flip"))
    assert "2 extracted, 0 already there" in again.stdout
    assert differences(whole, FeatureStore(store.path)) == []
