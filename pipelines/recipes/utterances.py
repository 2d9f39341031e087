"""Data sets rated by the utterance: OMG-Emotion, IEMOCAP, MSP-IMPROV, MSP-Podcast, CMU-MOSEI."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from affuse.errors import AffuseError, UsageError
from affuse.pipelines.recipes.dataset import Recording
from affuse.pipelines.recipes.ratings import Ratings
from affuse.pipelines.recipes.reading import columns, lines_of, number, table

VAD = ("valence", "arousal", "dominance")
OMG_EMOTION = {
    "train": "omg_TrainVideos.csv",
    "validation": "omg_ValidationVideos.csv",
    "test": "omg_TestVideos_WithLabels.csv",
}
TURN = re.compile(r"\[([\d.]+) - ([\d.]+)\]\t(Ses(\d\d)\w+_([FM])\w*)\t\w+\t\[([\d.]+), ([\d.]+), ([\d.]+)\]")
RATED = re.compile(r"A-([EFM]\d):\s*val\s*([\d.]*);\s*act\s*([\d.]*);\s*dom\s*([\d.]*);.*")
IMPROV = re.compile(
    r"UTD-IMPROV-(S(\d\d)[AHSN]-([FM](\d\d))-[A-Z]-\w+)\.avi; ?\w; ?A:(\S+) ?; ?V:(\S+) ?; ?D:(\S+) ?;.*"
)
RATER = re.compile(r"([\w-]+);.*; ?A:([^;]+); ?V:([^;]+); ?D:([^;]+);.*")
PODCAST = {"Train": "train", "Development": "validation", "Test1": "test"}
MOSEI = ("sentiment", "happy", "sad", "anger", "surprise", "disgust", "fear")
MOSEI_FOLDS = {"train": "standard_train_fold", "validation": "standard_valid_fold", "test": "standard_test_fold"}


def the_file(root: Path, name: str, of: str) -> Path:
    """The one file of that name below `root`. Raises UsageError where there is none, or more."""
    found = sorted(root.rglob(name))
    if len(found) != 1:
        raise UsageError(f"Expected one {name} of {of} below {root}, found {', '.join(map(str, found)) or 'none'}.")
    return found[0]


def fixed(ratings: Ratings) -> Callable[[], Ratings]:
    """A reader of what is in memory already, since one file has it all."""
    return lambda: ratings


def omg_emotion(root: Path) -> list[Recording]:
    """OMG-Emotion: monologues of YouTube, a gold standard of each utterance.

        …/{omg_TrainVideos,omg_ValidationVideos,omg_TestVideos_WithLabels}.csv
            link,start,end,video,utterance,arousal,valence,EmotionMaxVote
        …/<video>.mp4     whole, as `prepare_data.py` leaves it in youtube_videos_temp

    As the challenge's repository has it. Start and end are seconds of the whole video, which is what is read: of
    utterances cut to files nothing would move within one. DetailedAnnotation, the single raters, is not read: its
    folders in the repository contradict each other. Who speaks is not said, so each video counts as a speaker.
    """
    the_file(root, OMG_EMOTION["train"], "OMG-Emotion")
    found = []
    for partition, name in OMG_EMOTION.items():
        for path in sorted(root.rglob(name)):
            rows = table(path)
            numbers = columns(path, rows, ["start", "end", "valence", "arousal"])
            for video, own in _grouped(row["video"] for _, row in rows).items():
                start, end, *rated = numbers[own].T
                lines = [rows[i][0] for i in own]
                ratings = Ratings(path, VAD[:2], lines, np.column_stack(rated), time=start, end=end)
                found.append(Recording(video, video, (video,), fixed(ratings), partition))
    return found


def _grouped(keys: Iterable) -> dict:
    """{key: rows}, in order."""
    groups = defaultdict(list)
    for row, key in enumerate(keys):
        groups[key].append(row)
    return dict(groups)


def iemocap(root: Path) -> list[Recording]:
    """IEMOCAP: ten actors in five sessions of two, turns rated from 1 to 5.

        …/Session<n>/dialog/EmoEvaluation/Ses01F_impro01.txt
            [6.2901 - 8.2357]<tab>Ses01F_impro01_F000<tab>neu<tab>[2.5000, 2.5000, 2.5000]   val, act, dom
            A-E3:<tab>val 3; act 2; dom  2;<tab>()               a rater; A-F1 and A-M1 are the speakers themselves
        …/Session<n>/dialog/avi/…/Ses01F_impro01.avi

    As the release's README and its loaders have it. Two people speak in turns, also at once, so that each has a
    recording of his own in the same film, `Ses01F_impro01_F`. Which half of the picture is whose could not be verified:
    the face that is followed is that of `--face`, for both. No official split: folds are the sessions.
    """
    paths = [p for p in sorted(root.rglob("Ses*.txt")) if p.parent.name == "EmoEvaluation"]
    if not paths:
        raise UsageError(f"No Session<n>/dialog/EmoEvaluation/Ses….txt of IEMOCAP below {root}.")
    return [recording for path in paths for recording in _dialogue(path)]


def _dialogue(path: Path) -> list[Recording]:
    turns: list[tuple] = []
    said: list[dict[str, list[float]]] = []
    for line, text in enumerate(lines_of(path), start=1):
        if turn := TURN.match(text):
            turns.append((line, turn[4], turn[5], *(number(path, line, "turn", turn[k]) for k in (1, 2, 6, 7, 8))))
            said.append({})
        elif (rated := RATED.match(text)) and said:
            if rated[1][0] == "E":
                said[-1][rated[1]] = [number(path, line, "rating", value) for value in rated.group(2, 3, 4)]
        elif text.startswith(("[", "A-")):
            raise AffuseError(f"{path}, line {line}: {text!r} is neither a turn nor a rating of IEMOCAP.")
    if not turns:
        raise AffuseError(f"{path} has no turns. Unpack it again.")
    found = []
    for (session, speaker), own in _grouped((turn[1], turn[2]) for turn in turns).items():
        numbers = np.array([turns[i][3:] for i in own])
        who = sorted({name for i in own for name in said[i]})
        raters = {name: np.array([said[i].get(name, [np.nan] * 3) for i in own]) for name in who}
        lines = [turns[i][0] for i in own]
        ratings = Ratings(path, VAD, lines, numbers[:, 2:], raters, numbers[:, 0], numbers[:, 1])
        name = f"{path.stem}_{speaker}"
        found.append(
            Recording(name, f"Ses{session}{speaker}", (path.stem,), fixed(ratings), fold=f"Session{int(session)}")
        )
    return found


def msp_improv(root: Path) -> list[Recording]:
    """MSP-IMPROV: twelve actors in six sessions of two, turns rated from 1 to 5.

        …/Evaluation.txt
            UTD-IMPROV-S01A-F01-P-FM01.avi; N; A:2.800000; V:3.000000; D:3.200000 ; N:3.400000;
            <rater>; Neutral; <more>; A:3.000000; V:3.000000; D:NaN; N:4.000000;
        …/session<n>/S01A/P/MSP-IMPROV-S01A-F01-P-FM01.avi

    As public loaders read it. A turn is a file; those of one speaker about one sentence are put together, `F01/S01`. No
    official split: folds are the sessions.
    """
    path = the_file(root, "Evaluation.txt", "MSP-IMPROV")
    turns: list[tuple] = []
    said: list[dict[str, list[float]]] = []
    for line, text in enumerate(map(str.strip, lines_of(path)), start=1):
        if turn := IMPROV.fullmatch(text):
            arousal, valence, dominance = (number(path, line, "rating", value) for value in turn.group(5, 6, 7))
            turns.append((line, *turn.group(1, 2, 3, 4), [valence, arousal, dominance]))
            said.append({})
        elif (rated := RATER.fullmatch(text)) and said and not text.startswith("UTD-"):
            arousal, valence, dominance = (number(path, line, "rating", value) for value in rated.group(2, 3, 4))
            said[-1][rated[1]] = [valence, arousal, dominance]
        elif text.startswith("UTD-") or "; A:" in text:
            raise AffuseError(f"{path}, line {line}: {text!r} is neither a turn nor a rating of MSP-IMPROV.")
    if not turns:
        raise AffuseError(f"{path} has no turns. Unpack it again.")
    found = []
    for (sentence, speaker, session), own in _grouped(turn[2:5] for turn in turns).items():
        media = tuple(f"MSP-IMPROV-{turns[i][1]}" for i in own)
        ratings = _parts(path, [turns[i][0] for i in own], [turns[i][5] for i in own], [said[i] for i in own])
        found.append(
            Recording(
                f"{speaker}/S{sentence}", speaker, media, fixed(ratings), fold=f"session{int(session)}", apart=True
            )
        )
    return found


def _parts(path: Path, lines: list[int], gold: list, said: list[dict[str, list[float]]]) -> Ratings:
    """A row for each part of a recording."""
    who = sorted({name for own in said for name in own})
    raters = {name: np.array([own.get(name, [np.nan] * len(VAD)) for own in said]) for name in who}
    return Ratings(path, VAD, lines, np.array(gold, float), raters)


def msp_podcast(root: Path) -> list[Recording]:
    """MSP-Podcast: speaking turns of podcasts, sound only, rated from 1 to 7 by five or more.

        …/Labels/labels_consensus.csv   FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set
        …/Labels/labels_detailed.csv    FileName, "WORKER…; Angry; …; A:4.0; V:3.0; D:4.0;"     may be missing
        …/Audios/MSP-PODCAST_0001_0008.wav

    As public loaders read it; names of columns may differ between releases. A turn is a file; those of one speaker in
    one podcast are put together, `MSP-PODCAST_0001/30`. Train, Development and Test1 are train, validation and test;
    Test2 and Test3, which share speakers with Test1, are left out.
    """
    path = the_file(root, "labels_consensus.csv", "MSP-Podcast")
    rows = table(path)
    numbers = columns(path, rows, ["EmoVal", "EmoAct", "EmoDom"])
    for name in ("FileName", "SpkrID", "Split_Set"):
        if name not in rows[0][1]:
            raise AffuseError(f"{path}, line 1: no column {name!r} among {', '.join(rows[0][1])}.")
    workers = _workers(path.with_name("labels_detailed.csv"))
    files = [Path(row["FileName"]).stem for _, row in rows]
    keys = (
        (row["Split_Set"], name.rpartition("_")[0], row["SpkrID"]) for (_, row), name in zip(rows, files, strict=True)
    )
    found = []
    for (part, podcast, speaker), own in _grouped(keys).items():
        if part in PODCAST:
            ratings = _parts(path, [rows[i][0] for i in own], numbers[own], [workers.get(files[i], {}) for i in own])
            subject = speaker if speaker.lower() != "unknown" else f"{podcast}/{speaker}"
            media = tuple(files[i] for i in own)
            found.append(Recording(f"{podcast}/{speaker}", subject, media, fixed(ratings), PODCAST[part], apart=True))
    return found


def _workers(path: Path) -> dict[str, dict[str, list[float]]]:
    """{file: {rater: [valence, arousal, dominance]}}"""
    found: dict[str, dict[str, list[float]]] = defaultdict(dict)
    for line, row in table(path) if path.is_file() else ():
        name, detail, *_ = row.values()
        rated = RATER.fullmatch(detail)
        if rated is None:
            raise AffuseError(f"{path}, line {line}: {detail!r} is no rating of MSP-Podcast.")
        arousal, valence, dominance = (number(path, line, "rating", value) for value in rated.group(2, 3, 4))
        found[Path(name).stem][rated[1]] = [valence, arousal, dominance]
    return found


def mosei(root: Path) -> list[Recording]:
    """CMU-MOSEI: opinions on YouTube, sentiment from −3 to 3 and six emotions from 0 to 3 of each sentence.

        …/CMU_MOSEI_Labels.csd      HDF5: All Labels/data/<video>/{features (sentences, 7), intervals (sentences, 2)}
        …/cmu_mosei_std_folds.py    the official split, of CMU-MultimodalSDK; without it, folds of videos
        …/Raw/Videos/Full/Combined/<video>.mp4

    The order of the seven is that of the SDK's README. Videos in none of its lists are left out. Who speaks is not
    said, so each video counts as a speaker.
    """
    path = the_file(root, "CMU_MOSEI_Labels.csd", "CMU-MOSEI")
    folds = sorted(root.rglob("cmu_mosei_std_folds.py"))
    partition = _standard_folds(folds[0]) if folds else {}
    try:
        with h5py.File(path) as file:
            names = list(file["All Labels/data"])
    except (OSError, KeyError) as error:
        raise AffuseError(f"{path} cannot be read as the labels of CMU-MOSEI: {error}. Fetch it again.") from None
    kept = [name for name in names if name in partition] if folds else names
    return [Recording(v, v, (v,), partial(_mosei, path, v), partition.get(v, "")) for v in kept]


def _standard_folds(path: Path) -> dict[str, str]:
    """{video: partition}, of lists that are read and not run."""
    try:
        tree = ast.parse("\n".join(lines_of(path)))
        lists = {
            node.targets[0].id: ast.literal_eval(node.value)
            for node in tree.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }
        return {video: part for part, name in MOSEI_FOLDS.items() for video in lists[name]}
    except (SyntaxError, ValueError, KeyError) as error:
        raise AffuseError(f"{path} does not hold the lists {', '.join(MOSEI_FOLDS.values())}: {error}.") from None


def _mosei(path: Path, video: str) -> Ratings:
    try:
        with h5py.File(path) as file:
            data = file[f"All Labels/data/{video}"]
            values, spans = np.array(data["features"], float), np.array(data["intervals"], float)
    except (OSError, KeyError, ValueError) as error:
        raise AffuseError(f"{path}, video {video}: {error}. Fetch it again.") from None
    if values.shape != (len(spans), len(MOSEI)) or spans.shape[1:] != (2,):
        raise AffuseError(f"{path}, video {video}: features {values.shape} and intervals {spans.shape} do not fit.")
    return Ratings(path, MOSEI, range(1, len(spans) + 1), values, time=spans[:, 0], end=spans[:, 1])
