"""Room for features: in memory where they fit, else in a file that is mapped into it, else a sentence on what to do."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np
import psutil
import torch
from torch import Tensor

from affuse.errors import UsageError

log = logging.getLogger("affuse")

SHARE = 0.8  # of the free memory, and of the free disk, that features may take: training wants some too
GIB = 2**30

Shape = tuple[int, int]


def free_memory(device: torch.device) -> int:
    """Bytes that are free on the device, with those that torch holds there for what comes next."""
    if device.type == "cuda":
        idle = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + idle
    return psutil.virtual_memory().available


def bytes_of(shapes: Sequence[Shape]) -> int:
    """Bytes of float16 tensors of these shapes."""
    return 2 * sum(rows * width for rows, width in shapes)


def fits(shapes: Sequence[Shape], device: torch.device) -> bool:
    """Whether float16 tensors of these shapes fit into the device's memory and leave some of it."""
    return bytes_of(shapes) <= SHARE * free_memory(device)


def allocate(shapes: Sequence[Shape], device: torch.device, whose: str) -> list[Tensor]:
    """Float16 tensors of these shapes, which hold anything. Where they do not fit into memory they lie in a file below
    TMPDIR, which is gone when they are, and a warning says so.

    whose names them, as "3 videos". Raises UsageError where the disk has no room either, or a GPU's memory has none.
    """
    if fits(shapes, device):
        return [torch.empty(shape, dtype=torch.float16, device=device) for shape in shapes]
    size, free = bytes_of(shapes), free_memory(device)
    said = f"The features of {whose} take {size / GIB:.1f} GiB, and {free / GIB:.1f} GiB of memory are free"
    less = "read fewer frames a second (--set fps=5), or fewer modalities (--set modalities=[visual,audio])"
    if device.type != "cpu":
        raise UsageError(f"{said} on {device}. Use --device cpu, which keeps them on the disk if need be; or {less}.")
    folder = Path(tempfile.gettempdir())
    room = 0 if _in_memory(folder) else shutil.disk_usage(folder).free
    if size > SHARE * room:
        where = f"{folder} is in memory itself" if not room else f"{room / GIB:.1f} GiB on the disk of {folder}"
        raise UsageError(f"{said}; {where}. Set TMPDIR to a folder of a disk with more room; or {less}.")
    log.warning(
        "%s: they are kept in a file in %s (TMPDIR) until this ends, and what does not stay in the system's cache is "
        "read from there in every epoch", said, folder,
    )  # fmt: skip
    return _mapped(shapes, folder)


def _mapped(shapes: Sequence[Shape], folder: Path) -> list[Tensor]:
    """Tensors in a file without a name, all of whose room is taken at once: a full disk would end the process later."""
    with tempfile.TemporaryFile(dir=folder, prefix="affuse-") as file:
        size = bytes_of(shapes)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, size)
        else:
            file.truncate(size)
        whole = torch.from_numpy(np.memmap(file, np.float16, "r+", shape=(size // 2,)))
    ends = np.cumsum([0, *(rows * width for rows, width in shapes)])
    return [whole[a:b].view(shape) for (a, b), shape in zip(pairwise(ends.tolist()), shapes, strict=True)]


def _in_memory(folder: Path) -> bool:
    """Whether a folder's disk is none."""
    mounted = {Path(disk.mountpoint): disk.fstype for disk in psutil.disk_partitions(all=True)}
    place = folder.resolve()
    return next((mounted[up] for up in (place, *place.parents) if up in mounted), "") in ("tmpfs", "ramfs")
