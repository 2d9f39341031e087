"""Features computed elsewhere into a store like any other: `<folder>/<modality>/<video id>.npy`, .npz or .csv.

A few videos are in memory at a time. What the store cannot know of such features (network, weights) it says plainly:
the backbone is "imported", the source is the digest of the files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path

from affuse.config import nearest
from affuse.console import Progress
from affuse.errors import AffuseError, UsageError, counted
from affuse.features.assembly import make_record
from affuse.features.columns import Columns, listed
from affuse.features.parts import MODALITIES
from affuse.features.record import Backbone, Provenance, Source, settings_hash
from affuse.features.resampling import checked_rate, resampled
from affuse.features.store import FeatureStore
from affuse.features.table import SUFFIXES, features_of, names_in, read_table
from affuse.files import sha256_of
from affuse.version import VERSION

WORKERS = min(4, os.cpu_count() or 1)  # videos in memory at a time


@dataclass(frozen=True)
class Layout:
    """How the files are to be read. folders {modality: folder below the source}; rates {modality: rows per second of
    files without a time column}; columns: what those of each file are; resample: frames per second that videos are
    brought to, None for their own."""

    folders: Mapping[str, str] = field(default_factory=lambda: {m: m for m in MODALITIES})
    rates: Mapping[str, float] = field(default_factory=dict)
    columns: Columns = field(default_factory=Columns)
    resample: float | None = None


def import_features(
    source: Path, out: Path, layout: Layout | None = None, progress: Progress = lambda line, failure, last: None
) -> dict:
    """Bring every video below `source` into the store at `out`; what is there already and unchanged is kept.

    Gives {"written": [id], "kept": [id], "failed": {id: why}, "causes": {why: [id]}, which names a cause that several
    share by the first of them, "widths": {modality: width}, "columns": {modality: the features' names in .csv files}}.
    Raises UsageError where the folder has no such files or no file has a column that the layout names, AffuseError
    where no file can be read or the store cannot be written. A store in which nothing is kept is not left.
    """
    layout, new = layout or Layout(), not Path(out).exists()
    files = find_files(Path(source), layout)
    _check_names(files, layout)
    provenance = _provenance(files, layout)
    store = FeatureStore(out, create=True)
    outcomes: dict[str, tuple[str, str]] = {}
    with ThreadPoolExecutor(WORKERS) as pool:  # reading numbers and hashing let go of Python's lock
        tasks = {
            video_id: pool.submit(_bring, store, video_id, parts, layout, provenance, Path(source))
            for video_id, parts in files.items()
        }
        try:
            for done, (video_id, task) in enumerate(tasks.items(), start=1):
                outcomes[video_id] = task.result()
                progress(f"{done} of {counted(len(files), 'video')}", None, done == len(files))
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    if not len(store) and not store.damaged:
        store.shards.rmdir()
        if new:
            store.path.rmdir()
    failed = {video_id: why for video_id, (_, why) in outcomes.items() if why}
    return {
        **{key: [v for v, (outcome, _) in outcomes.items() if outcome == key] for key in ("written", "kept")},
        "failed": failed,
        "causes": _causes(failed, files),
        "widths": {m: backbone.width for m, backbone in provenance.backbones.items()},
        "columns": provenance.settings["columns"],
    }


def _causes(failed: dict[str, str], files: dict[str, dict[str, Path]]) -> dict[str, list[str]]:
    """Videos by why they failed, as the first of them says it: reasons that differ only in the file are one."""
    first: dict[str, str] = {}
    causes: dict[str, list[str]] = {}
    for video_id, why in failed.items():
        bare = reduce(lambda text, path: text.replace(str(path), ""), files[video_id].values(), why)
        causes.setdefault(first.setdefault(bare, why), []).append(video_id)
    return causes


def parse_layout(
    folders: Iterable[str], rates: Iterable[str], columns: Columns | None = None, resample: float | None = None
) -> Layout:
    """A layout from `modality=name` and `[modality=]rate`. Where folders are named, only those are imported.

    Raises UsageError for what is neither, and for a `resample` that is no rate.
    """
    named = dict(_pair("--folder", text) for text in folders)
    speeds: dict[str, float] = {}
    for text in rates:
        modality, number = _pair("--rate", text) if "=" in text else ("", text)
        try:
            rate = float(number)
        except ValueError:
            rate = 0.0
        if not 0 < rate < float("inf"):
            raise UsageError(f"--rate {text}: {number!r} is no rate. Write rows per second, for example audio=25.")
        speeds |= {modality: rate} if modality else dict.fromkeys(MODALITIES, rate)
    for modality in (*named, *speeds):
        if modality not in MODALITIES:
            raise UsageError(f"{modality!r} is no modality{nearest(modality, MODALITIES)}")
    to = None if resample is None else checked_rate(resample, "--resample")
    return Layout(named or Layout().folders, speeds, columns or Columns(), to)


def _pair(option: str, text: str) -> tuple[str, str]:
    modality, equals, value = text.partition("=")
    if not (equals and value):
        raise UsageError(f"{option} {text}: write modality=value, for example visual=openface.")
    return modality, value


def find_files(source: Path, layout: Layout) -> dict[str, dict[str, Path]]:
    """{video id: {modality: file}}, sorted by id. Raises UsageError where there is none, or two for the same."""
    if not source.is_dir():
        raise UsageError(f"Folder {source} does not exist. Give the folder that holds a folder for each modality.")
    files: dict[str, dict[str, Path]] = {}
    for modality, name in layout.folders.items():
        if name != modality and not (source / name).is_dir():
            there = [path.name for path in sorted(source.iterdir()) if path.is_dir()]
            raise UsageError(f"--folder {modality}={name}: there is no folder {source / name}{nearest(name, there)}")
        for path in sorted((source / name).rglob("*")):
            if path.suffix not in SUFFIXES or path.name.startswith(".") or not path.is_file():
                continue
            video_id = path.relative_to(source / name).as_posix().removesuffix(path.suffix)
            parts = files.setdefault(video_id, {})
            if modality in parts:
                raise UsageError(f"{parts[modality]} and {path} are both {modality} of {video_id!r}. Remove one.")
            parts[modality] = path
    if not files:
        expected = ", ".join(f"{source / name}/<video id>.csv" for name in layout.folders.values())
        raise UsageError(f"No features below {source}. Expected {expected} (or .npy, .npz).")
    return dict(sorted(files.items()))


def _check_names(files: dict[str, dict[str, Path]], layout: Layout) -> None:
    """See that every modality whose rate is given has a file, unless all are given, and every column that is named by
    hand is in some file."""
    columns, absent = layout.columns, set(layout.rates).difference(*files.values())
    if absent and len(layout.rates) < len(MODALITIES):
        raise UsageError(f"--rate {min(absent)}={layout.rates[min(absent)]:g}: there are no {min(absent)} files.")
    clocks = [name for name in columns.time if name not in Columns().time]  # the usual one need not be there
    asked = {"--time-column": clocks, "--ignore": columns.ignored, "--feature": columns.wanted}
    if any(asked.values()):
        known = {name for parts in files.values() for path in parts.values() for name in names_in(path)}
        for option, names in asked.items():
            for name in names:
                if name not in known:
                    raise UsageError(f"{option} {name}: no file has such a column{nearest(name, sorted(known))}")


def _provenance(files: dict[str, dict[str, Path]], layout: Layout) -> Provenance:
    widths: dict[str, int] = {}
    columns: dict[str, list[str]] = {}
    unreadable: list[AffuseError] = []
    for parts in files.values():
        for modality, path in parts.items():
            if not widths.get(modality):  # a clock alone has width 0
                try:
                    widths[modality], names = features_of(path, layout.columns)
                    columns |= {modality: names} if names else {}
                except AffuseError as error:
                    unreadable.append(error)
    backbones = {m: Backbone("imported", layout.folders[m], "", True, widths[m]) for m in MODALITIES if widths.get(m)}
    if not backbones:
        if unreadable:
            raise unreadable[0]
        raise UsageError("The files have times but no features. Check the folders.")
    settings: dict = {"imported": {m: layout.folders[m] for m in backbones}, "columns": columns}
    given = {m for parts in files.values() for m in parts}
    if rates := {m: rate for m, rate in layout.rates.items() if m in given}:
        settings["rates"] = rates
    if list(layout.columns.time) != list(Columns().time):
        settings["time_column"] = list(layout.columns.time)
    if layout.resample is not None:
        settings["resample"] = layout.resample
    return Provenance(settings, settings_hash(settings, backbones), backbones, {"affuse": VERSION})


def _bring(
    store: FeatureStore, video_id: str, parts: dict[str, Path], layout: Layout, provenance: Provenance, root: Path
) -> tuple[str, str]:
    """Write one video unless it is there already: "written" or "kept" and "", or "failed" and why: the files of the
    others may be usable."""
    paths = list(parts.values())
    size = sum(path.stat().st_size for path in paths)
    mtime = max(path.stat().st_mtime_ns for path in paths)
    digest = hashlib.sha256("".join(map(sha256_of, paths)).encode()).hexdigest()
    if store.examine(video_id, provenance.settings_hash, size, mtime, lambda: digest)[0] is None:
        return "kept", ""
    try:
        tables = {m: read_table(path, layout.columns) for m, path in parts.items()}
        for m, table in tables.items():
            if table.embedding.shape[1] not in (0, provenance.width(m)):
                raise AffuseError(
                    f"Feature file {table.path} is {table.embedding.shape[1]} wide, where the {m} of other videos is "
                    f"{provenance.width(m)} wide."
                )
            usual = provenance.settings["columns"].get(m)
            if usual and table.names and list(table.names) != usual:
                raise AffuseError(
                    f"Feature file {table.path} has the features {listed(table.names)}, where other videos have "
                    f"{listed(usual)}. Every file needs the same columns in the same order."
                )
        names = ", ".join(path.relative_to(root).as_posix() for path in paths)
        record = make_record(video_id, Source(names, size, digest, mtime), tables, layout.rates, provenance)
        if layout.resample is not None:
            record = resampled(record, record.visual.time, layout.resample)
    except AffuseError as error:
        return "failed", str(error)
    store.write(record, provenance)
    return "written", ""
