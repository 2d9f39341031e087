"""A folder of predictions: of one run and one way to predict, so that its tables and its summary always go together."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from affuse.config import nearest
from affuse.errors import AffuseError, UsageError
from affuse.features.store import FeatureStore
from affuse.files import as_path, file_name, make_folder, write_text
from affuse.fuse.data.labels import read_track
from affuse.fuse.data.partitions import find_labels
from affuse.fuse.data.track import Track
from affuse.fuse.scoring.predict import SUMMARY, write_summary
from affuse.fuse.training.run import Run

MADE = "predicted.json"  # says by what the tables beside it were made


class Outputs:
    """What a run writes to a folder. Another call of the same adds to it, and the summary is of all; a folder of
    another run or other options is refused with a UsageError, and nothing in it is touched."""

    def __init__(self, folder: Path | str, run: Run, **options: object):
        self.folder = as_path("a folder to write to", folder)
        self.made = {"run": str(run.path), "weights": weights_digest(run), **options}
        path = self.folder / MADE
        try:
            before = json.loads(path.read_bytes()) if path.exists() else self.made
        except (OSError, ValueError) as error:
            raise AffuseError(f"{path} cannot be read: {error}. Choose another folder for --out.") from None
        differing = [n for n in {**before, **self.made} if n != "run" and before.get(n) != self.made.get(n)]
        if differing:
            shown = ["run" if name == "weights" else name for name in differing]
            told = "; ".join(f"{name}: {before.get(name)} → {self.made.get(name)}" for name in shown)
            raise UsageError(f"{self.folder} holds what was made otherwise ({told}). Choose another folder for --out.")

    def claim(self) -> None:
        """The folder is this run's from here on."""
        make_folder(self.folder)
        if not (self.folder / MADE).exists():
            write_text(self.folder / MADE, json.dumps(self.made, indent=2) + "\n")

    def summarise(self, table: pd.DataFrame) -> str:
        """Write the summary, those of earlier calls in it whose tables are still there; gives the file."""
        self.claim()
        path = self.folder / SUMMARY
        if path.exists():
            before = pd.read_csv(path, index_col="video", dtype={"video": str, "frames": "Int64"})
            kept = [video for video in before.index if video not in table.index and self._there(video)]
            table = pd.concat([before.loc[kept], table]) if kept else table
        return write_summary(self.folder, table)

    def _there(self, video: str) -> bool:
        return (self.folder / f"{file_name(video)}.csv").exists()


def weights_digest(run: Run) -> str:
    """A sha256 over the weights of all models of a run."""
    digest = hashlib.sha256()
    for model in (run.model, *(other.model for other in run.others)):
        for name, value in sorted(model.state_dict().items()):
            digest.update(name.encode())
            digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def tracks_of(labels: Path | str, store: FeatureStore, ids: Iterable[str], rate: float | None) -> dict[str, Track]:
    """Labels of those of the videos that have any, of every partition. Raises as `find_labels` and `read_track` do, and
    UsageError where there are none."""
    files = {video: path for partition in find_labels(labels).values() for video, path in partition.items()}
    known = [video for video in ids if video in files]
    if not known:
        first = next(iter(ids), "")
        raise UsageError(
            f"--labels {labels} has labels of none of the videos in {store.path}: no {first!r}{nearest(first, files)}"
        )
    return {video: read_track(files[video], rate) for video in known}
