"""The store: a folder of shards, one per video, that extraction fills and training reads."""

from __future__ import annotations

import difflib
import html
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from itertools import chain, count, islice, takewhile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from affuse.console import Progress
from affuse.errors import AffuseError, RecordError, UsageError
from affuse.features.entry import Entry
from affuse.features.facts import info_of, line_of, table_of
from affuse.features.index import FOLDERS, SHARDS, Index, shards_in
from affuse.features.layout import shard_path
from affuse.features.parts import MODALITIES
from affuse.features.record import Provenance, VideoFeatures, how_they_differ, person_id
from affuse.features.seal import DamagedError, Problem, check_seal, read_entry
from affuse.features.shard import (
    Header,
    read_frame_times,
    read_header,
    read_overview,
    read_rows,
    read_shard,
    verify_shard,
    write_shard,
)
from affuse.features.verification import Verification, verify_files
from affuse.files import make_folder, sweep

if TYPE_CHECKING:
    import pandas as pd

SHOWN = 10  # videos in a notebook's view of the store


class FeatureStore:
    """Features of videos, by id. Any number of processes may read and write at the same time: a video is there wholly
    or not at all.

    >>> store = FeatureStore("store")
    >>> store.ids, store.widths
    (['clip01', 'clip02'], {'visual': 24, 'audio': 8, 'text': 12})
    >>> store["clip01"].visual.embedding.shape, store["clip01"].transcript
    ((40, 24), 'Straße yes yes 日本 yes negotiations')
    >>> store.table()[["seconds", "frames", "words", "visual"]]
            seconds  frames  words visual
    id
    clip01      1.6      40      6     ok
    clip02      1.6      40      6     ok
    """

    def __init__(self, path: str | Path, create: bool = False):
        """Open the store in folder `path`. With `create`, it is made where there is none or no video in it;
        without, that is a UsageError."""
        if not isinstance(path, (str, os.PathLike)) or path == "":
            raise UsageError(f"A feature store is opened by the path of its folder, not by {path!r}.")
        self.path = Path(path)
        self.shards = self.path / SHARDS
        self._index = Index(self.path)
        if create:
            make_folder(self.shards)
        elif not is_store(self.path):
            if not self.path.is_dir() or not any(self.path.iterdir()):
                what = "has no features in it" if self.path.is_dir() else "is not a folder"
                advice = f"Features are made of videos with: affuse extract --video-dir VIDEOS --out {self.path}"
            else:
                what = "has other files, and no features in it"
                advice = "Name a store; one is made of videos with: affuse extract --video-dir VIDEOS --out STORE"
            raise UsageError(f"{self.path} {what}. {advice}")

    # ---- reading

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

    def __getitem__(self, video_id: str) -> VideoFeatures:
        return self.read(video_id)

    def __repr__(self) -> str:
        return line_of(self)

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self))}</p>{table_of(islice(self.entries(), SHOWN)).to_html(na_rep='')}"

    def table(self) -> pd.DataFrame:
        """One row per video, by id: seconds, fps, frames; faces, the share of frames with one; words, how many;
        visual, audio, text, their statuses; failure, why nothing is there, or ""."""
        return table_of(self.entries())

    def entries(self) -> Iterator[Entry]:
        """Every video in short, sorted by id, as they are now; no record is opened."""
        return filter(None, (self._index.get(video_id, fresh=False) for video_id in self.ids))

    @property
    def seconds(self) -> float:
        """How long all the videos are."""
        return sum(seconds for scan in self._index.scans() for _, seconds in scan.made.values())

    @property
    def failed(self) -> dict[str, str]:
        """The videos of which nothing could be decoded, and why."""
        return {entry.id: why for entry in self.entries() if (why := entry.failure)}

    def read(self, video_id: str, modalities: Iterable[str] = MODALITIES, views: bool = False) -> VideoFeatures:
        """One video. Modalities not asked for come with no rows but their real status; the further views of its faces
        come with no rows unless `views`.

        Raises UsageError for an unknown id or a newer format, AffuseError where the shard is damaged.
        """
        return read_shard(self.shard(video_id), modalities, views)[0]

    def frame_times(self, video_id: str) -> np.ndarray:
        """The video's own clock (T,), seconds: its frames, or its sound's rows where it has no frames.

        Raises like `read`; reads no embeddings.
        """
        return read_frame_times(self.shard(video_id))

    def header(self, video_id: str) -> Header:
        """All that is known of a video but its arrays. Raises like `read`."""
        return read_header(self.shard(video_id))

    def of(self, video_id: str) -> list[str]:
        """The ids of a video's records: its own, and those of its people, "clip01#1" …"""
        people = takewhile(self._kept, (person_id(video_id, number) for number in count(1)))
        return [*filter(self._kept, [video_id]), *people]

    def _kept(self, video_id: str) -> bool:
        return (self.shards / shard_path(video_id)).exists()

    def overview(self, video_id: str, *datasets: str) -> tuple[Header, list[np.ndarray]]:
        """The header and these arrays, such as "visual/valid". Raises like `read`."""
        return read_overview(self.shard(video_id), *datasets)

    def read_rows(self, video_id: str, wanted: Iterable[tuple[str, np.ndarray, np.ndarray]]) -> None:
        """Read some rows of arrays into others that are there: of each (path, such as "visual/embedding"; rows (K,),
        rising; array (K, width)). Raises like `read`."""
        read_rows(self.shard(video_id), wanted)

    def shard(self, video_id: str) -> Path:
        """The file that keeps a video. Raises UsageError for an unknown id, naming the nearest."""
        if not isinstance(video_id, str):
            raise UsageError(f"Videos are asked for by their ids, such as {self.ids[:1]}, not by {video_id!r}.")
        path = self.shards / shard_path(video_id)
        if not path.exists():
            match = difflib.get_close_matches(video_id, self.ids, n=1, cutoff=0.4)
            hint = f"; did you mean {match[0]!r}?" if match else "."
            raise UsageError(
                f"Video {video_id!r} is not among the {len(self)} in the feature store {self.path}{hint} "
                f"List them with: affuse features info {self.path}"
            )
        return path

    @property
    def provenance(self) -> Provenance:
        """How all the videos were made. Raises UsageError where they were made by different settings."""
        (example, many), *rest = self._examples() or [(None, 0)]
        if example is None:
            damaged = self.damaged
            why = f" {len(damaged)} are damaged; {damaged[0].file}: {damaged[0].reason}." if damaged else ""
            raise AffuseError(f"No video in {self.path} can be read.{why} Extract again: what is damaged is made anew.")
        if rest:
            others = []
            for other, few in rest:
                differing = how_they_differ(example.provenance, other.provenance)
                place = self.shard(other.id).relative_to(self.path)
                others.append(f"{few} otherwise ({'; '.join(differing)}), for example {other.id} in {place}")
            raise UsageError(
                f"The {len(self)} videos in {self.path} were made by different settings: {many} one way, "
                f"{'; '.join(others)}. Run affuse extract again with the settings wanted: it remakes the "
                "others. Where their videos are gone, delete those files."
            )
        return example.provenance

    def _examples(self) -> list[tuple[Header, int]]:
        """Of each way that videos were made, if any such can be read: the header of one, and how many there are; the
        most first."""
        counts: Counter[str] = Counter()
        for scan in self._index.scans():
            counts.update({settings_hash: videos for settings_hash, (videos, _) in scan.made.items()})
        headers = ((self._example(settings_hash), videos) for settings_hash, videos in counts.most_common())
        return [(header, videos) for header, videos in headers if header]

    def _example(self, settings_hash: str) -> Header | None:
        """The header of a video made so, of the first that can be read."""
        for scan in self._index.scans():
            for video_id in scan.lines if settings_hash in scan.made else ():
                if scan[video_id].settings_hash == settings_hash:
                    with suppress(DamagedError, UsageError):  # gone meanwhile
                        return self.header(video_id)
        return None

    def provenances(self) -> list[Provenance]:
        """How the videos were made, each way once, that of most videos first."""
        return [header.provenance for header, _ in self._examples()]

    @property
    def widths(self) -> dict[str, int]:
        """Width of each modality's embeddings, for the modalities that were extracted."""
        backbones = self.provenance.backbones
        return {m: backbones[m].width for m in MODALITIES if m in backbones}

    def info(self) -> dict:
        """What the store holds, in plain JSON types: settings, settings_hash, backbones, videos and damaged.

        Raises UsageError where videos were made by different settings.
        """
        return info_of(self)

    @property
    def damaged(self) -> list[Problem]:
        """What is wrong with files whose videos are therefore not among `ids`."""
        return list(chain.from_iterable(scan.damaged for scan in self._index.scans()))

    # ---- checking

    def verify(
        self,
        share: float = 1.0,
        seed: int = 0,
        processes: int = 1,
        progress: Progress = lambda line, failure, last: None,
    ) -> Verification:
        """Read every shard from end to end, or a share of them drawn by `seed`, and compare it with its digests.

        With more processes than one, a script needs its `if __name__ == "__main__":`. Raises UsageError for a newer
        format, AffuseError where a process dies.
        """
        return verify_files(self.files(), share, seed, processes, progress)

    def reindex(self) -> None:
        """Make the index anew of what is there."""
        self._index.forget()
        len(self)

    def examine(
        self,
        video_id: str,
        settings_hash: str,
        source_size: int,
        source_mtime_ns: int,
        digest: Callable[[], str],
        verify: bool = False,
        fresh: bool = True,
    ) -> tuple[str | None, Entry | None]:
        """Why a video must be extracted (again), None where what the store has of it serves, and then that in short.

        What is there is told by the index, as it was when last looked at unless `fresh`; the record is read only with
        `verify`: else whoever reads it checks it. The source counts as unchanged by its size and mtime, or else by its
        sha256, which `digest` returns. Raises UsageError where the shard is of a newer format, so that nothing newer is
        ever overwritten.
        """
        entry = self._index.get(video_id, fresh)
        if entry is None:
            return self._why_unknown(video_id), None
        if entry.settings_hash != settings_hash:
            return "settings changed", None
        source = entry.source
        if source.size != source_size or (source.mtime_ns != source_mtime_ns and source.sha256 != digest()):
            return "source changed", None
        for problem in verify_shard(self.shard(video_id)) if verify else ():
            return f"damaged: {problem.dataset or 'file'}: {problem.reason}", None
        return None, entry

    def _why_unknown(self, video_id: str) -> str:
        """ "new", or what is wrong with the file in a video's place."""
        path = self.shards / shard_path(video_id)
        if not os.path.lexists(path):
            return "new"
        try:
            self._refuse_collision(check_seal(path).id, video_id)
        except DamagedError as error:
            return f"damaged: {error.problem.reason}"
        return "new"  # and there by now

    # ---- writing

    def write(self, video: VideoFeatures, provenance: Provenance) -> None:
        """Put a video in the store, or in the place of an older one, whole or not at all.

        Raises AffuseError where it cannot be written, such as on a full disk; the store stays as it was.
        """
        path = self.shards / shard_path(video.id)
        if path.is_dir():
            raise RecordError(f"{path} is a folder, in the place of the features of {video.id!r}. Move it elsewhere.")
        if path.exists():
            with suppress(DamagedError):  # it is about to be replaced
                self._refuse_collision(read_entry(path).id, video.id)
        write_shard(path, video, provenance)

    def replace(self, video_id: str, records: list[VideoFeatures], provenance: Provenance) -> None:
        """Put all the records of one video in the store, its own or those of its people, and take out what else there
        is of it. The first one is written last: where it is, the others are, and no more. Raises as `write` does."""
        first, *others = records
        for record in others:
            self.write(record, provenance)
        made = {record.id for record in records}
        for old in reversed(self.of(video_id)):  # so that those left by a kill are still numbered without a gap
            if old not in made:
                self._take_out(old, video_id)
        self.write(first, provenance)

    def _take_out(self, old: str, video_id: str) -> None:
        """Remove a record of the video, unless it is that of another one which is called like a person."""
        with suppress(DamagedError, UsageError):  # it is of a newer format, or gone meanwhile
            name = PurePosixPath(self.header(old).source.name).with_suffix("")
            if old == video_id or name.as_posix() != old:
                self.shard(old).unlink(missing_ok=True)

    def look(self, video_id: str) -> bool:
        """Whether a record of the video, or of its first person, is there now, whatever a network file system remembers
        of its folder: that is listed, and the file opened."""
        places = [self.shards / shard_path(name) for name in (video_id, person_id(video_id, 1))]
        for listed in (False, True):
            for path in places:
                with suppress(OSError):
                    if listed:
                        os.listdir(self.shards)
                        os.listdir(path.parent)
                    path.open("rb").close()
                    return True
        return False

    def sweep(self) -> int:
        """Remove what killed processes left half-written; how many files that was."""
        return sum(map(sweep, (*(self.shards / folder for folder in FOLDERS), self._index.folder)))

    def _refuse_collision(self, there: str, video_id: str) -> None:
        if there != video_id:
            raise AffuseError(
                f"Videos {there!r} and {video_id!r} would share the file {shard_path(video_id)} in "
                f"{self.path}. Rename one of them."
            )

    def files(self) -> list[Path]:
        """Every file in the place of a shard."""
        return list(chain.from_iterable(shards_in(self.shards / folder) for folder in FOLDERS))


def is_store(path: Path) -> bool:
    """Whether a folder has any features in it."""
    return any(shards_in(path / SHARDS / folder) for folder in FOLDERS)
