"""How fast training has a store's features in memory, checksums and all, beside the same files read raw into memory by
as many threads: of files and of packs, from the system's cache and from the disk.

    python benchmarks/reading.py OUT --videos 64 --frames 7500 --json benchmarks/reading-cpu.json

Every reading is in a process of its own, in turn.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from datetime import date
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import click
import numpy as np
import torch
from corpus import draw

import affuse
from affuse.extract.weights.doctor import environment
from affuse.features import MODALITIES, FeatureStore
from affuse.features.packing import pack
from affuse.fuse.data.pool import READERS, Pool, Want

GIB, PIECE = 2**30, 2**24


def files_of(store: Path) -> list[Path]:
    return [path for path in store.rglob("*.h5") if path.parent.name != "index"]


def forget(store: Path) -> None:
    """Have the system's cache forget the store's files."""
    os.sync()
    for path in files_of(store):
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def raw(store: Path) -> tuple[int, float]:
    """Bytes of the files and the seconds of reading them into memory."""
    begin, sizes = time.perf_counter(), {path: path.stat().st_size for path in files_of(store)}
    memory, pieces = torch.empty(sum(sizes.values()), dtype=torch.uint8).numpy(), []
    for path, size in sizes.items():
        place, memory = memory[:size], memory[size:]
        pieces += [(path, first, place[first : first + PIECE]) for first in range(0, size, PIECE)]

    def read(path: Path, first: int, place: np.ndarray) -> int:
        with path.open("rb", buffering=0) as file:
            file.seek(first)
            return file.readinto(place)

    with ThreadPoolExecutor(READERS) as readers:
        return sum(readers.map(read, *zip(*pieces, strict=True))), time.perf_counter() - begin


def ours(store: Path) -> tuple[int, float]:
    """Bytes of the features and the seconds of having them as training has."""
    begin, opened = time.perf_counter(), FeatureStore(store)
    (corpus,) = Pool(opened).corpora([Want(opened.ids)], [*MODALITIES], [])
    return sum(part.values.nbytes for part in corpus.features.values()), time.perf_counter() - begin


def turn(read, store: Path, cold: bool) -> float:
    """GiB a second."""
    if cold:
        forget(store)
    with ProcessPoolExecutor(1, get_context("spawn")) as one:
        size, seconds = one.submit(read, store).result()
    return size / seconds / GIB


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--videos", default=64, show_default=True, help="Videos in the store.")
@click.option("--frames", default=7500, show_default=True, help="Frames of each.")
@click.option("--repeats", default=6, show_default=True, help="Medians of so many turns.")
@click.option("--json", "file", type=click.Path(path_type=Path), help="File for the facts.")
def main(out: Path, videos: int, frames: int, repeats: int, file: Path | None) -> None:
    stores = {kind: out / kind / "store" for kind in ("files", "packs")}
    if not stores["packs"].exists():
        draw(out / "files", videos, frames)
        shutil.copytree(out / "files", out / "packs")
        pack(FeatureStore(stores["packs"]))
    facts: dict = {
        "date": date.today().isoformat(),
        "machine": environment(),
        "affuse": affuse.__version__,
        "videos": videos,
        "frames": frames,
        "repeats": repeats,
        "readers": READERS,
    }
    for kind, store in stores.items():
        for cold in (False, True):
            turn(ours, store, False)
            turns = []
            for number in range(repeats):  # the second has the memory that the first one was given by the system
                both = (raw, ours) if number % 2 else (ours, raw)
                turns.append({side.__name__: turn(side, store, cold) for side in both})
            told = {side: median(t[side] for t in turns) for side in ("raw", "ours")}
            told["share"] = median(t["ours"] / t["raw"] for t in turns)
            facts[f"{kind}, {'from the disk' if cold else 'cached'}"] = told
            click.echo(f"{kind}, cold {cold}: " + ", ".join(f"{k} {v:.3f}" for k, v in told.items()))
    if file:
        file.write_text(json.dumps(facts, indent=1) + "\n")


if __name__ == "__main__":
    main()
