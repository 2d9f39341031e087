"""Room for features: in memory where they fit, else in a file that is mapped into it, else a sentence on what to do.
What is to be shared lies in such a file either way, which the processes that are started map too."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Sequence
from multiprocessing import reduction
from pathlib import Path
from typing import IO

import numpy as np
import psutil
import torch

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


class Place:
    """Room for a float16 tensor, (rows, width): `values`, which hold anything at first. Where it lies in a file, which
    has no name, another process that is given it has the same there, not a copy."""

    def __init__(self, shape: Shape, device: torch.device, file: IO[bytes] | None = None):
        self.shape, self.device, self.file = shape, device, file
        if file is None:
            self.values = torch.empty(shape, dtype=torch.float16, device=device)
        else:
            self.values = torch.from_numpy(np.memmap(file, np.float16, "r+", shape=shape))

    @classmethod
    def on_disk(cls, shape: Shape, device: torch.device, folder: Path) -> Place:
        """A new one whose room is all taken at once: a full disk would end the process later."""
        file = tempfile.TemporaryFile(dir=folder, prefix="affuse-")  # noqa: SIM115 - it is open for as long as it is
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, bytes_of([shape]))
        else:
            file.truncate(bytes_of([shape]))
        return cls(shape, device, file)

    @classmethod
    def in_memory(cls, shape: Shape, device: torch.device) -> Place:
        """A new one in a file in memory, where the system has such files."""
        if not hasattr(os, "memfd_create"):
            return cls.on_disk(shape, device, Path(tempfile.gettempdir()))
        file = os.fdopen(os.memfd_create("affuse"), "r+b")
        file.truncate(bytes_of([shape]))
        return cls(shape, device, file)

    def __reduce__(self):
        assert self.file
        return _opened, (self.shape, self.device, reduction.DupFd(self.file.fileno()))


def _opened(shape: Shape, device: torch.device, file) -> Place:
    return Place(shape, device, os.fdopen(file.detach(), "r+b"))


def can_share() -> bool:
    """Whether a process can be given a file of this one."""
    return hasattr(reduction, "DupFd")


def allocate(shapes: Sequence[Shape], device: torch.device, whose: str, shared: bool = False) -> list[Place]:
    """Places of these shapes. Where they do not fit into memory they lie in files below TMPDIR, which are gone when
    they are, and a warning says so.

    whose names them, as "3 videos". shared: in files even where they fit, on a CPU. Raises UsageError where the disk
    has no room either, or a GPU's memory has none.
    """
    if fits(shapes, device):
        make = Place.in_memory if shared and device.type == "cpu" else Place
        return [make(shape, device) for shape in shapes]
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
    return [Place.on_disk(shape, device, folder) for shape in shapes]


def _in_memory(folder: Path) -> bool:
    """Whether a folder's disk is none."""
    mounted = {Path(disk.mountpoint): disk.fstype for disk in psutil.disk_partitions(all=True)}
    place = folder.resolve()
    return next((mounted[up] for up in (place, *place.parents) if up in mounted), "") in ("tmpfs", "ramfs")
