"""What must hold of the fusion models whatever their weights: reach, masks, order, gates, l = 0."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from affuse.fuse import build_model
from affuse.fuse.models.encoders import TCN
from affuse.fuse.models.layers import dropout
from affuse.fuse.models.registry import MODELS
from test_models import EVERY, WIDTHS, WINDOW, inputs, small, tensors

quick = settings(max_examples=6, deadline=None)
seeds = st.integers(0, 2**16)


NO_DROPOUT = dict.fromkeys(("encoder", "attention", "fusion", "head"), 0.0)


def case(name, seed, time=WINDOW - 3, **settings):
    torch.manual_seed(seed)
    model = small(name, **settings).double().eval()
    features, mask = inputs(model, time=time, seed=seed)
    return model, tensors(features), tensors(mask)


def test_tcn_reaches_121_frames_into_the_past_and_none_ahead():
    torch.manual_seed(0)
    tcn = TCN(3, [4, 4, 4, 4], 0.0).double().eval()
    x = torch.randn(1, 300, 3, dtype=torch.float64)
    changed = x.clone()
    changed[:, 150] += 1
    moved = (tcn(x) != tcn(changed)).any(-1)[0].nonzero().flatten()
    assert moved.tolist() == list(range(150, 271))


@pytest.mark.parametrize("name", EVERY)
@given(seed=seeds)
@quick
def test_permuting_the_batch_permutes_the_outputs(name, seed):
    model, x, mask = case(name, seed)
    order = torch.randperm(3)
    moved = model({m: v[order] for m, v in x.items()}, {m: v[order] for m, v in mask.items()})
    torch.testing.assert_close(moved, model(x, mask)[order], atol=1e-10, rtol=0)


@pytest.mark.parametrize("name", EVERY)
@given(seed=seeds, training=st.booleans(), poison=st.sampled_from([1e3, float("nan"), float("inf")]))
@quick
def test_masked_frames_never_change_anything(name, seed, training, poison):
    """Not a value, and in training not a statistic and not a gradient, whatever the masked frames hold."""
    model, x, mask = case(name, seed, dropout=NO_DROPOUT)
    model.train(training)
    start = {k: v.clone() for k, v in model.state_dict().items()}
    results = []
    for value in (0.0, poison):
        model.load_state_dict(start)
        model.zero_grad()
        y = model({m: v.masked_fill(~mask[m][..., None], value) for m, v in x.items()}, mask)
        if y.requires_grad:
            y.square().sum().backward()
        grads = {f"{k}.grad": p.grad for k, p in model.named_parameters() if p.grad is not None}
        results.append({"y": y.detach(), **{k: v.clone() for k, v in model.state_dict().items()}, **grads})
    for key, value in results[0].items():
        torch.testing.assert_close(results[1][key], value, atol=0, rtol=0, msg=key)


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("training", [False, True])
def test_a_full_mask_is_no_mask(name, training, monkeypatch):
    model, x, _ = case(name, 0, time=WINDOW, dropout=NO_DROPOUT)
    start = {k: v.clone() for k, v in model.train(training).state_dict().items()}
    free, after = model(x), {k: v.clone() for k, v in model.state_dict().items()}
    monkeypatch.setattr(
        "affuse.fuse.models.model.unless_full", lambda valid: valid
    )  # what an accelerator computes
    model.load_state_dict(start)
    torch.testing.assert_close(model(x, torch.ones(3, WINDOW, dtype=torch.bool)), free, atol=1e-12, rtol=0)
    for key, value in model.state_dict().items():
        torch.testing.assert_close(value, after[key])


@pytest.mark.parametrize("name", EVERY)
def test_short_inputs_are_padded_and_masked(name):
    model, x, mask = case(name, 1)
    longer = {m: F.pad(v, (0, 0, 0, 3), value=9.0) for m, v in x.items()}
    padded = {m: F.pad(v, (0, 3)) for m, v in mask.items()}
    torch.testing.assert_close(model(longer, padded)[:, :-3], model(x, mask), atol=0, rtol=0)
    one = torch.ones(3, WINDOW - 3, dtype=torch.bool)
    torch.testing.assert_close(model(x, one), model(x), atol=0, rtol=0)


@pytest.mark.parametrize(
    "name", [n for n in MODELS if MODELS[n].encoder == "tcn" and MODELS[n].block is None]
)
def test_without_attention_the_future_does_not_matter(name):
    model, x, _ = case(name, 2)
    later = {m: v.clone() for m, v in x.items()}
    for v in later.values():
        v[:, 12:] += 1
    assert torch.equal(model(later)[:, :12], model(x)[:, :12])
    assert not torch.equal(model(later)[:, 12:], model(x)[:, 12:])


@given(seed=seeds, variant=st.sampled_from(["released", "paper"]))
@quick
def test_rjcma_without_recursions_is_concatenation(seed, variant):
    model, x, mask = case("rjcma", seed, recursions=0, variant=variant)
    concat = small("concat").double().eval()
    concat.load_state_dict(model.state_dict())
    assert torch.equal(model(x, mask), concat(x, mask))


@given(seed=seeds)
@quick
def test_a_gate_forced_open_to_the_input_is_no_attention(seed):
    """GRJCA then is the head over ReLU(X^0): the attention's weights no longer matter."""
    model, x, mask = case("grjca", seed, time=WINDOW)
    with torch.no_grad():
        for gate in model.gates.values():
            gate.gate.score.weight.zero_()
            gate.gate.score.bias.copy_(torch.tensor([1e3, 0, 0]))
    inputs_of_attention = [F.normalize(model.encoders[m](x[m], mask[m]), dim=-1) for m in x]
    expected = model.head(torch.relu(torch.cat(inputs_of_attention, -1)))
    torch.testing.assert_close(model(x, mask), expected, atol=1e-12, rtol=0)


