"""What there is to extract: the videos below a folder, with the crops and transcripts given for them."""

from __future__ import annotations

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TypeAlias

import numpy as np

from affuse.errors import UsageError
from affuse.extract.lists import Listed, is_list, read_list
from affuse.extract.media import SUFFIXES
from affuse.extract.transcripts import find_transcript
from affuse.features.index import SHARDS
from affuse.features.record import Source, person_id
from affuse.files import sha256_of

log = logging.getLogger("affuse")
MANY = 1000  # videos between two words on how many were found
AnyPath: TypeAlias = str | os.PathLike
Videos: TypeAlias = AnyPath | Iterable[AnyPath | Listed]


def crop_name(frame: int) -> str:
    """The file that a frame's crop is given in; files are numbered from 00001, frames from 0."""
    return f"{frame + 1:05d}.jpg"


@dataclass(frozen=True)
class Job:
    """One video to extract, with what is given for it. `id` is what the store calls it; with `everyone`, every person
    in it has a record, see `person_id`."""

    id: str
    name: str
    path: Path
    crops: Path | None = None
    transcript: Path | None = None
    everyone: bool = False

    @property
    def record(self) -> str:
        """The id of its first record: its own, or that of its first person."""
        return person_id(self.id, 1) if self.everyone else self.id

    def crop(self, frame: int) -> Path:
        """The given crop of a frame."""
        return self.crops / crop_name(frame)

    def given_crops(self, frames: int) -> np.ndarray:
        """The indices of the frames (n,), of so many, that a crop is given for."""
        names = {entry.name for entry in self._scan()}
        return np.array([i for i in range(frames) if crop_name(i) in names], np.int64)

    def absolute(self) -> Job:
        """The same job for a process with another working folder."""
        given = {name: getattr(self, name) for name in ("path", "crops", "transcript")}
        return replace(self, **{name: path.absolute() for name, path in given.items() if path})

    def _scan(self) -> list[os.DirEntry]:
        """The crops in their folder, a look at all of them at once; there may be many thousands."""
        if not (self.crops and self.crops.is_dir()):
            return []
        with os.scandir(self.crops) as entries:
            return sorted((e for e in entries if e.name.endswith(".jpg")), key=lambda e: e.name)

    @property
    def _named(self) -> list[Path]:
        """The files that are no crops."""
        return [self.path, *([self.transcript] if self.transcript else [])]

    @cached_property
    def state(self) -> tuple[int, int]:
        """Bytes of all its files, and when, in ns, the last of them changed, or a crop came, went or was renamed."""
        stats = [given.stat() for given in (*self._named, *self._scan())]
        folder = [self.crops.stat().st_mtime_ns] if self.crops and self.crops.is_dir() else []
        return sum(s.st_size for s in stats), max([s.st_mtime_ns for s in stats] + folder)

    @property
    def size(self) -> int:
        return self.state[0]

    @property
    def mtime_ns(self) -> int:
        return self.state[1]

    def source(self) -> Source:
        return Source(self.name, self.size, self.digest(), self.mtime_ns)

    def digest(self) -> str:
        """sha256 of the video, or of the digests and names of all files where crops or a transcript are given."""
        files = [*self._named, *(Path(entry) for entry in self._scan())]
        digests = {path.name: sha256_of(path) for path in files}
        if len(files) == 1:
            return digests[self.path.name]
        lines = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
        return hashlib.sha256(lines.encode("utf-8", "surrogateescape")).hexdigest()


def find_jobs(
    videos: Videos,
    faces_dir: AnyPath | None = None,
    transcripts: AnyPath | None = None,
    on_found: Callable[[int], None] = lambda found: None,
) -> list[Job]:
    """The videos of a folder, searched at every depth, in order of their path; or a file; or those that a list names,
    see `extract/lists.py`; or several of these. `on_found` hears now and then how many there are so far.

    The id of a video is what a list calls it, or its path below the folder, or its name, without the suffix; one that
    is named twice is taken once. Raises UsageError where there is no video, or where two would have the same id.
    """
    faces_dir, transcripts = _folder("--faces-dir", faces_dir), _folder("--transcripts", transcripts)
    found: dict[str, Job] = {}
    for line, is_folder in _places(videos):
        folder, paths = (line.path, _media_files(line.path)) if is_folder else (line.path.parent, [line.path])
        for path in paths:
            name = path.relative_to(folder)
            video_id = line.id or name.with_suffix("").as_posix()
            if video_id in found and found[video_id].path.resolve() == path.resolve():
                continue
            if video_id in found:
                raise UsageError(
                    f"{found[video_id].path} and {path} would both be called {video_id!r} in the store. Rename one of "
                    "them."
                )
            crops = line.faces or (faces_dir / video_id if faces_dir else None)
            transcript = line.transcript or (find_transcript(transcripts, video_id) if transcripts else None)
            found[video_id] = Job(video_id, name.as_posix(), path, crops, transcript)
            if len(found) % MANY == 0:
                on_found(len(found))
    jobs = list(found.values())
    if not jobs:
        if store := next((line.path for line, _ in _places(videos) if (line.path / SHARDS).is_dir()), None):
            raise UsageError(f"{store} is a feature store: what videos were made into. Name the folder of the videos.")
        below = f"No videos below {videos}" if isinstance(videos, AnyPath) else "No videos"
        raise UsageError(f"{below}. Files are taken by their ending: {' '.join(SUFFIXES)}.")
    # Names that fit nowhere would otherwise pass as videos without faces or words.
    if faces_dir and not any(job.crops.is_dir() for job in jobs):
        raise UsageError(
            f"--faces-dir {faces_dir} has crops of none of the videos. The first of {jobs[0].name} is looked for "
            f"at {jobs[0].crop(0)}."
        )
    if transcripts and not any(job.transcript for job in jobs):
        raise UsageError(
            f"--transcripts {transcripts} has a transcript of none of the videos. That of {jobs[0].name} is "
            f"looked for at {transcripts / jobs[0].id}.json, .vtt or .srt."
        )
    return jobs


