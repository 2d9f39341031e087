"""Arrays read by the seal alone: those that were written, or damage."""

from __future__ import annotations

import json
from hashlib import sha256

import numpy as np
import pytest

from affuse.features import FeatureStore
from affuse.features.layout import arrays_of
from affuse.features.rows import read_arrays, read_rows
from affuse.features.seal import DamagedError, read_entry
from affuse.features.shard import verify_shard
from builders import provenance, random_video
from shards import chunks, cut, flip, put

WIDE = {"visual": 2048}  # 128 rows a piece
VIDEO = random_video(frames=300, widths=WIDE, views=("flip",))


@pytest.mark.parametrize("rows", [range(300), range(128), range(5, 290, 7), [299], []])
@pytest.mark.parametrize("name", ["visual/embedding", "visual/views/flip", "audio/embedding"])
def test_rows_are_those_that_were_written(tmp_path, name, rows):
    path, rows = put(tmp_path, VIDEO, provenance(WIDE)), np.array(rows, int)
    whole = {
        "visual/embedding": VIDEO.visual.embedding,
        "visual/views/flip": VIDEO.visual.views["flip"],
        "audio/embedding": VIDEO.audio.embedding,
    }[name]
    out = np.full((len(rows), whole.shape[1]), 9, np.float16)
    read_rows(path, [(name, rows, out)])
    assert out.tobytes() == whole[rows].tobytes()


def test_rows_of_zeros_that_were_never_stored_are_zeros(tmp_path):
    path = put(tmp_path, random_video(faces=0))
    out = np.ones((40, 24), np.float16)
    read_rows(path, [("visual/embedding", np.arange(40), out)])
    assert not out.any()


def test_a_flipped_bit_is_found_by_who_reads_its_piece(tmp_path):
    path = put(tmp_path, VIDEO, provenance(WIDE))
    out = np.zeros((100, 2048), np.float16)
    flip(path, 8 * (chunks(path, "visual/embedding")[1][0] + 77))
    read_rows(path, [("visual/embedding", np.arange(100), out)])
    with pytest.raises(DamagedError, match=r"dataset visual/embedding: .* not hold what was written"):
        read_rows(path, [("visual/embedding", np.arange(50, 150), out)])
    cut(path, 3000)
    with pytest.raises(DamagedError, match="it has 3000 bytes"):
        read_rows(path, [("visual/embedding", np.arange(100), out)])


def test_whole_arrays_of_every_kind_are_those_that_were_written(tmp_path):
    path, arrays = put(tmp_path, VIDEO, provenance(WIDE)), arrays_of(VIDEO)
    entry, read = read_arrays(path, arrays)
    assert entry == read_entry(path)
    assert read[list(arrays).index("text/word")].tolist() == VIDEO.text.word.tolist()
    for name, array in zip(arrays, read, strict=True):
        if name != "text/word":
            assert (array.dtype, array.shape, array.tobytes()) == (
                arrays[name].dtype, arrays[name].shape, arrays[name].tobytes(),
            )  # fmt: skip


def test_a_record_of_nothing_has_arrays_of_nothing(tmp_path):
    path = put(tmp_path, random_video(frames=0, words=0))
    _, arrays = read_arrays(path, ["visual/time", "visual/box", "text/word", "text/embedding"])
    assert [array.shape for array in arrays] == [(0,), (0, 4), (0,), (0, 12)]


@pytest.mark.parametrize(
    "pieces",
    [
        None,
        3,
        [48, 40, [[-5, 1]]],
        [48, 0, []],
        [48, 1, [[5000, 1]]],
        [48, 40, [[10**15, 1]]],
        [40, 40, [[5000, 1]]],
    ],
)
def test_a_seal_that_says_what_cannot_be_is_damage(tmp_path, pieces):
    path = put(tmp_path)
    seal = json.loads(path.read_bytes().split(b"\n")[1])
    lines = (
        b"affuse features\n"
        + json.dumps(seal | {"arrays": {"visual/embedding": pieces} if pieces else {}}).encode()
        + b"\n"
    )
    with path.open("r+b") as file:
        file.write((lines + sha256(lines).hexdigest().encode() + b"\n").ljust(seal["start"], b"\0"))
    with pytest.raises(DamagedError, match="visual/embedding"):
        read_rows(path, [("visual/embedding", np.arange(40), np.zeros((40, 24), np.float16))])


@pytest.mark.parametrize("rows", [[40], [-1], [0, 5000]])
def test_rows_that_are_not_there_are_not_left_open(tmp_path, rows):
    with pytest.raises(DamagedError, match="it has 40 rows"):
        read_rows(put(tmp_path), [("visual/time", np.array(rows), np.zeros(len(rows)))])


def test_the_clock_of_pictures_needs_no_sound(tmp_path):
    store = FeatureStore(tmp_path, create=True)
    store.write(VIDEO, provenance(WIDE))
    flip(store.shard("clip01"), 8 * chunks(store.shard("clip01"), "audio/time")[0][0])
    np.testing.assert_array_equal(store.frame_times("clip01"), VIDEO.visual.time)


def test_a_seal_of_very_many_views_has_room(tmp_path):
    views = [f"view-{i}" for i in range(150)]
    path = put(tmp_path, random_video(frames=3, words=0, views=views))
    assert verify_shard(path) == []
