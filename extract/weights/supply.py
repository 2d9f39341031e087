"""Bring weights that this machine lacks: all that is wanted at once, each with what became of it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from affuse.config import nearest
from affuse.console import Announce
from affuse.errors import AffuseError, UsageError, counted
from affuse.extract.profiles import PROFILES
from affuse.extract.weights.download import UnreachableError
from affuse.extract.weights.locate import bring, find, weights_folder
from affuse.extract.weights.table import backbone


def check_profile(name: str) -> None:
    """Raises UsageError for an unknown profile, naming the nearest."""
    if name not in PROFILES:
        raise UsageError(f"Unknown profile {name!r}{nearest(name, PROFILES)}")


def wanted(profile: str | None, names: Iterable[str]) -> list[str]:
    """The backbones of a profile and those named, each once; without either, those of `paper`. Raises UsageError for an
    unknown one."""
    if profile is not None:
        check_profile(profile)
    names = list(names)
    chosen = [*PROFILES[profile or "paper"].values()] if profile or not names else []
    return [backbone(name).name for name in dict.fromkeys([*chosen, *names])]


def supply(names: Iterable[str], weights_dir: Path | None = None, announce: Announce = lambda text: None) -> dict:
    """Download those of the backbones that are not here, into `weights_dir`, or the cache folder where none is named.

    Gives {"there": {name: its path}, "fetched": {name: its path}, "by_hand": {name: how}, "failed": {name: why}}.
    Raises UsageError for a folder that does not exist; what cannot be had is in `failed`, and the others go on.
    """
    result: dict[str, dict[str, str]] = {"there": {}, "fetched": {}, "by_hand": {}, "failed": {}}
    folder = weights_folder(weights_dir)
    for entry in map(backbone, names):
        try:
            if located := find(entry.name, weights_dir):
                result["there"][entry.name] = str(located.path)
            elif not entry.fetched:
                result["by_hand"][entry.name] = f"{entry.note} Place it at {folder / entry.filename}."
            else:
                announce(f"Fetching {entry.name}.")
                located = bring(entry, folder / entry.filename if weights_dir else None)
                result["fetched"][entry.name] = str(located.path)
        except UnreachableError as error:
            result["failed"][entry.name] = f"{error}."
        except AffuseError as error:
            result["failed"][entry.name] = str(error)
    return result


def describe_supply(result: dict) -> str:
    """A line a backbone, and how many there are of each kind."""
    titles = {"there": "already there", "fetched": "fetched", "by_hand": "by hand", "failed": "failed"}
    lines = [f"{titles[kind]}: {name}: {text}" for kind, found in result.items() for name, text in found.items()]
    counts = ", ".join(f"{len(found)} {titles[kind]}" for kind, found in result.items() if found)
    return "\n".join([*lines, f"{counted(sum(map(len, result.values())), 'backbone')}: {counts}."])
