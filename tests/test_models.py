"""Every fusion model and variant against the NumPy reference; counts, gradients, files, bad input."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

import reference
from affuse.errors import UsageError
from affuse.fuse import build_model, describe
from affuse.fuse.models.heads import TrailingMean
from affuse.fuse.models.layers import MaskedBatchNorm1d, drop_modalities
from affuse.fuse.models.registry import MODELS, find
from affuse.fuse.training.loading import load_weights

WIDTHS = {"visual": 7, "audio": 5, "text": 6}
CHANNELS = {"visual": [6, 4], "audio": [4, 4], "text": [5, 6]}
WINDOW = 24
OWN = f"{Path(__file__).parent}/own_fusion.py:mbt"
EVERY = [*MODELS, pytest.param(OWN, id="own")]
CASES = [
    (name, variant, attention)
    for name, spec in MODELS.items()
    for variant in ("released", "paper")
    for attention in ("channel", "frame")
    if spec.recursive or (variant, attention) == ("released", "channel")
]


def small(name, modalities=None, **settings):
    """A model of the family at small widths, its normalisations moved away from their neutral start."""
    spec = find(name)
    modalities = modalities or list(WIDTHS)[: spec.modalities[1]]
    channels = {m: CHANNELS[m] for m in modalities} if spec.encoder != "none" else None
    settings = {"window": WINDOW, "channels": channels, **settings}
    if name == "mean":  # it takes predictions of any target in any width
        settings["target"] = "valence"
    model = build_model(name, {m: WIDTHS[m] for m in modalities}, **settings)
    with torch.no_grad():
        for part in model.modules():
            if isinstance(part, MaskedBatchNorm1d):
                for tensor in (part.running_mean, part.weight, part.bias):
                    tensor.copy_(torch.randn_like(tensor))
                part.running_var.uniform_(0.5, 2)
            elif isinstance(part, TrailingMean):
                part.frames.fill_(4)
            elif isinstance(part, torch.nn.Linear) and part.bias is not None:
                part.bias.normal_()  # a zero bias would hide a masked frame that a bias revives
    return model


def inputs(model, batch=3, time=WINDOW - 3, seed=0, kept=0.7):
    """Random features and masks; one sample lacks its last modality wholly, one ends early."""
    random = np.random.default_rng(seed)
    widths = model.config["widths"]
    features = {m: random.normal(size=(batch, time, d)) for m, d in widths.items()}
    mask = {m: random.random((batch, time)) < kept for m in widths}
    if len(widths) > 1:
        mask[list(widths)[-1]][0] = False
    for v in mask.values():
        v[1, time - 5 :] = False
        v[-1, 2:6] = True
    return features, mask


def tensors(arrays, dtype=torch.float64):
    return {m: torch.as_tensor(a, dtype=torch.bool if a.dtype == bool else dtype) for m, a in arrays.items()}


def state(model):
    return {k: v.detach().numpy() for k, v in model.state_dict().items()}


@pytest.mark.parametrize(("name", "variant", "attention"), CASES)
def test_forward_is_the_reference(name, variant, attention):
    torch.manual_seed(0)
    model = small(name, variant=variant, attention=attention).eval()
    features, mask = inputs(model)
    expected = reference.forward(model.config, state(model), features, mask)
    single = model(tensors(features, torch.float32), tensors(mask)).detach().numpy()
    np.testing.assert_allclose(single, expected, atol=1e-5)
    double = model.double()(tensors(features), tensors(mask)).detach().numpy()
    np.testing.assert_allclose(
        double, expected, atol=1e-6
    )  # the weights are float32 numbers: nothing else rounds
    assert np.abs(expected).max() > 0.05


@pytest.mark.parametrize(
    ("name", "modalities", "settings"),
    [
        ("rjcma", ["visual", "text"], {"recursions": 3, "tied": True, "target": "arousal"}),
        ("grjca", None, {"recursions": 1}),
        ("hgrjca", ["visual", "audio"], {"recursions": 3, "target": ["valence", "arousal", "dominance"]}),
        ("rcma", ["audio", "text"], {"encoder": "linear"}),
        ("jca", ["visual", "audio"], {"encoder": "none", "channels": None}),
        ("unimodal", ["text"], {"encoder": "bilstm"}),
        ("rjcma", None, {"gates": "hgrjca"}),
        ("grjca", ["visual", "audio"], {"gates": "none", "variant": "paper"}),
    ],
)
def test_other_settings_are_the_reference_too(name, modalities, settings):
    torch.manual_seed(1)
    model = small(name, modalities, **settings).double().eval()
    features, mask = inputs(model, seed=1)
    expected = reference.forward(model.config, state(model), features, mask)
    got = model(tensors(features), tensors(mask)).detach().numpy()
    assert got.shape[-1] == len(model.targets)
    np.testing.assert_allclose(got, expected, atol=1e-8)


@pytest.mark.parametrize("name", ["rjcma", "grjca", "lfan", "concat"])
def test_training_statistics_are_those_of_valid_frames(name):
    torch.manual_seed(2)
    model = (
        small(name, dropout=dict.fromkeys(("encoder", "attention", "fusion", "head"), 0.0)).double().train()
    )
    features, mask = inputs(model, seed=2)
    expected = reference.forward(model.config, state(model), features, mask, train=True)
    np.testing.assert_allclose(model(tensors(features), tensors(mask)).detach().numpy(), expected, atol=1e-8)


def test_masked_batch_norm_is_torchs_over_the_valid_rows():
    torch.manual_seed(0)
    x, valid = torch.randn(4, 9, 3) * 3 + 1, torch.rand(4, 9) < 0.6
    ours, theirs = MaskedBatchNorm1d(3), torch.nn.BatchNorm1d(3)
    np.testing.assert_allclose(ours(x, valid)[valid].detach(), theirs(x[valid]).detach(), atol=1e-5)
    for key, value in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[key], value)
    before = {k: v.clone() for k, v in ours.state_dict().items()}
    assert ours(x, torch.zeros(4, 9, dtype=torch.bool)).isfinite().all()
    for key, value in ours.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("name", EVERY)
def test_gradients_are_those_of_finite_differences(name):
    torch.manual_seed(3)
    model = small(name, window=6).double().eval()
    features, mask = inputs(model, batch=2, time=6, seed=3)
    mask = tensors({m: v | (np.arange(6) < 3) for m, v in mask.items()})
    x = {m: v.requires_grad_() for m, v in tensors(features).items()}
    assert torch.autograd.gradcheck(
        lambda *a: model(dict(zip(x, a, strict=True)), mask), tuple(x.values()), fast_mode=True
    )
    model(x, mask).square().sum().backward()
    untrained = [k for k, p in model.named_parameters() if p.grad is None]
    assert untrained == (
        [f"blocks.{i}.fc.all.{k}" for i in (0, 1) for k in ("weight", "bias")] if name == "rjcma" else []
    )


@pytest.mark.parametrize("attention", ["channel", "frame"])
@pytest.mark.parametrize("variant", ["released", "paper"])
def test_gradients_of_the_joint_attention_with_respect_to_its_weights(variant, attention):
    torch.manual_seed(4)
    block = (
        small("rcma", ["visual", "audio"], window=5, variant=variant, attention=attention)
        .blocks[0]
        .double()
        .eval()
    )
    x = {m: torch.randn(2, 5, CHANNELS[m][-1], dtype=torch.float64) for m in ("visual", "audio")}
    valid = {m: torch.rand(2, 5) < 0.8 for m in x}
    names, values = zip(*block.named_parameters(), strict=True)

    def run(*weights):
        return tuple(
            torch.func.functional_call(block, dict(zip(names, weights, strict=True)), (x, valid)).values()
        )

    assert torch.autograd.gradcheck(run, tuple(v.detach().requires_grad_() for v in values), fast_mode=True)


def count(name, widths=None, **settings):
    widths = widths or {"visual": 512, "audio": 128, "text": 768}
    with torch.device("meta"):
        return build_model(name, widths, **settings)


def size(module):
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts_are_the_published_ones():
    assert size(count("rjcma").blocks) == 1_790_056
    assert [round(size(count("rjcma", recursions=l)) / 1e6, 2) for l in (1, 2, 3, 4)] == [
        11.31,
        12.21,
        13.10,
        14.00,
    ]
    assert round(size(count("rcma")) / 1e6, 2) == 29.64
    assert round(size(count("grjca", {"visual": 512, "audio": 128})) / 1e6, 2) == 8.89
    assert round(size(count("lfan")) / 1e6, 1) == 5.0
    assert size(count("rjcma", recursions=4, tied=True)) == size(count("rjcma", recursions=1))


def test_describe_lists_the_family():
    rows = {row["name"]: row for row in describe()}
    assert list(rows) == list(MODELS)
    assert rows["rjcma"]["recursions"] == {"released": 2, "paper": 3}
    assert rows["rjcma"]["parameters"]["released"] == size(count("rjcma"))
    assert (rows["grjca"]["gates"], rows["rjca"]["encoder"], rows["rcma"]["joint"]) == (
        "grjca",
        "bilstm",
        "others",
    )
    json.dumps(rows)


@pytest.mark.parametrize("name", EVERY)
def test_config_and_safetensors_make_the_same_model_again(name, tmp_path):
    model = small(name, modality_dropout=0.0).eval()
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    again = build_model(**json.loads(json.dumps(model.config))).eval()
    load_weights(again, load_file(tmp_path / "model.safetensors"), "model.safetensors")
    features, mask = inputs(model)
    features = tensors(features, torch.float32)
    assert again.config == model.config
    assert torch.equal(again(features, tensors(mask)), model(features, tensors(mask)))


def test_weights_of_another_model_say_how_they_differ():
    wide, narrow = small("rjcma"), small("rjcma", channels={**CHANNELS, "audio": [4, 8]})
    with pytest.raises(UsageError, match=r"run/model.safetensors.*audio.*\(8, .*more"):
        load_weights(wide, narrow.state_dict(), "run/model.safetensors")
    with pytest.raises(UsageError, match=r"blocks\.0.* is missing"):
        load_weights(wide, small("concat").state_dict(), "x")


@given(p=st.floats(0, 0.99), seed=st.integers(0, 9999))
@settings(max_examples=40, deadline=None)
def test_modality_dropout_never_takes_the_last_one(p, seed):
    torch.manual_seed(seed)
    valid = {m: (torch.rand(16, 1) < 0.6).expand(16, 4) for m in WIDTHS}
    kept = drop_modalities(valid, p)
    before, after = (torch.stack([v[m].any(1) for m in WIDTHS]) for v in (valid, kept))
    assert torch.equal(before.any(0), after.any(0))
    assert not (after & ~before).any()


def test_modality_dropout_drops_in_training_only():
    torch.manual_seed(0)
    model = small("concat", modality_dropout=0.5, dropout={"encoder": 0.0}).eval()
    features, _ = inputs(model)
    features = tensors(features, torch.float32)
    assert torch.equal(model(features), model(features))
    model.train()
    assert not torch.equal(model(features), model(features))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "rjcm"}, "Unknown model 'rjcm'; did you mean 'rjcma'?"),
        ({"variant": "papr"}, "did you mean 'paper'?"),
        ({"attention": "chanel"}, "did you mean 'channel'?"),
        ({"target": "valance"}, "did you mean 'valence'?"),
        ({"encoder": "lstm"}, "did you mean 'bilstm'?"),
        ({"widths": {"video": 4, "audio": 4}}, "Unknown modality 'video'"),
        ({"widths": {"visual": 0, "audio": 4}}, "width of visual"),
        ({"widths": {"visual": 4}}, "use 'unimodal'"),
        ({"name": "jca", "widths": {"visual": 4}}, "takes 2 to 3 modalities, not 1"),
        ({"name": "ca", "widths": WIDTHS}, "takes exactly 2 modalities, not 3"),
        ({"name": "unimodal"}, "use 'concat'"),
        ({"name": "concat", "widths": {"audio": 4}}, "use 'unimodal'"),
        ({"name": "grjca", "recursions": 0}, "gates the results of its recursions"),
        ({"name": "jca", "recursions": 2}, "makes one pass"),
        ({"name": "concat", "recursions": 2}, "no attention to repeat"),
        ({"name": "lfan", "attention": "frame"}, "another reading of the joint attention"),
        ({"recursions": -1}, "0 or more"),
        ({"recursions": 1, "tied": True}, "shares weights between recursions"),
        ({"window": 1}, "at least 2"),
        ({"modality_dropout": 1.0}, "probability"),
        ({"dropout": {"atention": 0.1}}, "did you mean 'attention'?"),
        ({"dropout": {"head": 1.5}}, "probability"),
        ({"channels": {"text": [4]}}, "modality in channels"),
        ({"channels": {"visual": []}}, "channels of visual"),
        ({"encoder": "bilstm", "channels": {"visual": [5]}}, "even for a bilstm"),
        ({"target": ["valence", "valence"]}, "different names"),
        ({"name": "linear", "encoder": "tcn"}, "takes features as they are"),
        ({"name": "linear", "recursions": 2}, "no attention to repeat"),
        ({"name": "mean", "widths": {"visual": 4, "text": 9}}, "a multiple of 2. That of text is 9"),
    ],
)
def test_bad_requests_say_why(arguments, message):
    with pytest.raises(UsageError) as error:
        build_model(**{"name": "rjcma", "widths": {"visual": 4, "audio": 4}, **arguments})
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.pop("audio"), "pass zeros and a mask"),
        (lambda x: x.update(audio=x["audio"][..., :3]), "audio features 5 wide, these are 3 wide"),
        (lambda x: x.update({m: torch.cat([v] * 2, 1) for m, v in x.items()}), "cut it into windows"),
        (lambda x: x.update(audio=x["audio"][:, 1:]), "one batch and time"),
    ],
)
def test_bad_inputs_say_why(change, message):
    model = small("concat")
    features = tensors(inputs(model)[0], torch.float32)
    change(features)
    with pytest.raises(UsageError, match=message):
        model(features)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: list(x.values()), "dictionary .* not of list"),
        (lambda x: {m: v.numpy() for m, v in x.items()}, "dictionary .* not of ndarray"),
        (lambda x: {m: v.half() for m, v in x.items()}, r"visual features are torch\.float16, the model is"),
    ],
)
def test_inputs_of_another_kind_say_why(change, message):
    model = small("concat")
    with pytest.raises(UsageError, match=message):
        model(change(tensors(inputs(model)[0], torch.float32)))


def test_widths_and_settings_of_another_kind_say_why():
    with pytest.raises(UsageError, match="widths must be a dictionary"):
        build_model("rjcma", [4, 4])
    with pytest.raises(UsageError, match="Unknown setting 'recursion'; did you mean 'recursions'"):
        build_model("rjcma", WIDTHS, recursion=3)
    with pytest.raises(UsageError, match=r"Setting recursions: .*integer"):
        build_model("rjcma", WIDTHS, recursions="many")


def test_bad_masks_say_why():
    model = small("concat")
    features = tensors(inputs(model)[0], torch.float32)
    with pytest.raises(UsageError, match=r"A mask is a torch.Tensor .*, not list"):
        model(features, [True])
    with pytest.raises(UsageError, match="mask of visual"):
        model(features, torch.ones(3, 4, dtype=torch.bool))
    with pytest.raises(UsageError, match="mask names smell"):
        model(features, {"smell": torch.ones(3, 21, dtype=torch.bool)})
