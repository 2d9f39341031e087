"""What a scheduler and its workers are given: few tasks at a time, and once what all of them share."""

import pytest
from distributed import Client, LocalCluster, get_worker

from affuse.extract import flight
from affuse.extract.flight import Flight, Orders, told

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


@pytest.mark.parametrize(("least", "most"), [(1, 6), (10, 10)])
def test_few_tasks_are_with_the_scheduler_and_all_are_done(client, monkeypatch, least, most):
    monkeypatch.setattr(flight, "LEAST", least)
    given, seen, out = [], [], []

    def submit(job):
        given.append(job)
        out.append(len(given) - len(seen))
        return client.submit(abs, job, pure=False)

    for future, job in Flight(client, range(-40, 0), submit):
        assert future.result() == -job
        seen.append(job)
    assert given == list(range(-40, 0)) == sorted(seen)
    assert max(out) == most  # two threads, three tasks for each


def test_more_workers_are_given_more(client, monkeypatch):
    monkeypatch.setattr(flight, "LEAST", 1)
    monkeypatch.setattr(flight, "WATCH", -1)
    ahead = Flight(client, [], None)
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
