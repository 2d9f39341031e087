"""The benchmark of training: both sides compute the same, and the table says what was measured."""

import json
import re

import pytest
import torch
from click.testing import CliRunner

from affuse import commands as cli
from affuse.fuse.models.model import build_model
from affuse.fuse.training.losses import LOSSES
from affuse.pipelines.bench import eager

WIDTHS, WINDOW = {"visual": 12, "audio": 6, "text": 8}, 20
OURS = [  # names of the model's, by those of the release's composition
    (r"\.skip\.weight", ".skip.weight"),
    (r"\.(first|second)\.par", r".\1.conv.par"),
    (r"\.(first|second)\.bias", r".\1.conv.bias"),
    (r"\.fc\.", ".fc.all."),
    (r"^inner\.", "head.inner.0."),
    (r"^norm\.", "head.norm."),
    (r"^outer\.", "head.outer.0."),
]


@pytest.fixture
def sides():
    torch.manual_seed(0)
    plain, ours = eager.EagerRJCMA(WIDTHS, WINDOW), build_model("rjcma", WIDTHS, window=WINDOW)
    state = {}
    for name, value in plain.state_dict().items():
        for pattern, name_of_ours in OURS:
            name = re.sub(pattern, name_of_ours, name)
        state[name] = value.reshape(ours.state_dict()[name].shape)
    ours.load_state_dict(state)
    for module in [*plain.modules(), *ours.modules()]:
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return plain, ours


def test_the_release_composed_plainly_is_our_model(sides):
    """Outputs, loss and gradients, in training mode: batch statistics too."""
    plain, ours = sides
    x = {m: torch.randn(3, WINDOW, d) for m, d in WIDTHS.items()}
    truth, valid = torch.rand(3, WINDOW, 2), torch.ones(3, WINDOW, dtype=torch.bool)
    made = plain(x), ours(x)
    torch.testing.assert_close(*made, atol=1e-5, rtol=1e-4)
    losses = eager.ccc_loss(made[0], truth), LOSSES["ccc"](made[1], truth, valid)
    torch.testing.assert_close(*losses, atol=1e-4, rtol=1e-4)
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(plain.outer.weight.grad, ours.head.outer[0].weight.grad, atol=1e-5, rtol=1e-3)
    first = (
        plain.encoders["text"].blocks[0].first.bias.grad,
        ours.encoders["text"].blocks[0].first.conv.bias.grad,
    )
    torch.testing.assert_close(*first, atol=1e-5, rtol=1e-3)


def test_the_command(tmp_path):
    shape = ["--widths", "12,6,8", "--window", "20", "--batch", "2", "--steps", "1", "--repeats", "2"]
    run = CliRunner().invoke(
        cli.main,
        ["bench", "fuse", *shape, "--threads", "1", "--device", "cpu", "--out", str(tmp_path / "a.json")],
    )
    assert run.exit_code == 0, run.output
    facts = json.loads((tmp_path / "a.json").read_text())
    assert facts["shape"] == {"widths": WIDTHS, "window": 20, "batch": 2}
    for name, side in facts["sides"].items():
        assert len(side["all"]) == 2
        rates = facts["operations"]["matrix_rate"]
        done = side["operations"] / rates.get(name, rates["float32"])
        assert side["matrix_share"] == pytest.approx(done / side["seconds_per_step"])
    assert facts["sides"]["eager"]["ratio"] == 1
    by_side = [facts["sides"][name]["operations"] for name in ("float32", "bfloat16", "eager")]
    assert 0 < by_side[0] < by_side[1] < by_side[2]  # few multiplications; all; and an FC that is thrown away
    assert "| the release's modules |" in run.stdout
    wrong = CliRunner().invoke(cli.main, ["bench", "fuse", "--widths", "12,6"])
    assert (wrong.exit_code, "three whole numbers" in wrong.stderr) == (2, True)
