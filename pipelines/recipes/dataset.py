"""What a recipe knows of a data set, what was found of it below a folder, and what is missing."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from pathlib import Path

import soundfile

from affuse.console import shown
from affuse.errors import AffuseError, UsageError, counted, listed
from affuse.extract.media import SUFFIXES, UndecodableError, frame_count
from affuse.extract.videos import Job
from affuse.fuse.data.partitions import PARTITIONS
from affuse.pipelines.recipes.ratings import Ratings, Scales, check_scale

SOUND = ".wav"
PICTURES = (".png", ".jpg")


@dataclass(frozen=True)
class Recording:
    """One person's recording. partition: "train", "validation" or "test", "" where the data set has no split of its
    own; fold: who validates together in its place, as the field has it; read gives its ratings, or raises AffuseError.
    media: the name of its file, without suffix; with `apart`, of its utterances' files, in order."""

    id: str
    subject: str
    media: tuple[str, ...]
    read: Callable[[], Ratings]
    partition: str = ""
    fold: str = ""
    apart: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """What the extracted store calls its files."""
        return self.media if self.apart else (self.id,)


@dataclass(frozen=True)
class Published:
    """A printed CCC. where: of what; scores {target: CCC}; source: where it was read."""

    method: str
    where: str
    scores: dict[str, float]
    source: str


@dataclass(frozen=True)
class About:
    """A data set for people: its name here and everywhere, what it has, its terms, and where to ask for it."""

    name: str
    title: str
    has: str
    licence: str
    ask: str


@dataclass(frozen=True)
class Recipe(About):
    """scales: of its targets as released; find: its recordings below a folder, or UsageError; known: how many there are
    of what; target, modalities: what is trained on by default; pictures: videos are folders of frames; published:
    numbers to compare with."""

    scales: Scales
    find: Callable[[Path], list[Recording]]
    known: dict[str, int]
    target: tuple[str, ...] = ("valence", "arousal")
    modalities: tuple[str, ...] = ("visual", "audio", "text")
    pictures: bool = False
    published: tuple[Published, ...] = ()

    @property
    def models(self) -> list[str]:
        """What is trained where no model is named."""
        return ["rjcma" if len(self.modalities) > 1 else "unimodal"]


@dataclass(frozen=True)
class DataSet:
    """What was found. ratings {id: of each recording that could be read}, unreadable {id: why not}."""

    recipe: Recipe
    root: Path
    recordings: list[Recording]
    ratings: dict[str, Ratings] = field(default_factory=dict)
    unreadable: dict[str, str] = field(default_factory=dict)

    @cached_property
    def files(self) -> dict[str, list[Path]]:
        """Media below the root by name without suffix; those with pictures before those with sound only."""
        return media_files(self.root, self.recipe.pictures)

    def media(self, name: str) -> Path | None:
        """The file called so. Raises AffuseError where there are two of one kind."""
        found = self.files.get(name, [])
        best = [path for path in found if (path.suffix.lower() == SOUND) == (found[0].suffix.lower() == SOUND)]
        if len(best) > 1:
            raise AffuseError(f"{best[0]} and {best[1]} are both video {name!r}. Remove one.")
        return best[0] if best else None

    def jobs(self) -> list[Job]:
        """An extraction for every file that is there."""
        named = [pair for one in self.recordings for pair in zip(one.parts, one.media, strict=True)]
        return [
            Job(part, path.relative_to(self.root).as_posix(), path)
            for part, name in named
            if (path := self.media(name))
        ]

    @property
    def split(self) -> bool:
        """Whether it brings one of its own."""
        return all(recording.partition for recording in self.recordings)


