"""Dask as the engine: who works for it, what is handed to the workers, and what becomes of it.

Workers are processes of this machine, or those of a running scheduler. What all videos share is told each worker once,
and tasks, a few of them at a time, carry paths; a worker loads the networks once, writes the shard itself and returns a
receipt. A video whose worker died is tried once more when nothing else runs, and then recorded as failed.
"""

from __future__ import annotations

import gc
import logging
import os
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from socket import gethostname

import dask
import psutil
from distributed import Client, Nanny, Scheduler, Security, SpecCluster, get_worker
from distributed.utils import LoopRunner
from tornado.ioloop import IOLoop

from affuse.console import Announce
from affuse.errors import AffuseError, UsageError
from affuse.extract.arrivals import Arrivals, appears
from affuse.extract.extractor import Extractor
from affuse.extract.flight import LOST, PATIENCE, WATCH, Flight, Orders, told
from affuse.extract.placement import check_places, needed
from affuse.extract.run import Engine, GpuLostError, Recipe, process
from affuse.extract.summary import Receipt
from affuse.extract.videos import Job
from affuse.features.index import SHARDS
from affuse.features.record import Provenance, VideoFeatures, how_they_differ
from affuse.features.store import FeatureStore
from affuse.processes import deaf_to_ctrl_c
from affuse.version import VERSION

log = logging.getLogger("affuse")

LOOPBACK = "127.0.0.1"
DIED = (
    "the process that extracted it died, and died again when it was tried alone: out of memory, a crash of the "
    "decoder, or an error of the GPU"
)
_building = threading.Lock()
_extractor = lru_cache(maxsize=1)(lambda recipe: recipe.extractor())  # a worker's networks, loaded once and kept
_store = lru_cache(maxsize=1)(lambda path: FeatureStore(path, create=True))  # and what it knows of packs


def tls_security(ca_file: Path, cert: Path, key: Path) -> Security:
    """An encrypted, authenticated connection to a scheduler by these PEM files. Raises UsageError where they do not
    serve."""
    files = (ca_file, cert, key)
    for path in files:
        if not path.is_file():
            raise UsageError(f"{path} of the --tls options is no file.")
    names = ("tls_ca_file", "tls_client_cert", "tls_client_key")
    security = Security(require_encryption=True, **dict(zip(names, map(str, files), strict=True)))
    try:
        security.get_connection_args("client")
    except OSError as error:  # what ssl raises is one
        raise UsageError(
            f"The --tls files {', '.join(map(str, files))} do not serve ({error}): a certificate authority, a "
            "certificate, and its key are wanted, in PEM."
        ) from None
    return security


@contextmanager
def local_cluster(workers: int, gpus: list[str], at_once: int) -> Iterator[Client]:
    """A client of `workers` new processes on this machine, on loopback only, each on `at_once` videos, and with one of
    these GPUs where there are any."""
    settings = {
        "distributed.scheduler.allowed-failures": 0,  # who tries again, and when, is decided here
        "distributed.scheduler.worker-saturation": 1.0,  # a worker holds only the videos it works on
        "distributed.comm.timeouts.connect": "3s",  # a worker that died is not called for longer
        "distributed.deploy.lost-worker-timeout": "1 hour",  # one that starts again on a busy machine is not lost
        "distributed.admin.system-monitor.gil.enabled": False,
    }
    environment = {"DASK_LOGGING__DISTRIBUTED": "critical", "OMP_NUM_THREADS": "1"}
    here = {"host": LOOPBACK, "dashboard": False, "dashboard_address": f"{LOOPBACK}:0"}  # served all the same
    scheduler = {"cls": Scheduler, "options": {"port": 0, **here}}
    _silence()
    with dask.config.set(settings), tempfile.TemporaryDirectory(prefix="affuse-") as private:
        quiet = {"silence_logs": logging.CRITICAL}
        options = {"nthreads": at_once, "memory_limit": 0, "local_directory": private, **here, **quiet}
        specs = {}
        for i in range(workers):
            gpu = {"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {}
            specs[i] = {"cls": Nanny, "options": {**options, "env": environment | gpu}}
        with (
            _environment_kept(),  # starting workers leaves theirs in this process
            _deaf_loop() as loop,
            SpecCluster(specs, scheduler, loop=loop, **quiet) as cluster,
            Client(cluster) as client,
        ):
            try:
                yield client
            except (KeyboardInterrupt, GeneratorExit):  # the latter where Ctrl-C met whoever reads the receipts
                _kill(cluster)
                raise


def _kill(cluster: SpecCluster) -> None:
    """End the workers at once: to be asked politely, each would first finish its video."""
    for nanny in cluster.workers.values():
        nanny.auto_restart = False
        if nanny.pid:
            with suppress(psutil.NoSuchProcess):
                psutil.Process(nanny.pid).kill()


@contextmanager
def _environment_kept() -> Iterator[None]:
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def _deaf_loop() -> Iterator[IOLoop]:
    """An event loop whose thread, and every process it starts, hears nothing of Ctrl-C: only this process ends them.
    On Windows, which has no such masks, they hear of it."""
    with deaf_to_ctrl_c():
        runner = LoopRunner()
        runner.start()
    try:
        yield runner.loop
    finally:
        runner.stop()


@contextmanager
def joined(address: str, security: Security | None, announce: Announce) -> Iterator[Client]:
    """A client of the scheduler at `address`. Raises UsageError where none answers."""
    _silence()
    gc.collect()  # clients that found no scheduler close when they are collected: never while another one begins
    try:
        client = Client(address, timeout=PATIENCE, security=security)
    except (OSError, TimeoutError, ValueError, TypeError, AssertionError) as error:
        raise UsageError(
            f"No dask scheduler answers at {address} ({error}). Start one with: dask scheduler --host 127.0.0.1 --port "
            "8786, and workers with: dask worker tcp://127.0.0.1:8786 --nthreads 1. One that speaks TLS needs an "
            "address that begins with tls:// and --tls-ca, --tls-cert and --tls-key."
        ) from None
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(client, address, announce, over), daemon=True)
    with client:
        watcher.start()
        if client.run_on_scheduler(lambda: "distributed.dashboard.scheduler" in sys.modules):  # it serves one
            announce(f"dask shows who works on what: {client.dashboard_link}")
        try:
            yield client
        finally:
            over.set()
            watcher.join(PATIENCE)


