"""Read a Whisper model in CTranslate2's binary form and give it back as an openai-whisper checkpoint.

One Whisper (tiny.en) can be had from the Python package index only in this form. Its layout, little-endian:

    u32 binary version (6) · text specification name · u32 specification revision
    u32 number of variables, each: text name · u8 rank · u32 × rank shape · u8 element type · u32 bytes · data
    u32 number of aliases, each: text alias · text name

A text is a u16 length, then that many bytes, of which the last is zero. CTranslate2 joins the projections of
an attention layer: query, key and value in self-attention, key and value in cross-attention.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from affuse.errors import AffuseError

VERSION = 6
ELEMENT_TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}
HEAD_WIDTH = 64  # channels per attention head in every Whisper
BLOCK = {  # layers of openai-whisper, several where CTranslate2 joins them: the layer there
    ("attn.query", "attn.key", "attn.value"): "self_attention/linear_0",
    ("attn.out",): "self_attention/linear_1",
    ("attn_ln",): "self_attention/layer_norm",
    ("mlp.0",): "ffn/linear_0",
    ("mlp.2",): "ffn/linear_1",
    ("mlp_ln",): "ffn/layer_norm",
}
CROSS = {  # of the decoder's blocks alone
    ("cross_attn.query",): "attention/linear_0",
    ("cross_attn.key", "cross_attn.value"): "attention/linear_1",
    ("cross_attn.out",): "attention/linear_2",
    ("cross_attn_ln",): "attention/layer_norm",
}
OUTSIDE = {  # the blocks
    ("encoder.conv1",): "encoder/conv1",
    ("encoder.conv2",): "encoder/conv2",
    ("encoder.ln_post",): "encoder/layer_norm",
    ("decoder.ln",): "decoder/layer_norm",
}
EMBEDDINGS = {
    "encoder.positional_embedding": "encoder/position_encodings/encodings",
    "decoder.positional_embedding": "decoder/position_encodings/encodings",
    "decoder.token_embedding.weight": "decoder/embeddings/weight",
}


class _Reader:
    """Takes values off the front of a file's bytes; going past the end is an error, never a short read."""

    def __init__(self, path: Path):
        self.path = path
        try:
            self.data = memoryview(path.read_bytes())
        except OSError as error:
            raise AffuseError(f"{path} cannot be read: {error.strerror}.") from None
        self.position = 0

    def bytes(self, count: int) -> memoryview:
        end = self.position + count
        if end > len(self.data):
            raise self.damaged(f"it ends at byte {len(self.data)}, where {end} are needed")
        piece = self.data[self.position : end]
        self.position = end
        return piece

    def number(self, form: str) -> int:
        return struct.unpack("<" + form, self.bytes(struct.calcsize(form)))[0]

    def text(self) -> str:
        raw = bytes(self.bytes(self.number("H")))
        if not raw.endswith(b"\0"):
            raise self.damaged("a name has no end")
        try:
            return raw[:-1].decode()
        except UnicodeDecodeError:
            raise self.damaged("a name is not readable text") from None

    def variable(self) -> tuple[str, np.ndarray]:
        name = self.text()
        shape = tuple(self.number("I") for _ in range(self.number("B")))
        kind, size = self.number("B"), self.number("I")
        if kind not in ELEMENT_TYPES:
            raise self.damaged(f"{name} has the unknown element type {kind}")
        element = np.dtype(ELEMENT_TYPES[kind])
        if math.prod(shape) * element.itemsize != size:
            raise self.damaged(f"{name} has {size} bytes, which does not fit its shape {shape}")
        return name, np.frombuffer(self.bytes(size), element).reshape(shape)

    def damaged(self, reason: str) -> AffuseError:
        return AffuseError(
            f"{self.path} is not a whole CTranslate2 Whisper model: {reason}. Install its package again."
        )


def read_variables(path: Path) -> dict[str, np.ndarray]:
    """Every variable of a CTranslate2 model file by name, aliases included. Raises AffuseError for a damaged file."""
    reader = _Reader(path)
    version, specification = reader.number("I"), reader.text()
    if version != VERSION or specification != "WhisperSpec":
        raise reader.damaged(f"it begins with version {version}, {specification!r}, not {VERSION}, 'WhisperSpec'")
    reader.number("I")
    variables = dict(reader.variable() for _ in range(reader.number("I")))
    for _ in range(reader.number("I")):
        alias, name = reader.text(), reader.text()
        if name not in variables:
            raise reader.damaged(f"{alias} stands for {name}, which is not there")
        variables[alias] = variables[name]
    return variables


def convert(model_bin: Path) -> dict:
    """A CTranslate2 file as the openai-whisper checkpoint {"dims", "model_state_dict"}.

    As published, matrices are in half precision, vectors and positional embeddings in single precision.
    Raises AffuseError for a damaged file, or one that is no Whisper or is quantised.
    """
    try:
        state = _state_dict(read_variables(model_bin))
        return {"dims": _dims(state), "model_state_dict": {k: _as_published(k, v) for k, v in state.items()}}
    except (LookupError, TypeError, ValueError) as error:
        raise AffuseError(f"{model_bin} is not a float Whisper model in CTranslate2's form ({error}).") from None


def _as_published(name: str, value: np.ndarray) -> torch.Tensor:
    if value.dtype.kind != "f":
        raise TypeError(f"{name} is {value.dtype}")
    single = value.ndim == 1 or "positional" in name
    return torch.from_numpy(value.astype(np.float32 if single else np.float16))


def _state_dict(variables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename CTranslate2's variables to openai-whisper's, and part the joined attention projections."""
    layers = dict(OUTSIDE)
    for side, block in (("encoder", BLOCK), ("decoder", BLOCK | CROSS)):
        for index in range(_count(variables, f"{side}/layer_")):
            layers |= {
                tuple(f"{side}.blocks.{index}.{ours}" for ours in joined): f"{side}/layer_{index}/{theirs}"
                for joined, theirs in block.items()
            }
    state = {ours: variables[theirs] for ours, theirs in EMBEDDINGS.items()}
    for joined, source in layers.items():
        weight, bias = ("gamma", "beta") if source.endswith("layer_norm") else ("weight", "bias")
        for parameter, theirs in (("weight", weight), ("bias", bias)):
            parts = np.split(variables[f"{source}/{theirs}"], len(joined))
            state |= {f"{ours}.{parameter}": part for ours, part in zip(joined, parts, strict=True)}
    # Whisper's keys have no bias; CTranslate2 fills in zeros.
    return {name: value for name, value in state.items() if not name.endswith(".key.bias")}


def _count(names: Iterable[str], block: str) -> int:
    """How many different numbers follow `block` at the beginning of names."""
    return len({found[1] for name in names if (found := re.match(rf"{re.escape(block)}(\d+)", name))})


def _dims(state: dict[str, np.ndarray]) -> dict[str, int]:
    """openai-whisper's ModelDimensions, read off the tensors' shapes."""
    audio_context, audio_width = state["encoder.positional_embedding"].shape
    text_context, text_width = state["decoder.positional_embedding"].shape
    return {
        "n_mels": state["encoder.conv1.weight"].shape[1],
        "n_vocab": state["decoder.token_embedding.weight"].shape[0],
        "n_audio_ctx": audio_context,
        "n_audio_state": audio_width,
        "n_audio_head": audio_width // HEAD_WIDTH,
        "n_audio_layer": _count(state, "encoder.blocks."),
        "n_text_ctx": text_context,
        "n_text_state": text_width,
        "n_text_head": text_width // HEAD_WIDTH,
        "n_text_layer": _count(state, "decoder.blocks."),
    }
