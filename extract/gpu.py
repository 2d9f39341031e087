"""What computing on a GPU takes beside the computing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache

import torch
from torch import Tensor

from affuse.device import on
from affuse.errors import first_line

log = logging.getLogger("affuse")
WARMING = 3  # times that a network computes before it is captured, in which libraries choose their kernels


def upload(values: Tensor, device: torch.device) -> Tensor:
    """The same on the device; to a GPU from pinned memory, so that the copy waits for nothing."""
    return values if values.device.type == device.type else values.pin_memory().to(device, non_blocking=True)


@cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


def beside(device: torch.device) -> AbstractContextManager:
    """A context whose kernels a GPU runs beside those of everything else: one stream, whichever thread is in it."""
    return nullcontext() if device.type == "cpu" else torch.cuda.stream(_stream(device))


@torch.inference_mode()
def captured(network: Callable[[Tensor], Tensor], example: Tensor) -> Callable[[Tensor], Tensor]:
    """The network for inputs like `example`: on a GPU all its kernels as one CUDA graph, where it can be captured.

    What it returns is overwritten by the next call, so one thread at a time calls, and copies before it lets go.
    """
    if example.device.type != "cuda":
        return network
    try:
        with on(example.device):
            given, stream = example.clone(), torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                for _ in range(WARMING):
                    network(given)
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads may allocate meanwhile
                made = network(given)
    except RuntimeError as error:
        log.debug("not captured as a CUDA graph: %s", first_line(error))
        return network

    @torch.inference_mode()  # as what is copied into was made
    def replayed(x: Tensor) -> Tensor:
        given.copy_(x)
        graph.replay()
        return made

    return replayed
