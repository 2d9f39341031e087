"""A backbone of one's own, as a user writes it: a grid of colours for a face, the loudness that follows for sound."""

from itertools import pairwise

import numpy as np
from torch.nn.functional import adaptive_avg_pool2d


class Grid:
    size, width = 32, 48

    def __init__(self, device, dtype):
        pass

    def encode(self, crops):
        return adaptive_avg_pool2d(crops / 255, 4).flatten(1)


class Loudness(Grid):
    width = 4

    def encode(self, samples, begin):
        cuts = (
            (np.clip(begin[:, None] + np.arange(5) / 4, 0, None) * 16_000).astype(int).clip(max=len(samples))
        )
        return [[samples[a:b].std() if b > a else 0 for a, b in pairwise(cut)] for cut in cuts]
