"""The store: a folder of shards, one per video, that extraction fills and training reads."""

from __future__ import annotations

import difflib
import html
import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from itertools import count, takewhile
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import numpy as np

from affuse.console import Progress
from affuse.errors import AffuseError, RecordError, UsageError
from affuse.features.facts import info_of, line_of, table_of
from affuse.features.layout import shard_name
from affuse.features.parts import MODALITIES
from affuse.features.record import Provenance, VideoFeatures, how_they_differ, person_id
from affuse.features.seal import DamagedError, Problem, Seal, check_seal, noting
from affuse.features.shard import (
    Header,
    read_frame_times,
    read_header,
    read_overview,
    read_rows,
    read_seal,
    read_shard,
    verify_shard,
    write_shard,
)
from affuse.features.verification import Verification, verify_files
from affuse.files import make_folder, sweep

if TYPE_CHECKING:
    import pandas as pd

SHARDS = "shards"
SHOWN = 10  # videos in a notebook's view of the store
SETTLED = 2.0  # seconds after which a folder's mtime tells of every later change, on any file system


@dataclass(frozen=True)
class Scan:
    """What the folder held at its mtime `changed`: seals by video id, and what is wrong with other files."""

    changed: int
    settled: bool
    seals: dict[str, Seal]
    damaged: list[Problem]


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
        self._scanned: Scan | None = None
        if create:
            make_folder(self.shards)
        elif not self._files():
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
        return sorted(self._scan().seals)

    def __len__(self) -> int:
        return len(self._scan().seals)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._scan().seals

    def __getitem__(self, video_id: str) -> VideoFeatures:
        return self.read(video_id)

    def __repr__(self) -> str:
        return line_of(self)

    def _repr_html_(self) -> str:
        return f"<p>{html.escape(repr(self))}</p>{table_of(self, self.ids[:SHOWN]).to_html(na_rep='')}"

    def table(self) -> pd.DataFrame:
        """One row per video, by id: seconds, fps, frames; faces, the share of frames with one; words, how many;
        visual, audio, text, their statuses; failure, why nothing is there, or "". Reads no embeddings."""
        return table_of(self, self.ids)

    @property
    def failed(self) -> dict[str, str]:
        """The videos of which nothing could be decoded, and why. Raises like `read`."""
        return {video_id: why for video_id in self if (why := self.header(video_id).failure)}

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

    def headers(self) -> Iterator[Header]:
        """Those of the videos whose shards can be read, each opened only when it is asked for."""
        for path in self._files():
            header = None
            with suppress(AffuseError):
                header = read_header(path)
            if header:
                yield header

    def of(self, video_id: str) -> list[str]:
        """The ids of a video's records: its own, and those of its people, "clip01#1" …"""
        people = takewhile(self._kept, (person_id(video_id, number) for number in count(1)))
        return [*filter(self._kept, [video_id]), *people]

    def _kept(self, video_id: str) -> bool:
        return (self.shards / shard_name(video_id)).exists()

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
        path = self.shards / shard_name(video_id)
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
        seals = self._scan().seals
        counts = Counter(seal.settings_hash for seal in seals.values())
        if not counts:
            damaged = self._scan().damaged
            why = f" {len(damaged)} are damaged; {damaged[0].file}: {damaged[0].reason}." if damaged else ""
            raise AffuseError(f"No video in {self.path} can be read.{why} Extract again: what is damaged is made anew.")
        (most, many), *rest = counts.most_common()
        provenance = self._example(most).provenance
        if rest:
            others = []
            for other, few in rest:
                example = self._example(other)
                differing = how_they_differ(provenance, example.provenance)
                place = self.shard(example.id).relative_to(self.path)
                others.append(f"{few} otherwise ({'; '.join(differing)}), for example {example.id} in {place}")
            raise UsageError(
                f"The {len(seals)} videos in {self.path} were made by different settings: {many} one way, "
                f"{'; '.join(others)}. Run affuse extract again with the settings wanted: it remakes the "
                "others. Where their videos are gone, delete those files."
            )
        return provenance

    def _example(self, settings_hash: str) -> Header:
        """The header of a video made so, of the first that is not damaged. Raises DamagedError where all are."""
        *others, last = (
            video_id for video_id, seal in self._scan().seals.items() if seal.settings_hash == settings_hash
        )
        for video_id in others:
            with suppress(DamagedError):
                return self.header(video_id)
        return self.header(last)

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
        return self._scan().damaged

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
        return verify_files(self._files(), share, seed, processes, progress)

    def examine(
        self,
        video_id: str,
        settings_hash: str,
        source_size: int,
        source_mtime_ns: int,
        digest: Callable[[], str],
        verify: bool = False,
    ) -> tuple[str | None, Header | None]:
        """Why a video must be extracted (again), None where what the store has of it serves, and then its header.

        The seal proves all but the arrays, which are read only with `verify`; whoever reads them checks them. The
        source counts as unchanged by its size and mtime, or else by its sha256, which `digest` returns.
        Raises UsageError where the shard is of a newer format, so that nothing newer is ever overwritten.
        """
        path = self.shards / shard_name(video_id)
        if not os.path.lexists(path):
            return "new", None
        try:
            header = read_header(path)
        except DamagedError as error:
            return f"damaged: {error.problem.reason}", None
        self._refuse_collision(header.id, video_id)
        if header.provenance.settings_hash != settings_hash:
            return "settings changed", None
        source = header.source
        if source.size != source_size or (source.mtime_ns != source_mtime_ns and source.sha256 != digest()):
            return "source changed", None
        for problem in verify_shard(path) if verify else ():
            return f"damaged: {problem.dataset or 'file'}: {problem.reason}", None
        return None, header

    # ---- writing

    def write(self, video: VideoFeatures, provenance: Provenance) -> None:
        """Put a video in the store, or in the place of an older one, whole or not at all.

        Raises AffuseError where it cannot be written, such as on a full disk; the store stays as it was.
        """
        path = self.shards / shard_name(video.id)
        if path.is_dir():
            raise RecordError(f"{path} is a folder, in the place of the features of {video.id!r}. Move it elsewhere.")
        if path.exists():
            with suppress(DamagedError):  # it is about to be replaced
                self._refuse_collision(check_seal(path).id, video.id)
        write_shard(path, video, provenance)
        self._scanned = None

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
                self._scanned = None

    def look(self, video_id: str) -> bool:
        """Whether a record of the video, or of its first person, is there now, whatever a network file system remembers
        of its folder: that is listed, and the file opened."""
        places = [self.shards / shard_name(name) for name in (video_id, person_id(video_id, 1))]
        for listed in (False, True):
            for path in places:
                with suppress(OSError):
                    if listed:
                        os.listdir(path.parent)
                    path.open("rb").close()
                    return True
        return False

    def sweep(self) -> int:
        """Remove what killed processes left half-written; how many files that was."""
        return sweep(self.shards)

    def _refuse_collision(self, there: str, video_id: str) -> None:
        if there != video_id:
            raise AffuseError(
                f"Videos {there!r} and {video_id!r} would share the file {shard_name(video_id)} in "
                f"{self.path}. Rename one of them."
            )

    # ---- the folder

    def _files(self) -> list[Path]:
        return sorted(path for path in self.shards.glob("*.h5") if not path.name.startswith("."))

    def _scan(self) -> Scan:
        """Every shard's seal, read again once a file has come or gone."""
        changed = self.shards.stat().st_mtime_ns
        if self._scanned is None or self._scanned.changed != changed or not self._scanned.settled:
            scan = Scan(changed, time.time() - changed / 1e9 > SETTLED, {}, [])
            for path in self._files():
                with noting(scan.damaged):
                    seal = read_seal(path)
                    scan.seals[seal.id] = seal
            self._scanned = scan
        return self._scanned
