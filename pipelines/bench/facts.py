"""What a measurement was made on."""

from __future__ import annotations

import os
import platform
from pathlib import Path

from affuse.extract.weights.doctor import environment


def machine() -> dict[str, str]:
    """Processor, memory, cores, GPU, Python and library versions, as text by name."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {"cpu": _cpu(), "memory": f"{memory:.0f} GiB", **environment()}


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # not Linux
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
