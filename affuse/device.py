"""Picking the device that a command runs on, and the precision of its numbers there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from textwrap import shorten
from typing import TYPE_CHECKING, Literal

from affuse.errors import UsageError

if TYPE_CHECKING:
    import torch

Precision = Literal["float32", "bfloat16"]
AMPERE = (8, 0)  # CUDA's compute capability from which a GPU has units for bfloat16


def pick_device(name: str, opened: bool = True) -> torch.device:
    """The device of that name; "auto" is the GPU where there is one. Raises UsageError for one that is absent, or that
    cannot be opened: not opened is a GPU for a process that only gives others work on it.

    From here on float32 is that on a GPU too, as on a CPU: nothing is rounded to TF32's 10 bits.
    """
    import torch

    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
        if opened or device.type != "cuda" or (device.index or 0) >= torch.cuda.device_count():
            torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = shorten(str(error).splitlines()[0], 120)
        raise UsageError(f"Device {name!r} cannot be used: {reason} Try cpu, cuda, or auto.") from None
    return device


def pick_precision(name: Precision | Literal["auto"], device: torch.device) -> Precision:
    """The precision of that name; "auto" is bfloat16 where the device multiplies it at several times the rate of
    float32: a GPU from Ampere on, a CPU with tiles for it (AMX) that the system lets this process use. AVX-512's
    bfloat16 does not count: 2.3 times the rate, measured on an AMD EPYC. Where torch cannot tell, it is float32.
    """
    if name != "auto":
        return name
    import torch

    if device.type == "cuda":
        fast = torch.cuda.get_device_capability(device) >= AMPERE
    else:
        fast = device.type == "cpu" and getattr(torch.cpu, "_init_amx", lambda: False)()
    return "bfloat16" if fast else "float32"


def told(device: torch.device) -> str:
    """What computes there, in words: the GPU's name, or the CPU's instructions that torch uses."""
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type} {torch.backends.cpu.get_cpu_capability()}"


def on(device: torch.device) -> AbstractContextManager:
    """A context in which this is the current GPU of the thread, which kernels beside torch's own are launched on."""
    import torch

    return torch.cuda.device(device) if device.type == "cuda" else nullcontext()


@contextmanager
def threads(number: int) -> Iterator[None]:
    """A context in which torch computes with so many on the CPU."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def gpu_lost(error: BaseException) -> bool:
    """Whether this is an error of CUDA after which all else that the process asks of it fails too, as it does not where
    memory runs out."""
    return isinstance(error, RuntimeError) and "CUDA error" in str(error)
