"""Features that do not fit into memory: kept on the disk, or refused before any is read, with what to do."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest
import torch

import tiny
from affuse import fuse
from affuse.errors import UsageError
from affuse.fuse.data import room
from affuse.fuse.data.pool import Pool, Want, load_corpus

TARGETS = ["valence"]
MANY = 2**40


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.make_data(tmp_path_factory.mktemp("data"))


@pytest.fixture
def free(monkeypatch, tmp_path):
    """A function that says how many bytes are free, of memory and of the disk of the folder it gives."""

    def say(memory: int, disk: int = MANY) -> Path:
        monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=memory))
        monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=disk))
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "disk"))
        (tmp_path / "disk").mkdir(exist_ok=True)
        return tmp_path / "disk"

    return say


def mapped(folder: Path) -> bool:
    """Whether a file that lies, or lay, in a folder is mapped into this process's memory."""
    return any(str(folder) in line for line in Path("/proc/self/maps").read_text().splitlines())


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="only Linux tells what is mapped")
def test_what_does_not_fit_into_memory_is_kept_on_the_disk(data, free, caplog):
    store, _ = data
    modalities = list(tiny.WIDTHS)
    whole = load_corpus(store, store.ids, modalities, TARGETS)
    assert not caplog.text
    folder = free(memory=2000)
    corpus = load_corpus(store, store.ids, modalities, TARGETS)
    assert mapped(folder)
    assert not any(folder.iterdir())  # nothing to be left by a kill
    assert (
        f"of 8 videos take 0.0 GiB, and 0.0 GiB of memory are free: they are kept in a file in {folder}"
        in caplog.text
    )
    for m in modalities:
        assert torch.equal(corpus.features[m][:], whole.features[m][:])
    del corpus
    assert not mapped(folder)


def test_training_on_the_disk_is_training_in_memory(data, free, tmp_path):
    store, labels = data
    one = fuse.train(store, labels, tmp_path / "one", tiny.small(epochs=2))
    free(memory=2000)
    assert fuse.train(store, labels, tmp_path / "other", tiny.small(epochs=2))["best"] == one["best"]


def test_where_the_disk_is_full_too_nothing_is_read(data, free, read, monkeypatch):
    store, _ = data
    folder = free(memory=2 * room.GIB // 10, disk=room.GIB // 10)
    bytes_of = room.bytes_of
    monkeypatch.setattr(room, "bytes_of", lambda shapes: 10**6 * bytes_of(shapes))
    with pytest.raises(
        UsageError, match=r"8 videos take 15\.4 GiB, and 0\.2 GiB of memory are free; 0\.1 GiB on"
    ) as caught:
        load_corpus(store, store.ids, ["visual"], TARGETS)
    assert f"on the disk of {folder}. Set TMPDIR to" in str(caught.value)
    assert read == []


def test_a_disk_in_memory_is_none(data, free, monkeypatch):
    store, _ = data
    folder = free(memory=2000)
    disks = [
        SimpleNamespace(mountpoint="/", fstype="ext4"),
        SimpleNamespace(mountpoint=str(folder), fstype="tmpfs"),
    ]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: disks)
    with pytest.raises(UsageError, match="is in memory itself"):
        load_corpus(store, store.ids, ["visual"], TARGETS)
    disks.pop()
    load_corpus(store, store.ids, ["visual"], TARGETS)


def test_a_gpu_that_is_full_is_told_with_what_to_do(monkeypatch):
    monkeypatch.setattr(room, "free_memory", lambda device: 10**9)
    with pytest.raises(
        UsageError, match=r"1 video take 3\.8 GiB, and 0\.9 GiB .* on cuda:0\. Use --device cpu"
    ):
        room.allocate([(10**6, 2048)], torch.device("cuda:0"), "1 video")


def test_what_is_not_wanted_now_makes_room(data, free, caplog):
    store, _ = data
    pool = Pool(store)
    (first,) = pool.corpora([Want(["t0"])], ["audio"], TARGETS)
    free(memory=500)
    pool.corpora([Want(["t0"])], ["audio"], TARGETS)  # it is there already
    assert not caplog.text
    pool.corpora([Want(["t1"])], ["audio"], TARGETS)
    free(memory=MANY)
    (again,) = pool.corpora([Want(["t0"])], ["audio"], TARGETS)
    assert again.features["audio"].values is not first.features["audio"].values
    np.testing.assert_array_equal(again.features["audio"][:], first.features["audio"][:])
