"""A fusion model of one's own, as a user writes it: the mean of a few features that all modalities share."""

import torch
from torch import nn

from affuse.fuse import register


@register("mbt", title="Multimodal Bottleneck", paper="after Nagrani et al., 2021", recursions=2)
class Bottleneck(nn.Module):
    def __init__(self, widths, options):
        super().__init__()
        self.read = nn.ModuleDict({m: nn.Linear(d, 4) for m, d in widths.items()})
        self.write = nn.ModuleDict({m: nn.Linear(4, d) for m, d in widths.items()})
        self.dropout = nn.Dropout(options.dropout["attention"])

    def forward(self, x, valid):
        shared = torch.stack([torch.tanh(self.read[m](x[m])) for m in x])
        if valid is None:
            shared = shared.mean(0)
        else:
            there = torch.stack([valid[m] for m in x])[..., None]
            shared = shared.masked_fill(~there, 0).sum(0) / there.sum(0).clamp(min=1)
        return {m: x[m] + self.write[m](self.dropout(shared)) for m in x}
