"""Files and folders that appear whole or not at all: written beside, synced, checked, then renamed."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import shutil
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from affuse.errors import AffuseError, UsageError

ABANDONED = 24 * 3600  # seconds after which a file left by a process on another machine counts as dead
FULL = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT") if hasattr(errno, name))  # of a disk
WINDOWS = os.name == "nt"
PIECE = 2**20  # bytes read at a time
HOST = "".join(c if c.isalnum() else "-" for c in socket.gethostname())[:40] or "host"


class Sink(io.FileIO):
    """A new private file that takes every write and keeps the first error for later.

    HDF5 (2.0) crashes the process when a write fails, as on a full disk; so it must never hear of one.
    """

    def __init__(self, path: Path):
        super().__init__(path, "x+", opener=lambda name, flags: os.open(name, flags, 0o600))
        self.failure: OSError | None = None

    def write(self, data) -> int:
        view = memoryview(data).cast("B")
        while self.failure is None and len(view):
            try:
                view = view[super().write(view) :]
            except OSError as error:
                self.failure = error
        return len(data)

    def truncate(self, size: int | None = None) -> int:
        try:
            return super().truncate(size)
        except OSError as error:
            self.failure = self.failure or error
            return size or 0


def publish(
    path: Path,
    fill: Callable[..., object],
    check: Callable[[Path], None] = lambda written: None,
    folder: bool = False,
    advice: str = "",
) -> None:
    """Make or replace `path` with what `fill` writes, once `check` has found nothing wrong with it on disk.

    fill is given a Sink, or, for a folder, an empty one to put files in. At every instant `path` is the old file or the
    new one; a folder that is replaced is gone for a moment. The folder it is in is made like the one above, where there
    is none. Raises AffuseError, which ends with `advice`, if it cannot be written.
    """
    partial = path.with_name(f".{path.name[-40:]}.{HOST}.{os.getpid()}.partial")
    try:
        _make_alike(path.parent)
        _discard(partial)
        if folder:
            partial.mkdir(mode=0o700)
            fill(partial)
            for file in partial.rglob("*"):
                _sync(file)
        else:
            _fill(partial, fill)
        check(partial)
        partial.chmod(path.parent.stat().st_mode & (0o777 if folder else 0o666))
        if folder and path.is_dir():
            shutil.rmtree(path)
        os.replace(partial, path)
        _sync(path.parent)
    except OSError as error:
        raise AffuseError(" ".join([_explain(path, error), advice]).rstrip()) from error
    finally:
        # What kept it from being written may keep it from being removed; sweep() gets it later.
        with suppress(OSError):
            _discard(partial)


def _make_alike(folder: Path) -> None:
    """Make a folder with the permissions of the one that it is in, unless it is there."""
    with suppress(FileExistsError):
        if not folder.is_dir():
            folder.mkdir()
            folder.chmod(folder.parent.stat().st_mode & 0o7777)


def _fill(partial: Path, fill: Callable[[Sink], object]) -> None:
    with Sink(partial) as sink:
        try:
            fill(sink)
        finally:
            if sink.failure is not None:
                raise sink.failure
        os.fsync(sink.fileno())


def _sync(path: Path) -> None:
    """Windows syncs no folders, and only files that are open for writing."""
    if WINDOWS and path.is_dir():
        return
    descriptor = os.open(path, os.O_RDWR if WINDOWS else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _discard(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _explain(path: Path, error: OSError) -> str:
    reason = error.strerror or str(error)
    if error.errno in FULL:
        free = shutil.disk_usage(path.parent).free / 2**20
        return (
            f"The disk is full: {path} could not be written ({reason}; {free:.0f} MiB are free). Free some "
            "space and run the same command again: everything finished before is kept and not made again."
        )
    return (
        f"{path} could not be written: {reason}. Check the folder and its disk, then run the same command "
        "again: everything finished before is kept and not made again."
    )


def sweep(folder: Path) -> int:
    """Remove what dead processes left half-written in `folder`; how many that was.

    A process of this machine is dead when its number is free; of another machine's only the file's age tells.
    """
    import psutil

    swept = 0
    for partial in folder.glob(".*.partial"):
        try:
            *_, host, process, _ = partial.name.split(".")
            dead = host == HOST and not psutil.pid_exists(int(process))
            if dead or time.time() - partial.stat().st_mtime > ABANDONED:
                _discard(partial)
                swept += 1
        except (ValueError, OverflowError, OSError):  # not a name of ours, or gone meanwhile
            continue
    return swept


def write_bytes(path: Path, data: bytes) -> None:
    """Replace a file at once and for good. Raises AffuseError naming it where it cannot be written."""
    publish(path, lambda sink: sink.write(data))


def write_text(path: Path, text: str) -> None:
    """`write_bytes` for text, as UTF-8."""
    write_bytes(path, text.encode())


def make_folder(path: Path) -> Path:
    """The folder, made where it is not there. Raises UsageError where it cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"Folder {path} cannot be made: {error.strerror}. Choose another folder for --out.") from None
    return path


def sha256_of(path: Path) -> str:
    """The file's sha256 in hex, read in pieces."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while piece := file.read(PIECE):
            digest.update(piece)
    return digest.hexdigest()


def as_path(what: str, value) -> Path:
    """`value` as a path, or a UsageError that says what was expected in its place."""
    if isinstance(value, (str, os.PathLike)) and value != "":
        return Path(value)
    given = "an empty text" if isinstance(value, str) else f"a {type(value).__name__}"
    raise UsageError(f"Expected {what}, not {given}.")


def file_name(name: str) -> str:
    """A video id as a file name, different for different ids: what file systems do not take becomes %XX."""
    return re.sub(r'[/\\:*?"<>|%\x00-\x1f]', lambda found: f"%{ord(found[0]):02X}", name)


def name_of_file(name: str) -> str:
    """The video id that `file_name` made this file name of."""
    return re.sub(r"%([0-9A-F]{2})", lambda found: chr(int(found[1], 16)), name)
