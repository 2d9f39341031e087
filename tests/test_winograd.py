"""Winograd's convolution gives what torch's gives, where it is taken."""

import pytest
import torch
from torch import nn

from affuse.extract.winograd import WIDE, Winograd, pays


@pytest.mark.parametrize("size", [(8, 12), (7, 14), (1, 3), (5, 9)])
@pytest.mark.parametrize("bias", [True, False])
def test_it_convolves(size, bias):
    torch.manual_seed(0)
    conv = nn.Conv2d(5, 7, 3, padding=1, bias=bias).requires_grad_(False)
    x = torch.randn(3, 5, *size)
    made = Winograd(conv)(x.contiguous(memory_format=torch.channels_last))
    assert made.shape == (3, 7, *size)
    torch.testing.assert_close(made, conv(x), atol=1e-5, rtol=1e-5)


def test_it_is_taken_for_plain_ones_between_many_channels():
    def layer(channels=WIDE.start, side=3, padding=1, **more):
        return nn.Conv2d(channels, 8, side, padding=padding, **more)

    assert pays(layer())
    assert not pays(nn.ReLU())
    assert not pays(layer(channels=WIDE.start - 1))
    assert not pays(layer(channels=WIDE.stop))
    assert not pays(layer().to(torch.bfloat16))
    assert not pays(layer().to("meta"))
    others = (
        {"side": 1},
        {"padding": 0},
        {"stride": 2},
        {"dilation": 2},
        {"groups": 2},
        {"padding_mode": "reflect"},
    )
    assert not any(pays(layer(**other)) for other in others)