def everyone(jobs: list[Job]) -> list[Job]:
    """The same with a record of every person. Raises UsageError where a video has the name that a person would have."""
    people = re.compile(r"(.+)#\d+")
    ids = {job.id for job in jobs}
    for job in jobs:
        if (match := people.fullmatch(job.id)) and match[1] in ids:
            raise UsageError(f"{job.path} has the name that a person in {match[1]!r} would have. Rename it.")
    return [replace(job, everyone=True) for job in jobs]


def named_videos(video_dir: Path | None, video_list: Path | None) -> Videos:
    """What the options of the command line name, for `find_jobs`. Raises UsageError where they name nothing."""
    if video_list is None:
        if video_dir is None:
            raise UsageError("No videos are named: give --video-dir, a folder, or --video-list, a file of paths.")
        return video_dir
    return [*([video_dir] if video_dir else []), *read_list(video_list)]


def chosen(jobs: list[Job], part: str | None = None) -> list[Job]:
    """The K-th of N parts, "K/N", by a digest of the id, so that parts do not overlap and together are all. What is
    named like a person in a video, "clip01#1", is in that video's part.

    Raises UsageError where a part is none.
    """
    if part is not None:
        match = re.fullmatch(r"(\d+)/(\d+)", part)
        number, parts = (int(match[1]), int(match[2])) if match else (0, 0)
        if not 1 <= number <= parts:
            raise UsageError(f"A part is the K-th of N, from 1/N to N/N, such as 3/100, not {part!r}.")
        jobs = [job for job in jobs if _draw(job.id) % parts == number - 1]
    return jobs


def _draw(video_id: str) -> int:
    whose = re.sub(r"#\d+$", "", video_id)
    return int(hashlib.sha256(whose.encode("utf-8", "surrogateescape")).hexdigest(), 16)


def _places(videos: Videos) -> Iterator[tuple[Listed, bool]]:
    """The files and folders named, and whether each is a folder. Raises UsageError for what is not there."""
    try:
        places = [place if isinstance(place, Listed) else Path(place)
                  for place in ([videos] if isinstance(videos, AnyPath) else videos)]  # fmt: skip
    except TypeError:
        raise UsageError(f"Videos are a folder, a file, or a list of these, not {videos!r}.") from None
    for place in places:
        if isinstance(place, Listed):
            lines, where = [place], ""
        elif is_list(place):
            lines, where = read_list(place), f" The list {place} names it."
        else:
            lines, where = [Listed(place)], ""
        for line in lines:
            yield line, _look(line, videos, where)


def _look(line: Listed, videos: Videos, where: str) -> bool:
    path = line.path
    is_folder = path.is_dir()
    if videos == "" or not (is_folder or path.is_file()):
        raise UsageError(f"{path} is not a folder of videos, and no video either. Check the path.{where}")
    if is_folder and (line.id or line.faces or line.transcript):
        raise UsageError(f"{path} is a folder; id, faces and transcript are for a video. Name its videos.{where}")
    for beside, there in ((line.faces, Path.is_dir), (line.transcript, Path.is_file)):
        if beside and not there(beside):
            raise UsageError(f"{beside}, which is given for {path}, is not there. Check the path.{where}")
    return is_folder


def _folder(option: str, given: AnyPath | None) -> Path | None:
    if given is not None and not (isinstance(given, AnyPath) and Path(given).is_dir()):
        raise UsageError(f"{option} {given} is not a folder. Give the folder, not a file in it.")
    return None if given is None else Path(given)


def _media_files(folder: Path) -> Iterator[Path]:
    """Files below `folder` with a video's ending, in order of their path, as they are found; hidden ones, pipes and
    devices are passed over, and so are folders that are symbolic links, with a warning. Links to files are followed.

    Raises UsageError for a folder that cannot be listed: its videos would be missing without a word.
    """
    try:
        with os.scandir(folder) as entries:
            inside = sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UsageError(
            f"The folder {folder} cannot be read: {error.strerror}. Make it readable, or move it elsewhere."
        ) from None
    for entry in inside:
        path = folder / entry.name
        if entry.name.startswith("."):
            continue
        there = path if entry.is_symlink() else entry  # a path takes links that lead nowhere
        if there.is_dir():
            if there is path:
                log.warning("%s is a link to a folder, which is not searched: it may lead back here", path)
            else:
                yield from _media_files(path)
        elif path.suffix.lower() in SUFFIXES and (there.is_file() or not path.exists()):
            yield path
