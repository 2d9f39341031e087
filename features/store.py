"""The store: a folder of shards, one per video, that extraction fills and training reads."""

from __future__ import annotations

import html
import os
from collections import Counter
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from affuse.console import Progress
from affuse.errors import AffuseError, RecordError, UsageError
from affuse.features.contents import Contents, is_store
from affuse.features.entry import Entry
from affuse.features.facts import info_of, line_of, provenance_of, table_of
from affuse.features.layout import shard_path
from affuse.features.pack import verify_pack
from affuse.features.parts import MODALITIES
from affuse.features.record import Provenance, VideoFeatures, person_id
from affuse.features.rows import read_arrays, read_rows
from affuse.features.seal import DamagedError, check_seal, read_entry
from affuse.features.shard import Header, read_header, read_shard, verify_shard, version_of, write_shard
from affuse.features.verification import Verification, verify_files
from affuse.files import make_folder

if TYPE_CHECKING:
    import pandas as pd

T = TypeVar("T")
SHOWN = 10  # videos in a notebook's view of the store


class FeatureStore(Contents):
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
        super().__init__(Path(path))
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

    def read(self, video_id: str, modalities: Iterable[str] = MODALITIES, views: bool = False) -> VideoFeatures:
        """One video. Modalities not asked for come with no rows but their real status; the further views of its faces
        come with no rows unless `views`.

        Raises UsageError for an unknown id or a newer format, AffuseError where the shard is damaged.
        """
        return self._at(video_id, read_shard, modalities, views)[0]

    def frame_times(self, video_id: str) -> np.ndarray:
        """The video's own clock (T,), seconds: its frames, or its sound's rows where it has no frames.

        Raises like `read`; reads no embeddings.
        """
        for name in ("visual/time", "audio/time"):
            _, (time,) = self.overview(video_id, name)
            if len(time):
                break
        return time

    def header(self, video_id: str) -> Header:
        """All that is known of a video but its arrays. Raises like `read`."""
        return self._at(video_id, read_header)

    def overview(self, video_id: str, *arrays: str) -> tuple[Entry, list[np.ndarray]]:
        """A video in short and these of its arrays, such as "visual/valid". Raises like `read`."""
        return self._at(video_id, read_arrays, arrays)

    def read_rows(self, video_id: str, wanted: Iterable[tuple[str, np.ndarray, np.ndarray]]) -> None:
        """Read rows into arrays that are there: of each (path, such as "visual/embedding"; rows (K,), rising; array
        (K, …) of its type). Raises like `read`."""
        self._at(video_id, read_rows, list(wanted))

    def _at(self, video_id: str, read: Callable[..., T], *arguments: Any) -> T:
        """What `read` makes of the video where it is; once more where that is elsewhere by now, such as in a pack."""
        while True:
            place = self.shard(video_id)
            try:
                return read(place, *arguments)
            except DamagedError:
                if self.place(video_id) in (place, None):
                    raise

    def version(self, video_id: str) -> tuple[int, ...]:
        """What tells a video's record from one that took its place: when it was written, in ns, and where. Raises like
        `shard`."""
        return self._at(video_id, version_of)

    @property
    def provenance(self) -> Provenance:
        """How all the videos were made. Raises UsageError where they were made by different settings."""
        return provenance_of(self, self._examples())

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

    # ---- checking

    def verify(
        self,
        share: float = 1.0,
        seed: int = 0,
        processes: int = 1,
        progress: Progress = lambda line, failure, last: None,
    ) -> Verification:
        """Read every record from end to end, or a share of them drawn by `seed`, and compare it with its digests; and
        what packs have beside their records.

        With more processes than one, a script needs its `if __name__ == "__main__":`. Raises UsageError for a newer
        format, AffuseError where a process dies.
        """
        verification = verify_files(self.places(), share, seed, processes, progress)
        packs = chain.from_iterable(map(verify_pack, self.packs()))
        return replace(verification, problems=[*verification.problems, *packs])

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
        from affuse.features.repair import dissolve  # which imports this module

        with suppress(DamagedError, UsageError):  # it is of a newer format, or gone meanwhile
            name = PurePosixPath(self.header(old).source.name).with_suffix("")
            if old == video_id or name.as_posix() != old:
                while packed := self._index.packs.find(old):
                    dissolve(self, packed.path)
                (self.shards / shard_path(old)).unlink(missing_ok=True)

    def look(self, video_id: str) -> bool:
        """Whether a record of the video, or of its first person, is there now, whatever a network file system remembers
        of its folder: that is listed, and the file opened."""
        names = video_id, person_id(video_id, 1)
        for listed in (False, True):
            for path in (self.shards / shard_path(name) for name in names):
                with suppress(OSError):
                    if listed:
                        os.listdir(self.shards)
                        os.listdir(path.parent)
                    path.open("rb").close()
                    return True
        return any(map(self._index.packs.find, names))

    def _refuse_collision(self, there: str, video_id: str) -> None:
        if there != video_id:
            raise AffuseError(
                f"Videos {there!r} and {video_id!r} would share the file {shard_path(video_id)} in "
                f"{self.path}. Rename one of them."
            )
