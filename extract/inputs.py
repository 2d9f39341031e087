"""What there is to extract: the videos below a folder, with the crops and transcripts given for them."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from extract.download import sha256_of
from extract.media import SUFFIXES
from extract.transcripts import find_transcript
from features.errors import UsageError


@dataclass(frozen=True)
class Job:
    """One video to extract. `id` is its path below the video folder without the suffix."""

    id: str
    name: str
    path: Path
    crops: Path | None = None
    transcript: Path | None = None

    def crop(self, frame: int) -> Path:
        """The given crop of a frame; files are numbered from 00001, frames from 0."""
        return self.crops / f"{frame + 1:05d}.jpg"

    @cached_property
    def files(self) -> list[Path]:
        """Every file the record is made from."""
        given = [self.transcript] if self.transcript else []
        if self.crops and self.crops.is_dir():
            given += sorted(
                Path(entry.path) for entry in os.scandir(self.crops) if entry.name.endswith(".jpg")
            )
        return [self.path, *given]

    @cached_property
    def size(self) -> int:
        """Bytes of all its files."""
        return sum(path.stat().st_size for path in self.files)

    @cached_property
    def mtime_ns(self) -> int:
        """When the last of its files changed."""
        return max(path.stat().st_mtime_ns for path in self.files)

    def digest(self) -> str:
        """sha256 of the video, or of the digests of all files where crops or a transcript are given."""
        digests = [sha256_of(path) for path in self.files]
        return digests[0] if len(digests) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()


def find_jobs(video_dir: Path, faces_dir: Path | None = None, transcripts: Path | None = None) -> list[Job]:
    """Every video below `video_dir`, in order of its id. Raises UsageError where there is none, or where two
    videos would have the same id."""
    for option, folder in (
        ("--video-dir", video_dir),
        ("--faces-dir", faces_dir),
        ("--transcripts", transcripts),
    ):
        if folder is not None and not folder.is_dir():
            raise UsageError(f"{option} {folder} is not a folder. Give the folder, not a file in it.")
    paths: dict[str, Path] = {}
    for path in sorted(video_dir.rglob("*")):
        relative = path.relative_to(video_dir)
        hidden = any(part.startswith(".") for part in relative.parts)
        if hidden or path.suffix.lower() not in SUFFIXES or path.is_dir():
            continue
        video_id = relative.with_suffix("").as_posix()
        if video_id in paths:
            raise UsageError(
                f"{paths[video_id]} and {path} would both be called {video_id!r} in the store. Rename one of them."
            )
        paths[video_id] = path
    if not paths:
        raise UsageError(
            f"No videos below {video_dir}. Files are taken by their ending: {' '.join(SUFFIXES)}."
        )
    return [
        Job(
            id=video_id,
            name=path.relative_to(video_dir).as_posix(),
            path=path,
            crops=faces_dir / video_id if faces_dir else None,
            transcript=find_transcript(transcripts, video_id) if transcripts else None,
        )
        for video_id, path in paths.items()
    ]
