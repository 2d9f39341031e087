"""Several videos at once in one process, as on a GPU: rows are computed together, and each video keeps its own.

A GPU is stood in for by the CPU, told to work as one.
"""

import time
from collections import Counter
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import count
from threading import Barrier, Event, Lock, get_ident, local
from threading import enumerate as enumerate_threads

import numpy as np
import pytest
import torch

from affuse.extract import networks
from affuse.extract.audio import SoundEncoder
from affuse.extract.lanes import Gathered, Lanes
from affuse.extract.run import here
from affuse.extract.videos import find_jobs
from affuse.extract.visual import FaceEncoder
from affuse.extract.weights.locate import locate
from affuse.features.store import FeatureStore
from builders_extract import seeded_extractor
from media import face_frames, talking_head, tone
from processes import wait_until

CPU = torch.device("cpu")
THREADS = 4


def test_every_lane_has_its_device_as_the_current_one(monkeypatch):
    here, current = local(), []

    @contextmanager
    def device(chosen):
        here.chosen = chosen
        yield
        del here.chosen

    monkeypatch.setattr(torch.cuda, "device", device)
    gpu = torch.device("cuda:1")
    with Lanes(THREADS, Event(), gpu) as lanes:
        for asked in [lanes.submit(lambda: current.append(here.chosen)) for _ in range(2 * THREADS)]:
            asked.result()
    assert current == [gpu] * 2 * THREADS


def in_threads(function, portions):
    with ThreadPoolExecutor(len(portions)) as pool:
        return list(pool.map(function, portions))


def test_everyone_gets_their_own_rows_in_order():
    sizes, alone = [], Lock()

    def double(rows):
        assert alone.acquire(blocking=False), "two batches at once"
        sizes.append(len(rows))
        time.sleep(0.001)
        alone.release()
        return [2 * row for row in rows]

    gathered = Gathered(double, 8)
    portions = [list(range(100 * n, 100 * n + n)) for n in range(30)]
    assert in_threads(gathered, portions) == [[2 * row for row in portion] for portion in portions]
    assert sum(sizes) == sum(map(len, portions))
    assert max(sizes) == 8


def test_rows_that_pile_up_share_a_batch():
    begun, go, batches = Event(), Event(), []

    def wait(rows):
        batches.append(rows)
        begun.set()
        assert go.wait(60)
        return rows

    gathered = Gathered(wait, 6)
    with ThreadPoolExecutor(3) as pool:
        first = pool.submit(gathered, ["a"])
        assert begun.wait(60)
        others = [pool.submit(gathered, [name + "1", name + "2"]) for name in "bc"]
        wait_until(lambda: len(gathered._waiting) == 4, "the rows of both")
        go.set()
        assert [f.result(60) for f in (first, *others)] == [["a"], ["b1", "b2"], ["c1", "c2"]]
    assert [sorted(batch) for batch in batches] == [["a"], ["b1", "b2", "c1", "c2"]]


def test_an_error_reaches_those_it_concerns_and_nobody_else():
    def picky(rows):
        if "bad" in rows:
            raise ValueError("bad row")
        return rows

    gathered = Gathered(picky, 2)
    with pytest.raises(ValueError, match="bad row"):
        gathered(["good", "fine", "bad"])
    assert gathered(["good"]) == ["good"]


def counted(encoder, shapes: Counter):
    """Write down the shape of every batch that the encoder computes."""
    embed = encoder._embed

    def watching(batch):
        shapes[tuple(batch.shape)] += 1
        return embed(batch)

    encoder._embed = watching
    return encoder


def close(left, right):
    return np.testing.assert_allclose(left.astype(np.float32), right.astype(np.float32), rtol=2e-3, atol=2e-3)


def test_faces_of_several_threads_fill_batches_of_one_shape():
    located = locate("ir50-ferplus", allow_untrained=True, download=False)
    shapes = Counter()
    together, alone = counted(FaceEncoder(located, CPU, together=True), shapes), FaceEncoder(located, CPU)
    frames = face_frames(21, (48, 48), drift=1).transpose(0, 3, 1, 2).copy()
    portions = torch.from_numpy(frames).split([5, 1, 8, 7])
    for portion, found in zip(portions, in_threads(together, portions), strict=True):
        close(found, alone(portion))
    assert list(shapes) == [(together.batch, 3, 40, 40)]


