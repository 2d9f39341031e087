"""Which label files there are, and who trains, validates, tests or is held out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from affuse.config import nearest
from affuse.errors import AffuseError, UsageError
from affuse.files import as_path
from affuse.fuse.data.labels import READERS

PARTITIONS = {name: (name, f"{name.title()}_Set") for name in ("train", "validation", "test")}  # ours, ABAW's


class Split(NamedTuple):
    """Who validates, and who is held out, of a folder's videos; with `resplit`, of those of its own train and
    validation together."""

    validation: Sequence[str] = ()
    resplit: bool = False
    held_out: Sequence[str] = ()


AS_IT_IS = Split()


def find_labels(folder: Path, wanted: Split = AS_IT_IS) -> dict[str, dict[str, Path]]:
    """Label files below `folder`, {partition: {video id: file}}; an id is the path below its partition's folder.

    The subfolders `train` and `validation` (or ABAW's `Train_Set` and `Validation_Set`; a test folder
    likewise) are the split. A folder without them is one partition, "all", which the ids in `wanted.validation`
    divide into train and validation. With `wanted.resplit` they divide the videos of a folder's train and validation
    anew; those of its test partition can be in neither. Those in `wanted.held_out` are then taken from both, to be a
    partition of that name. A partition may be empty. Raises UsageError for a folder that gives no split or no labels,
    AffuseError for an id in two partitions.
    """
    folder = as_path("a folder of labels", folder)
    if not folder.is_dir():
        raise UsageError(f"Label folder {folder} does not exist. Check --labels.")
    split = {}
    for partition, names in PARTITIONS.items():
        present = [folder / name for name in names if (folder / name).is_dir()]
        if len(present) > 1:
            raise UsageError(
                f"Label folder {folder} has both {present[0].name} and {present[1].name}; keep one of them."
            )
        if present:
            split[partition] = _label_files(present[0])
    if split and wanted.validation and not wanted.resplit:
        raise UsageError(
            f"Label folder {folder} is split by its subfolders ({', '.join(split)}), and the setting "
            "`validation` names a split too. Keep one of them, or divide train and validation anew: resplit=true."
        )
    owner: dict[str, str] = {}
    for partition, video in ((name, video) for name, files in split.items() for video in files):
        if owner.setdefault(video, partition) != partition:
            raise AffuseError(
                f"Label folder {folder}: video {video!r} is in {owner[video]} and in {partition}. A video in two "
                "partitions is scored on what it was trained on; remove one of the files."
            )
    if not split:
        split = {"all": _label_files(folder)}
    if not any(split.values()):
        raise AffuseError(
            f"Label folder {folder} holds no label files ({', '.join(READERS)}). Expected one <video id>.txt or .csv "
            "per video."
        )
    if wanted.validation:
        split |= _divide(folder, split, set(wanted.validation))
    if wanted.held_out:
        split |= _without(folder, split, set(wanted.held_out))
    return split


def _divide(folder: Path, split: dict[str, dict[str, Path]], validation: set[str]) -> dict[str, dict[str, Path]]:
    """Train and validation anew, from all videos but those of the test partition."""
    files = {video: path for name, part in split.items() if name != "test" for video, path in part.items()}
    for video in sorted(validation - set(files)):
        if video in split.get("test", {}):
            raise UsageError(
                f"Setting validation: {video!r} is in the test partition of {folder}. Models are chosen by the "
                "validation videos, and the test partition must not choose one."
            )
        raise UsageError(f"Setting validation: {video!r} has no label file in {folder}{nearest(video, files)}")
    return {
        "train": {video: path for video, path in files.items() if video not in validation},
        "validation": {video: path for video, path in files.items() if video in validation},
    }


def _without(folder: Path, split: dict[str, dict[str, Path]], held_out: set[str]) -> dict[str, dict[str, Path]]:
    """Train and validation without these videos, and these."""
    files = {video: path for name in ("train", "validation") for video, path in split.get(name, {}).items()}
    for video in sorted(held_out - set(files)):
        raise UsageError(f"Setting held_out: {video!r} is no labelled video of {folder}{nearest(video, files)}")
    left = {
        name: {video: path for video, path in split[name].items() if video not in held_out}
        for name in ("train", "validation")
        if name in split
    }
    return {**left, "held_out": {video: path for video, path in files.items() if video in held_out}}


def partition_files(folder: Path, partition: str, wanted: Split = AS_IT_IS) -> dict[str, Path]:
    """The label files of one partition, or a UsageError that says what the folder must look like."""
    split = find_labels(folder, wanted)
    if partition not in split:
        raise UsageError(
            f"Label folder {folder} has no {partition!r} partition (it has: {', '.join(split)}). "
            f"{_how_to_have(partition, split)}"
        )
    if not split[partition]:
        raise AffuseError(
            f"Label folder {folder}: partition {partition!r} holds no label files (<video id>.txt or .csv)."
        )
    return split[partition]


def _how_to_have(partition: str, split: Iterable[str]) -> str:
    if partition not in PARTITIONS:
        return f"Score one that it has: --partition {next(iter(split))}."
    if partition == "test":
        return (
            "Put the label files of the test videos into a subfolder test/ (or Test_Set/), or score another partition."
        )
    return (
        "Put the files into subfolders train/ and validation/ (or Train_Set/ and Validation_Set/), or name the videos "
        "to validate on: --set validation=[clip07,clip12]."
    )


def _label_files(folder: Path) -> dict[str, Path]:
    files = sorted(path for path in folder.rglob("[!.]*") if path.suffix.lower() in READERS)
    named: dict[str, Path] = {}
    for path in files:
        if not path.is_file():
            raise AffuseError(f"{path} has the name of a label file, but is no file. Remove or rename it.")
        video = path.relative_to(folder).as_posix().removesuffix(path.suffix)
        if video in named:
            raise AffuseError(f"{named[video]} and {path} both label video {video!r}. Remove one of them.")
        named[video] = path
    return named
