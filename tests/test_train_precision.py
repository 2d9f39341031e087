"""The numbers that training computes in: chosen when a run begins, kept by it, and never where they would not do."""

import logging

import pytest
import torch
import yaml

import tiny
from affuse import fuse
from affuse.errors import UsageError
from affuse.fuse.models.model import build_model
from affuse.fuse.training.checkpoint import read_tensors

pytestmark = pytest.mark.usefixtures("undrawn")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return tiny.make_data(tmp_path_factory.mktemp("data"), without=("text",))


@pytest.fixture
def tiles(monkeypatch):
    """Sets whether the CPU has tiles for bfloat16."""
    return lambda there: monkeypatch.setattr(torch.cpu, "_init_amx", lambda: there, raising=False)


def kept(run) -> tuple[str, dict]:
    tensors, facts = read_tensors(run / "model.safetensors")
    assert yaml.safe_load((run / "config.yaml").read_text())["precision"] == facts["settings"]["precision"]
    return facts["settings"]["precision"], tensors


@pytest.mark.parametrize(("begun_with", "precision"), [(True, "bfloat16"), (False, "float32")])
def test_a_run_keeps_what_it_began_with_and_ends_as_if_never_stopped(
    data, tmp_path, tiles, begun_with, precision
):
    auto = tiny.small(precision="auto", epochs=4)
    tiles(begun_with)
    fuse.train(*data, tmp_path / "whole", auto)
    with pytest.raises(tiny.Stop):
        fuse.train(*data, tmp_path / "run", auto, tiny.stop_after(2))
    tiles(not begun_with)
    assert fuse.train(*data, tmp_path / "run", auto)["resumed_at"] == 2
    (found, tensors), (_, expected) = kept(tmp_path / "run"), kept(tmp_path / "whole")
    assert found == precision
    assert all(torch.equal(tensors[name], expected[name]) for name in {**tensors, **expected})


def test_another_precision_is_another_run(data, tmp_path):
    with pytest.raises(tiny.Stop):
        fuse.train(*data, tmp_path / "run", tiny.small(), tiny.stop_after(1))
    with pytest.raises(UsageError, match="precision is 'float32' there and 'bfloat16' here"):
        fuse.train(*data, tmp_path / "run", tiny.small(precision="bfloat16"))


@pytest.mark.parametrize("name", ["rjcma", "rjca", "lfan"])
def test_the_head_computes_in_float32(name):
    widths = {"visual": 8, "audio": 4}
    model, seen = build_model(name, widths, window=8), []
    model.head.register_forward_hook(lambda head, given, made: seen.extend([given[0].dtype, made.dtype]))
    with torch.autocast("cpu", torch.bfloat16):
        made = model({m: torch.randn(2, 8, d) for m, d in widths.items()})
    assert [*seen, made.dtype] == [torch.float32] * 3


def test_convolutions_are_cudnns_repeatable_and_not_in_tf32(data, tmp_path):
    cudnn, seen = torch.backends.cudnn, []
    before = cudnn.enabled, cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32

    def look(row):
        seen.append((cudnn.enabled, cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32))

    fuse.train(*data, tmp_path / "run", tiny.small(epochs=1), look)
    assert seen == [(True, True, False, False)]
    assert (cudnn.enabled, cudnn.deterministic, cudnn.benchmark) == before[:3]


def test_going_on_on_another_device_is_said_and_kept(data, tmp_path, monkeypatch, caplog):
    with pytest.raises(tiny.Stop):
        fuse.train(*data, tmp_path / "run", tiny.small(), tiny.stop_after(2))
    monkeypatch.setattr("affuse.fuse.training.learning.told", lambda device: "a GPU")
    with caplog.at_level(logging.WARNING):
        fuse.train(*data, tmp_path / "run", tiny.small())
    began = f"cpu {torch.backends.cpu.get_cpu_capability()}"
    assert f"this run was on {began} and goes on on a GPU" in caplog.text
    assert read_tensors(tmp_path / "run" / "model.safetensors")[1]["devices"] == [began, "a GPU"]


@pytest.mark.parametrize(
    ("name", "part"),
    [("rcma", "head"), ("lfan", "head"), ("jca", "attention"), ("concat", "fusion"), ("rjcma", "fusion")],
)
def test_a_dropout_that_would_do_nothing_is_refused(name, part):
    widths = {"visual": 8, "audio": 4}
    with pytest.raises(
        UsageError, match=f"The {part} of model '{name}' has no dropout: dropout.{part}=0.3 would do"
    ):
        build_model(name, widths, dropout={part: 0.3})
    assert build_model(name, widths, dropout={part: 0.0}).idle.count(part) == 1
    settings = fuse.train_settings(preset="rcma", model=name, modalities=list(widths))  # made for all of them
    assert set(settings.model_options(widths)["dropout"]) == {"attention", "head"}.difference(
        build_model(name, widths).idle
    )
