"""Several models, one prediction: their mean, plain or after CCC-centring."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from features.errors import UsageError
from fuse.ccc import ccc
from fuse.data import Corpus, Windows
from fuse.evaluation import predict_frames
from fuse.run import Run

METHODS = ("mean", "ccc")


def combine(predictions: np.ndarray, method: str = "mean") -> np.ndarray:
    """Predictions of one video by several models (K, T, targets) → (T, targets).

    mean: their mean. ccc: the gold standard of AVEC 2016 (`run_gold_standard.m`), models in the place of raters.
    With w_k the mean CCC of model k with every other one and m_k its mean over the video,

        x̂ = mean_k (x_k − m_k) + Σ_k w_k m_k / Σ_k w_k

    so that a model that agrees with none does not move the level. Raises UsageError for another method.
    """
    if method not in METHODS:
        raise UsageError(f"Unknown ensemble {method!r}. Known: {', '.join(METHODS)}.")
    mean = predictions.mean(axis=0)
    if method == "mean" or len(predictions) == 1:
        return mean
    level = predictions.mean(axis=1)  # (K, targets)
    weight = np.stack([_agreement(predictions[:, :, k]) for k in range(predictions.shape[2])], axis=1)
    total = weight.sum(axis=0)
    # Models that disagree all round have weights about 0, of either sign: nobody is to be trusted more.
    even = np.full_like(weight, 1 / len(weight))
    share = np.where((weight > 0).all(axis=0), weight / np.where(total == 0, 1, total), even)
    return mean - level.mean(axis=0) + (share * level).sum(axis=0)


def _agreement(series: np.ndarray) -> np.ndarray:
    """Mean CCC of each series (K, T) with all the others (K,)."""
    pairs = np.array([[ccc(x, y) for y in series] for x in series])
    np.fill_diagonal(pairs, 0)
    return pairs.sum(axis=1) / (len(series) - 1)


def predict_together(runs: Sequence[Run], corpus: Corpus, method: str, device: torch.device) -> np.ndarray:
    """The combined prediction (F, targets) for a corpus's frames, in [−1, 1]."""
    each = []
    for run in runs:
        settings = run.settings
        windows = Windows(corpus, settings.window, settings.hop, run.normalisation.to(device))
        each.append(predict_frames(run.model.to(device), windows, settings.batch, settings.precision))
    stacked = np.stack(each)
    videos = [combine(stacked[:, corpus.frames(video)], method) for video in range(len(corpus.videos))]
    return np.concatenate(videos).clip(-1, 1)
