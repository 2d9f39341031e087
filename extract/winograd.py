"""3×3 convolutions with a quarter of the multiplications (Winograd 1980; F(4×4, 3×3) of Lavin and Gray 2016).

On a CPU torch multiplies directly. Between many channels, where the transforms weigh little, this takes 0.5 to 0.8 of
the time (a core of an AMD EPYC), and gives the same within some millionths of the largest value, with weights four
times as large.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

TILE, SIDE = 4, 6  # pixels of the output that are computed together, from so many of the input
WIDE = range(128, 512)  # channels of the input; beyond, weights grow by 28 MB a layer for small maps
# Lavin and Gray's matrices Bᵀ, G and Aᵀ.
INPUT = ((4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0), (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0),
         (0, 4, 0, -5, 0, 1))  # fmt: skip
FILTER = ((1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6), (1 / 24, 1 / 12, 1 / 6),
          (1 / 24, -1 / 12, 1 / 6), (0, 0, 1))  # fmt: skip
OUTPUT = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


def pays(layer: nn.Module) -> bool:
    """Whether this is a convolution that `Winograd` computes, and sooner."""
    return (
        isinstance(layer, nn.Conv2d)
        and (layer.kernel_size, layer.stride, layer.padding) == ((3, 3), (1, 1), (1, 1))
        and (layer.dilation, layer.groups, layer.padding_mode) == ((1, 1), 1, "zeros")
        and layer.in_channels in WIDE
        and layer.weight.dtype == torch.float32
        and layer.weight.device.type == "cpu"
    )


class Winograd(nn.Module):
    """What the convolution computes: (n, C, H, W) in channels_last → (n, D, H, W), the same."""

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        into, out = (torch.tensor(matrix, dtype=torch.float32) for matrix in (INPUT, OUTPUT))
        of = torch.tensor(FILTER, dtype=torch.float64)
        filters = torch.einsum("ik,dckl,jl->ijcd", of, conv.weight.double(), of).flatten(0, 1)
        self.register_buffer("into", torch.kron(into, into))  # (36, 36), of a tile's pixels in a row
        self.register_buffer("out", torch.kron(out, out))  # (16, 36)
        self.register_buffer("filters", filters.float().contiguous())  # (36, C, D)
        self.register_buffer("bias", conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        n, _, height, width = x.shape
        rows, columns = -(-height // TILE), -(-width // TILE)
        x = F.pad(x, (1, TILE * columns - width + 1, 1, TILE * rows - height + 1))
        tiles = x.permute(0, 2, 3, 1).unfold(1, SIDE, TILE).unfold(2, SIDE, TILE)  # (n, rows, columns, C, 6, 6)
        tiles = tiles.permute(4, 5, 0, 1, 2, 3).flatten(4)
        seen = (self.into @ tiles.reshape(SIDE**2, -1)).view(SIDE**2, n * rows * columns, -1)
        made = self.out @ torch.bmm(seen, self.filters).view(SIDE**2, -1)
        made = made.view(TILE, TILE, n, rows, columns, -1).permute(2, 3, 0, 4, 1, 5)
        made = made.reshape(n, TILE * rows, TILE * columns, -1)[:, :height, :width]
        return (made if self.bias is None else made + self.bias).permute(0, 3, 1, 2)
