"""Which GPU each worker of a scheduler computes on: one worker for each, since two on one would only crowd it, while
others idle."""

from __future__ import annotations

import os
from collections import Counter
from socket import gethostname

import torch
from distributed import Client, Scheduler

from affuse.errors import UsageError, listed
from affuse.extract.networks import extraction_device

GPU = "GPU"  # the resource of that name, where workers declare it


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
    count = torch.cuda.device_count()
    return chosen[:count] if chosen != [""] else [str(i) for i in range(count)]


def place(device: str) -> tuple[str, str, str] | None:
    """The host, and the GPU that a process there computes on: by a name that no other one has, and by that which the
    process knows it by. None on a CPU."""
    target = extraction_device(device)
    if target.type != "cuda":
        return None
    index = target.index or 0
    name = visible_gpus()[index]
    part = name.startswith("MIG")  # of a GPU, which has an own name only here
    return gethostname(), name if part else str(torch.cuda.get_device_properties(index).uuid), f"cuda:{index}"


def check_places(client: Client, device: str) -> None:
    """Raise UsageError where two of the workers would compute on one GPU."""
    places = client.run(place, device, on_error="ignore")  # its task will say what is wrong with a worker
    counts = Counter(found for found in places.values() if found)
    for crowded, many in counts.items():
        if many > 1:
            host, _, name = crowded
            workers = sorted(address for address, found in places.items() if found == crowded)
            raise UsageError(
                f"{many} workers on {host} would all compute on one GPU, their {name}: {listed(workers)}. Start one "
                "for each GPU and let it see no other, CUDA_VISIBLE_DEVICES=0 dask worker … --nthreads 8, then =1 and "
                "so on; or give --device cpu."
            )


def declared(dask_scheduler: Scheduler) -> list[tuple[float, int]]:
    """Of each worker that says how many GPUs it has: how many, and its threads."""
    workers = dask_scheduler.workers.values()
    return [(worker.resources[GPU], worker.nthreads) for worker in workers if worker.resources.get(GPU)]


def needed(client: Client, device: str) -> dict[str, float]:
    """The resources of a task: where workers declare GPUs, the share that lets each of their threads have one; other
    workers then get none. Nothing on a CPU."""
    if device == "cpu":
        return {}
    shares = [gpus / threads for gpus, threads in client.run_on_scheduler(declared)]
    return {GPU: min(shares)} if shares else {}
