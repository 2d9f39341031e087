"""Scenes that cameras of any clock see: what the tests of frame rates work on."""

import numpy as np
import pandas as pd
import torch

import tiny
from affuse.features import AudioFeatures, FeatureStore, Source, TextFeatures, VideoFeatures, VisualFeatures
from affuse.features.timeline import frame_rate
from affuse.fuse.training.checkpoint import read_tensors
from tiny import WIDTHS

SECONDS = 20


def even(fps, seconds=SECONDS):
    return np.arange(round(seconds * fps)) / fps


def uneven(seconds=SECONDS):
    steps = np.random.default_rng(3).uniform(1 / 40, 1 / 12, 40 * seconds)
    time = np.cumsum(steps) - steps[0]
    return time[time < seconds]


def sample(name: str, time: np.ndarray, scene: int) -> tuple[VideoFeatures, np.ndarray]:
    """What a camera with this clock (T,), seconds, sees of a scene: the same signals, faces and words whatever the
    clock, under noise of its own. Valence and arousal (T, 2) follow the signals 0.8 s later."""
    drawn = np.random.default_rng([7, scene])
    phase, speed = drawn.uniform(0, 6, (2, 3)), drawn.uniform(0.7, 2, (2, 3))
    mixing, noise = np.random.default_rng(99), np.random.default_rng([len(time), scene])

    def signals(at):
        return 0.3 * np.sin(np.asarray(at)[:, None, None] * speed + phase).sum(-1)

    def embed(signal, width):
        clean = signal @ mixing.normal(size=(signal.shape[1], width))
        return (clean + 0.05 * noise.normal(size=clean.shape)).astype(np.float16)

    faces = (time + scene) % 7 > 0.7
    starts = np.arange(0.1, time[-1], 0.5)
    visual = embed(signals(time)[:, :1], WIDTHS["visual"]) * faces[:, None].astype(np.float16)
    box = np.where(faces[:, None], np.full(4, 10, np.float32), np.float32(np.nan))
    words = np.array([f"word{i}" for i in range(len(starts))], str)
    confidence = np.ones(len(starts), np.float32)
    return VideoFeatures(
        name,
        Source(f"{name}.mp4", len(time), f"{scene:064d}"),
        frame_rate(time),
        float(time[-1]),
        len(time),
        VisualFeatures(visual, time, faces, box, faces.astype(np.float32)),
        AudioFeatures(embed(signals(time)[:, 1:], WIDTHS["audio"]), time),
        TextFeatures(embed(signals(starts), WIDTHS["text"]), starts, starts + 0.4, words, confidence),
    ), signals(time - 0.8)


def make_data(folder, train, validation, timed=False):
    """A store of scenes seen with these clocks {video: times}, and labels of its frames, or of 4 rows a second."""
    store = FeatureStore(folder / "store", create=True)
    for scene, (name, time) in enumerate({**train, **validation}.items()):
        video, truth = sample(name, time, scene)
        store.write(video, tiny.provenance())
        path = folder / "labels" / ("train" if name in train else "validation") / name
        if timed:
            at = even(4)
            table = pd.DataFrame(sample(name, at, scene)[1], columns=["valence", "arousal"]).assign(time=at)
            path.parent.mkdir(parents=True, exist_ok=True)
            table.to_csv(f"{path}.csv", index=False)
        else:
            tiny.write_labels(path.with_name(f"{name}.txt"), truth)
    return store, folder / "labels"


def settings(**changes):
    return tiny.small(**{"window": 64, "hop": 64, "epochs": 2, "batch": 8, "warmup_epochs": 0, **changes})


def weights(path):
    tensors, facts = read_tensors(path / "model.safetensors")
    return tensors, facts["fps"]


def same(one, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())
