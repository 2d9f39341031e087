"""The index: what a store has, told without opening what was looked at before, and never wrongly."""

from __future__ import annotations

import os
import pickle
import random

import pytest

from affuse.errors import AffuseError
from affuse.features import FeatureStore, index
from affuse.features.entry import Entry
from affuse.features.seal import DamagedError, check_seal, read_entry
from affuse.features.shard import read_header
from builders import provenance, random_video
from shards import chunks, flip, put, settle

NAMES = ["a", "b", "batch/c", "d"]


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    """One that was looked at when nobody had written to it for long."""
    store = FeatureStore(tmp_path / "store", create=True)
    for seed, name in enumerate(NAMES):
        store.write(random_video(name, seed=seed, faces=0 if name == "b" else 0.8), provenance())
    settle(store.path)
    assert store.ids == NAMES
    return FeatureStore(store.path)


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """The names of the files that are opened to learn what they are."""
    names: list[str] = []
    monkeypatch.setattr(index, "read_entry", lambda path: (names.append(path.name), read_entry(path))[1])
    return names


def test_an_entry_is_the_header_in_short(tmp_path):
    video = random_video("a", words=0, views=("flip",), people=2)
    path = put(tmp_path, video)
    entry, header = read_entry(path), read_header(path)
    assert entry == check_seal(path) == Entry.of(video, provenance(), header.features_digest)
    assert entry.faces == video.visual.valid.sum()
    assert (entry.id, entry.source, entry.views, entry.people) == ("a", video.source, ("flip",), 2)
    assert (entry.text.status, entry.text.rows, entry.audio.width) == ("no_speech", 0, 8)
    assert {name: getattr(header, name) for name in vars(entry)} == vars(entry)


def test_nothing_is_listed_or_opened_twice(store, monkeypatch):
    monkeypatch.setattr(index, "shards_in", lambda folder: pytest.fail(f"{folder} was listed"))
    assert store.ids == NAMES
    assert len(store) == 4
    assert list(store.table().index) == list(store.info()["videos"]) == NAMES
    assert store.seconds == pytest.approx(4 * 1.6)
    assert "d" in store
    assert "e" not in store


def test_of_a_folder_that_has_changed_what_is_new_is_opened(store, opened):
    shard = store.shard("a")
    new = next(
        name
        for name in map(str, range(10**6))
        if index.folder_of(index.shard_name(name)) == shard.parent.name
    )
    store.write(random_video(new), provenance())
    assert store.ids == sorted([*NAMES, new])
    assert opened == [store.shard(new).name]
    store.shard("a").unlink()
    assert store.ids == sorted([*NAMES[1:], new])


def test_a_change_too_soon_to_show_in_the_time_of_its_folder_is_seen(store):
    store.write(random_video("a", seed=9, frames=30), provenance())
    shard, times = store.shard("a"), os.stat(store.shard("a").parent)
    assert next(store.entries()).frames == 30
    for frames in (20, 10):
        store.write(random_video("a", seed=9, frames=frames), provenance())
        os.utime(shard.parent, ns=(times.st_atime_ns, times.st_mtime_ns))
        assert next(store.entries()).frames == frames


def test_a_store_that_may_only_be_read_is_asked_all_the_same(store, monkeypatch):
    for file in (store.path / "index").iterdir():
        file.unlink()

    def refuse(path, data):
        raise AffuseError("read-only")

    monkeypatch.setattr(index, "write_bytes", refuse)
    assert store.ids == NAMES
    assert not list((store.path / "index").iterdir())


def test_a_folder_that_may_not_be_read_is_named(store, monkeypatch):
    (first, *_) = store.files()
    os.utime(first.parent)  # so that it is listed again

    def denied(folder):
        raise PermissionError(13, "Permission denied")

    with monkeypatch.context() as closed:
        closed.setattr(os, "scandir", denied)
        with pytest.raises(
            AffuseError, match=rf"shards/{first.parent.name} cannot be read: Permission denied\. Check"
        ):
            list(store)
    assert store.ids == NAMES


def test_whatever_is_done_to_the_index_it_says_nothing_false(store):
    files = sorted((store.path / "index").iterdir())
    assert len(files) == len(NAMES)
    rng, facts = random.Random(0), store.info()
    for number in range(200):
        path = rng.choice(files)
        data = path.read_bytes()
        flip(path, rng.randrange(8 * len(data))) if number % 4 else path.write_bytes(
            data[: rng.randrange(len(data))]
        )
        assert FeatureStore(store.path).info() == facts
        assert path.read_bytes() == data, "it was not made anew"


def test_damage_that_the_index_does_not_know_of_is_found_by_whoever_reads(store):
    flip(store.shard("a"), 8 * (chunks(store.shard("a"), "visual/embedding")[0][0] + 5))
    cut = store.shard("d").read_bytes()[:3000]
    store.shard("d").write_bytes(cut)
    assert store.ids == NAMES
    for name in ("a", "d"):
        with pytest.raises(DamagedError):
            store.read(name)
    assert {problem.video for problem in store.verify().problems} == {"a", "d"}
    store.reindex()
    assert store.ids == ["a", "b", "batch/c"]
    assert [problem.video for problem in store.damaged] == ["d"]


def test_it_does_not_travel_with_the_store(store):
    assert len(store) == 4
    assert len(pickle.dumps(store)) < 1000
    assert pickle.loads(pickle.dumps(store)).ids == NAMES
