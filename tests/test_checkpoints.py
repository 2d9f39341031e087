"""Reading published weight files: every form, damaged ones, without unpickling, under our parameter names."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from affuse.errors import AffuseError
from affuse.extract.weights import checkpoints
from affuse.extract.weights.checkpoints import rename_caffe_vgg, rename_emo_affectnet


def state_dict():
    return {"features.0.weight": torch.arange(6.0).reshape(2, 3), "features.0.bias": torch.ones(2)}


@pytest.mark.parametrize("form", ["safetensors", "zip", "before 1.6", "wrapped"])
def test_every_form_of_a_state_dict_is_read(tmp_path, form):
    path = tmp_path / ("x.safetensors" if form == "safetensors" else "x.pth")
    if form == "safetensors":
        save_file(state_dict(), path)
    elif form == "wrapped":
        torch.save({"state_dict": state_dict(), "epoch": 3}, path)
    else:
        torch.save(state_dict(), path, _use_new_zipfile_serialization=form == "zip")
    read = checkpoints.load_state(path)
    assert read.keys() == state_dict().keys()
    assert all(torch.equal(read[key], value) for key, value in state_dict().items())


class Trap:
    """Unpickled, it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_nothing_is_unpickled(tmp_path):
    torch.save({"weight": Trap(tmp_path / "sprung")}, tmp_path / "vggish.pth")
    with pytest.raises(AffuseError, match=r"'vggish' in .*vggish\.pth.*refused"):
        checkpoints.load_state(tmp_path / "vggish.pth")
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize("name", ["x.pth", "x.safetensors"])
@pytest.mark.parametrize("keep", [0, 7, 60, 400])
def test_a_damaged_file_names_backbone_and_file(tmp_path, name, keep):
    path = tmp_path / name
    save_file(state_dict(), path) if path.suffix == ".safetensors" else torch.save(state_dict(), path)
    path.write_bytes(path.read_bytes()[:keep][:-1])
    with pytest.raises(AffuseError, match=rf"'resnet50-ferplus' in .*{name}"):
        checkpoints.load_state(path, "resnet50-ferplus")


@pytest.mark.parametrize("content", [[1, 2], {}, {"weight": 3}, {"state_dict": {}}])
def test_what_is_no_state_dict_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(AffuseError, match="x"):
        checkpoints.load_state(tmp_path / "x.pth")


def test_a_whisper_checkpoint_has_both_its_parts(tmp_path):
    torch.save({"dims": {"n_mels": 80}, "model_state_dict": state_dict()}, tmp_path / "x.pt")
    dims, state = checkpoints.load_whisper(tmp_path / "x.pt")
    assert dims == {"n_mels": 80}
    assert state.keys() == state_dict().keys()
    torch.save(state_dict(), tmp_path / "y.pt")
    with pytest.raises(AffuseError, match="model_state_dict"):
        checkpoints.load_whisper(tmp_path / "y.pt", "whisper-base")


# parameter names


def blocks():
    for stage, count in enumerate((3, 4, 6, 3), 1):
        for block in range(count):
            yield stage, block


NORM = ("weight", "bias", "running_mean", "running_var")


def oxford_names():
    """Oxford's names in the order of the published class, beside torchvision's; written out independently."""
    pairs = [("conv1_7x7_s2.weight", "conv1.weight")]
    pairs += [(f"conv1_7x7_s2_bn.{p}", f"bn1.{p}") for p in NORM]
    for stage, block in blocks():
        layers = [("1x1_reduce", "conv1", "bn1"), ("3x3", "conv2", "bn2"), ("1x1_increase", "conv3", "bn3")]
        if block == 0:
            layers.append(("1x1_proj", "downsample.0", "downsample.1"))
        for theirs, conv, norm in layers:
            there, here = f"conv{stage + 1}_{block + 1}_{theirs}", f"layer{stage}.{block}."
            pairs.append((f"{there}.weight", f"{here}{conv}.weight"))
            pairs += [(f"{there}_bn.{p}", f"{here}{norm}.{p}") for p in NORM]
    return dict([*pairs, ("classifier.weight", "fc.weight"), ("classifier.bias", "fc.bias")])


def test_oxford_names_become_torchvisions_tensor_for_tensor():
    from torchvision.models import resnet50

    network = resnet50(num_classes=8)
    ours = network.state_dict()
    published = {theirs: ours[name] for theirs, name in oxford_names().items()}
    published["classifier.weight"] = published["classifier.weight"][:, :, None, None]
    renamed = rename_caffe_vgg(published)
    assert renamed.keys() == {name for name in ours if not name.endswith("num_batches_tracked")}
    assert all(torch.equal(renamed[name], ours[name]) for name in renamed)
    resnet50(num_classes=8).load_state_dict(renamed)  # strict; fills in num_batches_tracked


def test_emo_affectnet_names_become_torchvisions_with_its_eps_in_the_variances(tmp_path):
    from torchvision.models import resnet50

    network = resnet50(num_classes=7).double()
    published = {}
    for name, value in network.state_dict().items():
        theirs = name.replace("bn", "batch_norm").replace("downsample", "i_downsample").replace("fc.", "fc2.")
        published["conv_layer_s2_same.weight" if theirs == "conv1.weight" else theirs] = value.clone()
    published |= {"fc1.weight": torch.zeros(512, 2048), "fc1.bias": torch.zeros(512)}
    torch.save(published, tmp_path / "resnet50-affectnet.pth")
    renamed = checkpoints.load_state(tmp_path / "resnet50-affectnet.pth")
    assert renamed.keys() == rename_emo_affectnet(published).keys()
    projection = {name: renamed.pop(name) for name in ("projection.weight", "projection.bias")}
    assert projection["projection.weight"].shape == (512, 2048)
    same = resnet50(num_classes=7).double()
    same.load_state_dict(renamed)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.eps = 1e-3
    image = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    torch.testing.assert_close(same.eval()(image), network.eval()(image))


def test_the_wrapping_of_an_ir50_is_taken_off(tmp_path):
    names = ("backbone.input_layer.0.weight", "backbone.body.0.res_layer.1.weight", "logits.weight")
    torch.save({name: torch.ones(1) for name in names}, tmp_path / "ir50-ferplus.pth")
    read = checkpoints.load_state(tmp_path / "ir50-ferplus.pth")
    assert set(read) == {"input_layer.0.weight", "body.0.res_layer.1.weight", "logits.weight"}
