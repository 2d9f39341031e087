"""A small store and its labels, made in a moment: what the tests of training, runs and evaluation work on.

Valence lies in the visual features, arousal in the audio, half of each in the text, all under noise.
"""

import shutil
from pathlib import Path

import numpy as np

from affuse.features import (
    AudioFeatures,
    Backbone,
    FeatureStore,
    Provenance,
    Source,
    Status,
    TextFeatures,
    VideoFeatures,
    VisualFeatures,
)
from affuse.features.record import settings_hash
from affuse.fuse import train_settings

WIDTHS = {"visual": 12, "audio": 6, "text": 8}
FPS = 25.0
SMALL = {  # settings under which an epoch takes some hundredths of a second
    "preset": "released",
    "channels": {"visual": [8, 8], "audio": [6, 6], "text": [8, 8]},
    "window": 32,
    "hop": 20,
    "batch": 4,
    "epochs": 6,
    "learning_rate": 1e-3,
    "device": "cpu",
    "precision": "float32",  # on whatever machine
    "tensorboard": False,
    "checkpoint_seconds": 0,
}


def small(**changes):
    return train_settings(**{**SMALL, **changes})


def provenance(name="resnet50", trained=True) -> Provenance:
    backbones = {
        part: Backbone(
            name if part == "visual" else f"{part}-net", "here", "ab" * 32 if trained else "", trained, width
        )
        for part, width in {**WIDTHS, "speech": 0}.items()
    }
    settings = {"fps": "own", "size": 224}
    return Provenance(settings, settings_hash(settings, backbones), backbones, {"torch": "2"})


def make_video(name: str, frames: int, seed: int, without=()) -> tuple[VideoFeatures, np.ndarray]:
    """A video and its valence and arousal (frames, 2). `without` names modalities it does not have."""
    rng = np.random.default_rng(seed)
    time = np.arange(frames) / FPS
    phase = rng.uniform(0, 6, (4, 1))
    valence, arousal = (
        0.4 * np.sin(time * rng.uniform(1, 3) + p) + 0.3 * np.sin(time * 0.7 + q)
        for p, q in zip(phase[:2], phase[2:], strict=True)
    )
    truth = np.stack([valence, arousal], 1)
    mixing = np.random.default_rng(99)  # the same in every video

    def embed(signal, width):
        signal = np.atleast_2d(signal.T).T
        clean = signal @ mixing.normal(size=(signal.shape[1], width))
        return (clean + 0.3 * rng.normal(size=clean.shape)).astype(np.float16)

    faces = rng.random(frames) > 0.1
    visual = embed(valence, WIDTHS["visual"])
    visual[~faces] = 0
    starts = np.arange(0.1, time[-1], 0.5)
    words = np.searchsorted(time, starts).clip(max=frames - 1)
    parts = {
        "visual": VisualFeatures(
            visual, time, faces, np.zeros((frames, 4), np.float32), faces.astype(np.float32)
        ),
        "audio": AudioFeatures(embed(arousal, WIDTHS["audio"]), time),
        "text": TextFeatures(
            embed(truth[words], WIDTHS["text"]),
            starts,
            starts + 0.4,
            np.array([f"word{i}" for i in range(len(starts))], str),
            np.ones(len(starts), np.float32),
        ),
    }
    none = {
        "visual": VisualFeatures(
            np.zeros((frames, WIDTHS["visual"]), np.float16),
            time,
            np.zeros(frames, bool),
            np.full((frames, 4), np.nan, np.float32),
            np.zeros(frames, np.float32),
            Status.NO_FACE,
            "no face in any frame",
        ),
        "audio": AudioFeatures(
            np.zeros((0, WIDTHS["audio"]), np.float16), np.zeros(0), Status.NO_AUDIO, "no track"
        ),
        "text": TextFeatures(
            np.zeros((0, WIDTHS["text"]), np.float16),
            np.zeros(0),
            np.zeros(0),
            np.zeros(0, str),
            np.zeros(0, np.float32),
            Status.NO_SPEECH,
            "nobody speaks",
        ),
    }
    parts |= {m: none[m] for m in without}
    source = Source(f"{name}.mp4", frames, f"{seed:064d}")
    return VideoFeatures(name, source, FPS, frames / FPS, frames, **parts), truth


def write_labels(path: Path, truth: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = "\n".join(f"{v:.6f},{a:.6f}" for v, a in truth)
    path.write_text(f"valence,arousal\n{rows}\n")


def copy_labels(labels: Path, out: Path) -> Path:
    return Path(shutil.copytree(labels, out))


def change_label(path: Path) -> None:
    """Another valence in the file's last row."""
    *rows, last = path.read_text().splitlines()
    path.write_text("\n".join([*rows, f"0.123456,{last.split(',')[1]}"]) + "\n")


def extract_again(store: FeatureStore, video: str, seed: int) -> None:
    """As many frames, other features."""
    made, _ = make_video(video, store.header(video).frames, seed)
    store.write(made, provenance())


class Stop(Exception):
    """A training is stopped by the test."""


def stop_after(epoch: int):
    """What hears of epochs and raises after this one."""

    def stop(row):
        if row["epoch"] == epoch:
            raise Stop

    return stop


def make_data(
    folder: Path, train=6, validation=2, frames=70, made=None, without=()
) -> tuple[FeatureStore, Path]:
    """A store of train + validation videos below `folder` and the folder of their labels.

    without: modalities that the first video of each partition does not have.
    """
    folder.mkdir(parents=True, exist_ok=True)
    store, labels = FeatureStore(folder / "store", create=True), folder / "labels"
    names = [("train", f"t{i}") for i in range(train)] + [
        ("validation", f"set/v{i}") for i in range(validation)
    ]
    for seed, (partition, name) in enumerate(names):
        video, truth = make_video(name, frames + 7 * seed, seed, without if name[-1] == "0" else ())
        store.write(video, made or provenance())
        truth[3:6] = -5
        write_labels(labels / partition / f"{name}.txt", truth)
    return store, labels
