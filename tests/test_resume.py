"""What a run finds of its videos in the store: by the index alone, unless it is to verify them."""

import dataclasses

import pytest

from affuse.extract import run as runs
from affuse.extract.extraction import LOOKS, extract_jobs, extract_settings
from affuse.extract.networks import kept_precision
from affuse.extract.resume import remaining
from affuse.extract.videos import everyone, find_jobs
from affuse.features import FeatureStore, index, shard
from affuse.features.record import VideoFeatures
from builders import provenance, random_video
from shards import cut, settle
from test_store import damage

NAMES = ("a", "b", "c")


@pytest.fixture
def jobs(tmp_path):
    for name in NAMES:
        (tmp_path / "videos" / name).with_suffix(".mp4").parent.mkdir(exist_ok=True)
        (tmp_path / "videos" / f"{name}.mp4").write_text(f"no video but {name}")
    return find_jobs(tmp_path / "videos")


@pytest.fixture
def store(tmp_path, jobs) -> FeatureStore:
    """All three, of which "c" failed."""
    store = FeatureStore(tmp_path / "store", create=True)
    for job in jobs:
        made = dataclasses.replace(random_video(job.id), source=job.source())
        if job.id == "c":
            made = VideoFeatures.undecodable("c", job.source(), "it is no video", provenance())
        store.write(made, provenance())
    return store


def run(jobs, store, **options):
    """All that it hears: looks, reasons, and the summary at the end, with an engine that does nothing."""
    heard = []
    options = {"on_look": heard.append, **options}
    summary = runs.run(
        jobs, store, provenance().settings_hash, lambda left: (), heard.append, print, **options
    )
    return *heard, summary


def test_a_run_opens_what_is_new_to_the_index_and_reads_no_array(jobs, store, monkeypatch):
    opened, read = [], index.read_entry
    monkeypatch.setattr(index, "read_entry", lambda path: (opened.append(path), read(path))[1])
    monkeypatch.setattr(shard, "_open", lambda *_: pytest.fail("HDF5 was looked at"))
    settle(store.path)
    for expected in (NAMES, ()):
        *looks, reasons, summary = run(jobs, FeatureStore(store.path))
        assert looks == [1, 2, 3]
        assert not reasons
        assert (summary.kept, summary.earlier) == (3, 1)
        assert summary.failed == {"c": "it is no video"}
        assert sorted(opened) == sorted(store.shard(name) for name in expected)
        opened.clear()


def test_damage_of_an_array_is_found_where_it_is_asked_for(jobs, store):
    damage(store, "a", "audio/embedding")
    assert remaining(jobs, store, provenance().settings_hash) == ({}, {"c": "it is no video"}, 3)
    found, failed, _ = remaining(jobs, store, provenance().settings_hash, verify=True)
    assert list(found) == ["a"]
    assert found["a"].startswith("damaged: audio/embedding: it cannot be read")
    assert failed == {"c": "it is no video"}


def test_a_video_that_failed_is_new_where_it_is_to_be_tried_again(jobs, store):
    assert remaining(jobs, store, provenance().settings_hash, retry_failed=True) == (
        {"c": "failed before"},
        {},
        3,
    )


def test_a_limit_counts_what_is_left(jobs, store, tmp_path):
    """So that the same command, given again, goes on."""
    for name in ("b", "c"):
        store.shard(name).unlink()
    *looks, reasons, summary = run(jobs, store, limit=1)
    assert (looks, reasons, summary.todo, summary.kept) == ([1, 2], {"new": 1}, 1, 1)
    assert run(jobs, store, limit=2)[-1].todo == 2
    assert run(jobs, store, limit=9)[-1].todo == 2


def test_a_video_whose_further_person_is_missing_is_made_anew(jobs, tmp_path):
    store = FeatureStore(tmp_path / "people", create=True)
    for job in jobs:
        for number in (1, 2):
            name = f"{job.id}#{number}"
            made = dataclasses.replace(random_video(name, people=2), source=job.source())
            store.write(made, provenance())
    store.shard("b#2").unlink()
    assert remaining(everyone(jobs), store, provenance().settings_hash) == ({"b": "new"}, {}, 3)


def test_how_many_were_looked_for_is_told_now_and_then(tmp_path, monkeypatch):
    for number in range(2 * LOOKS + 1):
        (tmp_path / f"{number:03d}.mp4").touch()
    said = []
    monkeypatch.setattr("affuse.extract.extraction.here", lambda *_: lambda left: ())
    settings = extract_settings("offline", modalities=["audio"])
    extract_jobs(
        find_jobs(tmp_path), tmp_path / "store", settings, allow_untrained=True,
        progress=lambda *heard: said.append(heard),
    )  # fmt: skip
    assert said == [(f"looking at what is there: {n} of 201", None, False) for n in (LOOKS, 2 * LOOKS)]


def test_the_precision_of_a_store_is_that_of_the_records_that_say_one_and_are_whole(tmp_path):
    store = FeatureStore(tmp_path, create=True)
    assert kept_precision(store) is None
    for name in NAMES:
        store.write(random_video(name), provenance(settings={"precision": "bfloat16"} if name == "b" else {}))
    store.write(random_video("d"), provenance(settings={"precision": "bfloat16"}))
    cut(store.shard("b"), 3)
    assert kept_precision(store) == "bfloat16"
