"""The store: a folder of shards, one per video, that extraction fills and training reads."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from features.errors import AffuseError, UsageError
from features.publish import sweep
from features.record import MODALITIES, Provenance, VideoFeatures, how_they_differ
from features.shard import (
    DamagedError,
    Header,
    Problem,
    describe_shard,
    read_header,
    read_shard,
    shard_name,
    verify_shard,
    write_shard,
)

SHARDS = "shards"


@dataclass(frozen=True)
class Verification:
    """How many shards were read from end to end, and what is wrong with them."""

    checked: int
    problems: list[Problem]


class FeatureStore:
    """Features of videos, by id: `FeatureStore("cache")["clip01"].visual.embedding`.

    Any number of processes may read and write at the same time: a video is there wholly or not at all.
    """

    def __init__(self, path: str | Path, create: bool = False):
        """Open the store in folder `path`. With `create`, an absent or empty one is made; without, a UsageError."""
        self.path = Path(path)
        self._shards = self.path / SHARDS
        self._scanned: tuple[int, dict[str, Header], list[Problem]] | None = None
        if create:
            try:
                self._shards.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UsageError(
                    f"{self.path} cannot be made a feature store: {error.strerror}. Give a folder that can be written to."
                ) from None
        elif not any(self._files()):
            what = "holds no features" if self.path.is_dir() else "is not a folder"
            raise UsageError(
                f"{self.path} {what}. Make them with: affuse extract --video-dir VIDEOS --out {self.path}"
            )

    # ---- looking

    @property
    def ids(self) -> list[str]:
        """The ids of the videos in the store, sorted; damaged ones are not among them."""
        return sorted(self._headers)

    def __len__(self) -> int:
        return len(self._headers)

    def __iter__(self) -> Iterator[str]:
        return iter(self.ids)

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._headers

    def __getitem__(self, video_id: str) -> VideoFeatures:
        return self.read(video_id)

    def read(self, video_id: str, modalities: Iterable[str] = MODALITIES) -> VideoFeatures:
        """One video. Modalities not asked for come with no rows but their real status.

        Raises UsageError for an unknown id or a newer format, AffuseError where the shard is damaged.
        """
        return read_shard(self._existing(video_id), modalities)[0]

    def header(self, video_id: str) -> Header:
        """All that is known of a video but its arrays. Raises like `read`."""
        return read_header(self._existing(video_id))

    @property
    def provenance(self) -> Provenance:
        """How all the videos were made. Raises UsageError where they were made by different settings."""
        counts = Counter(h.provenance.settings_hash for h in self._headers.values())
        if not counts:
            raise AffuseError(f"No video in {self.path} can be read. See: affuse features verify {self.path}")
        made = {h.provenance.settings_hash: h.provenance for h in self._headers.values()}
        (first, most), *others = counts.most_common()
        if others:
            parts = [
                f"{count} of {len(self)} videos differ from the other {most} ({'; '.join(how_they_differ(made[first], made[h]))})"
                for h, count in others
            ]
            raise UsageError(
                f"The features in {self.path} were made by different settings: {'. '.join(parts)}. "
                "Run affuse extract again with the settings you want: it remakes those made by others."
            )
        return made[first]

    @property
    def widths(self) -> dict[str, int]:
        """Width of each modality's embeddings, for the modalities that were extracted."""
        backbones = self.provenance.backbones
        return {m: backbones[m].width for m in MODALITIES if m in backbones}

    def info(self) -> dict:
        """What the store holds, as plain JSON types; see `affuse features info --json`."""
        provenance = self.provenance if self._headers else None
        videos, damaged = {}, list(self._damaged)
        for video_id in self.ids:
            try:
                videos[video_id] = self._describe(video_id)
            except DamagedError as error:
                damaged.append(error.problem)
        return {
            "settings": provenance.settings if provenance else {},
            "settings_hash": provenance.settings_hash if provenance else "",
            "backbones": {part: asdict(b) for part, b in provenance.backbones.items()} if provenance else {},
            "videos": videos,
            "damaged": [asdict(problem) for problem in damaged],
        }

    def _describe(self, video_id: str) -> dict:
        header = self._headers[video_id]
        described = {"fps": header.fps, "duration": header.duration, "frames": header.frames}
        for modality in MODALITIES:
            part = getattr(header, modality)
            described[modality] = {**asdict(part), "status": part.status.value}
        return {**described, "transcript": self.read(video_id, ("text",)).transcript}

    # ---- checking

    def verify(self, on_shard: Callable[[Path], None] = lambda path: None) -> Verification:
        """Read every shard from end to end and compare it with its digests. `on_shard` hears of each one done."""
        checked, problems = 0, []
        for path in self._files():
            problems += verify_shard(path) or self._misnamed(path)
            checked += 1
            on_shard(path)
        return Verification(checked, problems)

    def why_remake(
        self,
        video_id: str,
        settings_hash: str,
        source_size: int,
        source_mtime_ns: int,
        digest: Callable[[], str],
    ) -> str | None:
        """Why a video must be extracted (again); None where what the store has was read and is right.

        The source counts as unchanged by its size and mtime, or else by its sha256, which `digest` returns.
        Raises UsageError where the shard is of a newer format, so that nothing newer is ever overwritten.
        """
        path = self._shards / shard_name(video_id)
        if not path.exists():
            return "new"
        try:
            header = read_header(path)
        except DamagedError as error:
            return f"damaged: {error.reason}"
        self._refuse_collision(header, video_id)
        if header.provenance.settings_hash != settings_hash:
            return "settings changed"
        source = header.source
        if source.size != source_size or (source.mtime_ns != source_mtime_ns and source.sha256 != digest()):
            return "source changed"
        for problem in verify_shard(path):
            return f"damaged: {problem.dataset}: {problem.reason}"
        return None

    # ---- writing

    def write(self, video: VideoFeatures, provenance: Provenance) -> None:
        """Put a video in the store, or in the place of an older one, whole or not at all.

        Raises AffuseError where it cannot be written, such as on a full disk; the store stays as it was.
        """
        path = self._shards / shard_name(video.id)
        if path.exists():
            try:
                self._refuse_collision(read_header(path), video.id)
            except DamagedError:
                pass  # it is about to be replaced
        write_shard(path, video, provenance)
        self._scanned = None

    def sweep(self) -> int:
        """Remove what killed processes left half-written; how many files that was."""
        return sweep(self._shards)

    # ---- the folder

    def _files(self) -> list[Path]:
        return sorted(path for path in self._shards.glob("*.h5") if not path.name.startswith("."))

    def _existing(self, video_id: str) -> Path:
        path = self._shards / shard_name(video_id)
        if not path.exists():
            match = difflib.get_close_matches(video_id, self.ids, n=1, cutoff=0.4)
            hint = f"; did you mean {match[0]!r}?" if match else "."
            raise UsageError(
                f"Video {video_id!r} is not among the {len(self)} in the feature store {self.path}{hint} "
                f"List them with: affuse features info {self.path}"
            )
        return path

    @property
    def _headers(self) -> dict[str, Header]:
        return self._scan()[1]

    @property
    def _damaged(self) -> list[Problem]:
        return self._scan()[2]

    def _scan(self) -> tuple[int, dict[str, Header], list[Problem]]:
        """Every header by video id, and what is wrong with the rest; kept until a file comes or goes."""
        changed = self._shards.stat().st_mtime_ns
        if self._scanned is None or self._scanned[0] != changed:
            headers, damaged = {}, []
            for path in self._files():
                try:
                    header = read_header(path)
                except DamagedError as error:
                    damaged.append(error.problem)
                    continue
                if misnamed := self._misnamed(path, header):
                    damaged += misnamed
                else:
                    headers[header.id] = header
            self._scanned = changed, headers, damaged
        return self._scanned

    def _misnamed(self, path: Path, header: Header | None = None) -> list[Problem]:
        video_id = (header or read_header(path)).id
        right = shard_name(video_id)
        if path.name == right:
            return []
        return [Problem(video_id, "", path.name, f"a copy under another name; this video's shard is {right}")]

    def _refuse_collision(self, header: Header, video_id: str) -> None:
        if header.id != video_id:
            raise AffuseError(
                f"Videos {header.id!r} and {video_id!r} would share the file {shard_name(video_id)} in {self.path}. "
                "Rename one of them."
            )


