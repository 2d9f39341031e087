"""Workers of a scheduler and their GPUs: two on one are refused, and who declares GPUs gets the work. No GPU is there:
torch and the workers say what they would with some."""

from types import SimpleNamespace

import pytest
import torch
from distributed import Client, LocalCluster, Scheduler, SpecCluster, Worker, get_worker

from affuse.errors import UsageError
from affuse.extract import flight, placement
from affuse.extract.flight import Flight
from affuse.extract.placement import check_places, needed, place
from test_flight import jobs

pytestmark = pytest.mark.usefixtures("no_waiting_for_ever")


@pytest.fixture(scope="module")
def client():
    with (
        LocalCluster(n_workers=3, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        yield client


@pytest.fixture
def gpus(monkeypatch):
    """Has a process see these GPUs, by CUDA_VISIBLE_DEVICES, which have uuids by their order."""

    def see(visible: str, *uuids: str) -> None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
        monkeypatch.setattr(placement, "extraction_device", torch.device)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(uuids))
        monkeypatch.setattr(torch.cuda, "get_device_properties", lambda i: SimpleNamespace(uuid=uuids[i]))
        monkeypatch.setattr(placement, "gethostname", lambda: "host")

    return see


def test_a_gpu_is_known_by_what_no_other_one_is_called(gpus):
    gpus("2,3", "aa", "bb")
    assert place("cpu") is None
    assert place("cuda") == place("cuda:0") == ("host", "aa", "cuda:0")
    assert place("cuda:1") == ("host", "bb", "cuda:1")
    gpus("MIG-7", "aa")
    assert place("cuda") == ("host", "MIG-7", "cuda:0")


WHERE: dict = {}


def pretended(device: str, dask_worker):
    return WHERE[dask_worker.address]


def test_workers_on_one_gpu_are_refused_and_told_what_to_do(client, monkeypatch):
    addresses = sorted(client.nthreads())
    WHERE.update(dict.fromkeys(addresses, ("host", "aa", "cuda:0")))
    monkeypatch.setattr(placement, "place", pretended)
    with pytest.raises(UsageError) as error:
        check_places(client, "auto")
    said = str(error.value)
    assert said.startswith("3 workers on host would all compute on one GPU, their cuda:0: ")
    assert all(address in said for address in addresses)
    assert "CUDA_VISIBLE_DEVICES=0 dask worker" in said
    WHERE.update({addresses[1]: ("host", "bb", "cuda:0"), addresses[2]: None})
    check_places(client, "auto")


def test_a_worker_that_joins_is_looked_at_before_it_is_given_more(client, monkeypatch):
    monkeypatch.setattr(flight, "WATCH", -1)
    welcomed = []
    ahead = Flight(client, jobs("a"), None, "orders", lambda: welcomed.append(1) or {"GPU": 0.5})
    assert ahead._limit() == ahead._limit()
    assert (len(welcomed), ahead.resources) == (1, {"GPU": 0.5})
    monkeypatch.setattr(client, "nthreads", lambda: {**dict.fromkeys(ahead.workers, 1), "new": 1})
    assert ahead._limit()
    assert len(welcomed) == 2


def whose(job, orders: str) -> str:
    return get_worker().name


def test_work_goes_to_those_who_declare_gpus(client):
    assert needed(client, "auto") == {}
    plain, gpu = {"nthreads": 1}, {"nthreads": 2, "resources": {"GPU": 1}}
    workers = {name: {"cls": Worker, "options": own} for name, own in (("cpu", plain), ("gpu", gpu))}
    scheduler = {"cls": Scheduler, "options": {"dashboard_address": ":0", "protocol": "inproc://"}}
    with SpecCluster(workers, scheduler) as cluster, Client(cluster) as own:
        own.wait_for_workers(2)
        assert needed(own, "cpu") == {}
        assert needed(own, "auto") == {"GPU": 0.5}
        given = Flight(own, jobs(*map(str, range(12))), whose, "orders", lambda: needed(own, "auto"))
        assert {worker for _, worker in given} == {"gpu"}
