"""Backbones of timm and transformers, none of it from a network."""

import sys
from types import ModuleType

import numpy as np
import pytest
import torch

from affuse.errors import AffuseError, UsageError
from affuse.extract import audio
from affuse.extract.transcripts import Word
from builders_extract import built, located
from media import tone

# ---- transformers


@pytest.fixture
def hub(tmp_path):
    """Save a model of that configuration, seeded, and its preprocessing, as people have them in a folder."""
    transformers = pytest.importorskip("transformers")

    def save(config, *beside, name="model", without=()):
        torch.manual_seed(1)
        folder = tmp_path / name
        for part in (transformers.AutoModel.from_config(config), *beside):
            part.save_pretrained(folder)
        for file in without:
            (folder / file).unlink()
        return folder

    return save


SMALL = {"hidden_size": 16, "num_hidden_layers": 4, "num_attention_heads": 2, "intermediate_size": 16}


def test_pictures_of_transformers(hub):
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    processor = ViTImageProcessor(
        size={"height": 32, "width": 32}, image_mean=[0.5] * 3, image_std=[0.25] * 3
    )
    folder = hub(ViTConfig(image_size=32, patch_size=16, **SMALL), processor)
    found = located("visual", f"hf:{folder}")
    assert (found.name, found.source, found.entry.width, found.trained) == (
        "hf:model",
        "file:model/",
        16,
        True,
    )
    encoder = built("visual", found)
    crops = torch.randint(0, 256, (3, 3, 32, 32), generator=torch.manual_seed(0))
    with torch.inference_mode():
        model = ViTModel.from_pretrained(folder).eval()
        theirs = model((crops / 255 - 0.5) / 0.25).pooler_output
    np.testing.assert_allclose(encoder(crops), theirs, atol=2e-3)
    (folder / "config.json").write_text((folder / "config.json").read_text() + " ")
    assert located("visual", f"hf:{folder}").sha256 != found.sha256


def test_a_pooler_without_weights_is_not_made_up(hub):
    from transformers import ViTConfig, ViTImageProcessor, ViTModel

    folder = hub(
        ViTConfig(image_size=32, patch_size=16, **SMALL), ViTImageProcessor(size={"height": 32, "width": 32})
    )
    model = ViTModel.from_pretrained(folder, add_pooling_layer=False).eval()
    model.save_pretrained(folder)
    encoder = built("visual", located("visual", f"hf:{folder}"))
    crops = torch.full((1, 3, 32, 32), 255.0)
    with torch.inference_mode():
        theirs = model(torch.ones(1, 3, 32, 32)).last_hidden_state.mean(dim=1)
    np.testing.assert_allclose(encoder(crops), theirs, atol=2e-3)


def test_weights_that_are_not_there_are_seeded_only_if_told_and_marked(hub):
    from transformers import ViTConfig, ViTImageProcessor

    folder = hub(
        ViTConfig(image_size=32, patch_size=16, **SMALL),
        ViTImageProcessor(size={"height": 32, "width": 32}),
        without=["model.safetensors"],
    )
    with pytest.raises(AffuseError, match=r"'hf:model' cannot be had: .*model has no .*--allow-untrained"):
        located("visual", f"hf:{folder}")
    found = located("visual", f"hf:{folder}", allow_untrained=True)
    assert (found.trained, found.source) == (False, "seed:0")
    ones = torch.ones(1, 3, 32, 32)
    np.testing.assert_array_equal(built("visual", found)(ones), built("visual", found)(ones))


@pytest.fixture
def wav2vec2(hub):
    from transformers import Wav2Vec2Config, Wav2Vec2FeatureExtractor

    config = Wav2Vec2Config(
        conv_dim=[8] * 7, num_conv_pos_embeddings=16, num_conv_pos_embedding_groups=2, vocab_size=4, **SMALL
    )
    return hub(config, Wav2Vec2FeatureExtractor())


def test_sound_of_transformers_is_the_mean_of_its_frames_in_the_patch(wav2vec2):
    from transformers import Wav2Vec2Model

    found = located("audio", f"hf:{wav2vec2}")
    samples = tone(4.0) * np.linspace(0.1, 1, 64_000, dtype=np.float32)
    time = np.array([0.0, 1.5, 3.5, 3.999])
    made = built("audio", found)(samples, time)
    assert (made.shape, made.dtype, found.entry.width) == ((4, 16), np.float16, 16)
    scaled = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
    with torch.inference_mode():
        frames = (
            Wav2Vec2Model.from_pretrained(wav2vec2).eval()(torch.tensor(scaled)[None]).last_hidden_state[0]
        )
    middle = (np.arange(len(frames)) + 0.5) * 4.0 / len(frames)
    for row, begin in zip(made[:3], time[:3], strict=True):
        inside = (middle >= begin) & (middle < begin + 0.975)
        np.testing.assert_allclose(row, frames[inside].mean(dim=0), atol=2e-3)
    np.testing.assert_allclose(made[3], frames[-1], atol=2e-3)


def test_long_sound_is_encoded_in_pieces(wav2vec2):
    encoder = built("audio", located("audio", f"hf:{wav2vec2}"))
    lengths = []
    scaled = encoder.scaled
    encoder.scaled = lambda heard, **options: lengths.append(len(heard)) or scaled(heard, **options)
    samples = np.random.default_rng(0).normal(0, 0.1, 100 * 16_000).astype(np.float32)
    time = np.arange(0, 100, 0.2)
    made = encoder(samples, time)
    assert made.shape == (500, 16)
    assert len(lengths) == 5
    longest = audio.PIECE + 2 * audio.MARGIN + 1
    assert max(lengths) <= longest * 16_000
    assert encoder(samples[:100], np.array([0.0])).shape == (1, 16)  # shorter than a frame


