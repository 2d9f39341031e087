"""Killed with -9 again and again, whoever and whenever: nothing finished is lost, and the store ends the same."""

import os
import random
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from affuse.__main__ import main
from affuse.features.store import FeatureStore
from differences import differences
from media import cut_clip, talking_head
from processes import ROOT, SOUND_ALONE, Cluster, Gate, Started, arguments, shards, wait_until

KILLS = int(os.environ.get("AFFUSE_KILLS", 6))
VIDEOS = 2 * KILLS + 8
BUSY = 4  # as many are left to the last run: no other may end before its kill
VICTIMS = (
    "main",
    "local worker",
    "main of local workers",
    "remote worker",
    "scheduler",
    "main of remote workers",
)
SOURCES = 6  # distinct videos; the others are copies, which the store keeps apart by name
CLIPS = ROOT.parent / "shared" / "clips"


def small_clip(path, number: int) -> None:
    """Three to six tenths of a second of a talking head: of a real one where there are any."""
    seconds = 0.3 + 0.1 * (number % 4)
    clips = sorted(CLIPS.glob("*.mp4"))
    if clips:
        cut_clip(clips[number % len(clips)], path, 0.5 * number, seconds)
    else:
        talking_head(path, seconds)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Videos, and the store made of them without interruption."""
    folder = tmp_path_factory.mktemp("kills")
    for i in range(VIDEOS):
        path = folder / "videos" / f"{i:04d}.mp4"
        if i < SOURCES:
            small_clip(path, i)
        else:
            path.write_bytes((folder / "videos" / f"{i % SOURCES:04d}.mp4").read_bytes())
    result = CliRunner().invoke(
        main, arguments(folder / "videos", folder / "store", *SOUND_ALONE, "--threads", 2)
    )
    assert result.exit_code == 0, result.output
    return folder / "videos", FeatureStore(folder / "store")


class Campaign:
    """One store, and the runs on it, each with a kill or more."""

    def __init__(self, folder, videos, cluster: Cluster, gate: Gate):
        self.store, self.videos, self.cluster, self.folder = folder / "store", videos, cluster, folder
        self.gate = gate
        self.rng = random.Random(KILLS)
        self.kills, self.again, self.runs = dict.fromkeys(VICTIMS, 0), 0, 0
        self.finished: dict[Path, int] = {}  # when each was written

    def begin(self, *options) -> Started:
        self.runs += 1
        command = [
            self.gate.SCRIPT,
            *arguments(self.videos, self.store, *SOUND_ALONE, "--threads", 1, *options),
        ]
        return Started(self.folder / f"run{self.runs}.log", command, **self.gate.environment)

    def wait_for_more(self, run: Started, videos: int) -> None:
        """Until some more are finished, and some moment of the next."""
        enough = min(len(shards(self.store)) + videos, VIDEOS - BUSY)
        self.gate.allow(min(enough + 1, VIDEOS - BUSY))
        run.until(lambda: len(shards(self.store)) >= enough, "more videos")
        time.sleep(self.rng.random() * 0.4)

    def check(self) -> None:
        there = {path: path.stat().st_mtime_ns for path in shards(self.store)}
        assert self.finished.keys() <= there.keys(), "a finished video was lost"
        self.again += sum(there[path] != written for path, written in self.finished.items())
        self.finished = there

    def life(self, left: int) -> None:
        """One run with several kills of its workers, the last of them of itself or of the scheduler."""
        place = self.rng.choice(["here", "local", "remote", "remote"])
        options = {
            "here": ["--workers", 0],
            "local": ["--workers", 2],
            "remote": ["--scheduler", self.cluster.address],
        }
        ends = {
            "here": ["main"],
            "local": ["main of local workers"],
            "remote": ["scheduler", "main of remote workers"],
        }
        run = self.begin(*options[place])
        before, connected = len(shards(self.store)), False
        try:
            kills = 1 if place == "here" else self.rng.randint(1, 4)
            victims = [f"{place} worker"] * (kills - 1) + [self.rng.choice(ends[place])]
            for victim in victims[-left:]:
                self.wait_for_more(run, self.rng.choice([0, 1, 1, 2]))
                connected = len(shards(self.store)) > before
                self.kill(victim, run)
                self.check()
            if victims[-1] == "scheduler" and connected:  # else it may well find the new one
                assert run.wait(60) == 1, run.said
        finally:
            workers = run.workers()
            run.end()
            wait_until(lambda: not any(worker.is_running() for worker in workers), "the workers' end")
        assert "Traceback" not in run.said
        assert FeatureStore(self.store, create=True).verify().problems == []

    def add_workers(self) -> None:
        for _ in range(2):
            self.cluster.add_worker(*self.gate.PRELOAD)

    def kill(self, victim: str, run: Started) -> None:
        if victim == "scheduler":
            self.cluster.scheduler.end()
            self.cluster.start_scheduler()  # its workers end with it
            for worker in self.cluster.workers:
                worker.end()
            self.cluster.workers.clear()
            self.add_workers()
        elif victim.endswith(" worker"):
            parents = [run] if victim.startswith("local") else self.cluster.workers

            def at_work():
                running = [worker for parent in parents for worker in parent.workers()]
                return [worker for worker in running if worker.pid in self.gate.working()]

            run.until(at_work, "a worker at work")
            self.rng.choice(at_work()).kill()
        else:
            run.process.kill()
        self.kills[victim] += 1


def test_killed_at_random_moments_the_store_ends_the_same(whole, tmp_path, capsys):
    videos, uninterrupted = whole
    begin = time.monotonic()
    gate = Gate(tmp_path, tmp_path / "store")
    with Cluster(tmp_path / "cluster", **gate.environment) as cluster:
        campaign = Campaign(tmp_path, videos, cluster, gate)
        campaign.add_workers()
        while (left := KILLS - sum(campaign.kills.values())) > 0:
            campaign.life(left)
        gate.allow(VIDEOS)
        last = campaign.begin("--scheduler", cluster.address)
        try:
            assert last.wait(900) == 0, last.said
        finally:
            last.end()
    campaign.check()
    store = FeatureStore(campaign.store)
    assert store.verify().problems == []
    assert differences(uninterrupted, store) == []
    assert campaign.again <= 2 * KILLS, "more was made again than was in flight"
    with capsys.disabled():
        seconds = time.monotonic() - begin
        print(
            f" {campaign.kills} in {campaign.runs} runs, {campaign.again} of {VIDEOS} made again, {seconds:.0f} s ",
            end="",
        )
