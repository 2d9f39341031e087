"""One face followed as pictures come: looked for in every n-th, and carried on between by what is in its place.

Extraction sees a whole video and draws a box's way between two looks; here the next look is not there yet. So a box
stays where it was seen last, and is looked for anew as soon as the picture in it is another one. As long as the face
is about where it was, only the part of the picture around it is looked at, which takes less than half of the time.
"""

from __future__ import annotations

import numpy as np

from affuse.extract.faces import Detected, FaceDetector, cut, overlap, patch
from affuse.extract.people import LINK, MEMORY, SAME, correlation


class Follower:
    """The face that the setting `detection.face` means; of several that could be, the largest. looks: how often faces
    were looked for."""

    def __init__(self, detector: FaceDetector):
        self.detector, self.settings, self.looks = detector, detector.settings, 0
        self._before: np.ndarray | None = None  # the picture before
        self._since = 0  # pictures since the last look
        self._box: np.ndarray | None = None  # where the face is, or was last
        self._patch, self._confidence, self._seen = None, 0.0, -np.inf

    def __call__(self, pixels: np.ndarray, time: float) -> tuple[np.ndarray | None, float]:
        """The box (4,) of the face in the next picture (H, W, 3) at `time`, seconds, in pixels of it, and how sure it
        is, 0 to 1; None and 0 where there is none."""
        before, self._before, self._since = self._before, pixels, self._since + 1
        if before is None or before.shape != pixels.shape or cut(np.stack([before, pixels])):
            self._box = self._patch = None
            self._look(pixels, time)
        elif self._lost(pixels) or (self._since >= self.settings.every and not self._look_near(pixels)):
            self._look(pixels, time)
        if self._patch is None:
            return None, 0.0
        self._seen = time
        return self._box, self._confidence

    def _lost(self, pixels: np.ndarray) -> bool:
        """Whether there was a face, and what is in its place now is something else."""
        return self._patch is not None and correlation(self._patch, patch(pixels, self._box[None])[0]) < SAME

    def _look_near(self, pixels: np.ndarray) -> bool:
        """Whether the face is still about where it was; then that is where it is now."""
        if self._patch is None or self.settings.face == "largest":
            return False
        found = self.detector.look_near(pixels, self._box)
        shared = overlap(self._box[None], found.boxes)[0]
        if not len(shared) or shared.max() < LINK:
            return False
        self.looks, self._since = self.looks + 1, 0
        self._found(pixels, found, int(shared.argmax()))
        return True

    def _look(self, pixels: np.ndarray, time: float) -> None:
        self.looks, self._since, self._patch = self.looks + 1, 0, None
        (found,) = self.detector.look(pixels[None])
        which = self._choose(found.boxes, pixels.shape[1], time)
        if which is not None:
            self._found(pixels, found, which)

    def _found(self, pixels: np.ndarray, found: Detected, which: int) -> None:
        self._box, self._confidence = found.boxes[which], float(found.confidence[which])
        self._patch = patch(pixels, self._box[None])[0]

    def _choose(self, boxes: np.ndarray, width: int, time: float) -> int | None:
        """Which of these faces (k, 4) is followed: the one where it was last, for as long as that is remembered."""
        allowed = np.ones(len(boxes), bool)
        if self.settings.face in ("left", "right"):
            allowed = ((boxes[:, 0] + boxes[:, 2]) / 2 < width / 2) == (self.settings.face == "left")
        if not allowed.any():
            return None
        if self.settings.face == "largest" or self._box is None or time - self._seen > MEMORY:
            return int(np.where(allowed, np.prod(boxes[:, 2:] - boxes[:, :2], axis=1), -np.inf).argmax())
        shared = np.where(allowed, overlap(self._box[None], boxes)[0], -1)
        return int(shared.argmax()) if shared.max() >= LINK else None
