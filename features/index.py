"""What a store has, known without opening its records: of each folder of shards, what was in it when it was last looked
at, kept in a file of its own; and of each pack what its table says.

    index/<folder>   {"changed": …, "damaged": …, "format": 2, "ids": …, "made": …}   (one line)
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
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import astuple, dataclass, field
from pathlib import Path

from affuse.errors import AffuseError
from affuse.features.entry import Entry
from affuse.features.layout import folder_of, shard_name
from affuse.features.pack import Table, read_table
from affuse.features.place import Slice
from affuse.features.record import FORMAT_VERSION, canonical
from affuse.features.seal import DamagedError, Problem, noting, read_entry
from affuse.files import write_bytes

SHARDS, INDEX, PACKS = "shards", "index", "packs"
FOLDERS = [f"{number:02x}" for number in range(256)]
SETTLED = 2.0  # seconds after which an mtime tells of every later change, on any file system
_looking = threading.Lock()


@dataclass(frozen=True)
class Scan:
    """What a folder had when its mtime was `changed`, 0 where something since may have the same: lines [bytes, mtime,
    entry] by video id; of each `settings_hash` how many videos and seconds were made so; what is wrong with other
    files."""

    changed: int = 0
    lines: dict[str, str] = field(default_factory=dict)
    made: dict[str, list] = field(default_factory=dict)
    damaged: list[Problem] = field(default_factory=list)

    def row(self, video_id: str) -> list:
        return json.loads(self.lines[video_id])[2]

    def __getitem__(self, video_id: str) -> Entry:
        return Entry.from_row(self.row(video_id))

    def add(self, line: str) -> None:
        _, _, (video_id, settings_hash, _, _, duration, *_), *_ = json.loads(line)
        videos, seconds = self.made.get(settings_hash, (0, 0.0))
        self.made[settings_hash] = [videos + 1, seconds + duration]
        self.lines[video_id] = line

    def write(self, path: Path) -> None:
        told = {"changed": self.changed, "damaged": [*map(astuple, self.damaged)], "format": FORMAT_VERSION}
        head = {**told, "ids": [*self.lines], "made": self.made}
        lines = "\n".join([canonical(head), *self.lines.values(), ""]).encode()
        with suppress(AffuseError):  # such as in a store that may only be read
            write_bytes(path, lines + hashlib.sha256(lines).hexdigest().encode())

    @classmethod
    def read(cls, path: Path) -> Scan:
        """What was written; nothing where that is lost, damaged or of another format."""
        try:
            data = path.read_bytes()
        except OSError:
            return cls()
        if hashlib.sha256(data[:-64]).hexdigest().encode() != data[-64:]:
            return cls()
        head, *lines, _ = data[:-64].decode().split("\n")
        told = json.loads(head)
        if told["format"] != FORMAT_VERSION:
            return cls()
        damaged = [Problem(*facts) for facts in told["damaged"]]
        return cls(told["changed"], dict(zip(told["ids"], lines, strict=True)), told["made"], damaged)


class Index:
    """Of the records in a store's folders and packs. Threads may share it."""

    def __init__(self, store: Path):
        self.shards, self.folder, self.packs = store / SHARDS, store / INDEX, Packs(store / PACKS)
        self._scans: dict[str, Scan] = {}
        self._whole: dict[str, tuple[Scan, list[Table], Scan]] = {}

    def __getstate__(self) -> dict:
        return {**vars(self), "_scans": {}, "_whole": {}}

    def scans(self) -> Iterator[Scan]:
        """Of every folder, as it is now, with what is of it in packs."""
        return map(self._scan, FOLDERS)

    def get(self, video_id: str, fresh: bool = True) -> Entry | None:
        """The record in short; None where there is none that is whole. Not `fresh`: as it was when last looked at."""
        folder = folder_of(shard_name(video_id))
        scan = self._scan(folder) if fresh or folder not in self._whole else self._whole[folder][2]
        return scan[video_id] if video_id in scan.lines else None

    def forget(self) -> None:
        """Have everything looked at anew."""
        for folder in FOLDERS:
            with suppress(OSError):
                (self.folder / folder).unlink()
        self._scans.clear()
        self._whole.clear()

    def _scan(self, folder: str) -> Scan:
        with _looking:
            loose, tables = self._loose(folder), self.packs.tables(folder)
            *before, whole = self._whole.get(folder, (None, None, None))
            if whole is None or before != [loose, tables]:
                whole = _together(folder, loose, tables) if tables else loose
                self._whole[folder] = loose, tables, whole
            return whole

    def _loose(self, folder: str) -> Scan:
        try:
            changed = (self.shards / folder).stat().st_mtime_ns
        except FileNotFoundError:
            return Scan()
        except OSError as error:
            raise _closed(self.shards / folder, error) from None
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
                    line = canonical([stat.st_size, mtime, read_entry(file).row])
                scan.add(line)
        scan.damaged[:] = [problem for problem in scan.damaged if os.path.lexists(self.shards / folder / problem.file)]
        if scan.changed:
            scan.write(self.folder / folder)
        return scan


