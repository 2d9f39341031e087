"""Miniature copies of data sets in the layouts of their releases, whose labels the features of `store_of` fit."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
import soundfile
from PIL import Image

import tiny
from affuse.features import FeatureStore
from media import plain_frames, tone, write_media

FRAMES = 60
SECONDS = FRAMES / tiny.FPS
Truth = dict[str, np.ndarray]  # of every file: valence and arousal (frames, 2), in [−1, 1]


@cache
def _truth(name: str, seed: int, frames: int) -> np.ndarray:
    return tiny.make_video(name, frames, seed)[1].round(4)


def truth_of(names: list[str], frames: int = FRAMES) -> Truth:
    return {name: _truth(name, seed, frames) for seed, name in enumerate(names)}


def store_of(folder: Path, names: list[str], frames: int = FRAMES) -> FeatureStore:
    store = FeatureStore(folder, create=True)
    for seed, name in enumerate(names):
        store.write(tiny.make_video(name, frames, seed)[0], tiny.provenance())
    return store


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@cache
def _film() -> bytes:
    with TemporaryDirectory() as folder:
        return write_media(Path(folder) / "film.mkv", plain_frames(4, (32, 32)), 25, tone(0.16)).read_bytes()


def film(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_film())


def sound(path: Path, seconds: float = 0.5) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, tone(seconds), 16_000)


def scaled(value: float, low: float, high: float) -> float:
    return low + (value + 1) * (high - low) / 2


RATERS = ("FM1", "FM2", "FM3", "FF1", "FF2", "FF3")


def recola(root: Path) -> list[str]:
    names = ["train_1", "train_2", "train_3", "dev_1", "dev_2"]
    shift = np.linspace(-0.1, 0.1, len(RATERS))
    for name, truth in truth_of(names).items():
        for column, d in enumerate(("valence", "arousal")):
            time = np.arange(FRAMES) * 0.04
            rated = np.clip(truth[:, column, None] + shift, -1, 1)
            rows = [";".join(f"{v:.6g}" for v in (t, *own)) for t, own in zip(time, rated, strict=True)]
            write(
                root / "AVEC_2016/ratings_individual" / d / f"{name}.csv",
                "time;" + " ;".join(RATERS) + " ", *rows,
            )  # fmt: skip
            write(
                root / "AVEC_2016/ratings_gold_standard" / d / f"{name}.arff",
                "@relation GOLDSTANDARD", "", "@attribute Instance_name string", "@attribute frameTime numeric",
                "@attribute GoldStandard numeric", "", "@data", "",
                *(f"{name},{t:.6g},{v / 2:.6g}" for t, v in zip(time, truth[:, column], strict=True)),
            )  # fmt: skip
        film(root / "AVEC_2016/recordings_video" / f"{name}.mp4")
    return names


def recola_public(root: Path) -> list[str]:
    names = ["P16", "P17", "P19"]
    for name, truth in truth_of(names).items():
        for column, d in enumerate(("valence", "arousal")):
            rows = [f"{i * 0.04:.2f};{v:.4f};{-v:.4f}" for i, v in enumerate(truth[:, column])]
            write(root / "RECOLA-Annotation/emotional_behaviour" / d / f"{name}.csv", "time;FM1 ;FM2 ", *rows)
    return names


def sewa(root: Path) -> list[str]:
    names = ["Train_DE_01", "Train_DE_02", "Train_HU_01", "Devel_DE_01", "Devel_HU_01"]
    for name, truth in truth_of(names).items():
        head = ["name;timeStamp;arousal;valence;liking"] if "HU" in name else []  # both kinds were released
        times = np.arange(0, SECONDS - 0.05, 0.1)
        rows = [f"'{name}';{t:.1f};{a};{v};0.5" for t in times for v, a in [truth[round(t * tiny.FPS)]]]
        write(root / "labels" / f"{name}.csv", *head, *rows)
        film(root / "video" / f"{name}.mp4")
    return names


def omg_emotion(root: Path) -> list[str]:
    files = {"Train": ["aaa", "bbb", "ccc"], "Validation": ["ddd", "eee"], "Test": ["fff"]}
    truth = truth_of([name for names in files.values() for name in names])
    for part, names in files.items():
        rows = ["link,start,end,video,utterance,arousal,valence,EmotionMaxVote"]
        for name in names:
            for k in range(4):
                valence, arousal = truth[name][15 * k + 7]
                start, end = 0.6 * k, 0.6 * k + 0.62  # the next one begins before this one ends
                rows.append(
                    f"https://x/{name},{start},{end},{name},utterance_{k + 1}.mp4,{arousal},{valence},4"
                )
            film(root / "youtube_videos_temp" / f"{name}.mp4")
        write(root / f"omg_{part}Videos{'_WithLabels' * (part == 'Test')}.csv", *rows)
    return list(truth)


def omg_empathy(root: Path) -> list[str]:
    stories = {"Training": 2, "Validation": 1, "Testing": 3}
    names = {f"Subject_{s}_Story_{n}": part for part, n in stories.items() for s in (1, 2, 3)}
    for name, truth in truth_of(list(names)).items():
        write(
            root / names[name] / "Annotations" / f"{name}.csv", "valence", *(f"{v:.4f}" for v in truth[:, 0])
        )
        film(root / names[name] / "Videos" / f"{name}.mp4")
    return list(names)


def afew_va(root: Path, frames: int = FRAMES) -> list[str]:
    names = ["001", "002", "003", "004", "005", "006"]
    for name, truth in truth_of(names, frames).items():
        rated = {
            f"{i:05d}": {"arousal": round(10 * a), "landmarks": [[0.5, 1.5]] * 68, "valence": round(10 * v)}
            for i, (v, a) in enumerate(truth)
        }
        facts = {"actor": f"Actor {int(name) % 3}, Jr.", "frames": rated, "video_id": name}
        write(root / name / f"{name}.json", json.dumps(facts, indent=1))
        for i in range(frames if frames < FRAMES else 1):
            Image.new("RGB", (33, 25), (40 * i % 255, 90, 60)).save(root / name / f"{i:05d}.png")
    return names


def iemocap(root: Path) -> list[str]:
    dialogues = {f"Ses0{s}{who}_impro01": s for s in (1, 2) for who in "FM"}
    names = [f"{dialogue}_{who}" for dialogue in dialogues for who in "FM"]
    truth = truth_of(names)
    for dialogue, session in dialogues.items():
        lines = ["% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]", ""]
        for k in range(6):
            who = "FM"[k % 2]
            v, a = (scaled(x, 1, 5) for x in truth[f"{dialogue}_{who}"][10 * k + 5])
            lines += [
                f"[{0.4 * k:.4f} - {0.4 * k + 0.4:.4f}]\t{dialogue}_{who}{k:03d}\tneu\t[{v:.4f}, {a:.4f}, 3.0000]",
                "C-E2:\tNeutral;\t()",
                "C-F1:\tNeutral;\t(curious)",
                f"A-E3:\tval {round(v)}; act {round(a)}; dom  2;\t()",
                f"A-E4:\tval {max(1, round(v) - 1)}; act {round(a)}; dom  ;\t(calm, quiet)",
                f"A-{who}1:\tval 5; act 5; dom  5;\t()",
                "",
            ]
        write(root / f"Session{session}/dialog/EmoEvaluation/{dialogue}.txt", *lines)
        write(
            root / f"Session{session}/dialog/EmoEvaluation/Attribute/{dialogue}_e3_atr.txt",
            f"{dialogue}_F000 :act 4;",
        )
        film(root / f"Session{session}/dialog/avi/DivX/{dialogue}.avi")
        sound(root / f"Session{session}/dialog/wav/{dialogue}.wav")
    return names


def msp_improv(root: Path) -> list[str]:
    turns = [
        f"S01{emotion}-{who}0{session}-P-FM0{k}"
        for session in (1, 2)
        for who in "FM"
        for k, emotion in enumerate("AHN")
    ]
    lines = []
    for turn, truth in truth_of([f"MSP-IMPROV-{turn}" for turn in turns], 24).items():
        v, a = (scaled(x, 1, 5) for x in truth[12])
        short = turn.removeprefix("MSP-IMPROV-")
        lines += [
            f"UTD-IMPROV-{short}.avi; N; A:{a:.6f}; V:{v:.6f}; D:NaN ; N:4.000000;",
            f"A1B2_x; Neutral; Calm,Other (fine); A:{a:.6f}; V:{v:.6f}; D:NaN; N:4.000000;",
            f"A9-z; Happy; ; A:{min(5, a + 0.5):.6f}; V:{v:.6f}; D:3.000000; N:4.000000;",
            "",
        ]
        film(root / f"session{short[7]}" / short[:4] / "P" / f"MSP-IMPROV-{short}.avi")
    write(root / "Evaluation.txt", *lines)
    return [f"MSP-IMPROV-{turn}" for turn in turns]


def msp_podcast(root: Path, turns: int = 4) -> list[str]:
    parts = {"0001": ("Train", "30"), "0002": ("Train", "Unknown"), "0003": ("Development", "31"),
             "0004": ("Test1", "32"), "0005": ("Test2", "32")}  # fmt: skip
    names = [f"MSP-PODCAST_{podcast}_000{k}" for podcast in parts for k in range(1, turns + 1)]
    consensus = ["FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"]
    detailed = ["FileName,Annotation"]
    for name, truth in truth_of(names, 24).items():
        part, speaker = parts[name.split("_")[1]]
        v, a = (scaled(x, 1, 7) for x in truth[12])
        consensus.append(f"{name}.wav,N,{a:.4f},{v:.4f},4.0,{speaker},Male,{part}")
        detailed += [
            f'{name}.wav,"WORKER1; Neutral; Calm,Happy; A:{a:.6f}; V:{v:.6f}; D:4.000000;"',
            f'{name}.wav,"WORKER2; Happy; A:{max(1, a - 1):.6f}; V:{v:.6f}; D:5.000000;"',
        ]
        sound(root / "Audios" / f"{name}.wav")
    write(root / "Labels/labels_consensus.csv", *consensus)
    write(root / "Labels/labels_detailed.csv", *detailed)
    return names


def mosei(root: Path) -> list[str]:
    folds = {"train": ["v1", "v2", "v3"], "valid": ["v4", "v5"], "test": ["v6"]}
    names = [name for own in folds.values() for name in own]
    root.mkdir(parents=True, exist_ok=True)
    with h5py.File(root / "CMU_MOSEI_Labels.csd", "w") as file:
        for name, truth in truth_of(names).items():
            start = np.arange(4) * 0.6
            order = [2, 0, 1, 3]  # the release does not sort them
            data = file.create_group(f"All Labels/data/{name}")
            rated = np.full((4, 7), 1.5)
            rated[:, 0] = 3 * truth[[7, 22, 37, 52], 0]
            data["features"], data["intervals"] = (
                rated[order],
                np.column_stack([start, start + 0.6])[order],
            )
            film(root / "Raw/Videos/Full/Combined" / f"{name}.mp4")
        file.create_group("All Labels/data/of_no_fold")
    write(
        root / "cmu_mosei_std_folds.py",
        *(f"standard_{part}_fold={own!r}" for part, own in folds.items()),
    )
    return names


LAYOUTS: dict[str, Callable[[Path], list[str]]] = {
    "recola": recola, "sewa": sewa, "omg-emotion": omg_emotion, "omg-empathy": omg_empathy, "afew-va": afew_va,
    "iemocap": iemocap, "msp-improv": msp_improv, "msp-podcast": msp_podcast, "cmu-mosei": mosei,
}  # fmt: skip
SHORT = ("msp-improv", "msp-podcast")  # whose files are utterances, of 24 frames
KNOWN = {  # how many there are of each in miniature
    "recola": {"train": 3, "validation": 2},
    "sewa": {"train": 3, "validation": 2},
    "omg-emotion": {"train": 3, "validation": 2, "test": 1, "utterances": 24},
    "omg-empathy": {"train": 3, "validation": 3, "test": 3, "subjects": 3},
    "afew-va": {"recordings": 6, "subjects": 3},
    "iemocap": {"recordings": 8, "subjects": 4, "utterances": 24},
    "msp-improv": {"recordings": 4, "subjects": 4, "utterances": 12},
    "msp-podcast": {"train": 2, "validation": 1, "test": 1, "utterances": 16},
    "cmu-mosei": {"train": 3, "validation": 2, "test": 1, "utterances": 24},
}


def make_all(tmp_path_factory) -> dict[str, tuple]:
    """{data set: its folder, what its files are called}"""
    made = {}
    for name, make in LAYOUTS.items():
        root = tmp_path_factory.mktemp("data") / name
        made[name] = root, make(root)
    return made
