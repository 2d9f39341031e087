"""What goes in and what comes out, on one picture: a frame with its face, the words, valence and arousal, the truth."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np

from affuse.extract.media import read_pictures
from affuse.features.record import VideoFeatures
from affuse.fuse.reports.figures import colour, new_canvas, save_figure
from affuse.fuse.scoring.predict import Prediction

SPAN = 12.0  # s of the video that are shown
ROWS = 3  # on which neighbouring words stand, so that none covers another


def draw(path: Path, media: Path, video: VideoFeatures, prediction: Prediction, truth: np.ndarray) -> None:
    """Write a PNG of the video at `media`: a frame with the face's box, and on the right prediction and truth
    (T, targets) over the first SPAN seconds, above the words when they are spoken."""
    figure = new_canvas(11, 3.6)
    grid = figure.add_gridspec(
        len(prediction.targets) + 1, 2, width_ratios=(1, 2.2), height_ratios=(2,) * len(prediction.targets) + (1.2,)
    )
    picture = figure.add_subplot(grid[:, 0])
    middle = int(np.searchsorted(video.visual.time, SPAN / 2))
    picture.imshow(next(islice(read_pictures(media), middle, None)).pixels())
    left, top, right, bottom = video.visual.box[middle]
    picture.plot([left, right, right, left, left], [top, top, bottom, bottom, top], color="#f2c14e", linewidth=2)
    picture.set(xticks=[], yticks=[], title="a video goes in")
    shown = video.visual.time < SPAN
    time = video.visual.time[shown]
    for i, target in enumerate(prediction.targets):
        axis = figure.add_subplot(grid[i, 1])
        axis.axhline(0, color="0.85", linewidth=0.8)
        axis.plot(time, truth[: len(shown)][shown, i], color="0.45", label="true")
        axis.plot(time, prediction.values[shown, i], color=colour(target, i), label="predicted")
        axis.axvline(time[min(middle, len(time) - 1)], color="#f2c14e")
        axis.set(ylabel=target, xlim=(0, SPAN), ylim=(-1.05, 1.05), xticklabels=[])
        axis.legend(loc="upper left", bbox_to_anchor=(1, 1), frameon=False)
        if not i:
            axis.set_title("valence and arousal come out, frame by frame")
    words = figure.add_subplot(grid[-1, 1])
    for i, (word, start, end) in enumerate(zip(video.text.word, video.text.start, video.text.end, strict=True)):
        if end < SPAN:
            words.text((start + end) / 2, ROWS - 1 - i % ROWS, word, ha="center", va="center", fontsize="x-small")
    words.set(xlim=(0, SPAN), ylim=(-0.7, ROWS - 0.3), yticks=[], xlabel="time (s)", ylabel="heard")
    save_figure(figure, path)
