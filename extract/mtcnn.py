"""MTCNN (Zhang et al. 2016) over frames of one size at once, by facenet-pytorch's networks and rules.

facenet-pytorch resizes candidates one by one, and after every step asks the device how many are left. Here all
resizing is differences of running sums, and candidates are kept in one of two ways: `Counted`, as many as there are,
or `Roomy`, in places of a fixed number, so that a GPU is waited for once, at the end.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import numpy as np
import torch
from facenet_pytorch import MTCNN
from facenet_pytorch.models.utils.detect_face import batched_nms_numpy
from torch import Tensor, nn
from torchvision.ops import batched_nms

from affuse.extract.gpu import upload

CELL, STRIDE = 12, 2  # pixels that the first network sees, and by which it moves
SHRINK = 0.709  # from one scale of the pyramid to the next
SURE = (0.6, 0.7, 0.7)  # probability of a face from which on a network keeps a candidate
SIDES = (24, 48)  # pixels of a candidate as the second and the third network take it
AT_ONE_SCALE, AT_ALL = 0.5, 0.7  # share that candidates have in common of which only one stays
PORTION = {"cpu": 32, "cuda": 512}  # candidates that a network takes at once: kernels are made for one number of them
ROOM = 128  # candidates in a frame, more than one or two people give
ROUNDS = 16  # in which it must be settled who stays


@dataclass(frozen=True)
class Candidates:
    """Boxes (N, 4), left, top, right, bottom, in pixels; score (N,); the frame (N,) of each; held (N,) bool, whether it
    is one at all; move (N, 4), by which its sides are to move, in widths and heights."""

    box: Tensor
    score: Tensor
    frame: Tensor
    held: Tensor
    move: Tensor

    def __getitem__(self, which: Tensor) -> Candidates:
        return Candidates(*(getattr(self, field.name)[which] for field in fields(self)))

    @classmethod
    def joined(cls, parts: list[Candidates]) -> Candidates:
        return cls(*(torch.cat([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def moved(self, beyond: int) -> Candidates:
        """Their sides moved, where width and height are `beyond` more than the difference of two sides."""
        size = (self.box[:, 2:] - self.box[:, :2] + beyond).repeat(1, 2)
        return replace(self, box=self.box + self.move * size)

    def squared(self) -> Candidates:
        """Made square about their middle, by the longer side."""
        low, size = self.box[:, :2], self.box[:, 2:] - self.box[:, :2]
        longer = size.amax(1, keepdim=True)
        low = low + size * 0.5 - longer * 0.5
        return replace(self, box=torch.cat([low, low + longer], 1))


class Counted:
    """As many candidates as there are: exact, and at every step a GPU is waited for."""

    lacking = torch.zeros((), dtype=torch.bool)

    def chosen(self, found: Candidates) -> Candidates:
        return found[found.held]

    def apart(self, found: Candidates, most: float) -> Candidates:
        """Those that have no more than `most` of their union in common with a likelier one that stays."""
        return found[batched_nms(found.box, found.score, found.frame, most)]

    def last_apart(self, found: Candidates) -> Candidates:
        """The same of the smaller one's area."""
        return found[batched_nms_numpy(found.box, found.score, found.frame, AT_ALL, "Min")]


