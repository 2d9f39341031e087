"""Random records for tests: every field filled, of any size, the same for the same seed."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable

import numpy as np

from affuse.features.parts import AudioFeatures, Status, TextFeatures, VisualFeatures
from affuse.features.record import Backbone, Provenance, Source, VideoFeatures, settings_hash

WIDTHS = {"visual": 24, "audio": 8, "text": 12}
FPS = 25.0


def random_video(
    video_id: str = "clip01",
    frames: int = 40,
    words: int = 6,
    widths: dict[str, int] | None = None,
    seed: int = 0,
    faces: float = 0.8,
    views: Iterable[str] = (),
    **changes,
) -> VideoFeatures:
    """A video of `frames` frames at 25 a second, a face in a share `faces` of them with these further `views`, and
    `words` words.

    A modality that is left with nothing has the status for it. `changes` replace fields of the record.
    """
    widths = {**WIDTHS, **(widths or {})}
    random = np.random.default_rng(seed)
    time = np.arange(frames) / FPS
    valid = random.random(frames) < faces
    embedding = random.normal(size=(frames, widths["visual"])).astype(np.float16)
    embedding[~valid] = 0
    box = random.uniform(0, 500, (frames, 4)).astype(np.float32)
    box[~valid] = np.nan
    duration = frames / FPS
    start = np.sort(random.uniform(0, max(duration, 0.1), words))
    vocabulary = ["yes", "no", "Straße", "two", "naïve", "negotiations", "日本", "well,"]
    return dataclasses.replace(
        VideoFeatures(
            id=video_id,
            source=Source(
                f"{video_id}.mp4", 1000 + seed, hashlib.sha256(bytes([seed % 256])).hexdigest(), 17 + seed
            ),
            fps=FPS,
            duration=duration,
            frames=frames,
            visual=VisualFeatures(
                embedding,
                time,
                valid,
                box,
                np.where(valid, random.uniform(0.9, 1, frames), 0).astype(np.float32),
                Status.OK if valid.any() else Status.NO_FACE,
                "" if valid.any() else f"no face found in {frames} frames",
                {view: embedding * np.float16(k) for k, view in enumerate(views, start=2)},
            ),
            audio=AudioFeatures(
                random.normal(size=(frames, widths["audio"])).astype(np.float16),
                time,
                Status.OK if frames else Status.NO_AUDIO,
                "" if frames else "the file has no sound",
            ),
            text=TextFeatures(
                random.normal(size=(words, widths["text"])).astype(np.float16),
                start,
                start + random.uniform(0.05, 0.4, words),
                np.array([vocabulary[i] for i in random.integers(len(vocabulary), size=words)], str),
                random.uniform(0, 1, words).astype(np.float32),
                Status.OK if words else Status.NO_SPEECH,
                "" if words else "no speech was recognised",
            ),
            seconds={"decode": 0.5, "visual": 1.5},
        ),
        **changes,
    )


def provenance(widths: dict[str, int] | None = None, settings: dict | None = None, **changes) -> Provenance:
    """How such videos would have been made. `changes` replace fields; settings_hash follows from the rest."""
    widths = {**WIDTHS, **(widths or {})}
    backbones = {
        part: Backbone(
            f"{part}-net", f"{part}.pth", hashlib.sha256(part.encode()).hexdigest(), True, widths.get(part, 0)
        )
        for part in ("visual", "audio", "speech", "text")
    }
    settings = {"audio_anchor": "start", "detection": {"every": 1}, **(settings or {})}
    made = Provenance(settings, "", backbones, {"affuse": "0.1.0"})
    made = dataclasses.replace(made, **changes)
    return dataclasses.replace(
        made, settings_hash=changes.get("settings_hash") or settings_hash(made.settings, made.backbones)
    )


def assert_same(one: VideoFeatures, other: VideoFeatures) -> None:
    """Every field equal, arrays bit for bit."""
    for field in dataclasses.fields(one):
        mine, theirs = getattr(one, field.name), getattr(other, field.name)
        if not dataclasses.is_dataclass(mine) or isinstance(mine, Source):
            assert mine == theirs, field.name
            continue
        for array in dataclasses.fields(mine):
            a, b = getattr(mine, array.name), getattr(theirs, array.name)
            where = f"{field.name}/{array.name}"
            if array.name == "views":
                assert {view: x.tobytes() for view, x in a.items()} == {v: x.tobytes() for v, x in b.items()}
            elif isinstance(a, np.ndarray) and a.dtype.kind != "U":
                assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes()), where
            else:
                assert list(a) == list(b) if isinstance(a, np.ndarray) else a == b, where
