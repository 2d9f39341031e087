"""Data sets rated all along: RECOLA, SEWA, OMG-Empathy, AFEW-VA. Each finds its recordings below a folder."""

from __future__ import annotations

import json
import re
from functools import partial
from pathlib import Path

import numpy as np

from affuse.errors import AffuseError, UsageError
from affuse.pipelines.recipes.dataset import Recording
from affuse.pipelines.recipes.ratings import Ratings
from affuse.pipelines.recipes.reading import arff, columns, lines_of, table

DIMENSIONS = ("valence", "arousal")
RATED_BY = ("ratings_individual", "individual", "emotional_behaviour")  # AVEC 2016, AVEC 2018, the public release
GOLD = "ratings_gold_standard"
AVEC = {"train": "train", "dev": "validation", "devel": "validation", "test": "test"}
SEWA = ("name", "time", "arousal", "valence", "liking")
OMG_EMPATHY = {"Training": "train", "Validation": "validation", "Testing": "test", "Test": "test"}
OMG_EMPATHY_RATE = 25  # ratings, one for every frame, a second


def recola(root: Path) -> list[Recording]:
    """RECOLA, of the AVEC challenges or as the university gives it: six raters, 25 a second, five minutes each.

        …/ratings_individual/{arousal,valence}/{train,dev}_<n>.csv     time;FM1 ;FM2 ;FM3 ;FF1 ;FF2 ;FF3
        …/ratings_gold_standard/{arousal,valence}/{train,dev}_<n>.arff @attribute Instance_name, frameTime, GoldStandard
        …/RECOLA-Annotation/emotional_behaviour/{arousal,valence}/P<n>.csv

    The layouts are as the scripts of AVEC 2016 and 2018 and public loaders read them. AVEC keeps the labels of its test
    partition. The public release has no split; nobody is recorded twice. A video is looked for by the name of its file.
    """
    raters = [folder for folder in _folders(root, "valence") if folder.parent.name in RATED_BY]
    gold = [folder for folder in _folders(root, "valence") if folder.parent.name == GOLD]
    if len(raters) > 1 or len(gold) > 1 or not (raters or gold):
        found = ", ".join(str(folder.parent) for folder in raters + gold) or "none"
        raise UsageError(
            f"Expected one folder of ratings of RECOLA ({', '.join((*RATED_BY, GOLD))}) below {root}, found {found}."
        )
    folders = tuple(found[0].parent if found else None for found in (raters, gold))
    names = sorted({p.stem for folder in raters + gold for p in folder.iterdir() if p.suffix in (".csv", ".arff")})
    return [
        Recording(name, name, (name,), partial(_recola, *folders, name), AVEC.get(name.partition("_")[0], ""))
        for name in names
    ]


def _folders(root: Path, name: str) -> list[Path]:
    return sorted(path for path in root.rglob(name) if path.is_dir())


def _recola(raters: Path | None, gold: Path | None, name: str) -> Ratings:
    """Each dimension is a file of its own, with a clock of its own."""
    said = {d: (p := raters / d / f"{name}.csv", table(p, ";")) for d in DIMENSIONS} if raters else {}
    golden = {d: (p := gold / d / f"{name}.arff", arff(p)) for d in DIMENSIONS} if gold else {}
    clocks = [columns(*file, ["time"]) for file in said.values()] + [
        columns(*f, ["frameTime"]) for f in golden.values()
    ]
    path, rows = next(iter((said or golden).values()))
    if any(len(clock) != len(rows) or np.abs(clock - clocks[0]).max() > 1e-3 for clock in clocks):
        raise AffuseError(f"{path}: valence, arousal and gold standard of {name} are not of the same moments.")
    people = [column for column in rows[0][1] if column != "time"] if said else []
    return Ratings(
        path,
        DIMENSIONS,
        [line for line, _ in rows],
        np.hstack([columns(*file, ["GoldStandard"]) for file in golden.values()]) if golden else None,
        {who: np.hstack([columns(*file, [who]) for file in said.values()]) for who in people},
        clocks[0][:, 0],
    )


def sewa(root: Path) -> list[Recording]:
    """SEWA as the AVEC challenges of 2017 to 2019 give it: a gold standard ten times a second.

        …/labels/{Train,Devel}_[DE_|HU_]<n>.csv     'Train_DE_01';0.1;<arousal>;<valence>;<liking>

    As the baseline scripts of AVEC 2018 (no header) and 2019 (a header) read it; where a file has one, its columns
    `arousal`, `valence` and `liking` are taken by name. The single raters of the SEWA database itself are not read: its
    layout could not be verified. Partitions are the challenge's, disjoint in speakers; a recording is of one of them.
    """
    found = sorted(path for path in root.rglob("*.csv") if re.fullmatch(r"(Train|Devel|Test)_\w+", path.stem))
    paths = [path for path in found if path.parent.name == "labels"]
    if not paths:
        raise UsageError(f"No folder labels with Train_….csv and Devel_….csv of SEWA below {root}.")
    return [
        Recording(p.stem, p.stem, (p.stem,), partial(_sewa, p), AVEC[p.stem.partition("_")[0].lower()]) for p in paths
    ]


