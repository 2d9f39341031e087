"""What a process took of the machine, and what the machine could give: the rate of its matrix units."""

from __future__ import annotations

import re
import time
from pathlib import Path

import psutil
import torch
from torch.utils.flop_counter import FlopCounterMode

from affuse.device import Precision
from affuse.extract.networks import extraction_device, locate_backbones
from affuse.extract.run import Recipe
from affuse.extract.visual import build

STATUS = Path("/proc/self/status")
SIDE = {"cpu": 2048, "cuda": 4096}  # of the square matrices multiplied
TURNS = 5


def peak() -> int | None:
    """The most memory this process has held so far, in bytes; None where the system does not say (macOS)."""
    found = re.search(r"VmHWM:\s*(\d+) kB", STATUS.read_text()) if STATUS.is_file() else None
    return int(found[1]) * 1024 if found else getattr(psutil.Process().memory_info(), "peak_wset", None)


def gpu_peak(device: str) -> int | None:
    """The most that this process's tensors have taken of a GPU's memory, in bytes; None on a CPU."""
    return torch.cuda.max_memory_allocated(device) if torch.device(device).type == "cuda" else None


def settle(device: torch.device) -> None:
    """Wait until a GPU has computed all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_rate(device: torch.device, precision: Precision) -> float:
    """Operations per second of products of square matrices, `SIDE` long: a multiplication and an addition are two."""
    side = SIDE[device.type]
    matrix = torch.rand(side, side, dtype=getattr(torch, precision), device=device)
    torch.mm(matrix, matrix)  # the first takes longer
    settle(device)
    begin = time.perf_counter()
    for _ in range(TURNS):
        torch.mm(matrix, matrix)
    settle(device)
    return TURNS * 2 * side**3 / (time.perf_counter() - begin)


@torch.no_grad()
def capacity(recipe: Recipe) -> dict:
    """Operations (a multiplication and an addition are two) at the recipe's precision on its device and threads.

    matrix_side n; matrix_rate: per second, of a product of two (n, n) matrices, which are 2 n³; face: that the visual
    network takes for one face, in its convolutions and products.
    """
    torch.set_num_threads(recipe.threads)
    device = extraction_device(recipe.device)
    rate = matrix_rate(device, recipe.settings.precision)
    located = locate_backbones(recipe.settings, recipe.weights_dir, recipe.allow_untrained)["visual"]
    with FlopCounterMode(display=False) as counter:
        build(located).eval()(torch.zeros(1, 3, located.entry.face.size, located.entry.face.size))
    return {"matrix_side": SIDE[device.type], "matrix_rate": rate, "face": counter.get_total_flops()}
