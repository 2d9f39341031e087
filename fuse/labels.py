"""Annotations as people keep them: each partition's files, and the reader that a file's suffix calls for.

A reader turns one file into a `Track`; another format is another entry in `READERS`. `<video id>.txt` is the ABAW
challenge's text with one row per frame, `<video id>.csv` has named columns and any rate.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from features.config import nearest
from features.errors import AffuseError, UsageError
from fuse.label_files import read_abaw, read_csv
from fuse.track import Track

PARTITIONS = {
    "train": ("train", "Train_Set"),
    "validation": ("validation", "Validation_Set"),
    "test": ("test", "Test_Set"),
}


READERS: dict[str, Callable[[Path, float | None], Track]] = {".txt": read_abaw, ".csv": read_csv}


def read_track(path: Path, rate: float | None = None) -> Track:
    """Read a label file with the reader of its suffix. rate: rows per second of files that do not say."""
    return READERS[path.suffix](path, rate)


def find_labels(
    folder: Path, validation: Iterable[str] = (), resplit: bool = False
) -> dict[str, dict[str, Path]]:
    """Label files below `folder`, {partition: {video id: file}}; an id is the path below its partition's
    folder.

    The subfolders `train` and `validation` (or ABAW's `Train_Set` and `Validation_Set`; a test folder
    likewise) are the split. A folder without them is one partition, "all", which the ids in `validation`
    divide into train and validation. With `resplit` they divide the videos of a folder's train and validation
    anew; those of its test partition can be in neither. Raises UsageError for a folder that gives no split or no
    labels, AffuseError for an id in two partitions.
    """
    folder, validation = Path(folder), list(validation)
    if not folder.is_dir():
        raise UsageError(f"Label folder {folder} does not exist. Check --labels.")
    split = {}
    for partition, names in PARTITIONS.items():
        present = [folder / name for name in dict.fromkeys(names) if (folder / name).is_dir()]
        if len(present) > 1:
            raise UsageError(
                f"Label folder {folder} has both {present[0].name} and {present[1].name}; keep one of them."
            )
        if present:
            split[partition] = _label_files(present[0])
    if split and validation and not resplit:
        raise UsageError(
            f"Label folder {folder} is split by its subfolders ({', '.join(split)}), and the setting "
            "`validation` names a split too. Keep one of them, or divide train and validation anew: resplit=true."
        )
    if shared := _in_two_partitions(split):
        raise AffuseError(
            f"Label folder {folder}: {shared}. A video in two partitions is scored on what it was trained "
            "on; remove one of the files."
        )
    if not split:
        split = {"all": _label_files(folder)}
    if validation:
        split |= _divide(folder, split, set(validation))
    return split


def _divide(
    folder: Path, split: dict[str, dict[str, Path]], validation: set[str]
) -> dict[str, dict[str, Path]]:
    """Train and validation anew, from all videos but those of the test partition."""
    files = {video: path for name, part in split.items() if name != "test" for video, path in part.items()}
    for video in sorted(validation - set(files)):
        if video in split.get("test", {}):
            raise UsageError(
                f"Setting validation: {video!r} is in the test partition of {folder}. Models are chosen by the "
                "validation videos, and the test partition must not choose one."
            )
        raise UsageError(
            f"Setting validation: {video!r} has no label file in {folder}{nearest(video, files)}"
        )
    return {
        "train": {video: path for video, path in files.items() if video not in validation},
        "validation": {video: path for video, path in files.items() if video in validation},
    }


def partition_files(
    folder: Path, partition: str, validation: Iterable[str] = (), resplit: bool = False
) -> dict[str, Path]:
    """The label files of one partition, or a UsageError that says what the folder must look like."""
    split = find_labels(folder, validation, resplit)
    if partition not in split:
        raise UsageError(
            f"Label folder {folder} has no {partition!r} partition (it has: {', '.join(split)}). Put the "
            "files into subfolders train/ and validation/ (or Train_Set/ and Validation_Set/), or name the "
            "videos to validate on: --set validation=[clip07,clip12]."
        )
    if not split[partition]:
        raise AffuseError(
            f"Label folder {folder}: partition {partition!r} holds no label files (<video id>.txt or .csv)."
        )
    return split[partition]


def _label_files(folder: Path) -> dict[str, Path]:
    files = sorted(
        path
        for path in folder.rglob("*")
        if path.suffix in READERS and not path.name.startswith(".") and path.is_file()
    )
    if not files:
        kinds = ", ".join(READERS)
        raise AffuseError(
            f"Label folder {folder} holds no label files ({kinds}). Expected one <video id>.txt or .csv per video."
        )
    named: dict[str, Path] = {}
    for path in files:
        video = path.relative_to(folder).as_posix().removesuffix(path.suffix)
        if video in named:
            raise AffuseError(f"{named[video]} and {path} both label video {video!r}. Remove one of them.")
        named[video] = path
    return named


def _in_two_partitions(split: dict[str, dict[str, Path]]) -> str:
    owner: dict[str, str] = {}
    for partition, files in split.items():
        for video in files:
            if video in owner:
                return f"video {video!r} is in {owner[video]} and in {partition}"
            owner[video] = partition
    return ""
