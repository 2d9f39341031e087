"""Annotations as people keep them: find each partition's files, read them, lay them on a video's frames.

A reader turns one file into a `Track`; another format is another entry in `READERS`. So far: the ABAW
challenge's text files, `<folder>/<video id>.txt` with the header `valence,arousal` and one row per frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from features.config import nearest
from features.errors import AffuseError, UsageError

NOT_ANNOTATED = -5.0  # ABAW's mark for a frame that nobody rated
TOLERATED_ROWS = 1  # 106 of Aff-Wild2's 561 annotated videos have one row more than frames
PARTITIONS = {
    "train": ("train", "Train_Set"),
    "validation": ("validation", "Validation_Set"),
    "test": ("test", "Test_Set"),
}


@dataclass(frozen=True)
class Track:
    """One video's annotation: values (N, targets) float32, NaN where not annotated; row i belongs to frame i.

    valid (N,) bool: every target of the row is annotated.
    """

    path: Path
    targets: tuple[str, ...]
    values: np.ndarray
    valid: np.ndarray


def read_abaw(path: Path) -> Track:
    """Read one ABAW text file. A row is valid only when both its values are.

    Raises AffuseError naming file and line for a wrong header, a row that is not two numbers, or a value that
    is neither in [-1, 1] nor -5.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise AffuseError(f"Label file {path} cannot be read: {error}. Check the file.") from None
    targets = ("valence", "arousal")
    _check_header(path, lines, targets)
    try:
        values = np.loadtxt(lines[1:], delimiter=",", dtype=np.float64, ndmin=2, comments=None)
    except ValueError:
        values = np.empty((0, 2))
    if values.shape != (len(lines) - 1, 2):  # loadtxt drops blank lines, and that would shift every later row
        line = next(i for i, text in enumerate(lines[1:], start=2) if not _is_pair(text))
        raise AffuseError(f"Label file {path}, line {line}: expected two numbers, found {lines[line - 1]!r}.")
    wrong = ~((np.abs(values) <= 1) | (values == NOT_ANNOTATED))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise AffuseError(
            f"Label file {path}, line {row + 2}: {targets[column]} is {values[row, column]:g}, but labels "
            "lie in [-1, 1], or are -5 where a frame is not annotated."
        )
    valid = (values != NOT_ANNOTATED).all(axis=1)
    values[values == NOT_ANNOTATED] = np.nan
    return Track(path, targets, values.astype(np.float32), valid)


def _check_header(path: Path, lines: list[str], targets: tuple[str, ...]) -> None:
    expected = ",".join(targets)
    if not lines:
        raise AffuseError(
            f"Label file {path} is empty. Its first line must be {expected!r}, then one row per frame."
        )
    names = [name.strip().lower() for name in lines[0].split(",")]
    if names == list(targets[::-1]):
        raise AffuseError(
            f"Label file {path}, line 1: the columns are swapped; expected {expected!r} in this order."
        )
    if names != list(targets):
        hint = " The file seems to have no header." if _is_pair(lines[0]) else ""
        raise AffuseError(
            f"Label file {path}, line 1: expected the header {expected!r}, found {lines[0]!r}.{hint}"
        )
    if len(lines) == 1:
        raise AffuseError(f"Label file {path} has a header but no rows. Expected one row per frame.")


def _is_pair(text: str) -> bool:
    try:
        return len([float(part) for part in text.split(",")]) == 2
    except ValueError:
        return False


READERS: dict[str, Callable[[Path], Track]] = {".txt": read_abaw}


def read_track(path: Path) -> Track:
    """Read a label file with the reader of its suffix."""
    return READERS[path.suffix](path)


def find_labels(folder: Path, validation: Iterable[str] = ()) -> dict[str, dict[str, Path]]:
    """Label files below `folder`, {partition: {video id: file}}; an id is the path below its partition's
    folder.

    The subfolders `train` and `validation` (or ABAW's `Train_Set` and `Validation_Set`; a test folder
    likewise) are the split. A folder without them is one partition, "all", which the ids in `validation`
    divide into train and validation. Raises UsageError for a folder that gives no split or no labels,
    AffuseError for an id in two partitions.
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
    if split and validation:
        raise UsageError(
            f"Label folder {folder} is split by its subfolders ({', '.join(split)}), and the setting "
            "`validation` names a split too. Keep one of them."
        )
    if not split:
        files = _label_files(folder)
        if unknown := [video for video in validation if video not in files]:
            raise UsageError(
                f"Setting validation: {unknown[0]!r} has no label file in {folder}"
                + nearest(unknown[0], files)
            )
        split = {"all": files}
        if validation:
            split["train"] = {video: path for video, path in files.items() if video not in validation}
            split["validation"] = {video: path for video, path in files.items() if video in validation}
    elif shared := _in_two_partitions(split):
        raise AffuseError(
            f"Label folder {folder}: {shared}. A video in two partitions is scored on what it was trained "
            "on; remove one of the files."
        )
    return split


def partition_files(folder: Path, partition: str, validation: Iterable[str] = ()) -> dict[str, Path]:
    """The label files of one partition, or a UsageError that says what the folder must look like."""
    split = find_labels(folder, validation)
    if partition not in split:
        raise UsageError(
            f"Label folder {folder} has no {partition!r} partition (it has: {', '.join(split)}). Put the "
            "files into subfolders train/ and validation/ (or Train_Set/ and Validation_Set/), or name the "
            "videos to validate on: --set validation=[clip07,clip12]."
        )
    if not split[partition]:
        raise AffuseError(
            f"Label folder {folder}: partition {partition!r} holds no label files (<video id>.txt)."
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
            f"Label folder {folder} holds no label files ({kinds}). Expected one <video id>.txt per video."
        )
    return {path.relative_to(folder).as_posix().removesuffix(path.suffix): path for path in files}


def _in_two_partitions(split: dict[str, dict[str, Path]]) -> str:
    owner: dict[str, str] = {}
    for partition, files in split.items():
        for video in files:
            if video in owner:
                return f"video {video!r} is in {owner[video]} and in {partition}"
            owner[video] = partition
    return ""


def on_frames(track: Track, targets: Iterable[str], frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Lay a track on a video's frames: values (frames, targets) float32 with 0 where not valid, valid
    (frames,) bool.

    One row more or fewer than frames is tolerated: the extra row is dropped, the frame without a row is not
    valid. Raises AffuseError for any other difference, and for a target that the file does not have.
    """
    rows = len(track.values)
    if abs(rows - frames) > TOLERATED_ROWS:
        raise AffuseError(
            f"Label file {track.path} has {rows} rows, its video has {frames} frames. They may differ by "
            f"{TOLERATED_ROWS} at most; check that the file belongs to this video and has its frame rate."
        )
    columns = []
    for target in targets:
        if target not in track.targets:
            raise AffuseError(
                f"Label file {track.path} has no target {target!r}{nearest(target, track.targets)}"
            )
        columns.append(track.targets.index(target))
    shared = min(rows, frames)
    valid = np.zeros(frames, bool)
    valid[:shared] = track.valid[:shared]
    values = np.zeros((frames, len(columns)), np.float32)
    values[valid] = track.values[:shared, columns][track.valid[:shared]]
    return values, valid
