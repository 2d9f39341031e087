"""Words with times: the form in which a transcript is passed on, and reading given ones (WebVTT, SRT, Whisper JSON)."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import webvtt
from webvtt.errors import MalformedFileError

from affuse.errors import AffuseError

SUFFIXES = (".json", ".vtt", ".srt")


@dataclass(frozen=True)
class Word:
    """One spoken word: its text with punctuation, start and end in seconds, confidence in [0, 1]."""

    text: str
    start: float
    end: float
    confidence: float = 1.0


def find_transcript(folder: Path, video_id: str) -> Path | None:
    """`<folder>/<video_id>.json|vtt|srt`, the first that exists."""
    return next((p for s in SUFFIXES if (p := folder / f"{video_id}{s}").is_file()), None)


def read_transcript(path: Path) -> list[Word]:
    """The words of a WebVTT, SRT or Whisper JSON file, in order of their start.

    Cues and segments without word times share their span among their words in proportion to length.
    Raises AffuseError naming the file where it is none of these.
    """
    try:
        words = _read_json(path) if path.suffix == ".json" else _read_cues(path)
    except (KeyError, TypeError, ValueError, AttributeError, OSError, MalformedFileError) as error:
        kind = {".json": "Whisper JSON", ".vtt": "WebVTT", ".srt": "SRT"}[path.suffix]
        raise AffuseError(
            f"Transcript {path} is not readable as {kind}: {error or type(error).__name__}. Mend or remove it."
        ) from None
    if strange := [w for w in words if not math.isfinite(w.start + w.end)]:
        raise AffuseError(
            f"Transcript {path}: {strange[0].text!r} is spoken from {strange[0].start} to {strange[0].end} s. "
            "Mend or remove it."
        )
    return sorted(words, key=lambda w: w.start)


def _read_json(path: Path) -> list[Word]:
    words = []
    for segment in json.loads(path.read_text(encoding="utf-8"))["segments"]:
        if timed := segment.get("words"):
            words += [
                Word(text, float(w["start"]), float(w["end"]), float(w.get("probability", 1.0)))
                for w in timed
                if (text := w["word"].strip())
            ]
        else:
            words += spread(segment["text"], float(segment["start"]), float(segment["end"]))
    return words


def _read_cues(path: Path) -> list[Word]:
    cues = webvtt.from_srt(str(path)) if path.suffix == ".srt" else webvtt.read(str(path))
    words = []
    for cue in cues:
        # <00:00:01.200> inside a cue is the time at which what follows is spoken.
        pieces = re.split(r"<(\d+(?::\d+)+\.\d+)>", cue.raw_text)
        times = [_clock(stamp) for stamp in (cue.start, *pieces[1::2], cue.end)]
        for text, (begin, finish) in zip(pieces[::2], pairwise(times), strict=True):
            words += spread(re.sub(r"<[^>]*>", "", text), begin, finish)
    return words


def _clock(stamp: str) -> float:
    seconds = 0.0
    for part in stamp.split(":"):
        seconds = seconds * 60 + float(part)
    return seconds


def spread(text: str, start: float, end: float) -> list[Word]:
    """Share a span among the words of a text, each taking time in proportion to its letters."""
    words = text.split()
    total = sum(map(len, words)) or 1
    timed, begin = [], start
    for word in words:
        finish = begin + (end - start) * len(word) / total
        timed.append(Word(word, begin, finish))
        begin = finish
    return timed
