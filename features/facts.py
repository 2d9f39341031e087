"""What a store or a video holds, for people and their notebooks: a line, plain facts, tables of pandas."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from affuse.errors import AffuseError, counted
from affuse.features.parts import MODALITIES
from affuse.features.seal import DamagedError, noting

if TYPE_CHECKING:
    import pandas as pd

Store = Any  # a FeatureStore, which shows itself by these


def line_of(store: Store) -> str:
    """The store's `repr`; being looked at never fails."""
    seconds = 0.0
    try:
        for video_id in store:
            with suppress(DamagedError):
                seconds += store.header(video_id).duration
        widths = ", ".join(f"{m} {width}" for m, width in store.widths.items())
        untrained = ", ".join(store.provenance.untrained)
    except (AffuseError, OSError) as error:
        return f"<FeatureStore {store.path}: {error}>"
    seeded = f"; untrained: {untrained}" if untrained else ""
    return f"<FeatureStore {store.path}: {counted(len(store), 'video')}, {seconds:.1f} s; {widths} wide{seeded}>"


def info_of(store: Store) -> dict:
    """See `FeatureStore.info`."""
    provenance = store.provenance.as_dict() if len(store) else {}
    videos, damaged = {}, list(store.damaged)
    for video_id in store:
        with noting(damaged):
            header, (face, words) = store.overview(video_id, "visual/valid", "text/word")
            facts: dict = {name: getattr(header, name) for name in ("fps", "duration", "frames")}
            facts["faces"] = int(face.sum())
            for m in MODALITIES:
                part = getattr(header, m)
                facts[m] = {**asdict(part), "status": part.status.value}
            facts["visual"]["views"] = list(header.views)
            videos[video_id] = {**facts, "transcript": " ".join(words)}
    return {
        "settings": provenance.get("settings", {}),
        "settings_hash": provenance.get("settings_hash", ""),
        "backbones": provenance.get("backbones", {}),
        "videos": videos,
        "damaged": [asdict(problem) for problem in damaged],
    }


def table_of(store: Store, ids: list[str]) -> pd.DataFrame:
    """See `FeatureStore.table`."""
    import pandas as pd

    rows: list[dict] = []
    for video_id in ids:
        try:
            header, (face,) = store.overview(video_id, "visual/valid")
        except DamagedError as error:
            rows.append({"failure": f"damaged: {error.problem.reason}"})
            continue
        rows.append(
            {
                "seconds": header.duration,
                "fps": header.fps,
                "frames": header.frames,
                "faces": face.mean() if len(face) else np.nan,
                "words": header.text.rows,
                **{m: getattr(header, m).status.value for m in MODALITIES},
                "failure": header.failure or "",
            }
        )
    columns = ["seconds", "fps", "frames", "faces", "words", *MODALITIES, "failure"]
    table = pd.DataFrame(rows, index=pd.Index(ids, name="id", dtype=object), columns=columns)
    return table.astype({"frames": "Int64", "words": "Int64"})