def find_data(recipe: Recipe, root: Path) -> DataSet:
    """Find a data set below `root`, wherever its archives were unpacked, and read its ratings.

    Raises UsageError where it is not there, AffuseError where a list of recordings cannot be read or names one twice.
    """
    if not root.is_dir():
        raise UsageError(f"Folder {root} does not exist. Give the folder that {recipe.title} was unpacked in.")
    recordings = sorted(recipe.find(root), key=lambda recording: recording.id)
    for one, other in pairwise(recordings):
        if one.id == other.id:
            raise AffuseError(f"{recipe.title} below {root} is there twice: two recordings are {one.id!r}. Remove one.")
    data = DataSet(recipe, root, recordings)
    for recording in recordings:
        try:
            ratings = recording.read()
            check_scale(ratings, recipe.scales)
            data.ratings[recording.id] = ratings
        except AffuseError as error:
            data.unreadable[recording.id] = str(error)
    return data


def media_files(root: Path, pictures: bool) -> dict[str, list[Path]]:
    """{name without suffix: paths} of the videos and sounds below `root`, or, for `pictures`, of its folders of them
    too."""
    found: dict[str, list[Path]] = {}
    for folder, folders, names in os.walk(root):
        folders.sort()
        here = Path(folder)
        paths = [here / name for name in sorted(names) if not name.startswith(".")]
        for path in paths:
            if path.suffix.lower() in (*SUFFIXES, SOUND):
                found.setdefault(path.stem, []).append(path)
        if pictures and any(path.suffix.lower() in PICTURES for path in paths):
            found.setdefault(here.name, []).append(here)
    return {name: sorted(paths, key=lambda path: path.suffix.lower() == SOUND) for name, paths in found.items()}


def check(data: DataSet) -> dict:
    """What is there and what is not: counts beside the known ones, recordings without media, media without a label,
    and what cannot be read."""
    unreadable = dict(data.unreadable)
    without_media, used = [], set()
    for recording in data.recordings:
        for part, name in zip(recording.parts, recording.media, strict=True):
            path = data.media(name)
            used.add(name)
            if path is None:
                without_media.append(part)
            elif why := _undecodable(path):
                unreadable[part] = why
    counts = {what: {"found": n, "known": data.recipe.known.get(what)} for what, n in _count(data).items()}
    return {
        "counts": counts,
        "without_media": without_media,
        "without_labels": sorted(set(data.files) - used),
        "unreadable": unreadable,
    }


def _count(data: DataSet) -> dict[str, int]:
    """Recordings of each partition, or all of them, and of the rest what the recipe knows the number of."""
    parts = Counter(recording.partition or "recordings" for recording in data.recordings)
    split = [name for name in PARTITIONS if name in parts or (data.split and name in data.recipe.known)]
    rest = {
        "subjects": len({recording.subject for recording in data.recordings}),
        "utterances": sum(len(r.lines) for r in data.ratings.values() if r.end is not None or r.time is None),
    }
    return {name: parts[name] for name in (split if data.split else ["recordings"])} | {
        what: n for what, n in rest.items() if what in data.recipe.known
    }


def _undecodable(path: Path) -> str | None:
    try:
        if path.suffix.lower() == SOUND:
            soundfile.info(path)
        elif path.is_file():
            frame_count(path)
    except (UndecodableError, soundfile.LibsndfileError) as error:
        return f"{path}: {error}"
    return None


def is_whole(report: dict) -> bool:
    """Whether nothing is missing, and there is as much of everything as is known."""
    short = [what for what, n in report["counts"].items() if n["known"] and n["found"] < n["known"]]
    return not (short or report["without_media"] or report["unreadable"])


def describe_check(report: dict) -> str:
    """The report for a terminal."""
    lines = [f"{'':12}{'found':>8}{'known':>8}"]
    lines += [f"{what:12}{n['found']:8d}{n['known'] or '–':>8}" for what, n in report["counts"].items()]
    lines += [
        name_some(report["without_media"], "video", "without a media file"),
        name_some(report["without_labels"], "media file", "without a label"),
    ]
    lines += [f"unreadable: {shown(why)}" for why in report["unreadable"].values()]
    return "\n".join(lines)


def name_some(names: list[str], noun: str, what: str) -> str:
    """ "3 videos without crops: a, b, c"; of many the first few."""
    told = f"{counted(len(names), noun)} {what}"
    return f"{told}: {listed([*map(shown, names)])}" if names else told
