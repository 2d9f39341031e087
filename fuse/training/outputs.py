"""A folder of predictions: of one run and one way to predict, so that its tables and its summary always go together."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pandas as pd

from affuse.config import nearest
from affuse.errors import AffuseError, UsageError, first_line, listed
from affuse.features.contents import is_store
from affuse.features.store import FeatureStore
from affuse.files import as_path, file_name, make_folder, write_text
from affuse.fuse.data.labels import read_track
from affuse.fuse.data.partitions import find_labels
from affuse.fuse.data.track import Track
from affuse.fuse.scoring.predict import SUMMARY, write_summary
from affuse.fuse.training.checkpoint import RunFolder
from affuse.fuse.training.run import Run

log = logging.getLogger("affuse")

MADE = "predicted.json"  # says by what the tables beside it were made
ENDINGS = {"csv": ".csv", "figure": ".png", "vtt": ".vtt", "video": "-annotated.mp4"}  # of a video's files
BESIDE = ("vtt", "video")  # made on request


class Outputs:
    """What a run writes to a folder. Another call of the same adds to it, and the summary is of all; a folder of
    another run or other options, or within a run or a store, is refused with a UsageError, and nothing in it is
    touched."""

    def __init__(self, folder: Path | str, run: Run, **options: object):
        self.folder = as_path("a folder to write to", folder)
        check_apart(self.folder, run)
        self.made = {"run": str(run.path), "weights": weights_digest(run), "untrained": run.provenance.untrained}
        self.made |= options
        self.removed: list[Path] = []  # tracks and films of an earlier call
        path = self.folder / MADE
        self.begun = path.exists()
        try:
            before = json.loads(path.read_bytes()) if self.begun else self.made
        except (OSError, ValueError) as error:
            raise AffuseError(f"{path} cannot be read: {error}. Choose another folder for --out.") from None
        given = [n for n in {**before, **self.made} if n != "run"]
        differing = [n for n in given if (before.get(n) or None) != (self.made.get(n) or None)]
        if differing:
            shown = ["run" if name == "weights" else name for name in differing]
            told = "; ".join(f"{name}: {before.get(name)} → {self.made.get(name)}" for name in shown)
            raise UsageError(f"{self.folder} holds what was made otherwise ({told}). Choose another folder for --out.")

    def claim(self) -> None:
        """The folder is this run's from here on."""
        make_folder(self.folder)
        if not (self.folder / MADE).exists():
            write_text(self.folder / MADE, json.dumps(self.made, indent=2) + "\n")

    def forget(self, failed: Iterable[str]) -> None:
        """Remove what an earlier call has left of videos that have failed now, and which would pass for new."""
        for video in failed if self.begun else ():
            for kind in ENDINGS:
                self.file(video, kind).unlink(missing_ok=True)

    def renew(self, video: str, table: str) -> None:
        """Before a video's table is written: where an earlier one said otherwise, remove what is beside it, which shows
        what it said."""
        file = self.file(video, "csv")
        if self.begun and not (file.exists() and file.read_bytes() == table.encode()):
            beside = [self.file(video, kind) for kind in BESIDE]
            self.removed += [path for path in beside if path.exists()]
            self.forget([video])

    def say_removed(self) -> None:
        """Warn of what `renew` has removed, and no one has made anew."""
        if gone := [path.name for path in self.removed if not path.exists()]:
            log.warning(
                "the values have changed; what showed the earlier ones is removed: %s. `affuse predict` with --vtt and "
                "--video makes it anew",
                listed(gone),
            )

    def summarise(self, table: pd.DataFrame) -> str:
        """Write the summary, in it also what failed in earlier calls, and those of their videos whose tables are still
        there; gives the file."""
        self.claim()
        if self.begun:
            old = self._earlier()
            holds = [video not in table.index and self._holds(video, why) for video, why in old["failure"].items()]
            old = old.loc[np.array(holds, bool)]
            table = pd.concat([old, table]) if len(old) else table
        return write_summary(self.folder, table)

    def _earlier(self) -> pd.DataFrame:
        """The summary of earlier calls. Raises AffuseError where it cannot be read."""
        path, types = self.folder / SUMMARY, {"video": str, "frames": "Int64", "failure": str}
        try:
            return pd.read_csv(path, dtype=types, keep_default_na=False, na_values=[""]).set_index("video")
        except FileNotFoundError:
            return pd.DataFrame({"video": [], "failure": []}).set_index("video")
        except (OSError, LookupError, ValueError) as error:
            raise AffuseError(f"{path} cannot be read: {first_line(error)}. Choose another folder for --out.") from None

    def _holds(self, video: str, failure: object) -> bool:
        """Whether an earlier call's row of a video still holds."""
        return isinstance(failure, str) or self.file(video, "csv").exists()

    def file(self, video: str, kind: str) -> Path:
        """Where a file of a video is put, of a kind in ENDINGS."""
        return self.folder / f"{file_name(video)}{ENDINGS[kind]}"


def check_apart(folder: Path, run: Run) -> None:
    """Raise UsageError for a folder in a store or a run, but for the place that `run` has for predictions."""
    here = folder.resolve()
    if here == RunFolder(run.path.resolve()).predictions:
        return
    for place in (here, *here.parents):
        there = RunFolder(place)
        if there.ensemble.exists() or (there.config.exists() and (there.model.exists() or there.checkpoint.exists())):
            kind = "run"
        elif is_store(place):
            kind = "store"
        else:
            continue
        where = "is" if place == here else f"lies in {place},"
        raise UsageError(
            f"{folder} {where} a {kind}, to which predictions do not belong. Choose another folder for --out."
        )


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