def _sewa(path: Path) -> Ratings:
    named = "arousal" in next(iter(lines_of(path)), "")
    rows = table(path, ";", None if named else SEWA)
    targets = ("valence", "arousal", "liking")
    values = columns(path, rows, targets)
    clock = list(rows[0][1])[1]  # named differently
    return Ratings(path, targets, [line for line, _ in rows], values, time=columns(path, rows, [clock])[:, 0])


def omg_empathy(root: Path) -> list[Recording]:
    """OMG-Empathy: what ten listeners felt while each was told eight stories, valence of every frame.

        …/{Training,Validation,Testing}/Annotations/Subject_<n>_Story_<m>.csv     valence
        …/Subject_<n>_Story_<m>.mp4

    The names and the header are the challenge's README's, the folders as its participants read them; 25 frames a second
    could not be verified there. The split is by story, so that every listener is in all partitions, as the challenge
    wants; `--split subject` keeps listeners apart instead.
    """
    found = []
    for path in sorted(root.rglob("Subject_*_Story_*.csv")):
        partition = next(
            (OMG_EMPATHY[name] for name in reversed(path.relative_to(root).parts) if name in OMG_EMPATHY), None
        )
        if partition:
            subject = path.stem.rpartition("_Story_")[0]
            found.append(Recording(path.stem, subject, (path.stem,), partial(_omg_empathy, path), partition))
    if not found:
        raise UsageError(f"No {'/, '.join(OMG_EMPATHY)}/ with Subject_<n>_Story_<m>.csv of OMG-Empathy below {root}.")
    return found


def _omg_empathy(path: Path) -> Ratings:
    rows = table(path)
    time = np.arange(len(rows)) / OMG_EMPATHY_RATE
    return Ratings(path, ("valence",), [line for line, _ in rows], columns(path, rows, ["valence"]), time=time)


def afew_va(root: Path) -> list[Recording]:
    """AFEW-VA: short clips of films, a rating of every frame, whole numbers from −10 to 10.

        …/<nnn>/<nnn>.json   {"actor": …, "frames": {"00000": {"arousal": …, "valence": …, "landmarks": …}, …}, …}
        …/<nnn>/00000.png …

    As the release's README has it. There is no official split: folds keep the clips of an actor together.
    """
    paths = [path for path in sorted(root.rglob("*.json")) if path.stem == path.parent.name and path.stem.isdigit()]
    if not paths:
        raise UsageError(f"No <nnn>/<nnn>.json of AFEW-VA below {root}.")
    return [Recording(p.stem, _actor(p), (p.stem,), partial(_afew_va, p)) for p in paths]


def _json(path: Path) -> dict:
    try:
        found = json.loads("\n".join(lines_of(path)))
    except ValueError as error:
        raise AffuseError(f"{path} is not JSON: {error}. Unpack it again.") from None
    if not isinstance(found, dict) or not isinstance(found.get("frames"), dict) or not found["frames"]:
        raise AffuseError(f"{path} has no frames. Take the file as it was released.")
    return found


def _actor(path: Path) -> str:
    """Where the file cannot be read, nobody else's clip is his; `_afew_va` says why."""
    try:
        return str(_json(path).get("actor") or path.stem)
    except AffuseError:
        return path.stem


def _afew_va(path: Path) -> Ratings:
    frames = _json(path)["frames"]
    place = {frame: n for n, said in enumerate(lines_of(path), start=1) for frame in re.findall(r'"(\d+)"\s*:', said)}
    values, lines = [], []
    for frame in sorted(frames):
        line = place.get(frame, 1)
        rated = frames[frame] if isinstance(frames[frame], dict) else {}
        pair = [rated.get(d) for d in DIMENSIONS]
        if not all(isinstance(value, int | float) and not isinstance(value, bool) for value in pair):
            raise AffuseError(
                f"{path}, line {line}: frame {frame} has valence {pair[0]!r} and arousal {pair[1]!r}, not two numbers."
            )
        values.append(pair)
        lines.append(line)
    return Ratings(path, DIMENSIONS, lines, np.array(values, float))