def test_sound_of_several_threads_fills_batches_of_one_shape():
    located = locate("vggish", allow_untrained=True, download=False)
    shapes = Counter()
    together, alone = SoundEncoder(located, "start", CPU, together=True), SoundEncoder(located, "start", CPU)
    counted(together, shapes)
    samples = tone(3.0) * np.linspace(0, 1, 48_000, dtype=np.float32)
    portions = np.split(np.arange(10) / 10, [3, 4])
    for times, found in zip(portions, in_threads(lambda t: together(samples, t), portions), strict=True):
        close(found, alone(samples, times))
    assert list(shapes) == [(together.batch, 96, 64)]


@pytest.fixture
def as_on_a_gpu(monkeypatch):
    """An extractor of small networks that works on three videos at once."""
    monkeypatch.setitem(networks.VIDEOS, "cpu", 3)

    def make():
        extractor = seeded_extractor(
            backbones={
                "visual": "ir50-ferplus",
                "audio": "vggish",
                "speech": "whisper-tiny.en",
                "text": "minilm-l6",
            },
            threads=THREADS,
        )
        assert extractor.at_once == 3
        return extractor

    return make


def test_videos_side_by_side_equal_videos_alone(tmp_path, as_on_a_gpu, monkeypatch):
    for i in range(5):
        talking_head(tmp_path / "videos" / f"{i}.mp4", seconds=0.3 + 0.1 * i)
    (tmp_path / "videos" / "broken.mp4").write_text("hello")
    jobs = find_jobs(tmp_path / "videos")
    extractor, store = as_on_a_gpu(), FeatureStore(tmp_path / "together", create=True)
    receipts = {receipt.id: receipt for receipt in here(extractor, store)(jobs)}
    assert sorted(receipts) == sorted(job.id for job in jobs)
    assert extractor(jobs[0])[0].failure is None  # it serves for more
    monkeypatch.setitem(networks.VIDEOS, "cpu", 1)
    alone = seeded_extractor(backbones=extractor.settings.backbones.model_dump())
    for job in jobs:
        (expected,), found = alone(job), store[job.id]
        assert (found.failure, receipts[job.id].failure) == (expected.failure, expected.failure)
        for modality in ("visual", "audio"):
            one, other = getattr(expected, modality), getattr(found, modality)
            np.testing.assert_array_equal(one.time, other.time)
            close(one.embedding, other.embedding)
    assert store.verify().problems == []


def test_work_is_in_flight_at_once_and_no_more_than_wanted(as_on_a_gpu, monkeypatch):
    extractor, working, most, lock = as_on_a_gpu(), set(), [0], Lock()
    together = Barrier(3)

    def pretend(job, extractor, store):
        with lock:
            working.add(get_ident())
            most[0] = max(most[0], len(working))
        together.wait(60)
        time.sleep(0.02)  # in which a fourth would be seen
        with lock:
            working.discard(get_ident())
        return job

    monkeypatch.setattr("affuse.extract.run.process", pretend)
    assert sorted(here(extractor, None)(list(range(9)))) == list(range(9))
    assert most == [3]


def test_who_calls_the_run_off_does_not_wait_for_the_videos_in_flight(as_on_a_gpu, monkeypatch):
    extractor, called_off, begun = as_on_a_gpu(), [], Event()

    def endless(job, extractor, store):
        if job == 0:
            assert begun.wait(60)
            return job
        with Lanes(1, extractor.halted) as lanes:
            try:
                for _ in lanes.reading("decode", count()):
                    begun.set()
                    time.sleep(0.001)
            except CancelledError:
                called_off.append(job)

    monkeypatch.setattr("affuse.extract.run.process", endless)
    engine = here(extractor, None)(list(range(9)))
    assert next(engine) == 0
    engine.close()
    wait_until(
        lambda: not any(thread.name.startswith("video") for thread in enumerate_threads()), "their end"
    )
    assert 1 <= len(called_off) <= 3
