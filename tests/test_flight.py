"""What a scheduler and its workers are given: few tasks at a time, and once what all of them share."""

from pathlib import Path
from types import SimpleNamespace

import pytest
from distributed import Client, LocalCluster, get_worker
from distributed.scheduler import KilledWorker

from affuse.errors import AffuseError
from affuse.extract import flight
from affuse.extract.flight import Flight, Orders, told
from affuse.extract.videos import Job
from processes import wait_until

pytestmark = pytest.mark.usefixtures("no_waiting_for_ever")


@pytest.fixture(scope="module")
def client():
    with (
        LocalCluster(1, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        yield client


def known(name: str, dask_worker=None):
    orders = (dask_worker or get_worker()).plugins.get(name)
    return orders and (orders.recipe, orders.store, orders.provenance)


def length(job: Job, orders: str) -> tuple[int, str]:
    return len(job.id), orders


DEAD, TRIED = "dead", set()


def dying(job: Job, orders: str) -> str:
    """As a task of a worker that dies at the job "dead", and once at "frail"."""
    if job.id == DEAD or (job.id == "frail" and job.id not in TRIED):
        TRIED.add(job.id)
        raise KilledWorker(job.id, SimpleNamespace(address="tcp://there"), 0)
    if job.id == "odd":
        raise AffuseError("other weights")
    return job.id


def jobs(*names: str) -> list[Job]:
    return [Job(name, f"{name}.mp4", Path(f"{name}.mp4")) for name in names]


@pytest.mark.parametrize(("least", "most"), [(1, 6), (10, 10)])
def test_few_tasks_are_with_the_scheduler_and_all_are_done(client, monkeypatch, least, most):
    monkeypatch.setattr(flight, "LEAST", least)
    given, seen, out = [], [], []
    submit = client.map

    def watched(task, some, **options):
        given.extend(some)
        out.append(len(given) - len(seen))
        return submit(task, some, **options)

    monkeypatch.setattr(client, "map", watched)
    all_of_them = jobs(*("x" * n for n in range(1, 41)))
    for job, receipt in Flight(client, iter(all_of_them), length, "orders"):
        assert receipt == (len(job.id), "orders")
        seen.append(job)
    assert sorted(seen, key=lambda job: len(job.id)) == all_of_them
    assert given == [job.absolute() for job in all_of_them]
    assert max(out) == most  # two threads, three tasks for each
    assert len(out) < 40  # several in one message


def test_a_video_whose_worker_died_is_tried_alone_and_takes_nobody_along(client):
    TRIED.clear()
    names = ["a", DEAD, "b", "frail", "c"]
    ended = [(job.id, receipt) for job, receipt in Flight(client, jobs(*names), dying, "orders")]
    assert sorted(ended[:3]) == [(name, name) for name in "abc"]
    assert sorted(ended[3:]) == [(DEAD, None), ("frail", "frail")]


def test_an_error_ends_the_flight_and_nothing_stays_with_the_scheduler(client):
    with pytest.raises(AffuseError, match="other weights"):
        list(Flight(client, jobs("odd", *"abcdefgh"), dying, "orders"))
    wait_until(lambda: not client.run_on_scheduler(tasks), "the tasks' end", 60)


def tasks(dask_scheduler) -> int:
    return len(dask_scheduler.tasks)


def test_more_workers_are_given_more(client, monkeypatch):
    monkeypatch.setattr(flight, "LEAST", 1)
    monkeypatch.setattr(flight, "WATCH", -1)
    ahead = Flight(client, [], length, "orders")
    assert ahead._limit() == 6
    monkeypatch.setattr(client, "nthreads", lambda: {"here": 2, "there": 8})
    assert ahead._limit() == 30
    monkeypatch.setattr(client, "nthreads", dict)
    assert ahead._limit() == 1


def test_orders_are_known_to_all_workers_and_to_those_that_join_and_then_forgotten(client):
    with told(client, Orders("recipe", "store", "provenance")) as name:
        client.cluster.scale(2)
        client.wait_for_workers(2)
        assert list(client.run(known, name).values()) == [("recipe", "store", "provenance")] * 2
    assert list(client.run(known, name).values()) == [None] * 2


def test_a_worker_that_goes_while_orders_are_given_stops_nothing(client, monkeypatch):
    tries, register = [], client.register_plugin

    def frail(*arguments, **options):
        tries.append(1)
        if len(tries) == 1:
            raise OSError("Timed out trying to connect")
        return register(*arguments, **options)

    monkeypatch.setattr(client, "register_plugin", frail)
    with told(client, Orders("recipe", "store", "provenance")) as name:
        assert client.submit(known, name, pure=False).result()
    assert len(tries) == 2
    monkeypatch.setattr(flight, "PATIENCE", -1)
    tries.clear()
    with pytest.raises(flight.LOST), told(client, Orders("recipe", "store", "provenance")):
        pass
