"""What a store has, known without opening its records: of each folder of shards, what was in it when it was last looked
at, kept in a file of its own.

    index/<folder>   {"changed": …, "damaged": …, "ids": …, "made": …}   (one line)
                     [bytes, mtime, entry] of each record, in the order of `ids`, a line each
                     sha256 of the lines above

A folder is listed again once its mtime has changed, and of its files only those are opened whose bytes or mtime have.
So nobody needs a lock or repairs anything, on any file system: an index that is lost or damaged is made anew, and one
that cannot be written is done without. Whoever reads a record trusts its seal alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from pathlib import Path

from affuse.errors import AffuseError
from affuse.features.entry import Entry
from affuse.features.layout import folder_of, shard_name
from affuse.features.record import canonical
from affuse.features.seal import Problem, noting, read_entry
from affuse.files import write_bytes

SHARDS, INDEX = "shards", "index"
FOLDERS = [f"{number:02x}" for number in range(256)]
SETTLED = 2.0  # seconds after which an mtime tells of every later change, on any file system
_looking = threading.Lock()


@dataclass(frozen=True)
class Scan:
    """What a folder had when its mtime was `changed`, 0 where something since may have the same: lines [bytes, mtime,
    entry] by video id; of each `settings_hash` how many videos and seconds were made so; what is wrong with other
    files."""

    changed: int = 0
    lines: dict[str, bytes] = field(default_factory=dict)
    made: dict[str, list] = field(default_factory=dict)
    damaged: list[Problem] = field(default_factory=list)

    def __getitem__(self, video_id: str) -> Entry:
        return Entry.from_row(json.loads(self.lines[video_id])[2])

    def add(self, line: bytes) -> None:
        _, _, (video_id, settings_hash, _, _, duration, *_) = json.loads(line)
        videos, seconds = self.made.get(settings_hash, (0, 0.0))
        self.made[settings_hash] = [videos + 1, seconds + duration]
        self.lines[video_id] = line

    def write(self, path: Path) -> None:
        told = {"changed": self.changed, "damaged": [*map(astuple, self.damaged)], "made": self.made}
        lines = b"\n".join([canonical({**told, "ids": [*self.lines]}).encode(), *self.lines.values(), b""])
        with suppress(AffuseError):  # such as in a store that may only be read
            write_bytes(path, lines + hashlib.sha256(lines).hexdigest().encode())

    @classmethod
    def read(cls, path: Path) -> Scan:
        """What was written; nothing where that is lost or damaged."""
        try:
            data = path.read_bytes()
        except OSError:
            return cls()
        if hashlib.sha256(data[:-64]).hexdigest().encode() != data[-64:]:
            return cls()
        head, *lines, _ = data[:-64].split(b"\n")
        told = json.loads(head)
        damaged = [Problem(*facts) for facts in told["damaged"]]
        return cls(told["changed"], dict(zip(told["ids"], lines, strict=True)), told["made"], damaged)


class Index:
    """Of the records in a store's folders. Threads may share it."""

    def __init__(self, store: Path):
        self.shards, self.folder = store / SHARDS, store / INDEX
        self._scans: dict[str, Scan] = {}

    def __getstate__(self) -> dict:
        return {**vars(self), "_scans": {}}

    def scans(self) -> Iterator[Scan]:
        """Of every folder, as it is now."""
        return map(self._scan, FOLDERS)

    def get(self, video_id: str, fresh: bool = True) -> Entry | None:
        """The record in short; None where there is none that is whole. Not `fresh`: as it was when last looked at."""
        folder = folder_of(shard_name(video_id))
        scan = self._scan(folder) if fresh or folder not in self._scans else self._scans[folder]
        return scan[video_id] if video_id in scan.lines else None

    def forget(self) -> None:
        """Have everything looked at anew."""
        for folder in FOLDERS:
            with suppress(OSError):
                (self.folder / folder).unlink()
        self._scans.clear()

    def _scan(self, folder: str) -> Scan:
        with _looking:
            try:
                changed = (self.shards / folder).stat().st_mtime_ns
            except FileNotFoundError:
                known = Scan()
            else:
                known = self._scans.get(folder) or Scan.read(self.folder / folder)
                if known.changed != changed:
                    known = self._look(folder, changed, known)
            self._scans[folder] = known
            return known

    def _look(self, folder: str, changed: int, known: Scan) -> Scan:
        """List a folder and open what is new to `known`."""
        before = {shard_name(video_id): line for video_id, line in known.lines.items()}
        settled = time.time_ns() - int(1e9 * SETTLED)
        scan = Scan(changed if changed < settled else 0)
        for file in shards_in(self.shards / folder):
            with noting(scan.damaged), suppress(FileNotFoundError):
                stat, line = file.lstat(), before.get(file.name)
                if line is None or json.loads(line)[:2] != [stat.st_size, stat.st_mtime_ns]:
                    mtime = stat.st_mtime_ns if stat.st_mtime_ns < settled else 0
                    line = canonical([stat.st_size, mtime, read_entry(file).row]).encode()
                scan.add(line)
        scan.damaged[:] = [problem for problem in scan.damaged if os.path.lexists(self.shards / folder / problem.file)]
        if scan.changed:
            scan.write(self.folder / folder)
        return scan


def shards_in(folder: Path) -> list[Path]:
    """The files in a folder of shards, whatever is in them."""
    try:
        with os.scandir(folder) as files:
            names = sorted(file.name for file in files if file.name.endswith(".h5") and not file.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [folder / name for name in names]
