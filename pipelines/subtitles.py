"""What was said as a WebVTT track, each cue with the valence and arousal of its span."""

from __future__ import annotations

from html import escape
from pathlib import Path

import numpy as np
import webvtt

from affuse.errors import AffuseError
from affuse.features.parts import TextFeatures
from affuse.files import make_folder, publish
from affuse.fuse.data.track import mean_between
from affuse.fuse.scoring.predict import Prediction

PAUSE = 0.7  # s between two words that a cue does not go over
LONGEST = 6.0  # s of a cue
LETTERS = 72  # of a cue's words
SHORTEST = 0.001  # s; what WebVTT can tell apart
ENDS = (".", "?", "!", "…", "。", "？", "！")  # of a sentence


def cues(text: TextFeatures) -> list[range]:
    """The words, by number, that are shown together: to the end of a sentence, to a pause, or as many as have room."""
    made: list[range] = []
    first, letters = 0, 0
    for i, word in enumerate(text.word):
        letters += len(word) + 1
        if i > first and (
            text.word[i - 1].endswith(ENDS)
            or text.start[i] - text.end[i - 1] > PAUSE
            or text.end[i] - text.start[first] > LONGEST
            or letters > LETTERS
        ):
            made.append(range(first, i))
            first, letters = i, len(word) + 1
    return [*made, range(first, len(text.word))] if len(text.word) else []


def write_track(path: Path, text: TextFeatures, prediction: Prediction) -> None:
    """Write the words as WebVTT; below those of each cue stands the mean of each target over its frames, and how far
    off it may be where that is known. A cue without a valid frame has its words alone.

    Raises AffuseError where it cannot be written, or does not read as it was written.
    """
    track = webvtt.WebVTT()
    for words in cues(text):
        start, end = float(text.start[words[0]]), float(text.end[list(words)].max())
        said = " ".join(" ".join(text.word[list(words)]).split())
        lines = [escape(said, quote=False), *_values(prediction, start, end)]
        track.captions.append(
            webvtt.Caption(_stamp(start), _stamp(max(end, start + SHORTEST)), "\n".join(filter(None, lines)))
        )

    def check(written: Path) -> None:
        read = webvtt.read(str(written)).captions
        if [(cue.start, cue.end, cue.raw_text) for cue in read] != [
            (cue.start, cue.end, cue.raw_text) for cue in track.captions
        ]:
            raise AffuseError(f"{path} would not be read as the WebVTT that was written. Its words cannot be shown.")

    make_folder(path.parent)
    publish(path, lambda sink: sink.write((track.content.rstrip("\n") + "\n").encode()), check)


def _values(prediction: Prediction, start: float, end: float) -> list[str]:
    """The line of the targets over the frames that reach into a span; none where none of them is valid."""
    half = float(np.median(np.diff(prediction.time))) / 2 if len(prediction.time) > 1 else np.inf
    span = np.array([start - half]), np.array([end + half])
    (means,), (there,) = mean_between(prediction.time, prediction.measured, prediction.valid, *span)
    values, deviation = np.split(means, [len(prediction.targets)])
    told = [signed(value) for value in values]
    if len(deviation):
        told = [f"{value} ± {wide:.2f}" for value, wide in zip(told, deviation, strict=True)]
    line = ", ".join(f"{target} {value}" for target, value in zip(prediction.targets, told, strict=True))
    return [line] if there else []


def signed(value: float) -> str:
    """-0.004 → "+0.00", -0.5 → "−0.50"."""
    return f"{round(float(value), 2) + 0.0:+.2f}".replace("-", "−")


def _stamp(seconds: float) -> str:
    """12.3456 → "00:00:12.346"."""
    whole = round(max(seconds, 0.0) * 1000)
    return f"{whole // 3_600_000:02d}:{whole // 60_000 % 60:02d}:{whole // 1000 % 60:02d}.{whole % 1000:03d}"