def test_words_of_transformers(hub, tmp_path):
    from transformers import BertConfig, BertModel, BertTokenizerFast

    words = ["good", "morn", "##ing", "all", "[UNK]", "[CLS]", "[SEP]", "[PAD]", "[MASK]"]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizerFast(str(tmp_path / "vocab.txt"))
    folder = hub(BertConfig(vocab_size=len(words), max_position_embeddings=8, **SMALL), tokenizer)
    found = located("text", f"hf:{folder}")
    said = [Word(text, i, i + 1) for i, text in enumerate(["good", "morning", "all"] * 4)]
    made = built("text", found)(said)
    assert made.shape == (12, found.entry.width) == (12, 16)  # in sentences of at most six pieces
    with torch.inference_mode():
        tokens = tokenizer("good morning all", return_tensors="pt")
        hidden = BertModel.from_pretrained(folder).eval()(**tokens, output_hidden_states=True).hidden_states
    pieces = torch.stack(hidden[-4:]).sum(dim=0)[0]
    assert tokenizer.convert_ids_to_tokens(tokens.input_ids[0])[2:4] == ["morn", "##ing"]
    alone = built("text", found)([*said[:2], Word("all.", 2, 3)])
    assert alone.shape == (3, 16)
    np.testing.assert_allclose(built("text", found)(said[:3])[1], pieces[2:4].mean(dim=0), atol=5e-3)


def test_a_folder_that_is_no_model_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=r"empty .*has no config\.json"):
        located("audio", f"hf:{tmp_path}/empty")
    (tmp_path / "empty" / "config.json").write_text("{}")
    (tmp_path / "empty" / "model.safetensors").write_text("x")
    with pytest.raises(AffuseError, match="is not a transformers folder of a sound encoder"):
        located("audio", f"hf:{tmp_path}/empty")


def test_no_network_for_a_hub_id_is_said_at_once(monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # the discard port: nobody listens
    with pytest.raises(AffuseError, match=r"'hf:org/model' cannot be had: .* refused.*Choices"):
        located("audio", "hf:org/model")


# ---- timm


@pytest.fixture
def timm(monkeypatch):
    """A timm of one model, with published weights or without."""
    stub, data = ModuleType("timm"), ModuleType("timm.data")

    def create_model(name, pretrained, num_classes):
        if pretrained and not stub.online:
            raise OSError("nobody is there")
        network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 5))
        network.pretrained_cfg = {"hf_hub_id": "timm/tiny", "license": "apache-2.0"}
        return network

    data.resolve_model_data_config = lambda network: {
        "input_size": (3, 8, 8), "crop_pct": 0.8, "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.25, 0.25),
    }  # fmt: skip
    stub.online, stub.create_model, stub.data, stub.__version__ = True, create_model, data, "1.0"
    stub.is_model, stub.list_models = lambda name: name == "tiny", lambda: ["tiny"]
    monkeypatch.setitem(sys.modules, "timm", stub)
    monkeypatch.setitem(sys.modules, "timm.data", data)
    return stub


def test_pictures_of_timm(timm):
    found = located("visual", "timm:tiny")
    assert (found.name, found.source, found.entry.licence) == (
        "timm:tiny",
        "timm 1.0, timm/tiny",
        "apache-2.0",
    )
    assert (found.entry.width, found.trained, len(found.sha256)) == (5, True, 64)
    encoder = built("visual", found)
    assert (encoder.size, encoder.centre) == (10, 8)
    crops = torch.randint(0, 256, (2, 3, 10, 10), generator=torch.manual_seed(0))
    with torch.inference_mode():
        theirs = encoder.network((crops[:, :, 1:9, 1:9] / 255 - 0.5) / 0.25)
    np.testing.assert_allclose(encoder(crops), theirs, atol=2e-3)


def test_timm_offline_is_seeded_only_if_told(timm):
    timm.online = False
    with pytest.raises(AffuseError, match="'timm:tiny' cannot be had: OSError: nobody is there"):
        located("visual", "timm:tiny")
    found = located("visual", "timm:tiny", allow_untrained=True)
    assert (found.trained, found.source) == (False, "seed:0")
    with pytest.raises(UsageError, match="no model 'tny'; did you mean 'tiny'"):
        located("visual", "timm:tny")


def test_timm_that_is_not_installed_says_how(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(UsageError, match=r"pip install 'affuse\[timm\]'"):
        located("visual", "timm:resnet18")


def test_a_network_of_the_real_timm(monkeypatch):
    timm = pytest.importorskip("timm")
    create = timm.create_model

    def offline(*names, pretrained, **options):
        if pretrained:
            raise OSError("no network in tests")
        return create(*names, pretrained=False, **options)

    monkeypatch.setattr(timm, "create_model", offline)
    found = located("visual", "timm:test_resnet", allow_untrained=True)
    encoder = built("visual", found, torch.bfloat16)
    made = encoder(torch.rand(2, 3, encoder.size, encoder.size) * 255)
    assert made.shape == (2, found.entry.width)
    assert np.isfinite(made).all()
