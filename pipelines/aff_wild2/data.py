"""Aff-Wild2 as the ABAW challenge ships it: which video, crops and annotation belong together, what is missing, the
official split and the six folds, and the submission file.

    …/VA_Estimation_Challenge/{Train_Set,Validation_Set}/<video>.txt      …/cropped_aligned/<video>/<frame:05d>.jpg
    …/{batch1,batch2,new_vids}/<video>.mp4|avi      a test list: a video per line

Two people in one video are `<video>`, `<video>_left`, `<video>_right`, all cut from `<video>.mp4`.
"""

from __future__ import annotations

import csv
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from affuse.console import shown
from affuse.errors import AffuseError, UsageError, counted
from affuse.extract.media import SUFFIXES, UndecodableError, frame_count
from affuse.extract.videos import Job
from affuse.files import file_name, write_text
from affuse.fuse.data.labels import read_track
from affuse.fuse.data.partitions import find_labels
from affuse.fuse.data.track import TOLERATED_ROWS
from affuse.fuse.experiments.folds import Fold
from affuse.pipelines.recipes.dataset import name_some

KNOWN = {"train": 356, "validation": 76, "test": 162}  # videos of the challenge's release
CROPS = "cropped_aligned"
SIDES = ("_left", "_right")
CHUNKS = 5  # of the training list; the official validation set is the sixth


@dataclass(frozen=True)
class AffWild2:
    """What was found. split {partition: [video id]}, sorted; media and crops {video id: path}, where there is any."""

    root: Path
    labels: Path
    split: dict[str, list[str]]
    media: dict[str, Path]
    crops: dict[str, Path]

    @property
    def videos(self) -> list[str]:
        return [video for videos in self.split.values() for video in videos]

    def jobs(self) -> list[Job]:
        """An extraction for every video that has a file; those with the same media file differ in their crops."""
        return [
            Job(
                id=video,
                name=self.media[video].relative_to(self.root).as_posix(),
                path=self.media[video],
                crops=self.crops.get(video, self.root / CROPS / video),
            )
            for video in self.videos
            if video in self.media
        ]


def discover(root: Path, test_list: Path | None = None) -> AffWild2:
    """Find the parts of the data set below `root`, wherever its archives were unpacked.

    Raises UsageError where there are no annotations, AffuseError for a video in two lists or two files of a name.
    """
    root = Path(root)
    if not root.is_dir():
        raise UsageError(f"Folder {root} does not exist. Give the folder that Aff-Wild2 was unpacked in.")
    labels, crops, media = [], {}, {}
    for folder, folders, files in os.walk(root):
        here = Path(folder)
        folders.sort()
        if here.name.startswith(CROPS):
            crops |= {name: here / name for name in folders}
            folders.clear()  # three million pictures that need not be listed
        elif "Train_Set" in folders:
            if here.name.upper().startswith("VA"):
                labels.append(here)
            folders.clear()
        else:
            for name in sorted(files):
                path = here / name
                if path.suffix.lower() in SUFFIXES and not name.startswith("."):
                    if path.stem in media:
                        raise AffuseError(f"{media[path.stem]} and {path} are both video {path.stem!r}. Remove one.")
                    media[path.stem] = path
    if len(labels) != 1:
        found = ", ".join(map(str, labels)) or "none"
        raise UsageError(
            f"Expected one folder VA_Estimation_Challenge with Train_Set and Validation_Set below {root}, "
            f"found {found}."
        )
    split = {name: sorted(found) for name, found in find_labels(labels[0]).items() if name != "test"}
    split["test"] = sorted(_read_list(test_list, split)) if test_list else []
    return AffWild2(root, labels[0], split, {v: p for ids in split.values() for v in ids if (p := _media(v, media))},
                    {v: crops[v] for ids in split.values() for v in ids if v in crops})  # fmt: skip


def _media(video: str, media: dict[str, Path]) -> Path | None:
    for side in ("", *SIDES):
        if video.endswith(side) and (stem := video.removesuffix(side)) in media:
            return media[stem]
    return None


def _read_list(path: Path, split: dict[str, list[str]]) -> list[str]:
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"Test list {path} cannot be read: {error}.") from None
    videos: list[str] = []
    for line, video in enumerate(map(str.strip, lines), start=1):
        if not video:
            continue
        for other, there in (*split.items(), ("the list", videos)):
            if video in there:
                raise AffuseError(f"Test list {path}, line {line}: video {video!r} is in {other} already.")
        videos.append(video)
    return videos


def check(data: AffWild2) -> dict:
    """What is there and what is not: counts beside the known ones, missing files, lengths, and shared videos."""
    lengths, unreadable = {}, {}
    for partition in ("train", "validation"):
        for video, path in find_labels(data.labels)[partition].items():
            try:
                track = read_track(path)
                lengths[video] = {"labels": len(track.values), "annotated": int(track.valid.sum())}
            except AffuseError as error:
                unreadable[video] = str(error)
    for video, media in data.media.items():
        try:
            lengths.setdefault(video, {})["frames"] = frame_count(media)
        except UndecodableError as error:
            unreadable[video] = str(error)
    for video, folder in data.crops.items():
        numbers = [int(name[:-4]) for name in os.listdir(folder) if name.endswith(".jpg") and name[:-4].isdigit()]
        lengths.setdefault(video, {}).update(crops=len(numbers), last_crop=max(numbers, default=0))
    differences = {v: n["labels"] - n["frames"] for v, n in lengths.items() if "labels" in n and "frames" in n}
    return {
        "videos": {name: {"found": len(ids), "known": KNOWN[name]} for name, ids in data.split.items()},
        "without_media": [v for v in data.videos if v not in data.media],
        "without_crops": [v for v in data.videos if not lengths.get(v, {}).get("crops")],
        "unreadable": unreadable,
        "one_label_more": sorted(v for v, n in differences.items() if n == 1),
        "lengths_differ": {v: n for v, n in sorted(differences.items()) if abs(n) > TOLERATED_ROWS},
        "shared_over_folds": shared_over_folds(data),
        "lengths": dict(sorted(lengths.items())),
    }