class Packs:
    """The tables of a store's packs, each read once: a pack never changes, and its name tells it from any other."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._listed: tuple[int, list[str]] = 0, []
        self._tables: dict[str, Table | Problem] = {}

    def __getstate__(self) -> dict:
        return {**vars(self), "_listed": (0, []), "_tables": {}}

    def files(self) -> list[Path]:
        """The packs that are there now."""
        try:
            changed, settled = self.folder.stat().st_mtime_ns, time.time_ns() - int(1e9 * SETTLED)
        except FileNotFoundError:
            return []
        if self._listed[0] != changed:
            names = [path.name for path in shards_in(self.folder)]
            self._listed = changed if changed < settled else 0, names
            self._tables = {name: self._tables[name] for name in names if name in self._tables}
        return [self.folder / name for name in self._listed[1]]

    def tables(self, folder: str) -> list[Table]:
        """Those of packs that may have records of a folder of shards: their names begin with their first and last."""
        files = [path for path in self.files() if path.name[:2] <= folder <= path.name[9:11]]
        return [table for path in files if isinstance(table := self._table(path), Table)]

    def find(self, video_id: str) -> Slice | None:
        """Where the last of the packs that have a video has it."""
        tables = self.tables(folder_of(shard_name(video_id)))
        found = [table for table in tables if video_id in table.lines]
        return max(found, key=lambda table: table.mtime(video_id))[video_id] if found else None

    def ids(self, path: Path) -> Iterable[str]:
        """Those of the records in a pack."""
        table = self._table(path)
        return table.lines if isinstance(table, Table) else ()

    def damaged(self) -> list[Problem]:
        """The packs whose tables cannot be read."""
        tables = map(self._table, self.files())
        return [problem for problem in tables if isinstance(problem, Problem)]

    def _table(self, path: Path) -> Table | Problem:
        if path.name not in self._tables:
            try:
                table: Table | Problem = read_table(path)
            except DamagedError as error:
                table = error.problem
            self._tables[path.name] = table
            return table
        return self._tables[path.name]


def _together(folder: str, loose: Scan, tables: list[Table]) -> Scan:
    """What counts of a folder: what is in it, and of what is in packs the last, where the folder has nothing."""
    spoiled = {problem.file for problem in loose.damaged}
    packed: dict[str, tuple[int, str]] = {}
    for table in tables:
        for video_id in table.folders.get(folder, ()):
            if video_id not in loose.lines and shard_name(video_id) not in spoiled:
                packed[video_id] = max(packed.get(video_id, (0, "")), (table.mtime(video_id), table.lines[video_id]))
    scan = Scan(0, damaged=loose.damaged)
    for line in (*loose.lines.values(), *(line for _, line in packed.values())):
        scan.add(line)
    return scan


def shards_in(folder: Path) -> list[Path]:
    """The files in a folder of shards, whatever is in them."""
    try:
        with os.scandir(folder) as files:
            names = sorted(file.name for file in files if file.name.endswith(".h5") and not file.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise _closed(folder, error) from None
    return [folder / name for name in names]


def _closed(folder: Path, error: OSError) -> AffuseError:
    return AffuseError(f"{folder} cannot be read: {error.strerror}. Check the folder, its permissions and its disk.")
