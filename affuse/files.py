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
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from secrets import token_hex

from affuse.errors import AffuseError, UsageError

ABANDONED = 24 * 3600  # seconds without a write after which a half-written file is nobody's, whoever wrote it
FULL = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT") if hasattr(errno, name))  # of a disk
REFUSALS = ("EINVAL", "ENOTSUP", "EOPNOTSUPP", "ENOSYS", "EACCES", "EPERM", "EBADF", "EISDIR")  # to sync a folder
WINDOWS = os.name == "nt"
PIECE = 2**20  # bytes read at a time
BOOT = Path("/proc/sys/kernel/random/boot_id")  # Linux's: containers may share a host name, machines no kernel
MACHINE = hashlib.sha256((BOOT.read_text() if BOOT.exists() else socket.gethostname()).encode()).hexdigest()[:12]
PARTIAL = re.compile(r"\..+\.(?P<machine>[0-9a-f]{12})\.[0-9a-f]{16}\.partial")


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
    partial = partial_of(path)
    try:
        _make_alike(path.parent)
        with (_folder if folder else _file)(partial, fill):
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


def partial_of(path: Path) -> Path:
    """A new name beside `path` for what is not to be seen there; `sweep` takes it once nobody holds its lock."""
    return path.with_name(f".{path.name[-40:]}.{MACHINE}.{token_hex(8)}.partial")


def _make_alike(folder: Path) -> None:
    """Make a folder with the permissions of the one that it is in, unless it is there."""
    with suppress(FileExistsError):
        if not folder.is_dir():
            folder.mkdir()
            folder.chmod(folder.parent.stat().st_mode & 0o7777)


@contextmanager
def _file(partial: Path, fill: Callable[[Sink], object]) -> Iterator[None]:
    """Filled and synced, and locked until it has its name, so that no sweep takes it."""
    with _begun(partial) as sink:
        try:
            fill(sink)
        finally:
            if sink.failure is not None:
                raise sink.failure
        os.fsync(sink.fileno())
        if WINDOWS:  # where no open file is renamed
            sink.close()
        yield


def _begun(partial: Path) -> Sink:
    """A new file, under lock."""
    while True:
        sink = Sink(partial)
        if not _lock(sink, wait=True) or partial.exists():
            return sink
        sink.close()  # a sweep met it in the moment without


@contextmanager
def _folder(partial: Path, fill: Callable[[Path], object]) -> Iterator[None]:
    partial.mkdir(mode=0o700)
    fill(partial)
    for file in partial.rglob("*"):
        _sync(file)
    yield


def _lock(file: io.IOBase, wait: bool = False) -> bool:
    """Whether the lock of a file could be had; it is this process's for as long as that lives and has the file open. On
    Windows, and where a file system has no locks, it never can."""
    if WINDOWS:
        return False
    import fcntl

    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        return True
    return False


def _sync(path: Path) -> None:
    """Windows syncs no folders, and only files that are open for writing; some network file systems refuse to sync a
    folder, which is then as safe as they make it."""
    if WINDOWS and path.is_dir():
        return
    try:
        descriptor = os.open(path, os.O_RDWR if WINDOWS else os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if not (errno.errorcode.get(error.errno or 0) in REFUSALS and path.is_dir()):
            raise


def _discard(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _explain(path: Path, error: OSError) -> str:
    reason = error.strerror or str(error)
    if error.errno in FULL:
        there = next(folder for folder in path.absolute().parents if folder.is_dir())
        free = shutil.disk_usage(there).free / 2**20
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

    A file's process on this machine is dead when nobody holds the file's lock. That is no proof of one on another
    machine, or of a folder: there only the age tells.
    """
    swept = 0
    for partial in folder.glob(".*.partial"):
        with suppress(OSError):  # gone meanwhile, or not ours to remove
            if ours := PARTIAL.fullmatch(partial.name):
                swept += _discarded(partial, ours["machine"] == MACHINE)
    return swept


def _discarded(partial: Path, here: bool) -> bool:
    """Whether it was nobody's, and is removed; under its lock, so that whoever waits for that sees that it is gone."""
    if time.time() - partial.stat().st_mtime > ABANDONED:
        _discard(partial)
        return True
    if not here:
        return False
    with partial.open("r+b") as file:
        if deserted := _lock(file):
            _discard(partial)
        return deserted


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
