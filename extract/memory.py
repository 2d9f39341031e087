"""Memory that is freed is kept for the next batch, where the C library is glibc.

Every layer's output is some tens of megabytes. glibc would hand each back to the system and ask for it again, zeroed
page by page, which takes a tenth of an extraction's time on CPU. Only what is larger than any batch, a long video's
sound and embeddings, comes from the system and goes back to it, so that no hole of its size stays behind.
"""

from __future__ import annotations

import ctypes

OPTIONS = {
    -1: 2**31 - 1,
    -2: 2**26,
    -3: 2**28,
    -8: 1,
}  # M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_THRESHOLD, M_ARENA_MAX


def keep_freed_memory() -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    for option, value in OPTIONS.items() if mallopt else ():
        mallopt(option, value)
