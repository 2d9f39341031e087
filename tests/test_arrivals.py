"""A store on a network file system, where this machine sees what others have written a minute later, or never."""

from __future__ import annotations

import io
import os
from pathlib import Path

import pytest

from affuse.errors import AffuseError
from affuse.extract import arrivals
from affuse.extract.arrivals import PATIENCE, Arrivals
from affuse.extract.cluster import work
from affuse.extract.summary import Receipt
from affuse.features import FeatureStore
from builders import provenance, random_video
from processes import SOUND_ALONE, shards
from whole import NAMES, Whole

WHOLE = {"visual": "ok"}


class Late:
    """A file system, to this process, on which a new shard is not there until `delay` s after it was first asked for,
    on a clock that only sleeping moves."""

    def __init__(self, monkeypatch, delay: float):
        self.now, self.delay, self.asked = 0.0, delay, {}
        self.slept: list[float] = []
        monkeypatch.setattr(arrivals, "monotonic", lambda: self.now)
        monkeypatch.setattr(arrivals, "sleep", self.sleep)
        exists, opened, listing = Path.exists, io.open, os.listdir

        def open_file(path, *how, **options):
            if self.hides(path):
                raise FileNotFoundError(2, "No such file or directory", str(path))
            return opened(path, *how, **options)

        monkeypatch.setattr(Path, "exists", lambda path: not self.hides(path) and exists(path))
        monkeypatch.setattr(io, "open", open_file)
        monkeypatch.setattr(
            os, "listdir", lambda place: [n for n in listing(place) if not self.hides(Path(place, n))]
        )

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.slept.append(seconds)

    def hides(self, path) -> bool:
        if not (isinstance(path, Path) and path.suffix == ".h5" and os.path.lexists(path)):
            return False
        return self.now < self.asked.setdefault(path.name, self.now) + self.delay


@pytest.fixture
def store(tmp_path) -> FeatureStore:
    store = FeatureStore(tmp_path / "store", create=True)
    for name in ("a", "b#1"):
        store.write(random_video(name), provenance())
    return store


def held(store, *ids: str) -> Arrivals:
    waiting = Arrivals(store)
    for name in ids:
        waiting.take(Receipt(name, None, statuses=WHOLE))
    return waiting


def test_a_run_whose_shards_are_seen_a_minute_late_is_as_any_other(tmp_path, monkeypatch):
    whole, store = Whole(tmp_path / "whole", *SOUND_ALONE), tmp_path / "store"
    with monkeypatch.context() as patch:
        late = Late(patch, 60)
        result = whole.extract(store, "--workers", 2)
    assert f"{len(NAMES)} extracted, 0 already there, 0 failed" in result.stdout
    assert late.asked.keys() == {path.name for path in shards(store)}
    assert 60 <= late.now < PATIENCE
    whole.check(store)


def test_looks_become_rarer_and_one_that_is_late_keeps_nobody_waiting(store, monkeypatch):
    late = Late(monkeypatch, 0)
    late.asked["b"] = 0
    waiting = held(store, "a", "b", "gone")
    assert [receipt.id for receipt in waiting.due()] == ["a", "b"]
    assert late.slept == [0, 0, 0]
    (missed,) = waiting.due(wait=True)
    assert late.now == PATIENCE
    assert 10 < len(late.slept) < 25
    assert missed.id == "gone"
    assert f"it was extracted, but 90 s later it is not in {store.path.absolute()}" in missed.failure


def test_where_nothing_ever_arrives_the_run_ends(store, monkeypatch):
    Late(monkeypatch, 0)
    with pytest.raises(
        AffuseError, match=r"x was extracted, but 90 s later it is not in .* on the same disk"
    ):
        list(held(store, "x", "y").due(wait=True))
    (alone,) = held(store, "x").due(wait=True)
    assert alone.failure


def test_a_video_of_which_nothing_was_written_is_not_looked_for(store, monkeypatch):
    monkeypatch.setattr(FeatureStore, "look", lambda *_: pytest.fail("looked"))
    failed, waiting = Receipt("x", "x.mp4 cannot be read"), Arrivals(store)
    waiting.take(failed)
    assert list(waiting.due()) == [failed]


def test_a_look_goes_past_what_is_remembered_of_a_folder(store, monkeypatch):
    """Of a file that was asked for before, until the folder is listed."""
    opened, listed, listing = io.open, [], os.listdir

    def remembered(path, *how, **options):
        if not listed:
            raise FileNotFoundError(2, "No such file or directory", str(path))
        return opened(path, *how, **options)

    monkeypatch.setattr(io, "open", remembered)
    monkeypatch.setattr(os, "listdir", lambda place: listed.append(place) or listing(place))
    assert store.look("a")
    listed.clear()
    assert store.look("b")
    assert not store.look("c")


def test_a_worker_waits_for_a_store_that_was_made_just_now(tmp_path, monkeypatch):
    late = Late(monkeypatch, 0)
    assert arrivals.appears(lambda: late.now > 60)
    assert late.now < PATIENCE
    with pytest.raises(AffuseError, match="does not see the store"):
        work(None, None, tmp_path / "store", None)
    assert late.now > 60 + PATIENCE
    late.slept.clear()
    with pytest.raises(AffuseError, match="does not see the store"):
        work(None, None, tmp_path / "no" / "store", None)
    assert not late.slept
