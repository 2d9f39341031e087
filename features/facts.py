"""What a store or a video holds, for people and their notebooks: a line, plain facts, tables of pandas."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from affuse.errors import AffuseError, UsageError, counted
from affuse.features.entry import Entry
from affuse.features.parts import MODALITIES
from affuse.features.place import file_of
from affuse.features.record import Provenance, how_they_differ
from affuse.features.shard import Header

if TYPE_CHECKING:
    import pandas as pd

Store = Any  # a FeatureStore, which shows itself by these


def line_of(store: Store) -> str:
    """The store's `repr`; being looked at never fails."""
    try:
        seconds = store.seconds
        widths = ", ".join(f"{m} {width}" for m, width in store.widths.items())
        untrained = ", ".join(store.provenance.untrained)
    except (AffuseError, OSError) as error:
        return f"<FeatureStore {store.path}: {error}>"
    seeded = f"; untrained: {untrained}" if untrained else ""
    return f"<FeatureStore {store.path}: {counted(len(store), 'video')}, {seconds:.1f} s; {widths} wide{seeded}>"


def provenance_of(store: Store, examples: list[tuple[Header, int]]) -> Provenance:
    """See `FeatureStore.provenance`; examples: of each way that videos were made, one, and how many there are."""
    if not examples:
        damaged = store.damaged
        why = f" {len(damaged)} are damaged; {damaged[0].file}: {damaged[0].reason}." if damaged else ""
        raise AffuseError(f"No video in {store.path} can be read.{why} Extract again: what is damaged is made anew.")
    (example, many), *rest = examples
    others = []
    for other, few in rest:
        differing = how_they_differ(example.provenance, other.provenance)
        place = file_of(store.shard(other.id)).relative_to(store.path)
        others.append(f"{few} otherwise ({'; '.join(differing)}), for example {other.id} in {place}")
    if others:
        raise UsageError(
            f"The {len(store)} videos in {store.path} were made by different settings: {many} one way, "
            f"{'; '.join(others)}. Run affuse extract again with the settings wanted: it remakes the "
            "others. Where their videos are gone, delete those files, but no pack: affuse features "
            "unpack makes a file of each record first."
        )
    return example.provenance


def info_of(store: Store) -> dict:
    """See `FeatureStore.info`."""
    provenance = store.provenance.as_dict() if len(store) else {}
    with no_search_for_cycles():
        videos = {video_id: Entry.told(row) for video_id, row in store.entry_rows()}
    return {
        "settings": provenance.get("settings", {}),
        "settings_hash": provenance.get("settings_hash", ""),
        "backbones": provenance.get("backbones", {}),
        "videos": videos,
        "damaged": [asdict(problem) for problem in store.damaged],
    }


@contextmanager
def no_search_for_cycles() -> Iterator[None]:
    """While very many objects are made, none of which is in a cycle: Python looks through them all again and again,
    which takes as long as making them."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()


def table_of(entries: Iterable[Entry]) -> pd.DataFrame:
    """See `FeatureStore.table`."""
    import pandas as pd

    rows = [
        {
            "id": entry.id,
            "seconds": entry.duration,
            "fps": entry.fps,
            "frames": entry.frames,
            "faces": entry.faces / entry.visual.rows if entry.visual.rows else np.nan,
            "words": entry.text.rows,
            **{m: getattr(entry, m).status.value for m in MODALITIES},
            "failure": entry.failure or "",
        }
        for entry in entries
    ]
    columns = ["id", "seconds", "fps", "frames", "faces", "words", *MODALITIES, "failure"]
    return pd.DataFrame(rows, columns=columns).astype({"id": object}).set_index("id")