def describe_check(report: dict) -> str:
    """The report for a terminal."""
    lines = [f"{'':12}{'found':>7}{'known':>7}"]
    lines += [f"{name:12}{n['found']:7d}{n['known']:7d}" for name, n in report["videos"].items()]
    for key, noun, what in (
        ("without_media", "video", "without a media file"),
        ("without_crops", "video", "without crops, so that no frame has a face"),
        ("one_label_more", "video", "with one label more than frames; the last is dropped"),
        ("shared_over_folds", "media file", "with people in training and validation of some fold"),
    ):
        lines.append(name_some(report[key], noun, what))
    for video in report["lengths_differ"]:
        length = report["lengths"][video]
        lines.append(f"{shown(video)}: {counted(length['labels'], 'label')}, {counted(length['frames'], 'frame')}")
    lines += [f"unreadable: {shown(why)}" for why in report["unreadable"].values()]
    return "\n".join(lines)


def six_folds(data: AffWild2) -> list[Fold]:
    """The folds of the ABAW3 and RJCMA code: five chunks of the sorted training list and the official validation set,
    rolled by the fold's number; the last one validates. fold0 is the official split, fold1 validates on 284–355 of
    356 videos."""
    train = data.split["train"]
    size = len(train) // CHUNKS
    if not size:
        raise AffuseError(f"{counted(len(train), 'training video')}: too few for {CHUNKS} chunks.")
    edges = [*(size * i for i in range(CHUNKS)), len(train)]
    chunks = [train[a:b] for a, b in pairwise(edges)] + [data.split["validation"]]
    return [Fold(f"fold{i}", tuple(chunks[CHUNKS - i])) for i in range(CHUNKS + 1)]


def shared_over_folds(data: AffWild2) -> list[str]:
    """Media files that are on both sides of some fold: the published folds cut the list without looking at them."""
    if len(data.split["train"]) < CHUNKS:
        return []
    shared = set()
    for fold in six_folds(data):
        inside = {data.media[v] for v in fold.validation if v in data.media}
        labelled = (*data.split["train"], *data.split["validation"])
        outside = {data.media[v] for v in labelled if v in data.media and v not in fold.validation}
        shared |= inside & outside
    return sorted(path.name for path in shared)


def write_submission(sample: Path, predictions: Path, out: Path) -> dict:
    """The challenge's file: rows and order of its sample, `<video>/<frame:05d>.jpg,valence,arousal`.

    predictions is a folder of `<video>.csv` with one row per frame, as `predict` writes. Gives {"rows", "videos",
    "after_the_end": rows of frames that the video does not have, which get its last frame's}. Raises AffuseError
    naming file and line.
    """
    text, after, seen = [], 0, Counter()
    held: tuple[str, np.ndarray] = ("", np.zeros((0, 2)))
    for line, fields in _sample_rows(sample):
        if line == 1:
            text.append(",".join(fields))
            continue
        video, _, picture = fields[0].strip().rpartition("/")
        number = Path(picture).stem
        if not video or not number.isdigit() or int(number) < 1:
            raise AffuseError(f"Sample {sample}, line {line}: {fields[0]!r} is not <video>/<frame>.jpg.")
        if video != held[0]:
            held = video, _read_predictions(predictions / f"{file_name(video)}.csv", sample, line, video)
        frame = int(number) - 1  # crops are numbered from 00001, frames from 0
        after += frame >= len(held[1])
        valence, arousal = held[1][min(frame, len(held[1]) - 1)]
        text.append(f"{fields[0].strip()},{valence:.6f},{arousal:.6f}")
        seen[video] += 1
    write_text(out, "\n".join(text) + "\n")
    return {"file": str(out), "rows": seen.total(), "videos": len(seen), "after_the_end": int(after)}


def _sample_rows(sample: Path) -> Iterator[tuple[int, list[str]]]:
    try:
        with sample.open(encoding="utf-8-sig", newline="") as file:
            yield from ((i, row) for i, row in enumerate(csv.reader(file), start=1) if row)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"Sample {sample} cannot be read: {error}.") from None


def _read_predictions(path: Path, sample: Path, line: int, video: str) -> np.ndarray:
    """Valence and arousal (frames, 2)."""
    if not path.is_file():
        raise AffuseError(
            f"Sample {sample}, line {line}: there is no prediction for video {video!r}. Is it in the test list, "
            "and was its media file found?"
        )
    table = np.genfromtxt(path, delimiter=",", names=True, ndmin=1)
    return np.column_stack([table["valence"], table["arousal"]])
