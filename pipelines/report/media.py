"""Where the videos of a page lie, and how it holds them: by a relative link, in itself, or not at all."""

from __future__ import annotations

import base64
import mimetypes
import os
import re
from collections import Counter
from pathlib import Path, PurePosixPath
from urllib.parse import quote

from affuse.errors import AffuseError, UsageError, counted
from affuse.extract.videos import find_jobs
from affuse.pipelines.report.sources import check_some

WAYS = ("link", "embed", "none")
MOST = 256 * 2**20  # bytes of all videos in a page: browsers read no text much longer


def find_media(video_dir: Path | str | None, files: dict[str, str]) -> dict[str, Path]:
    """{video: its file} of the videos in `files` {id: its name in its record, or ""} that lie below a folder: where
    they were extracted from or, the only one of its name, elsewhere. A file is that of all its people. Raises
    UsageError where there is none of them, and as `find_jobs` does."""
    if video_dir is None or not files:
        return {}
    jobs = find_jobs(video_dir)
    by_name, by_id = {job.name: job.path for job in jobs}, {job.id: job.path for job in jobs}
    alike = Counter(job.path.name for job in jobs)
    alone = {job.path.name: job.path for job in jobs if alike[job.path.name] == 1}
    found = {}
    for video, name in files.items():
        path = by_name.get(name) or by_id.get(video) or by_id.get(re.sub(r"#\d+$", "", video))
        path = path or alone.get(PurePosixPath(name).name)
        if path is not None:
            found[video] = path
    if not found:
        check_some("--video-dir", f"the folder {video_dir}", by_id, files)
    return found


def check_way(media: str) -> None:
    """Raise UsageError for what is no way to hold media."""
    if media not in WAYS:
        raise UsageError(f"--media {media}: expected {', '.join(WAYS[:-1])} or {WAYS[-1]}.")


def link(path: Path, page: Path) -> str:
    """The address of a file relative to the page's folder."""
    try:
        relative = os.path.relpath(path.resolve(), page.resolve().parent)
    except ValueError:  # on another drive of Windows
        return path.resolve().as_uri()
    return quote(os.fsencode(Path(relative).as_posix()))


def embedded(files: list[Path]) -> list[tuple[str, str]]:
    """Of each file its media type and its bytes in base64. Raises UsageError where they are too large for a page."""
    try:
        if (size := sum(path.stat().st_size for path in files)) > MOST:
            raise UsageError(
                f"--media embed: {counted(len(files), 'video')} of {size / 2**20:.0f} MiB are more than "
                f"the {MOST // 2**20} that a page can hold. Link them instead: --media link."
            )
        data = [base64.b64encode(path.read_bytes()).decode("ascii") for path in files]
    except OSError as error:
        raise AffuseError(f"{error.filename} cannot be read: {error.strerror}. Check it, or --media none.") from None
    return [(mimetypes.guess_type(path.name)[0] or "video/mp4", text) for path, text in zip(files, data, strict=True)]
