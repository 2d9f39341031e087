"""Tables of features from elsewhere, put together as one video's record: its clock, its missing rows, its statuses."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from affuse.errors import AffuseError
from affuse.features.parts import MODALITIES, AudioFeatures, Status, TextFeatures, VisualFeatures
from affuse.features.record import Provenance, Source, VideoFeatures
from affuse.features.table import Table

TOLERANCE = 1.0  # seconds by which modalities whose clock is only a rate may end apart
OVERLAP = 1e-6  # seconds by which neighbouring rows of text overlap, so that no frame falls between them
NOTHING = "no file was imported"


def make_record(
    video_id: str, source: Source, tables: dict[str, Table], rates: Mapping[str, float], provenance: Provenance
) -> VideoFeatures:
    """One video's tables {modality: table} as a record. Its clock is that of visual, else of audio, else of text.

    rates {modality: rows per second of a table without times}.

    Raises AffuseError for a table without a clock, and for modalities that end apart.
    """
    clocks = {m: _clock(m, table, rates) for m, table in tables.items()}
    moments = {m: clocks[m] for m in MODALITIES if clocks.get(m) is not None and len(clocks[m])}
    if not moments:
        raise AffuseError(
            f"Video {video_id!r} has no rows with a time, only spans; import visual or audio features with it."
        )
    ends = {m: float(time[-1]) + spacing(time) for m, time in moments.items()}
    _check_ends(video_id, tables, ends)
    time = next(iter(moments.values()))
    return VideoFeatures(
        id=video_id,
        source=source,
        fps=1 / spacing(time),
        duration=max(ends.values()),
        frames=len(time),
        visual=_visual(tables.get("visual"), time, provenance),
        audio=_audio(tables.get("audio"), clocks.get("audio"), provenance),
        text=_text(tables.get("text"), clocks.get("text"), provenance),
    )


def spacing(time: np.ndarray) -> float:
    """Median seconds between rows; a single row stands for one second."""
    return float(np.median(np.diff(time))) if len(time) > 1 else 1.0


def _clock(modality: str, table: Table, rates: Mapping[str, float]) -> np.ndarray | None:
    """Seconds of each row (N,); None for rows with start and end, which only text may have."""
    if "time" in table.columns:
        return table.columns["time"].astype(np.float64)
    if "start" in table.columns:
        if modality != "text":
            raise AffuseError(
                f"Feature file {table.path} has rows with start and end, but {modality} has one moment per row: give "
                "`time`, or a rate."
            )
        return None
    if modality not in rates:
        raise AffuseError(
            f"Feature file {table.path} has no time. Name its rows per second, for example --rate {modality}=25."
        )
    return np.arange(len(table)) / rates[modality]


def _check_ends(video_id: str, tables: dict[str, Table], ends: dict[str, float]) -> None:
    longest = max(ends.values())
    for m, end in ends.items():
        if "time" not in tables[m].columns and longest - end > TOLERANCE:
            rows = "; ".join(f"{other} has {len(tables[other])} rows ({ends[other]:.2f} s)" for other in ends)
            raise AffuseError(
                f"Video {video_id!r}: the lengths of its modalities do not match: {rows}. {m} ends "
                f"{longest - end:.2f} s early; {TOLERANCE:g} s are tolerated. Check {tables[m].path} and its rate."
            )


def _visual(table: Table | None, time: np.ndarray, provenance: Provenance) -> VisualFeatures:
    rows = len(time)
    box, confidence = np.full((rows, 4), np.nan, np.float32), np.zeros(rows, np.float32)
    if table is None or not table.embedding.shape[1]:
        nothing = np.zeros((rows, provenance.width("visual")), np.float16)
        return VisualFeatures(nothing, time, np.zeros(rows, bool), box, confidence, Status.SKIPPED, NOTHING)
    status, reason = (Status.OK, "") if table.valid.any() else (Status.NO_FACE, "every row is missing")
    return VisualFeatures(
        table.embedding,
        time,
        table.valid,
        table.columns.get("box", box).astype(np.float32),
        table.columns.get("confidence", table.valid).astype(np.float32),
        status,
        reason,
    )


def _audio(table: Table | None, time: np.ndarray | None, provenance: Provenance) -> AudioFeatures:
    """Missing rows are left out: aligning finds no row near enough at their moments."""
    if table is None or time is None or not table.valid.any():
        why = (Status.SKIPPED, NOTHING) if table is None else (Status.NO_AUDIO, "every row is missing")
        return AudioFeatures.absent(provenance.width("audio"), *why)
    return AudioFeatures(table.embedding[table.valid], time[table.valid])


def _text(table: Table | None, time: np.ndarray | None, provenance: Provenance) -> TextFeatures:
    """Rows with one moment each stand from half a row before it to half a row after."""
    if table is None or not table.valid.any():
        why = (Status.SKIPPED, NOTHING) if table is None else (Status.NO_SPEECH, "every row is missing")
        return TextFeatures.absent(provenance.width("text"), *why)
    keep = table.valid
    if time is None:
        start, end = table.columns["start"], table.columns["end"]
    else:
        half = spacing(time) / 2
        start, end = time - half, time + half + OVERLAP
    word = table.columns.get("word", np.full(len(keep), "", str)).astype(str)
    confidence = table.columns.get("confidence", np.ones(len(keep))).astype(np.float32)
    return TextFeatures(
        table.embedding[keep],
        start[keep].astype(np.float64),
        end[keep].astype(np.float64),
        word[keep],
        confidence[keep],
    )
