"""Records of what is not there: empty features with the right widths, a status and its reason."""

from __future__ import annotations

import numpy as np

from features.record import AudioFeatures, Source, Status, TextFeatures, VideoFeatures, VisualFeatures


def no_visual(width: int, status: Status, reason: str) -> VisualFeatures:
    rows = (np.zeros((0, width), np.float16), np.zeros(0), np.zeros(0, bool))
    return VisualFeatures(*rows, np.zeros((0, 4), np.float32), np.zeros(0, np.float32), status, reason)


def no_audio(widths: dict[str, int], status: Status, reason: str) -> AudioFeatures:
    return AudioFeatures(np.zeros((0, widths.get("audio", 0)), np.float16), np.zeros(0), status, reason)


def no_text(width: int, status: Status, reason: str) -> TextFeatures:
    rows = (np.zeros((0, width), np.float16), np.zeros(0), np.zeros(0), np.zeros(0, str))
    return TextFeatures(*rows, np.zeros(0, np.float32), status, reason)


def undecodable(video_id: str, source: Source, reason: str, widths: dict[str, int]) -> VideoFeatures:
    """The record of a video of which nothing can be decoded."""
    status = Status.UNDECODABLE
    return VideoFeatures(
        id=video_id,
        source=source,
        fps=0.0,
        duration=0.0,
        frames=0,
        visual=no_visual(widths.get("visual", 0), status, reason),
        audio=no_audio(widths, status, reason),
        text=no_text(widths.get("text", 0), status, reason),
    )