def differences(one: FeatureStore, other: FeatureStore) -> list[str]:
    """How the features of two stores differ, a line per video and dataset or attribute; nothing if they are equal.

    Every shard is verified on the way. Seconds and mtimes, which two equal runs differ in, do not count.
    """
    lines = []
    for video_id in sorted({*one.ids, *other.ids}):
        missing = [store.path for store in (one, other) if video_id not in store]
        if missing:
            lines.append(f"{video_id}: not in {missing[0]}")
            continue
        described = []
        for store in (one, other):
            path = store._existing(video_id)
            lines += [
                f"{video_id}: damaged in {store.path}: {p.dataset} {p.reason}" for p in verify_shard(path)
            ]
            described.append(describe_shard(path))
        lines += _differing(video_id, *described)
    lines += [f"{p.file}: damaged in {s.path}: {p.reason}" for s in (one, other) for p in s._damaged]
    return lines


def _differing(video_id: str, one: dict[str, dict], other: dict[str, dict]) -> list[str]:
    lines = []
    for path in sorted({*one, *other}):
        mine, theirs = one.get(path, {}), other.get(path, {})
        keys = sorted(key for key in {*mine, *theirs} if mine.get(key) != theirs.get(key))
        if "sha256" in keys:
            shapes = f" {mine.get('shape')} and {theirs.get('shape')}" if "shape" in keys else ""
            lines.append(f"{video_id}: {path} differs{shapes}")
        else:
            lines += [f"{video_id}: {path} {key}: {mine.get(key)} and {theirs.get(key)}" for key in keys]
    return lines
