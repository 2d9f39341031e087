"""The visual networks: strides and borders of each style, input scaling, batches."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torchvision.models import resnet50

from affuse.errors import AffuseError
from affuse.extract.resnet import IR50, FusedResNet50, ResNet50
from affuse.extract.visual import FaceEncoder, build
from affuse.extract.weights.locate import Located, locate
from affuse.extract.weights.table import BACKBONES
from media import face_frames

COUNT = 32


def untrained(name: str) -> Located:
    return Located(name, None, "seed:0", "", False, BACKBONES[name])


def test_torchvision_style_is_torchvisions():
    torch.manual_seed(0)
    theirs = resnet50(weights=None).eval()
    ours = ResNet50().eval()
    ours.load_state_dict({k: v for k, v in theirs.state_dict().items() if not k.startswith("fc.")})
    theirs.fc = torch.nn.Identity()
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(ours(x), theirs(x))


def test_caffe_style_strides_on_the_first_convolution():
    network = ResNet50(caffe=True)
    for stage in (network.layer2, network.layer3, network.layer4):
        assert stage[0].conv1.stride == (2, 2)
        assert stage[0].conv2.stride == (1, 1)
        assert stage[0].downsample[0].stride == (2, 2)


@pytest.mark.parametrize("options", [{}, {"ceil_pool": True}, {"keras_stem": True, "projection": 512}])
def test_every_stem_leaves_seven_by_seven(options):
    network = ResNet50(caffe=True, **options).eval()
    seen = []
    network.layer4.register_forward_hook(lambda *args: seen.append(args[-1].shape))
    with torch.inference_mode():
        out = network(torch.zeros(1, 3, 224, 224))
    assert seen == [(1, 2048, 7, 7)]
    assert out.shape == (1, options.get("projection", 2048))


def test_ir50_gives_unit_vectors():
    network = IR50().eval()
    with torch.inference_mode():
        out = network(torch.randn(2, 3, 40, 40))
    assert out.shape == (2, 512)
    torch.testing.assert_close(out.norm(dim=1), torch.ones(2))
    assert sum(len(stage) for stage in [network.body]) == 24


@pytest.mark.parametrize("name", [s.name for s in BACKBONES.values() if s.part == "visual"])
def test_every_visual_backbone_encodes_to_its_width(name):
    located = untrained(name)
    encoder = FaceEncoder(located, torch.device("cpu"))
    crops = torch.from_numpy(face_frames(2, (encoder.size, encoder.size)).transpose(0, 3, 1, 2).copy())
    out = encoder(crops)
    assert out.shape == (2, located.entry.width)
    assert out.dtype == np.float16
    assert np.isfinite(out).all()
    assert np.ptp(out) > 0


def test_batches_do_not_change_embeddings():
    encoder = FaceEncoder(untrained("resnet50-imagenet-caffe"), torch.device("cpu"))
    crops = torch.from_numpy(face_frames(COUNT + 2, (224, 224)).transpose(0, 3, 1, 2).copy())
    together = encoder(crops).astype(np.float32)
    alone = np.concatenate([encoder(crops[i : i + 1]) for i in (0, COUNT - 1, COUNT + 1)]).astype(np.float32)
    np.testing.assert_allclose(together[[0, COUNT - 1, COUNT + 1]], alone, rtol=2e-3, atol=2e-3)


def test_input_scaling_by_hand():
    located = untrained("ir50-ferplus")
    encoder = FaceEncoder(located, torch.device("cpu"))
    seen = []
    encoder.network.input_layer.register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    crops = torch.arange(3, dtype=torch.uint8).view(1, 3, 1, 1).expand(1, 3, 48, 48) * 100
    encoder(crops.contiguous())
    assert seen[0].shape == (1, 3, 40, 40)
    np.testing.assert_allclose(seen[0][0, :, 0, 0], (np.array([0, 100, 200]) / 255 - 0.5) / 0.5, atol=1e-6)


def test_an_untrained_network_is_the_same_every_time():
    first, second = (build(untrained("resnet50-imagenet-caffe")).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_weights_of_another_network_are_refused_by_name(tmp_path):
    torch.save(IR50().state_dict(), tmp_path / "resnet50-imagenet.pth")
    located = locate("resnet50-imagenet", tmp_path)
    with pytest.raises(
        AffuseError, match=r"resnet50-imagenet\.pth does not hold the weights of resnet50-imagenet"
    ):
        build(replace(located))


def missing(*_):
    raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_convolution_pointwise'")


def raising(*_):
    raise RuntimeError("mkldnn_convolution_pointwise: only x86 is served")


@pytest.mark.parametrize(("hidden", "dtype"), [(missing, torch.float32), (raising, torch.bfloat16)])
def test_without_onednns_private_operators_embeddings_are_the_same_but_for_rounding(
    monkeypatch, hidden, dtype
):
    crops = torch.from_numpy(face_frames(2, (224, 224)).transpose(0, 3, 1, 2).copy())
    located, cpu = untrained("resnet50-imagenet-caffe"), torch.device("cpu")
    usual = FaceEncoder(located, cpu, dtype)(crops).astype(np.float32)
    operators = SimpleNamespace(
        _convolution_pointwise=hidden, _reorder_convolution_weight=lambda weight, *_: weight
    )
    monkeypatch.setattr(torch.ops, "mkldnn", operators)
    encoder = FaceEncoder(located, cpu, dtype)
    assert not isinstance(encoder.network, FusedResNet50)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in encoder.network.modules())
    plain = encoder(crops).astype(np.float32)
    assert (usual * plain).sum() / np.linalg.norm(usual) / np.linalg.norm(plain) > 0.999
    if dtype == torch.float32:
        np.testing.assert_allclose(plain, usual, rtol=2e-3, atol=2e-3)
