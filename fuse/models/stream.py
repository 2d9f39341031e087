"""A model frame by frame: what it says of each when nothing after it is known.

In a window every encoder begins with zeros. Here it begins once, and goes on with what its causal convolutions were
given before: a frame is encoded once, of all that it can depend on, in place of once for every window that it is in.
Attention sees the last `window` frames encoded so. For a video no longer than that the last frame has the value that
the model has for the whole of it; later ones differ, by what the first frames of a window lack.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from affuse.errors import UsageError
from affuse.fuse.models.convolution import TAPS
from affuse.fuse.models.encoders import CausalConv1d, TemporalBlock
from affuse.fuse.models.inputs import check_features, masks
from affuse.fuse.models.layers import unless_full, zero_invalid
from affuse.fuse.models.model import FusionModel


class Continued(nn.Module):
    """A causal convolution that goes on where it stopped: before its first input are those of the calls before, and
    zeros before the first of all. Its weights are those of now, with the weight norm in them."""

    def __init__(self, layer: CausalConv1d):
        super().__init__()
        conv, (self.step,) = layer.conv, layer.conv.dilation
        self.weight, self.bias = conv.weight.detach().permute(2, 1, 0).flatten(0, 1), conv.bias
        self.reach = (TAPS - 1) * self.step
        self.given = self.weight.new_zeros(1, self.reach, conv.in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """(1, n, width) → (1, n, out)."""
        self.given = torch.cat([self.given.to(x.dtype), x], 1)
        first = self.given.shape[1] - x.shape[1] - self.reach
        taps = [self.given[:, first + k : first + k + x.shape[1]] for k in range(0, self.reach + 1, self.step)]
        return torch.cat(taps, -1) @ self.weight + self.bias

    def keep(self, frames: slice) -> None:
        """Of what was given these frames, all in order, and those before them that they need."""
        begin, end, _ = frames.indices(self.given.shape[1] - self.reach)
        self.given = self.given[:, begin : self.reach + end]


Rows = dict[str, Tensor]


class Stream:
    """A model that is given one video, some frames at a time. Raises UsageError for a model that reads backwards.

    It has a copy of the model, in evaluation mode. prepare: what is done to features that fit, before the model sees
    them. kept: how many frames are in memory at least, once they were given; by default as many as the model's window
    has.
    """

    def __init__(self, model: FusionModel, prepare: Callable[[Rows], Rows] = dict, kept: int = 0):
        if not model.causal:
            raise UsageError(
                f"Model {model.options.name!r} reads every window in both directions (BiLSTM), and has learned nothing "
                "of a frame that is the last. Take one with causal encoders, such as rjcma."
            )
        self.model, self.prepare, self.kept = copy.deepcopy(model).eval(), prepare, max(kept, model.memory)
        self.layers: list[Continued] = []
        for block in [part for part in self.model.encoders.modules() if isinstance(part, TemporalBlock)]:
            block.first, block.second = own = Continued(block.first), Continued(block.second)
            self.layers += own
        self.encoded: Rows = {}  # {m: (frames, d_m)}, X^0
        self.valid: Rows = {}  # {m: (frames,)}
        self.frames = self.before = 0  # that are in memory, and that were there before these

    @torch.no_grad()
    def add(self, features: Rows, mask: Tensor | dict[str, Tensor | None] | None = None) -> None:
        """The next frames: features {m: (n, width_m)} and mask, (n,) or {m: (n,)}, as the model takes them but without
        the batch. Raises UsageError for what does not fit the model."""
        model = self.model
        x = {m: rows[None] for m, rows in features.items()} if isinstance(features, dict) else features
        _, count = shape = check_features(x, model.options, None, next(model.parameters(), None))
        given = mask if isinstance(mask, dict) else dict.fromkeys(model.modalities, mask)
        batched = {m: there[None] if isinstance(there, Tensor) else there for m, there in given.items()}
        valid = masks(batched, model.modalities, shape, x[model.modalities[0]].device)
        x = self.prepare(x)
        x = model.encode({m: zero_invalid(x[m], valid[m]) for m in model.modalities}, unless_full(valid))
        for kept, new in ((self.encoded, x), (self.valid, valid)):
            kept |= {m: torch.cat([kept.get(m, v[0, :0]), v[0]]) for m, v in new.items()}
        self.frames += count
        self._keep(slice(max(0, self.frames - max(self.kept, model.memory - 1 + count)), None))

    def forget(self, frames: int) -> None:
        """Take back the last frames, so many of those in memory: they come again, and are others. Raises UsageError for
        more than are there."""
        if not 0 <= frames <= self.frames:
            raise UsageError(f"Of {self.frames} frames in memory {frames} cannot be taken back.")
        self._keep(slice(self.frames - frames))

    @torch.no_grad()
    def values(self, frames: int = 1, batch: int = 12) -> Tensor:
        """What the model says of each of the last frames (frames, targets), when nothing after it is known; windows of
        so many are computed at once. Raises UsageError where their windows are not in memory."""
        length = self.model.memory
        if not 1 <= frames <= self.frames or (self.before and self.frames < length - 1 + frames):
            raise UsageError(f"Of {self.frames} frames in memory the last {frames} cannot be told: give more.")
        last = torch.arange(self.frames - frames, self.frames)
        return torch.cat([self._values(each, length) for each in last.split(batch)])

    def _values(self, last: Tensor, length: int) -> Tensor:
        """Of frames (b,), each by the window that ends with it."""
        index = (last[:, None] + 1 - length).clamp(min=0) + torch.arange(length)
        inside = index <= last[:, None]
        index = index.clamp(max=self.frames - 1)
        valid = {m: there[index] & inside.to(there.device) for m, there in self.valid.items()}
        x = {m: zero_invalid(v[index], valid[m]) for m, v in self.encoded.items()}
        output = self.model.fuse(x, unless_full(valid))[0]
        return output[torch.arange(len(last)), last.clamp(max=length - 1)]

    def _keep(self, frames: slice) -> None:
        begin, end, _ = frames.indices(self.frames)
        for layer in self.layers:
            layer.keep(frames)
        for kept in (self.encoded, self.valid):
            kept |= {m: v[frames] for m, v in kept.items()}
        self.before, self.frames = self.before + begin, end - begin
