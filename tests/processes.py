"""Extraction in real processes: the command line, and a dask scheduler with workers beside it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import psutil
from distributed import Client

ROOT = Path(__file__).resolve().parents[1]
SEEDED = ["--profile", "offline", "--allow-untrained", "--device", "cpu"]
SEEDED += ["--set", "modalities=[visual, audio]", "--set", "backbones.visual=ir50-ferplus"]  # small pictures
OWN_SOUND = f"audio={ROOT / 'tests' / 'own_backbone.py'}:Loudness"
SOUND_ALONE = ("--set", "modalities=[audio]", "--set", OWN_SOUND)  # such a process is soon there
QUIET = {"DASK_LOGGING__DISTRIBUTED": "critical"}


def arguments(videos: Path, store: Path, *more) -> list[str]:
    return ["extract", "--video-dir", str(videos), "--out", str(store), *SEEDED, *map(str, more)]


def wait_until(happened: Callable[[], object], what: str, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not happened():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for: {what}"
        time.sleep(0.01)


def shards(store: Path) -> set[Path]:
    """The finished ones."""
    return set((store / "shards").glob("*/[!.]*.h5"))


class Gate:
    """Behind it, extraction into `store` never runs ahead of the test: see gate.py."""

    SCRIPT = ROOT / "tests" / "gate.py"
    PRELOAD = ("--preload", SCRIPT)  # of a scheduler's worker

    def __init__(self, folder: Path, store: Path, videos: int = 0):
        self.path = folder / "gate" / "videos"
        self.path.parent.mkdir(parents=True)
        self.environment = {"GATE": str(self.path), "STORE": str(store)}
        self.allow(videos)

    def allow(self, videos: int, moment: str = "extracting") -> None:
        """As many may be in the store; one more for each process that is about to write one already. The others are
        held at this moment: extracting or writing."""
        new = self.path.with_suffix(".new")
        new.write_text(f"{videos} {moment}")
        new.replace(self.path)

    def at(self, moment: str = "extracting") -> set[int]:
        """The processes that have begun to extract, or that are writing."""
        return {int(path.stem) for path in self.path.parent.glob(f"*.{moment}")}


class Started:
    """A command in a session of its own, as a terminal starts one; both its outputs go to one file."""

    def __init__(self, log: Path, command: list, **environment: str):
        self.log = log
        variables = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **environment}
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, *map(str, command)],
                cwd=ROOT,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self.log.read_text(errors="replace")

    def until(self, happened: Callable[[], object], what: str) -> None:
        """Wait for what must happen before it ends."""
        wait_until(lambda: happened() or self.process.poll() is not None, what)
        assert self.process.poll() is None, self.said

    def workers(self) -> list[psutil.Process]:
        """The worker processes below it, those of a nanny too."""
        with suppress(psutil.NoSuchProcess):
            below = psutil.Process(self.process.pid).children(recursive=True)
            return [child for child in below if "spawn_main" in _command_line(child)]
        return []

    def group(self) -> list[psutil.Process]:
        """Whatever still runs of the processes it started."""
        return [
            process
            for process in psutil.process_iter()
            if _group(process) == self.process.pid and process.status() != psutil.STATUS_ZOMBIE
        ]

    def wait(self, seconds: float = 300) -> int:
        return self.process.wait(seconds)

    def end(self) -> None:
        """Kill what is left of it."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _command_line(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _group(process: psutil.Process) -> int | None:
    with suppress(ProcessLookupError):
        return os.getpgid(process.pid)
    return None


class Cluster:
    """A scheduler on loopback and workers of it, as a context; `tls` are options of all three commands."""

    def __init__(self, folder: Path, workers: int = 0, tls: list[str] = (), **environment: str):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.tls, self.environment = folder, list(tls), {**QUIET, **environment}
        self.workers: list[Started] = []
        self.address = ""
        self.start_scheduler()
        for _ in range(workers):
            self.add_worker()

    def start_scheduler(self) -> None:
        """At the address of the one before, if there was one."""
        port = self.address.rpartition(":")[2] or "0"
        facts = self.folder / "scheduler.json"
        facts.unlink(missing_ok=True)
        command = ["-m", "dask", "scheduler", "--port", port, "--no-dashboard", "--scheduler-file", facts]
        if self.tls:
            command += ["--protocol", "tls"]
        self.scheduler = self._start("scheduler", [*command, "--host", "127.0.0.1"])
        wait_until(lambda: facts.exists() and facts.stat().st_size, "the scheduler")
        wait_until(lambda: _address(facts), "the scheduler's address")
        self.address = _address(facts)

    def add_worker(self, *more, **environment: str) -> Started:
        command = ["-m", "dask", "worker", self.address, "--nthreads", "1", "--no-dashboard", *more]
        command += ["--host", "127.0.0.1" if not self.tls else "tls://127.0.0.1"]
        command += ["--local-directory", self.folder / "workers"]
        worker = self._start(f"worker{len(self.workers)}", command, **environment)
        self.workers.append(worker)
        return worker

    def wait_for_workers(self, count: int) -> None:
        """Until the scheduler knows so many."""
        with Client(self.address) as client:
            client.wait_for_workers(count, timeout=300)

    def _start(self, name: str, command: list, **environment: str) -> Started:
        return Started(
            self.folder / f"{name}.log", [*command, *self.tls], **{**self.environment, **environment}
        )

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_) -> None:
        for started in (self.scheduler, *self.workers):
            started.end()


def _address(facts: Path) -> str:
    with suppress(ValueError):
        return json.loads(facts.read_text())["address"]
    return ""