class Roomy:
    """`room` places for candidates in each of `frames`, the likeliest first. lacking: whether some were left without a
    place, or it was not settled in ROUNDS who stays."""

    def __init__(self, frames: int, room: int, device: torch.device):
        self.frames, self.room = frames, room
        self.lacking = torch.zeros((), dtype=torch.bool, device=device)

    def chosen(self, found: Candidates) -> Candidates:
        found = found[found.frame.argsort(stable=True)]  # of each frame as many
        held = found.held.view(self.frames, -1)
        self.lacking |= (held.sum(1) > self.room).any()
        score = torch.where(held, found.score.view(self.frames, -1), -1)
        first = score.topk(min(self.room, score.shape[1]), dim=1).indices
        return found[(first + torch.arange(self.frames, device=first.device)[:, None] * score.shape[1]).flatten()]

    def apart(self, found: Candidates, most: float) -> Candidates:
        return self._apart(found, 0, lambda one, other, both: both / (one + other - both) > most)

    def last_apart(self, found: Candidates) -> Candidates:
        return self._apart(found, 1, lambda one, other, both: both / torch.minimum(one, other) > AT_ALL)

    def _apart(self, found: Candidates, beyond: int, alike: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Candidates:
        """alike is told two areas and what they have in common; sides are `beyond` longer than they differ."""
        found = self.chosen(found)
        low, high = found.box.view(self.frames, -1, 4).split(2, dim=2)
        area = (high - low + beyond).prod(2)
        low, high = torch.maximum(low[:, :, None], low[:, None]), torch.minimum(high[:, :, None], high[:, None])
        both = (high - low + beyond).clamp(min=0).prod(3)
        return self._settled(found, alike(area[:, :, None], area[:, None], both))

    def _settled(self, found: Candidates, like: Tensor) -> Candidates:
        """Of candidates in their order, where `like` (frames, K, K) tells which may not stay beside each other."""
        held = found.held.view(self.frames, -1)
        falls, stays = like.tril(-1) & held[:, None, :], held
        for _ in range(ROUNDS):  # after the first k, the first k are settled
            before, stays = stays, held & ~(falls & stays[:, None, :]).any(2)
        self.lacking |= (before != stays).any()
        return replace(found, held=stays.flatten())


class Detector(nn.Module):
    """Looks for faces. `room` as in `Roomy`; without one, and where it is lacking, candidates are `Counted`."""

    def __init__(self, device: torch.device, room: int | None = None):
        super().__init__()
        parts = MTCNN(device=device)
        self.networks = nn.ModuleList([parts.pnet, parts.rnet, parts.onet]).eval().requires_grad_(False)
        self.networks.to(memory_format=torch.channels_last)  # so a CPU pools ten times as fast
        self.device, self.room = device, room

    @torch.inference_mode()
    def forward(self, pixels: Tensor, smallest: int) -> list[tuple[np.ndarray, np.ndarray]]:
        """Frames (n, H, W, 3) uint8 → of each its faces of at least `smallest` pixels, the largest first: boxes (k, 4)
        and confidence (k,), float32."""
        pixels = upload(pixels, self.device)
        for way in ([Roomy(len(pixels), self.room, self.device)] if self.room else []) + [Counted()]:
            found = self.found(pixels, smallest, way)
            told = torch.cat([found.box, torch.stack([found.score, found.frame, found.held], 1)], 1)
            told = torch.cat([told, way.lacking.to(told).expand(1, 7)]).cpu().numpy()  # here a GPU is waited for
            if not told[-1, 0]:
                break
        rows = told[:-1][told[:-1, 6] > 0]
        size = (rows[:, 2] - rows[:, 0]) * (rows[:, 3] - rows[:, 1])
        rows = rows[np.argsort(-size, kind="stable")]
        return [(rows[rows[:, 5] == i, :4], rows[rows[:, 5] == i, 4]) for i in range(len(pixels))]

    def found(self, pixels: Tensor, smallest: int, way: Counted | Roomy) -> Candidates:
        """The faces among candidates kept that way."""
        sums = running_sums(pixels)
        first, second, third = self.networks
        at_scales = [way.chosen(_seen(first, sums, scale)) for scale in pyramid(min(pixels.shape[1:3]), smallest)]
        found = way.apart(Candidates.joined([way.apart(some, AT_ONE_SCALE) for some in at_scales]), AT_ALL)
        found = way.chosen(_judged(second, found.moved(0).squared(), sums, SIDES[0], SURE[1]))
        found = way.apart(found, AT_ALL).moved(1).squared()
        found = way.chosen(_judged(third, found, sums, SIDES[1], SURE[2]))
        return way.last_apart(found.moved(1))


def pyramid(short: int, smallest: int) -> list[float]:
    """Scales at which faces from `smallest` pixels up to a frame's shorter side are as large as a cell."""
    scales, scale = [], CELL / smallest
    while short * scale >= CELL:
        scales.append(scale)
        scale *= SHRINK
    return scales


def running_sums(pixels: Tensor) -> Tensor:
    """Of frames (n, H, W, 3) uint8 the sums (n, H + 1, W + 1, 3) of all pixels above and left of each place."""
    frames, height, width, _ = pixels.shape
    kind = torch.int32 if 255 * height * width < 2**31 else torch.int64
    sums = torch.zeros(frames, height + 1, width + 1, 3, dtype=kind, device=pixels.device)
    torch.cumsum(pixels.cumsum(1, dtype=kind), 2, dtype=kind, out=sums[:, 1:, 1:])
    return sums


def bins(length: Tensor | int, count: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Where each of `count` pixels begins and ends that so many (…, 1) are resized to: (…, count); they overlap by one
    where they do not part evenly."""
    number = torch.arange(count, device=device)
    return number * length // count, -(-(number + 1) * length // count)


def shrunk(sums: Tensor, height: int, width: int) -> Tensor:
    """Whole frames at that size, each pixel the mean of those it stands for: (n, 3, height, width), scaled for the
    networks."""
    top, bottom = bins(sums.shape[1] - 1, height, sums.device)
    left, right = bins(sums.shape[2] - 1, width, sums.device)
    rows = sums.index_select(1, bottom) - sums.index_select(1, top)
    return _scaled(rows.index_select(2, right) - rows.index_select(2, left), bottom - top, right - left)


def cut_out(sums: Tensor, frame: Tensor, window: Tensor, side: int) -> Tensor:
    """The same of windows (N, 4), left, top, right, bottom, in their frames: (N, 3, side, side)."""
    x, y = (window[:, i, None] for i in (0, 1))
    left, right = (x + offset for offset in bins(window[:, 2, None] - x, side, sums.device))
    top, bottom = (y + offset for offset in bins(window[:, 3, None] - y, side, sums.device))

    def at(row: Tensor, column: Tensor) -> Tensor:
        return sums[frame[:, None, None], row[:, :, None], column[:, None, :]]

    total = at(bottom, right) - at(bottom, left) - at(top, right) + at(top, left)
    return _scaled(total, bottom - top, right - left)


def _scaled(total: Tensor, height: Tensor, width: Tensor) -> Tensor:
    """Sums (n, h, w, 3) over so many rows (…, h) and columns (…, w) as the networks take their means."""
    mean = total / (height[..., :, None] * width[..., None, :])[..., None]
    return ((mean - 127.5) * 0.0078125).permute(0, 3, 1, 2)


def _seen(network: nn.Module, sums: Tensor, scale: float) -> Candidates:
    """All cells of the frames at a scale; held are those in which the first network sees a face."""
    move, likely = network(shrunk(sums, *(int((size - 1) * scale + 1) for size in sums.shape[1:3])))
    score = likely[:, 1]
    places = (torch.arange(size, device=sums.device) for size in score.shape)
    frame, row, column = (place.flatten() for place in torch.meshgrid(*places, indexing="ij"))
    corner = STRIDE * torch.stack([column, row], 1).to(score.dtype) + 1
    box = torch.cat([(corner / scale).floor(), ((corner + CELL - 1) / scale).floor()], 1)
    score = score.flatten()
    return Candidates(box, score, frame, score >= SURE[0], move.permute(0, 2, 3, 1).reshape(-1, 4))


def _judged(network: nn.Module, found: Candidates, sums: Tensor, side: int, sure: float) -> Candidates:
    """Score and move as a further network has them; held are those of which it is sure."""
    height, width = (size - 1 for size in sums.shape[1:3])
    left, top = (found.box[:, i].long().clamp(min=1) - 1 for i in (0, 1))
    right, bottom = found.box[:, 2].long().clamp(max=width), found.box[:, 3].long().clamp(max=height)
    inside = (right > left) & (bottom > top)
    left, top = left.clamp(max=width - 1), top.clamp(max=height - 1)
    window = torch.stack([left, top, torch.maximum(right, left + 1), torch.maximum(bottom, top + 1)], 1)
    move, score = _asked(network, cut_out(sums, found.frame, window, side))
    return replace(found, score=score, move=move, held=found.held & inside & (score > sure))


def _asked(network: nn.Module, pictures: Tensor) -> tuple[Tensor, Tensor]:
    """What a network answers: move (N, 4), score (N,)."""
    count, portion = len(pictures), PORTION[pictures.device.type]
    more = max(1, -(-count // portion)) * portion - count
    pictures = torch.cat([pictures, pictures.new_zeros(more, *pictures.shape[1:])])
    answers = [network(part) for part in pictures.split(portion)]
    move, score = (torch.cat([answer[i] for answer in answers])[:count] for i in (0, -1))
    return move, score[:, 1]
