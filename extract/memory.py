"""Memory that is freed is kept for the next batch, up to a bound, where the C library is glibc.

Every layer's output is some tens of megabytes. glibc would hand each back to the system and ask for it again, zeroed
page by page, which takes a tenth of an extraction's time on CPU. Only what is larger than any batch, a long video's
sound and embeddings, comes from the system and goes back to it.

What is kept has holes: between the frames of one batch and the next lie the few bytes that outlast them, and a hole
that is a little too small is never used again. A long video would leave gigabytes of them, so they are given back.
"""

from __future__ import annotations

import ctypes
import mmap
from pathlib import Path

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -2, -3, -8
OPTIONS = {M_TRIM_THRESHOLD: 2**31 - 1, M_TOP_PAD: 2**26, M_MMAP_THRESHOLD: 2**28, M_ARENA_MAX: 1}
KEPT, KEPT_PER_LANE = (
    2**29,
    2**28,
)  # bytes; what batches need, and little of an extraction's time to fill anew


def keep_freed_memory() -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    for option, value in OPTIONS.items() if mallopt else ():
        mallopt(option, value)


class Holes:
    """Gives the holes in the process's memory back to the system when it has grown since they last were."""

    def __init__(self):
        self.trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        self.after = 0  # bytes held when the holes were last given back

    def give_back(self, lanes: int) -> None:
        if self.trim and resident() > self.after + KEPT + KEPT_PER_LANE * lanes:
            self.trim(0)
            self.after = resident()


def resident() -> int:
    """Bytes of memory that this process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * mmap.PAGESIZE


HOLES = Holes()  # one, as there is one heap
