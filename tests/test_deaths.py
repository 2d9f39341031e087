"""Extraction in several processes of which some die, or are told to stop: what was finished stays, others go on."""

import os
import signal

import dask
import psutil
import pytest

from affuse.extract.extractor import Extractor
from affuse.features.store import FeatureStore
from differences import differences
from processes import SOUND_ALONE, Cluster, Gate, shards, wait_until
from whole import Whole, quiet

pytestmark = pytest.mark.usefixtures("no_waiting_for_ever")

DEADLY = """
import os, signal
from affuse.extract.extractor import Extractor
def dask_setup(worker, extract=Extractor.__call__):
    def die(extractor, job):
        if job.id == "c":
            {death}
        return extract(extractor, job)
    Extractor.__call__ = die
"""
ILLEGAL = "CUDA error: an illegal memory access was encountered"
KILLED, LOST = "os.kill(os.getpid(), signal.SIGKILL)", f"raise RuntimeError({ILLEGAL!r})"


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Whole:
    return Whole(tmp_path_factory.mktemp("whole"), *SOUND_ALONE)


@pytest.mark.parametrize("death", [KILLED, LOST])
def test_a_video_that_kills_its_worker_or_takes_its_gpu_fails_alone(whole, tmp_path, death):
    preload = tmp_path / "preload.py"
    preload.write_text(DEADLY.format(death=death))
    store = tmp_path / "store"
    with dask.config.set({"distributed.worker.preload": [str(preload)]}):
        result = whole.extract(store, "--workers", 2, code=1)
    assert result.stderr.count("failed: c: the process that extracted it died, and died again") == 1
    assert "5 extracted, 0 already there, 1 failed" in result.stdout
    assert FeatureStore(store)["c"].failure
    assert [d for d in differences(whole.store, FeatureStore(store)) if not d.startswith("c")] == []
    assert "nothing to do" in whole.extract(store, code=1).stderr

    again = whole.extract(store, "--retry-failed")
    assert "1 extracted, 5 already there" in again.stdout
    whole.check(store)


def test_a_lost_gpu_ends_a_run_without_workers_and_keeps_what_is_finished(whole, tmp_path, monkeypatch):
    def lose(extractor, job, extract=Extractor.__call__):
        if job.id == "c":
            raise RuntimeError(f"{ILLEGAL}\nCUDA kernel errors might be reported later")
        return extract(extractor, job)

    with monkeypatch.context() as patched:
        patched.setattr(Extractor, "__call__", lose)
        said = whole.extract(tmp_path / "store", code=1).stderr
    assert (
        f"c.mp4 ({ILLEGAL}). Every finished video is kept: run the same command again, with --workers 1"
        in said
    )
    assert len(shards(tmp_path / "store")) == 2
    whole.extract(tmp_path / "store")
    whole.check(tmp_path / "store")


def test_remote_workers_and_schedulers_may_die_and_others_go_on(whole, tmp_path):
    store = tmp_path / "store"
    gate = Gate(tmp_path, store, videos=1)
    with Cluster(tmp_path / "cluster", **gate.environment) as own:
        first = own.add_worker("--no-nanny", *gate.PRELOAD)
        own.wait_for_workers(1)  # the run knows of it before it dies
        run = whole.started(gate, store, "--scheduler", own.address)
        try:
            run.until(lambda: shards(store), "the first video")
            first.end()
            there = shards(store)
            run.until(lambda: "No worker is left at tcp://" in run.said, "the message")
            assert run.process.poll() is None
            own.add_worker(*gate.PRELOAD)
            gate.allow(2)
            run.until(lambda: len(shards(store)) > len(there), "the second video")
            own.scheduler.end()
            assert run.wait() == 1, run.said
        finally:
            run.end()
        quiet(run.said)
        assert "The connection to the scheduler was lost. Every finished video is kept" in run.said
        there = shards(store)
        own.start_scheduler()
        run = whole.started(gate, store, "--scheduler", own.address)
        try:
            run.until(lambda: "No worker has joined" in run.said, "the message")
            own.add_worker()
            assert run.wait() == 0, run.said
        finally:
            run.end()
        quiet(run.said)
    assert there <= shards(store)
    whole.check(store)


@pytest.mark.parametrize(("workers", "stop"), [(0, signal.SIGTERM), (2, signal.SIGINT)])
def test_ctrl_c_stops_at_once_and_leaves_nobody(whole, tmp_path, workers, stop):
    """At once: the videos in flight, which the gate keeps from being finished, are not waited for."""
    store = tmp_path / "store"
    run = whole.started(Gate(tmp_path, store, videos=1), store, "--workers", workers)
    try:
        run.until(lambda: shards(store), "the first video")
        os.killpg(run.process.pid, stop)
        assert run.wait() == 130
        wait_until(lambda: not run.group(), "the workers' end")
    finally:
        run.end()
    quiet(run.said)
    assert "Stopped. What was finished is kept" in run.said
    assert FeatureStore(store).verify().problems == []
    whole.extract(store)
    whole.check(store)


def test_workers_die_with_the_process_that_started_them(whole, tmp_path):
    """Busy ones, too: the gate keeps them at work."""
    gate = Gate(tmp_path, tmp_path / "store")
    run = whole.started(gate, tmp_path / "store", "--workers", 2)
    try:
        run.until(lambda: len(gate.at()) == 2, "the workers")
        workers = run.workers()
        assert {worker.pid for worker in workers} == gate.at()
        run.process.kill()
        _, alive = psutil.wait_procs(workers, timeout=60)
        assert not alive
    finally:
        run.end()
    assert "Traceback" not in run.said
