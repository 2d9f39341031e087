"""Code that is no part of the package, run because its user names it: a class or a model in a file of theirs."""

from __future__ import annotations

import hashlib
import sys
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from traceback import extract_tb
from types import ModuleType

from affuse.errors import AffuseError, UsageError, first_line


def split(name: str) -> tuple[Path | None, str]:
    """FILE.py:NAME as the whole path and NAME; None and the name where no file is named."""
    file, _, member = (f"{name}:" if name.endswith(".py") else name).rpartition(":")
    return (Path(file).expanduser().resolve(), member) if file.endswith(".py") else (None, name)


def installed(group: str) -> dict[str, EntryPoint]:
    """{name: where it is} of what installed packages offer in a group of entry points."""
    return {point.name: point for point in entry_points(group=group)}


def run_file(what: str, path: Path, content: bytes) -> ModuleType:
    """The module of a user's file, run once for each content, so that what is in it is one object in the process.

    what    "model" or "backbone": what it is run for; a file may serve for both
    content the file's, as it was hashed

    Raises UsageError saying what went wrong in it, and in which line.
    """
    module = ModuleType(f"affuse_{what}_{hashlib.sha256(content).hexdigest()[:16]}")
    if module.__name__ not in sys.modules:
        module.__file__, sys.modules[module.__name__] = str(path), module
        try:
            exec(compile(content, str(path), "exec"), vars(module))  # noqa: S102 - the file that was named
        except Exception as error:
            del sys.modules[module.__name__]
            raise UsageError(f"{what.capitalize()} file {path} cannot be run: {said(error, path)}.") from error
    return sys.modules[module.__name__]


def said(error: Exception, path: Path | None = None) -> str:
    """An error in a line: its kind, where it is not of ours, its words, and where in the file at `path` it came up."""
    if isinstance(error, AffuseError):
        return str(error).rstrip(".")
    lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == str(path)]
    place = f" (line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {first_line(error, 'no reason given')}{place}"
