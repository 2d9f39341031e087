"""What watching is tested with: short videos, a store of their features by backbones of one's own, and runs on it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from click.testing import CliRunner

from affuse.commands import main
from affuse.extract.extraction import extract_videos
from affuse.fuse import train, train_settings
from media import face_frames, tone, write_media

HERE = Path(__file__).parent
FPS, SECONDS = 10, 2.4
OWN = {
    name: f"{HERE / 'own_backbone.py'}:{kind}" for name, kind in (("visual", "Grid"), ("audio", "Loudness"))
}
SMALL = {
    "modalities": ["visual", "audio"],
    "channels": {"visual": [8, 8], "audio": [8, 8]},
    "window": 32,  # the whole of a clip: a lane that falls behind has not missed the beginning
    "hop": 8,
    "epochs": 2,
    "tensorboard": False,
    "device": "cpu",
}


def affuse(*arguments, code=0):
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    assert result.exit_code == code, result.output
    assert "Traceback" not in result.output
    return result


def clip(path: Path, seconds: float = SECONDS) -> Path:
    """A face that drifts, under a tone that swells."""
    sound = tone(seconds) * np.linspace(0, 1, round(seconds * 16_000), dtype=np.float32)
    return write_media(path, face_frames(round(seconds * FPS)), FPS, sound)


def make_run(place: Path, **changes) -> Path:
    """A run on three such clips."""
    generator = np.random.default_rng(0)
    for index, name in enumerate("abc"):
        clip(place / "videos" / f"{name}.mkv", 1.2)
        partition = place / "labels" / ("validation" if index == 2 else "train")
        partition.mkdir(parents=True, exist_ok=True)
        rows = [f"{v:.3f},{a:.3f}" for v, a in generator.uniform(-1, 1, (12, 2))]
        (partition / f"{name}.txt").write_text("valence,arousal\n" + "\n".join(rows) + "\n")
    store = extract_videos(
        place / "videos",
        place / "store",
        profile="offline",
        modalities=["visual", "audio"],
        device="cpu",
        **OWN,
    )
    train(store.path, place / "labels", place / "run", train_settings(**{**SMALL, **changes}))
    return place / "run"


def watch(run: Path, source: Path | str, *more, code=0):
    """`affuse watch` without a browser; the weights folder is where the own backbones are found."""
    return affuse("watch", "--run", run, "--source", source, "--weights-dir", HERE, "--no-browser", "--device", "cpu", *more, code=code)  # fmt: skip  # noqa: E501
