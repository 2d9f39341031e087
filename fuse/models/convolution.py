"""Causal convolution along time with half the multiplications: minimal filtering after Toom and Cook (Winograd,
"Arithmetic Complexity of Computations", 1980; Lavin, Gray, "Fast Algorithms for Convolutional Neural Networks",
CVPR 2016, arXiv 1509.09308, sec. 4).

Four outputs y of five taps w come of eight inputs x by 8 products where 20 would be taken:

    y = A [(G w) ∘ (B x)]        A (4, 8), G (8, 5), B (8, 8)

which is: evaluate the polynomials that x and w are the coefficients of at 7 points and at infinity, multiply there, and
interpolate. Between channels each of the 8 products is one of matrices. Rounding grows about fivefold; and with it, an
output is touched by inputs after it.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from numpy.polynomial import polynomial
from torch import Tensor
from torch.nn import functional as F

TAPS, OUTPUTS = 5, 4
POINTS = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)  # and infinity; small ones, so that rounding grows little
INPUTS = OUTPUTS + TAPS - 1


def causal_convolution(x: Tensor, weight: Tensor, bias: Tensor, dilation: int) -> Tensor:
    """(batch, time, width) → (batch, time, out), with weight (out, width, 5): zeros before the first frame, none after.

    In float32 on a CPU by few multiplications, else as torch has it.
    """
    reach = (TAPS - 1) * dilation
    if x.device.type != "cpu":
        return F.conv1d(F.pad(x.mT, (reach, 0)), weight, bias, dilation=dilation).mT
    if x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu"):
        return few_multiplications(x, weight, bias, dilation)
    image = F.pad(x, (0, 0, reach, 0)).mT[:, :, None]  # one row of pixels, channels last: oneDNN need not move them
    return F.conv2d(image, weight[:, :, None], bias, dilation=(1, dilation))[:, :, 0].mT


def few_multiplications(x: Tensor, weight: Tensor, bias: Tensor, dilation: int) -> Tensor:
    """The same, in any precision. A tile is 4 outputs `dilation` frames apart; `dilation` tiles make a block."""
    (batch, time, width), out = x.shape, len(weight)
    A, G, B = (matrix.to(x) for matrix in transforms())
    count = -(-time // (OUTPUTS * dilation))  # of blocks
    past, rest = OUTPUTS * dilation, count * OUTPUTS * dilation - time
    blocks = F.pad(x, (0, 0, past, rest)).view(batch, 1 + count, OUTPUTS, dilation, width).permute(2, 0, 1, 3, 4)
    inputs = torch.cat([blocks[:, :, :-1], blocks[:, :, 1:]])  # (8, batch, count, dilation, width)
    Bx = (B @ inputs.view(INPUTS, -1)).view(INPUTS, -1, width)
    Gw = (G @ weight.movedim(2, 0).reshape(TAPS, -1)).view(INPUTS, out, width)
    y = (A @ torch.bmm(Bx, Gw.mT).view(INPUTS, -1)).view(OUTPUTS, batch, count, dilation, out)
    return y.permute(1, 2, 0, 3, 4).reshape(batch, -1, out)[:, :time] + bias


@cache
def transforms() -> tuple[Tensor, Tensor, Tensor]:
    """A (4, 8), G (8, 5) and B (8, 8) in float64, of `POINTS` and infinity."""
    others = [[q for q in POINTS if q != p] for p in POINTS]
    scale = [np.prod([p - q for q in rest]) for p, rest in zip(POINTS, others, strict=True)]
    at_points = np.vander(POINTS, TAPS, increasing=True) / np.reshape(scale, (-1, 1))
    lagrange = [np.append(polynomial.polyfromroots(rest), 0) for rest in others]
    A = np.vstack([np.vander(POINTS, OUTPUTS, increasing=True), np.eye(OUTPUTS)[-1]]).T
    G = np.vstack([at_points, np.eye(TAPS)[-1]])
    B = np.vstack([*lagrange, polynomial.polyfromroots(POINTS)])
    return torch.from_numpy(A), torch.from_numpy(G), torch.from_numpy(B)
