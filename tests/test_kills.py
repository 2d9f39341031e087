"""Killed with -9 again and again, whoever and whenever: nothing finished is lost, and the store ends the same."""

import os
import random
import time
from itertools import cycle
from pathlib import Path

import pytest
from click.testing import CliRunner

from affuse.commands import main
from affuse.features.store import FeatureStore
from differences import differences
from media import cut_clip, talking_head
from processes import ROOT, SOUND_ALONE, Cluster, Gate, Started, arguments, shards, wait_until

KILLS = max(2, int(os.environ.get("AFFUSE_KILLS", 6)))
VIDEOS = 2 * KILLS + 8
BUSY = 4  # as many are left to the last run: no other may end before its kill
VICTIMS = {  # and where it is that videos are extracted
    "main": "here",
    "local worker": "local",
    "main of local workers": "local",
    "remote worker": "remote",
    "scheduler": "remote",
    "main of remote workers": "remote",
}
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
        self.rng, self.moments = random.Random(KILLS), cycle(["extracting", "writing"])
        self.kills, self.again, self.runs = dict.fromkeys(VICTIMS, 0), 0, 0
        self.finished: dict[Path, int] = {}  # when each was written

    def begin(self, *options) -> Started:
        self.runs += 1
        command = [
            self.gate.SCRIPT,
            *arguments(self.videos, self.store, *SOUND_ALONE, "--threads", 1, *options),
        ]
        return Started(self.folder / f"run{self.runs}.log", command, **self.gate.environment)

    def strike(self, victim: str, run: Started) -> None:
        """Kill at the next moment: the first before any video is finished, the others spread over all of them."""
        moment = next(self.moments)
        finished = sum(self.kills.values()) * (VIDEOS - BUSY) // (KILLS - 1)
        self.gate.allow(finished, moment)
        run.until(lambda: len(shards(self.store)) >= finished, f"{finished} videos")
        run.until(lambda: self.at(moment, victim, run), f"a process that is {moment}")
        self.kill(victim, run, moment)
        if moment == "writing":
            assert list((self.store / "shards").glob("*/.*.partial")), "nothing was half written"

    def at(self, moment: str, victim: str, run: Started) -> list:
        """The processes that work for the victim, or are it, at this moment."""
        if victim == "main":
            return [run.process] if run.process.pid in self.gate.at(moment) else []
        parents = [run] if "local" in victim else self.cluster.workers
        running = [worker for parent in parents for worker in parent.workers()]
        return [worker for worker in running if worker.pid in self.gate.at(moment)]

    def check(self) -> None:
        there = {path: path.stat().st_mtime_ns for path in shards(self.store)}
        assert self.finished.keys() <= there.keys(), "a finished video was lost"
        self.again += sum(there[path] != written for path, written in self.finished.items())
        self.finished = there

    def life(self, left: int) -> None:
        """One run with kills of its workers, the last kill that of itself or of the scheduler: first of all those that
        were not yet killed as often as others."""
        victims = self.rng.sample([*VICTIMS], len(VICTIMS))
        victim = min(victims, key=self.kills.__getitem__)
        place = VICTIMS[victim]
        options = {
            "here": ["--workers", 0],
            "local": ["--workers", 2],
            "remote": ["--scheduler", self.cluster.address],
        }
        more = self.rng.randint(0, 2) if min(self.kills.values()) and place != "here" else 0
        if victim.endswith(" worker"):
            more += 1
            victim = next(end for end in victims if VICTIMS[end] == place and end != victim)
        victims = [f"{place} worker"] * more + [victim]
        run = self.begin(*options[place])
        before, connected = len(shards(self.store)), False
        try:
            for victim in victims[-left:]:
                self.strike(victim, run)
                connected = len(shards(self.store)) > before
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

    def kill(self, victim: str, run: Started, moment: str) -> None:
        if victim == "scheduler":
            self.cluster.scheduler.end()
            self.cluster.start_scheduler()  # its workers end with it
            for worker in self.cluster.workers:
                worker.end()
            self.cluster.workers.clear()
            self.add_workers()
        elif victim.endswith(" worker"):
            self.rng.choice(self.at(moment, victim, run)).kill()
        else:
            run.process.kill()
        self.kills[victim] += 1


def test_killed_while_extracting_or_writing_the_store_ends_the_same(whole, tmp_path, capsys):
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
    assert list(store.shards.glob("*/.*")) == [], "what the dead left half written is still there"
    assert campaign.again <= 2 * KILLS, "more was made again than was in flight"
    with capsys.disabled():
        seconds = time.monotonic() - begin
        print(
            f" {campaign.kills} in {campaign.runs} runs, {campaign.again} of {VIDEOS} made again, {seconds:.0f} s ",
            end="",
        )