def _watch(client: Client, address: str, announce: Announce, over: threading.Event) -> None:
    """Say so, each time nobody is there to work."""
    before = None
    while not over.is_set():
        try:
            now = len(client.scheduler_info()["workers"])
        except (OSError, *LOST):  # the run itself will say so
            return
        if now == 0 and before != 0:
            missing = "has joined" if before is None else "is left at"
            announce(
                f"No worker {missing} {address}; waiting for one. Where one goes as soon as it is given work, what it "
                "prints says why: affuse may not be installed there."
            )
        before = now
        over.wait(WATCH)


def _silence() -> None:
    """Distributed says nothing of its own: what people need to know, they hear from this module."""
    for name in ("distributed", "distributed.client", "tornado", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


def on_dask(client: Client, recipe: Recipe, extractor: Extractor, store: FeatureStore, strangers: bool) -> Engine:
    """The engine that hands every video to a worker of `client`. `extractor` is this process's own, of the same
    recipe: the workers' features must be as its would be. `strangers` are workers that were not started here, so that
    two may compute on one GPU."""
    orders = Orders(recipe, store.path.absolute(), extractor.provenance)

    def welcome() -> dict[str, float]:
        check_places(client, recipe.device)
        return needed(client, recipe.device)

    def engine(jobs: list[Job]) -> Iterator[Receipt]:
        try:
            with told(client, orders) as name:
                arrivals = Arrivals(store)
                for job, receipt in Flight(client, jobs, task, name, welcome if strangers else dict):
                    arrivals.take(receipt or _give_up(job, extractor, store))
                    yield from arrivals.due()
                yield from arrivals.due(wait=True)
        except (ImportError, RuntimeError) as error:
            reason = error.__cause__ or error
            raise AffuseError(
                f"The scheduler or a worker could not read or do its task ({reason}). Both need affuse installed, in "
                "the same version as here."
            ) from None
        except LOST:
            raise AffuseError(
                "The connection to the scheduler was lost. Every finished video is kept: start the scheduler and its "
                "workers again and run the same command."
            ) from None

    return engine


def task(job: Job, orders: str) -> Receipt:
    """`work` by the orders that the worker knows by this name."""
    worker = get_worker()
    told = worker.plugins[orders]
    if told.version != VERSION:
        raise AffuseError(
            f"A worker on {gethostname()} has affuse {VERSION}, and the run was started with {told.version}. Install "
            "the same version on both."
        )
    return replace(work(job, told.recipe, told.store, told.provenance), worker=str(worker.name))


def work(job: Job, recipe: Recipe, store: Path, provenance: Provenance) -> Receipt:
    """One video, in whichever worker it lands.

    Raises AffuseError where this worker's features would not be those of `provenance`, or would go to another disk.
    """
    host = gethostname()
    if not (store.parent.is_dir() and appears((store / SHARDS).is_dir)):  # it may have been made just now
        raise AffuseError(
            f"A worker on {host} does not see the store {store}: all machines must see it under the same path."
        )
    try:
        with _building:
            extractor = _extractor(recipe)
        if differing := how_they_differ(provenance, extractor.provenance):
            raise AffuseError(
                f"other weights or another version than where the run was started: {'; '.join(differing)}. Give both "
                "the same."
            )
        extractor.load()
    except AffuseError as error:
        raise AffuseError(f"On a worker on {host}: {error}") from None
    with extractor.turns:
        try:
            made = process(job, extractor, _store(store))
        except GpuLostError as error:
            log.error("%s", error)
            os._exit(1)  # the next one has the GPU again
    if made.failure and not job.path.exists():
        return replace(made, failure=f"{made.failure} (Said by a worker on {host}.)")
    return made


def _give_up(job: Job, extractor: Extractor, store: FeatureStore) -> Receipt:
    try:
        source = job.source()
    except OSError:  # gone meanwhile: there is nothing to keep a record of
        return Receipt(job.id, DIED)
    video = VideoFeatures.undecodable(job.record, source, DIED, extractor.provenance)
    store.replace(job.id, [video], extractor.provenance)
    return Receipt.of(job, video)
