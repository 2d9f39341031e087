"""Weights that follow from the training data at once: ridge regression of a trailing mean of the inputs, in float64.

With x the standardised inputs of all modalities side by side, zero where one is missing, averaged over the last
seconds of the frames where it is there, and y the targets, over the annotated frames of whole videos

    w = (C + r v I)⁻¹ c    C = cov(x, x), c = cov(x, y), v = trace(C) / width,    prediction = mean(y) + (x − mean(x)) w

so that the intercept is not penalised, and r is a share of the mean variance of a column. `rescaled` multiplies the w
of each target until the prediction is as spread over the training frames as the labels: a ridge shrinks what it
predicts, which CCC punishes. The candidates are all seconds with all r; which is best the validation CCC says.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from affuse.fuse.data.corpus import CHUNK
from affuse.fuse.data.windows import Windows
from affuse.fuse.models.layers import zero_invalid
from affuse.fuse.models.model import FusionModel
from affuse.fuse.scoring.estimate import predict_frames

SMOOTHINGS = (0, 2, 8, 30)  # seconds of the trailing mean; 0 is none
RIDGES = (1e-3, 1e-2, 0.1, 1.0, 10.0, 100.0, 1000.0)  # r
TINY = 1e-30  # of a variance; what does not vary predicts nothing


def count(model: FusionModel) -> int:
    """How many candidates there are."""
    return 1 if model.spec.fit == "nothing" else len(SMOOTHINGS) * len(RIDGES)


@torch.no_grad()
def candidates(model: FusionModel, training: Windows, fps: float | None) -> Iterator[dict]:
    """Give the model the weights of one candidate after the other; of each "ridge" (r) and "smoothing" (seconds), and
    "loss", the mean square error over the training frames. Where nothing is fitted, the loss alone.

    training are whole videos, one at a time in memory beside a matrix of the inputs' width squared. fps: frames per
    second; None: the median of the training videos'.
    """
    if model.spec.fit == "nothing":
        corpus = training.corpus
        error = torch.from_numpy(predict_frames(model, training, 1).values).to(corpus.device) - corpus.truth
        yield {"loss": float(error[corpus.annotated & corpus.any_present()].square().mean())}
        return
    linear, rate = model.head.outer[0], fps or _median_rate(training)
    for seconds in SMOOTHINGS:
        model.fusion.frames.fill_(max(1, round(seconds * rate)))
        mean, covariance = moments(model, training)
        inputs, targets = slice(linear.in_features), slice(linear.in_features, None)
        within, between = covariance[inputs, inputs], covariance[inputs, targets]  # C, c
        spread = covariance.diagonal()[targets]  # of each target
        for ridge in RIDGES:
            penalised = within + (ridge * within.diagonal().mean() + TINY) * torch.eye(len(within)).to(within)
            weight = torch.cholesky_solve(between, torch.linalg.cholesky(penalised))
            if model.spec.fit == "rescaled":
                predicted = (weight * (within @ weight)).sum(0)
                weight *= (spread / predicted.clamp(min=TINY)).sqrt()
            linear.weight.copy_(weight.T)
            linear.bias.copy_(mean[targets] - mean[inputs] @ weight)
            error = spread + (weight * (within @ weight - 2 * between)).sum(0)
            yield {"ridge": ridge, "smoothing": seconds, "loss": float(error.mean())}


def moments(model: FusionModel, training: Windows) -> tuple[Tensor, Tensor]:
    """Mean (width + targets,) and covariance of what the head gets and the targets, side by side, over the annotated
    frames with a modality."""
    size, device = model.fusion.width + len(model.targets), training.corpus.device
    total = torch.zeros(size + 1, size + 1, dtype=torch.float64, device=device)  # a column of ones makes it the sums
    for batch in training.ordered(1):
        x = model.fusion({m: zero_invalid(batch.inputs[m], batch.mask[m]) for m in model.modalities}, batch.mask)
        for part in torch.cat([x, batch.truth], -1)[batch.counted].split(CHUNK):
            row = torch.nn.functional.pad(part.double(), (0, 1), value=1)
            total += row.T @ row
    total /= total[-1, -1].clone()
    mean = total[-1, :-1]
    return mean, total[:-1, :-1] - mean[:, None] * mean


def _median_rate(training: Windows) -> float:
    """Frames per second, by the median step of all videos."""
    corpus = training.corpus
    steps = np.concatenate([np.diff(corpus.time[corpus.frames(video)]) for video in range(len(corpus.videos))])
    return 1 / float(np.median(steps)) if len(steps) else 1.0
