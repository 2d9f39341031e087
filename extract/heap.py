"""The memory of a process that computes with several threads for long: one heap, and what is free in it given back.

What a stage has freed lies between what others still hold, and glibc keeps it: 0.4 GiB after a few minutes with two
lanes, and more with every hour.
"""

from __future__ import annotations

import ctypes
import os
import time
from contextlib import suppress

M_ARENA_MAX = -8  # of glibc's malloc.h
KERNELS = "64"  # ResNet-50 and the detector have as many at once
PAUSE = 2.0  # s from one time to the next that memory is given back, which takes 16 ms

_given_back = 0.0  # of time.monotonic


def save_memory() -> None:
    """Have this process keep less of what its stages have freed, 0.5 GiB with two lanes in a long video.

    All its threads allocate from one heap, where glibc would give each its own; and oneDNN keeps fewer kernels, of
    which the detector needs another one for every number of faces that it looks at.
    """
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", KERNELS)  # read at the first of them
    _glibc("mallopt", M_ARENA_MAX, 1)


def give_back() -> None:
    """Give the system what the heap holds and nobody uses, if that was not done just now; for any thread to call, as
    often as it likes."""
    global _given_back
    if time.monotonic() - _given_back > PAUSE:
        _given_back = time.monotonic()
        _glibc("malloc_trim", 0)


def _glibc(name: str, *given: int) -> None:
    """Call a function of glibc's, where that is the C library."""
    with suppress(AttributeError, OSError, TypeError):
        getattr(ctypes.CDLL(None), name)(*given)
