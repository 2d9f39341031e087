"""The two passes over a video's frames: boxes of the person followed, then that person's crops and their embeddings.

Frames are decoded twice, once small for the boxes and once for the crops: what is kept in memory in between is a
box per frame, whatever the video's length.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
import torch

from extract.detection import FaceDetector
from extract.faces import crop, follow, link, read_crop, resize, upload
from extract.inputs import Job
from extract.lanes import Lanes
from extract.media import UndecodableError, read_frames
from extract.views import cut_view, sides, stored_views
from extract.visual import FaceEncoder

DETECTION_CHUNK = 33  # scaled frames looked through at once; one more than a multiple of usual steps
CROP_CHUNK = 8  # full frames held at once


def frame_clock(job: Job, lanes: Lanes, damage: list[str]) -> np.ndarray:
    """Times (T,) of the frames, in seconds; they are decoded at the smallest size."""
    chunks = read_frames(job.path, chunk=256, short_side=8, damage=damage)
    return np.concatenate([np.zeros(0), *(c.time for c in lanes.reading("decode", chunks))])


def find_person(
    job: Job, detector: FaceDetector, lanes: Lanes, damage: list[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Time (T,), box (T, 4) in pixels of each frame, and confidence (T,) of the person followed.

    Where the frame size changes midway, faces are linked in pixels of the first scaled frame, and each box is
    scaled to its own frame.
    """
    settings = detector.settings
    times, sizes, scaled = [np.zeros(0)], [np.zeros((0, 2))], []

    def chunks() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        found = read_frames(job.path, chunk=DETECTION_CHUNK, short_side=settings.short_side, damage=damage)
        for chunk in lanes.reading("decode", found):
            times.append(chunk.time)
            sizes.append(chunk.size)
            scaled.append(np.array(chunk.pixels.shape[2:0:-1], float))
            yield chunk.pixels, chunk.time

    detected = []
    for i, faces in enumerate(lanes.ordered("detect", lambda chunk: detector(*chunk), chunks())):
        detected += [face.scaled(scaled[0] / scaled[i]) for face in faces]
    time, first = np.concatenate(times), scaled[0] if scaled else np.ones(2)
    box, confidence = follow(link(detected, time), len(time), first[0], settings.face)
    return time, box * np.tile(np.concatenate(sizes) / first, 2).astype(np.float32), confidence


def embed_faces(
    job: Job, encoder: FaceEncoder, chosen: tuple[str, ...], margin: float, seen: np.ndarray, box: np.ndarray,
    lanes: Lanes, damage: list[str],
) -> Iterator[tuple[list[int], dict[str, np.ndarray]]]:  # fmt: skip
    """Portions of (frame indices, {view: embeddings (n, D) float16}) of the frames in `seen`, those with a face.

    `chosen` are the views wanted; a given crop that cannot be read counts as no face.
    """
    wanted, others = sides(chosen, encoder), stored_views(chosen)

    def encode(portion: list[tuple[int, torch.Tensor]]) -> tuple[list[int], dict[str, np.ndarray]]:
        given = [upload(square, encoder.device) for _, square in portion]
        squares = {side: torch.stack([resize(square, side) for square in given]) for side in wanted}
        made = {"centre": encoder(squares[encoder.size])}
        made |= {view: encoder(cut_view(view, squares, encoder)) for view in others}
        return [index for index, _ in portion], made

    squares = _given_squares(job, seen, damage) if job.crops else _cut_squares(job, seen, box, margin)
    return lanes.ordered("visual", encode, _portions(lanes.reading("crop", squares), encoder.portion))


def _given_squares(job: Job, seen: np.ndarray, damage: list[str]) -> Iterator[tuple[int, torch.Tensor]]:
    for index in seen:
        picture = read_crop(job.crop(index), damage)
        if picture is not None:
            yield index, picture


def _cut_squares(
    job: Job, seen: np.ndarray, box: np.ndarray, margin: float
) -> Iterator[tuple[int, torch.Tensor]]:
    left = iter(seen)
    for chunk in read_frames(job.path, chunk=CROP_CHUNK, wanted=np.isin(np.arange(len(box)), seen)):
        for pixels in chunk.pixels:
            index = next(left)
            yield index, crop(pixels, box[index], margin)
    if next(left, None) is not None:
        raise UndecodableError(f"{job.path} changed while it was read. Extract again when it is finished.")


def _portions(items: Iterable, size: int) -> Iterator[list]:
    items = iter(items)
    while portion := list(islice(items, size)):
        yield portion
