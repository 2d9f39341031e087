"""Shards as tests write and spoil them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import h5py
import numpy as np

from affuse.features.entry import Entry
from affuse.features.layout import shard_path
from affuse.features.seal import write_seal
from affuse.features.shard import write_shard
from builders import provenance, random_video

VIEWS = ("flip", "top-left")


def put(folder: Path, video=None, made=None) -> Path:
    video = video or random_video()
    path = folder / shard_path(video.id)
    write_shard(path, video, made or provenance())
    return path


def cut(path: Path, size: int) -> None:
    """Put the first bytes of a file in its place, as a copy that was broken off leaves them."""
    data = path.read_bytes()[:size]
    path.unlink()
    path.write_bytes(data)


def settle(store: Path) -> None:
    """Have a store's folders and files be as old as if nobody had written to them for long."""
    for path in sorted((store / "shards").rglob("*"), reverse=True):
        os.utime(path, (1e9, 1e9))


def edit(path: Path, node: str = "/", **attributes: object) -> None:
    """Give a shard other attributes, as text of JSON or as they are, under a seal that is true again."""
    seal = json.loads(path.read_bytes().split(b"\n")[1])
    with h5py.File(path, "r+") as file:
        for name, value in attributes.items():
            file[node].attrs[name] = value if isinstance(value, float | np.ndarray) else json.dumps(value)
    with path.open("r+b") as file:
        write_seal(file, Entry.from_row(seal["entry"]), seal["start"], seal["data"], seal["arrays"])


def chunks(path: Path, name: str) -> list[tuple[int, int]]:
    """First byte and length of each chunk of a dataset."""
    with h5py.File(path, "r", locking=False) as file:
        identifier = file[name].id
        infos = [identifier.get_chunk_info(i) for i in range(identifier.get_num_chunks())]
        return [(info.byte_offset, info.size) for info in infos]


def flip(path: Path, bit: int) -> None:
    """Flip one bit of a file, in place."""
    with path.open("r+b") as file:
        file.seek(bit // 8)
        (byte,) = file.read(1)
        file.seek(bit // 8)
        file.write(bytes([byte ^ 1 << bit % 8]))