@given(seed=seeds)
@quick
def test_rjcmas_update_is_never_negative_as_released(seed):
    model, x, _ = case("rjcma", seed)
    features = {m: torch.randn(2, WINDOW, model.options.channels[m][-1]).double() for m in x}
    after = model.blocks[0](features)
    assert all((after[m] >= features[m]).all() for m in x)
    paper = case("rjcma", seed, variant="paper")[0].blocks[0](features)
    assert any((paper[m] < features[m]).any() for m in x)


def test_the_unused_fc_of_the_release_changes_nothing():
    model, x, mask = case("rjcma", 0)
    before = model(x, mask)
    with torch.no_grad():
        for block in model.blocks:
            block.fc["all"].weight.normal_()
    assert torch.equal(model(x, mask), before)
    assert model.blocks[0].fc["all"].weight.shape == (14, 14)


@pytest.mark.parametrize("name", ["rjcma", "grjca", "hgrjca", "dca", "jca", "ca", "concat"])
def test_explain_shows_updates_and_gates(name):
    model, x, mask = case(name, 0)
    seen = model.explain(x, mask)
    assert torch.equal(seen["output"], model(x, mask))
    time = x["visual"].shape[1]
    passes = model.config["recursions"]
    assert set(seen["updates"]) == (set(x) if passes else set())
    for m, norm in seen["norms"].items():
        assert norm.shape == (3, time)
        if model.spec.l2 == "encoded":  # frames of unit length
            torch.testing.assert_close(norm[mask[m]], torch.ones_like(norm[mask[m]]))
    for m, norms in seen["updates"].items():
        assert norms.shape == (3, time, passes)
        assert (norms[~mask[m]] == 0).all()
        assert (norms[mask[m]] > 0).any()
    expected = {"grjca": ["X0", "X1", "X2"], "dca": ["X0", "X2"], "hgrjca": ["G1", "G2"]}.get(name, [])
    assert seen["candidates"] == expected
    for weights in seen["gates"].values():
        assert weights.shape == (3, time, len(expected))
        torch.testing.assert_close(weights.sum(-1), torch.ones(3, time, dtype=torch.float64))
    if name == "hgrjca":
        assert [w.shape[-1] for w in seen["inner_gates"]["visual"]] == [2, 3]


@pytest.mark.parametrize("name", EVERY)
def test_bfloat16_autocast_trains(name):
    torch.manual_seed(0)
    model = small(name).train()
    features, mask = inputs(model)
    with torch.autocast("cpu", torch.bfloat16):
        y = model(tensors(features, torch.float32), tensors(mask))
    if y.requires_grad:
        y.float().square().mean().backward()
    assert y.isfinite().all()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_a_missing_modality_can_be_trained_on_and_predicted_without():
    torch.manual_seed(0)
    model = small("rjcma").train()
    features, _ = inputs(model)
    features = tensors(features, torch.float32)
    mask = {m: torch.full((3, WINDOW - 3), m != "text") for m in WIDTHS}
    start = model.encoders["text"].norm.running_mean.clone()
    y = model({**features, "text": torch.full_like(features["text"], float("nan"))}, mask)
    y.square().mean().backward()
    assert y.isfinite().all()
    assert torch.equal(model.encoders["text"].norm.running_mean, start)
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_the_published_sizes_run():
    widths = {"visual": 2048, "audio": 128, "text": 768}
    model = build_model("rjcma", widths=widths, window=300, recursions=3, variant="released").eval()
    x = {m: torch.randn(1, 300, d) for m, d in widths.items()}
    with torch.no_grad():
        assert model(x, mask=torch.ones(1, 300, dtype=torch.bool)).shape == (1, 300, 2)


@pytest.mark.parametrize("p", [0.1, 0.6])
def test_dropout_keeps_the_share_and_the_mean(p):
    torch.manual_seed(0)
    x = torch.ones(1001, 997, requires_grad=True)
    y = dropout(x, p, True)
    y.sum().backward()
    assert abs((y == 0).double().mean().item() - p) < 3e-3
    assert abs(y.double().mean().item() - 1) < 5e-3
    assert torch.equal(x.grad, y.detach())  # the gradient passes where the value does
    assert abs(torch.corrcoef(y[:, :4].detach().T)[0, 1:]).max() < 0.15  # neighbours share a word, not a fate
    assert dropout(x, p, False) is x
