"""What is in a store's folder, and where: the records in its shards and packs, by its index."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from itertools import chain, count, takewhile
from pathlib import Path

from affuse.errors import UsageError
from affuse.features.entry import Entry
from affuse.features.index import FOLDERS, PACKS, SHARDS, Index, shards_in
from affuse.features.layout import shard_name, shard_path
from affuse.features.place import Place
from affuse.features.record import person_id
from affuse.features.seal import Problem
from affuse.files import sweep


class Contents:
    """The records in a store: their ids, what they are in short, and where."""

    def __init__(self, path: Path):
        self.path, self.shards = path, path / SHARDS
        self._index = Index(path)

    @property
    def ids(self) -> list[str]:
        """The ids of the videos in the store, sorted; those whose files are damaged may be missing."""
        return sorted(chain.from_iterable(scan.lines for scan in self._index.scans()))

    def __len__(self) -> int:
        return sum(len(scan.lines) for scan in self._index.scans())

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __contains__(self, video_id: object) -> bool:
        return isinstance(video_id, str) and self._index.get(video_id) is not None

    def entries(self) -> Iterator[Entry]:
        """Every video in short, sorted by id, as they are now; no record is opened."""
        return (Entry.from_row(row) for _, row in self.entry_rows())

    def entry_rows(self) -> Iterator[tuple[str, list]]:
        """The id of every video, sorted, and the row of its entry."""
        scans = {video_id: scan for scan in self._index.scans() for video_id in scan.lines}
        return ((video_id, scans[video_id].row(video_id)) for video_id in sorted(scans))

    @property
    def seconds(self) -> float:
        """How long all the videos are."""
        return sum(seconds for scan in self._index.scans() for _, seconds in scan.made.values())

    @property
    def failed(self) -> dict[str, str]:
        """The videos of which nothing could be decoded, and why."""
        return {entry.id: why for entry in self.entries() if (why := entry.failure)}

    @property
    def damaged(self) -> list[Problem]:
        """What is wrong with files whose videos are therefore not among `ids`."""
        found = chain.from_iterable(scan.damaged for scan in self._index.scans())
        return [*found, *self._index.packs.damaged()]

    def of(self, video_id: str) -> list[str]:
        """The ids of a video's records: its own, and those of its people, "clip01#1" …"""
        people = takewhile(self.place, (person_id(video_id, number) for number in count(1)))
        return [*filter(self.place, [video_id]), *people]

    def place(self, video_id: str) -> Place | None:
        """Where the record of a video is; None where there is none. What has a file of its own is not in a pack."""
        find = self._index.packs.find
        return self._loose(video_id) or find(video_id) or self._loose(video_id)  # it may be taken out of its pack

    def _loose(self, video_id: str) -> Path | None:
        path = self.shards / shard_path(video_id)
        return path if os.path.lexists(path) else None

    def shard(self, video_id: str) -> Place:
        """Where the record of a video is. Raises UsageError for an unknown id, naming the nearest."""
        if not isinstance(video_id, str):
            raise UsageError(f"Videos are asked for by their ids, such as {self.ids[:1]}, not by {video_id!r}.")
        if place := self.place(video_id):
            return place
        match = difflib.get_close_matches(video_id, self.ids, n=1, cutoff=0.4)
        hint = f"; did you mean {match[0]!r}?" if match else "."
        raise UsageError(
            f"Video {video_id!r} is not among the {len(self)} in the feature store {self.path}{hint} "
            f"List them with: affuse features info {self.path}"
        )

    def files(self) -> list[Path]:
        """Every file in the place of a shard."""
        return list(chain.from_iterable(shards_in(self.shards / folder) for folder in FOLDERS))

    def packs(self) -> list[Path]:
        """Every file in the place of a pack."""
        return self._index.packs.files()

    def places(self) -> list[Place]:
        """Every file in the place of a shard, and of packs the records that count."""
        files = self.files()
        kept = {path.name for path in files}
        packed = {video for path in self.packs() for video in self._index.packs.ids(path)}
        places = (self._index.packs.find(video) for video in sorted(packed) if shard_name(video) not in kept)
        return [*files, *filter(None, places)]

    def reindex(self) -> None:
        """Make the index anew of what is there."""
        self._index.forget()
        len(self)

    def sweep(self) -> int:
        """Remove what killed processes left half-written; how many files that was."""
        folders = [*(self.shards / folder for folder in FOLDERS), self._index.folder, self._index.packs.folder]
        return sum(map(sweep, folders))


def is_store(path: Path) -> bool:
    """Whether a folder has any features in it."""
    return any(shards_in(folder) for folder in (path / PACKS, *(path / SHARDS / name for name in FOLDERS)))
