"""Extraction in several processes: the same features as in one, whoever dies and whenever."""

import json
import os
import signal
import subprocess
import time
from shutil import which
from socket import gethostname
from types import SimpleNamespace

import dask
import psutil
import pytest
from click.testing import CliRunner

from affuse.__main__ import main
from affuse.errors import AffuseError
from affuse.extract import cluster as tasks
from affuse.extract.run import Receipt
from affuse.features.store import FeatureStore
from differences import differences
from media import talking_head
from processes import Cluster, Gate, Started, arguments, shards, wait_until

NAMES = "abcdef"
FORBIDDEN = (
    "Traceback",
    "/distributed/",
    " - distributed.",
    "Worker",
    "Warning",
    "warn(",
    "Nanny",
    "tornado",
    "INFO",
)
DEADLY = """
import os, signal
from affuse.extract.extractor import Extractor
def dask_setup(worker, extract=Extractor.__call__):
    def die(extractor, job):
        if job.id == "c":
            os.kill(os.getpid(), signal.SIGKILL)
        return extract(extractor, job)
    Extractor.__call__ = die
"""
OTHER_WEIGHTS = """
import os
from dataclasses import replace
from pathlib import Path
from affuse.extract.run import Recipe
def dask_setup(worker, extractor=Recipe.extractor):
    other = Path(os.environ["OTHER"])
    Recipe.extractor = lambda recipe: extractor(replace(recipe, weights_dir=other))
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> SimpleNamespace:
    """A folder of videos, and the store made of it without interruption by one thread of one process."""
    folder = tmp_path_factory.mktemp("whole")
    for name in NAMES:
        talking_head(folder / "videos" / f"{name}.mp4", seconds=0.3)
    extract(folder / "videos", folder / "store", "--workers", 0, "--threads", 1)
    return SimpleNamespace(videos=folder / "videos", store=FeatureStore(folder / "store"))


@pytest.fixture(scope="module")
def remote(tmp_path_factory):
    """A scheduler with two workers."""
    with Cluster(tmp_path_factory.mktemp("remote"), workers=2) as own:
        yield own


@pytest.fixture(autouse=True)
def no_waiting_for_ever():
    """A run that nobody works for would never end."""

    def end(*_):
        raise TimeoutError("the test took longer than ten minutes")

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(600)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def extract(videos, store, *more, code=0):
    result = CliRunner().invoke(main, arguments(videos, store, *more))
    quiet(result.stderr)
    assert result.exit_code == code, result.output
    return result


def quiet(said: str) -> None:
    """Nothing is said but by affuse itself."""
    for forbidden in FORBIDDEN:
        assert forbidden not in said, said


def started(gate: Gate, whole, store, *more) -> Started:
    command = [gate.SCRIPT, *arguments(whole.videos, store, "--threads", 1, *more)]
    return Started(store.with_name("log"), command, **gate.environment)


def check_whole(store, whole) -> None:
    assert FeatureStore(store).verify().problems == []
    assert differences(whole.store, FeatureStore(store)) == []


def logged(store) -> str:
    return "".join(path.read_text() for path in (store / "logs").iterdir())


def test_more_threads_give_the_same_bytes(whole, tmp_path):
    extract(whole.videos, tmp_path / "store", "--threads", 2)
    check_whole(tmp_path / "store", whole)


def test_workers_of_a_scheduler_give_the_same_bytes(whole, remote, tmp_path):
    result = extract(whole.videos, tmp_path / "store", "--scheduler", remote.address, "--json")
    assert sorted(json.loads(result.stdout)["made"]) == list(NAMES)
    assert all(f" INFO {name}: " in logged(tmp_path / "store") for name in NAMES)
    check_whole(tmp_path / "store", whole)


def test_a_worker_with_other_weights_is_told_from_the_others(whole, remote, tmp_path):
    for folder in ("mine", "other"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "vggish.pth").write_text(folder)
    (tmp_path / "preload.py").write_text(OTHER_WEIGHTS)
    with Cluster(tmp_path / "cluster") as own:
        own.add_worker("--preload", tmp_path / "preload.py", OTHER=str(tmp_path / "other"))
        result = extract(
            whole.videos, tmp_path / "store", "--scheduler", own.address, "--weights-dir",
            tmp_path / "mine", code=1,
        )  # fmt: skip
    assert "other weights or another version than where the run was started: " in result.stderr
    assert f"On a worker on {gethostname()}: " in result.stderr
    assert "audio" in result.stderr
    assert not shards(tmp_path / "store")


def test_a_worker_that_does_not_see_the_store_says_so(tmp_path):
    with pytest.raises(AffuseError, match=rf"A worker on {gethostname()} does not see the store .*/gone"):
        tasks.work(None, None, tmp_path / "gone", None)


def test_a_shard_that_a_worker_wrote_elsewhere_is_missed(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(tasks, "PATIENCE", 0.2)
    elsewhere = FeatureStore(tmp_path / "store", create=True)
    made = Receipt("a", None, statuses={"visual": "ok"})
    with pytest.raises(AffuseError, match=r"a was extracted, but not into .*/store as this machine sees it"):
        tasks._seen(made, elsewhere)
    assert tasks._seen(made, whole.store) is made
    failed = Receipt("x", "x.mp4 cannot be read")
    assert tasks._seen(failed, elsewhere) is failed


def test_a_video_that_kills_its_worker_fails_alone(whole, tmp_path):
    preload = tmp_path / "preload.py"
    preload.write_text(DEADLY)
    store = tmp_path / "store"
    with dask.config.set({"distributed.worker.preload": [str(preload)]}):
        result = extract(whole.videos, store, "--workers", 2, code=1)
    assert result.stderr.count("failed: c: the process that extracted it died, and died again") == 1
    assert "5 extracted, 0 already there, 1 failed" in result.stdout
    assert FeatureStore(store)["c"].failure
    assert [d for d in differences(whole.store, FeatureStore(store)) if not d.startswith("c")] == []
    assert "nothing to do" in extract(whole.videos, store, code=1).stderr

    again = extract(whole.videos, store, "--retry-failed")
    assert "1 extracted, 5 already there" in again.stdout
    check_whole(store, whole)


def test_remote_workers_and_schedulers_may_die_and_others_go_on(whole, tmp_path):
    store = tmp_path / "store"
    gate = Gate(tmp_path, store, videos=1)
    with Cluster(tmp_path / "cluster", **gate.environment) as own:
        first = own.add_worker("--no-nanny", *gate.PRELOAD)
        run = started(gate, whole, store, "--scheduler", own.address)
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
        run = started(gate, whole, store, "--scheduler", own.address)
        try:
            run.until(lambda: "No worker has joined" in run.said, "the message")
            own.add_worker()
            assert run.wait() == 0, run.said
        finally:
            run.end()
        quiet(run.said)
    assert there <= shards(store)
    check_whole(store, whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scheduler", "tcp://127.0.0.1:1"], "No dask scheduler answers at tcp://127.0.0.1:1"),
        (["--scheduler", ""], "--scheduler has no address"),
        (["--scheduler", "nonsense"], "No dask scheduler answers at nonsense"),
        (["--scheduler", "tls://127.0.0.1:1"], "--tls-ca, --tls-cert and --tls-key"),
        (["--scheduler", "tcp://127.0.0.1:1", "--workers", "2"], "give one"),
        (["--scheduler", "tls://127.0.0.1:1", "--tls-ca", "ca.pem"], "give all three, or none"),
        (["--tls-ca", "a", "--tls-cert", "b", "--tls-key", "c"], "The --tls options are for --scheduler"),
        (
            ["--scheduler", "tls://127.0.0.1:1", "--tls-ca", "a", "--tls-cert", "b", "--tls-key", "c"],
            "a of the --tls options is no file",
        ),
    ],
)
def test_schedulers_that_cannot_be_reached_are_a_sentence(whole, tmp_path, options, message):
    begin = time.monotonic()
    result = extract(whole.videos, tmp_path / "store", *options, code=2)
    assert time.monotonic() - begin < 60  # five are given to the scheduler
    assert message in result.stderr


@pytest.mark.parametrize(("workers", "stop"), [(0, signal.SIGTERM), (2, signal.SIGINT)])
def test_ctrl_c_stops_at_once_and_leaves_nobody(whole, tmp_path, workers, stop):
    """At once: the videos in flight, which the gate keeps from being finished, are not waited for."""
    store = tmp_path / "store"
    run = started(Gate(tmp_path, store, videos=1), whole, store, "--workers", workers)
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
    extract(whole.videos, store)
    check_whole(store, whole)


def test_workers_die_with_the_process_that_started_them(whole, tmp_path):
    """Busy ones, too: the gate keeps them at work."""
    gate = Gate(tmp_path, tmp_path / "store")
    run = started(gate, whole, tmp_path / "store", "--workers", 2)
    try:
        run.until(lambda: len(gate.working()) == 2, "the workers")
        workers = run.workers()
        assert {worker.pid for worker in workers} == gate.working()
        run.process.kill()
        _, alive = psutil.wait_procs(workers, timeout=60)
        assert not alive
    finally:
        run.end()
    assert "Traceback" not in run.said


@pytest.fixture
def tls(tmp_path) -> list[str]:
    """An authority made for the occasion, and one certificate for everybody: the options that name them."""
    if not which("openssl"):
        pytest.skip("makes certificates with the program openssl")

    def openssl(*arguments):
        subprocess.run(["openssl", *arguments], cwd=tmp_path, check=True, capture_output=True)

    new = ["req", "-newkey", "rsa:2048", "-nodes"]
    openssl(*new, "-subj", "/CN=authority", "-x509", "-days", "2", "-keyout", "ca-key.pem", "-out", "ca.pem")
    openssl(*new, "-subj", "/CN=member", "-keyout", "key.pem", "-out", "request.pem")
    openssl(
        "x509", "-req", "-in", "request.pem", "-CA", "ca.pem", "-CAkey", "ca-key.pem", "-CAcreateserial",
        "-days", "2", "-out", "cert.pem",
    )  # fmt: skip
    files = {"ca-file": "ca.pem", "cert": "cert.pem", "key": "key.pem"}
    return [part for name, file in files.items() for part in (f"--tls-{name}", str(tmp_path / file))]


def test_a_scheduler_that_speaks_tls_works_with_the_three_files_alone(whole, tls, tmp_path):
    files = ["--tls-ca", *tls[1:]]
    with Cluster(tmp_path / "cluster", workers=1, tls=tls) as own:
        assert own.address.startswith("tls://")
        swapped = [tls[1], tls[3], tls[1]]
        options = [part for pair in zip(files[::2], swapped, strict=True) for part in pair]
        refused = extract(whole.videos, tmp_path / "store", "--scheduler", own.address, *options, code=2)
        assert "do not serve" in refused.stderr
        for address in (own.address, own.address.replace("tls:", "tcp:")):
            refused = extract(whole.videos, tmp_path / "store", "--scheduler", address, code=2)
            assert "--tls-ca, --tls-cert and --tls-key" in refused.stderr
        extract(whole.videos, tmp_path / "store", "--scheduler", own.address, *files)
    check_whole(tmp_path / "store", whole)
