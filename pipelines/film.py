"""A video with what was predicted drawn beside it: every picture at its own time, with the sound of the video. One
picture and one block of sound are in memory at a time, whatever the video's length."""

from __future__ import annotations

from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np

from affuse.errors import AffuseError, first_line
from affuse.extract.media import SLACK, probe, read_pictures, read_sound
from affuse.features.record import VideoFeatures
from affuse.files import Sink, make_folder, publish
from affuse.fuse.scoring.predict import Prediction
from affuse.pipelines.canvas import Canvas
from affuse.pipelines.demo.encode import add_pictures

TICK = Fraction(1, 90_000)  # s, the clock of the pictures
RATES = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000)  # Hz that AAC has
AHEAD = 0.5  # s that sound is written before its pictures


def draw_film(path: Path, media: Path, video: VideoFeatures, prediction: Prediction) -> None:
    """Write an MP4 of the pictures of `media` with box, circumplex, words and traces, and with its sound.

    Raises AffuseError where there are no pictures, or where it cannot be written.
    """
    facts = probe(media)
    pictures = read_pictures(media) if facts.has_video else iter(())
    if (first := next(pictures, None)) is None:
        raise AffuseError(f"{media.name} has no pictures, so no video of them can be made. Leave out --video.")
    canvas = Canvas(prediction, video.visual, video.text, first.size)

    def fill(sink: Sink) -> None:
        with av.open(sink, "w", format="mp4") as container:
            stream = add_pictures(container, canvas.size, round(facts.fps) or 25)
            stream.codec_context.time_base = TICK
            sound = _Sound(container, media) if facts.has_audio else None
            due = 0
            for picture in chain([first], pictures):
                if sound:
                    sound.write(picture.time + AHEAD)
                drawn = canvas.draw(picture.time, picture.scaled(canvas.picture), picture.size)
                frame = av.VideoFrame.from_ndarray(np.asarray(drawn), format="rgb24")
                frame.pts, frame.time_base = max(due, round(picture.time / TICK)), TICK
                due = frame.pts + 1
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
            if sound:
                sound.write(np.inf)
                sound.end()

    make_folder(path.parent)
    try:
        publish(path, fill)
    except av.error.FFmpegError as error:
        raise AffuseError(f"{path} cannot be encoded: {first_line(error)}. Leave out --video.") from None


class _Sound:
    """The sound of a file as a stream of AAC beside the pictures, where its clock says: what is missing is silence, and
    what overlaps is heard once."""

    def __init__(self, container: av.container.OutputContainer, media: Path):
        self.blocks, self.container, self.written = read_sound(media), container, 0
        self.block = next(self.blocks, None)
        if self.block is not None:
            given = self.block[1]
            self.rate = given.sample_rate if given.sample_rate in RATES else 48_000
            self.layout = "mono" if given.layout.nb_channels == 1 else "stereo"
            self.stream = container.add_stream("aac", rate=self.rate, layout=self.layout)
            self.kind = self.resampler = None

    def write(self, until: float) -> None:
        """All blocks that begin before so many seconds."""
        while self.block is not None and self.block[0] < until:
            self._place(*self.block)
            self.block = next(self.blocks, None)

    def end(self) -> None:
        """What the resampler and the encoder still hold."""
        if self.written:
            self._put(self._resampled(None))
            self.container.mux(self.stream.encode(None))

    def _place(self, time: float, block: av.AudioFrame) -> None:
        kind = block.format.name, block.layout.name, block.sample_rate
        if kind != self.kind:
            self._put(self._resampled(None))
            self.kind, self.resampler = kind, av.AudioResampler("fltp", self.layout, self.rate)
        samples = self._resampled(block)
        apart = round(time * self.rate) - self.written
        if abs(apart) <= SLACK * self.rate:
            apart = 0
        for start in range(0, apart, self.rate):
            self._put(np.zeros((len(samples), min(self.rate, apart - start)), np.float32))
        self._put(samples[:, max(0, -apart) :])

    def _resampled(self, block: av.AudioFrame | None) -> np.ndarray:
        """A block, or None for the rest, as the stream has it: (channels, samples) float32 in [-1, 1]."""
        pieces = [piece.to_ndarray() for piece in self.resampler.resample(block)] if self.resampler else []
        nothing = np.zeros((1 if self.layout == "mono" else 2, 0), np.float32)
        return np.nan_to_num(np.concatenate([nothing, *pieces], axis=1)).clip(-1, 1)

    def _put(self, samples: np.ndarray) -> None:
        if samples.shape[1]:
            block = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples), format="fltp", layout=self.layout)
            block.sample_rate, block.pts, block.time_base = self.rate, self.written, Fraction(1, self.rate)
            self.written += samples.shape[1]
            self.container.mux(self.stream.encode(block))
