"""The convolution along time against torch's own, and how far its rounding goes."""

import pytest
import torch
from torch.nn import functional as F

from affuse.fuse.models.convolution import causal_convolution, few_multiplications

WIDTH, OUT = 6, 4


def drawn(time: int, dtype=torch.float64):
    torch.manual_seed(time)
    return [
        torch.randn(shape, dtype=torch.float64).to(dtype)
        for shape in ((2, time, WIDTH), (OUT, WIDTH, 5), OUT)
    ]


def plain(x, weight, bias, dilation):
    """By the definition: each output is a sum over the frame and the four before it."""
    past = F.pad(x, (0, 0, 4 * dilation, 0))
    taps = [past[:, k * dilation : k * dilation + x.shape[1]] @ weight[:, :, k].T for k in range(5)]
    return sum(taps) + bias


@pytest.mark.parametrize("convolution", [causal_convolution, few_multiplications])
@pytest.mark.parametrize("dilation", [1, 2, 3, 8])
@pytest.mark.parametrize("time", [1, 4, 31, 32, 33])
def test_it_is_the_sum_over_five_frames(convolution, dilation, time):
    x, weight, bias = drawn(time)
    expected = plain(x, weight, bias, dilation)
    torch.testing.assert_close(convolution(x, weight, bias, dilation), expected, atol=1e-12, rtol=0)


@pytest.mark.parametrize("convolution", [causal_convolution, few_multiplications])
def test_gradients_are_those_of_finite_differences(convolution):
    given = [v.requires_grad_() for v in drawn(11)]
    assert torch.autograd.gradcheck(lambda *each: convolution(*each, 2), given, fast_mode=True)


def test_in_single_precision_it_takes_few_multiplications_and_rounds_little():
    x, weight, bias = drawn(100, torch.float32)
    made = causal_convolution(x, weight, bias, 2)
    assert torch.equal(made, few_multiplications(x, weight, bias, 2))
    exact = plain(x.double(), weight.double(), bias.double(), 2)
    assert 0 < (made - exact).abs().max() < 1e-5 * exact.abs().max()


def test_what_comes_later_moves_an_output_by_rounding_alone():
    x, weight, bias = drawn(64, torch.float32)
    later = x.clone()
    later[:, 30:] += 1
    moved = (causal_convolution(x, weight, bias, 1) - causal_convolution(later, weight, bias, 1)).abs()
    assert moved[:, :30].max() < 1e-4
    assert moved[:, 30:].max() > 1


def test_under_autocast_it_is_in_bfloat16():
    x, weight, bias = drawn(20, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        made = causal_convolution(x, weight, bias, 4)
    assert made.dtype == torch.bfloat16
    torch.testing.assert_close(made.float(), plain(x, weight, bias, 4), atol=0.1, rtol=0.05)
