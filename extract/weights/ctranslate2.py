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
import struct
from pathlib import Path

import numpy as np
import torch

from affuse.errors import AffuseError

VERSION = 6
ELEMENT_TYPES = {0: "<f4", 1: "<i1", 2: "<i2", 3: "<i4", 4: "<f2"}
HEAD_WIDTH = 64  # channels per attention head in every Whisper


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
    """Every variable of a CTranslate2 model file by name, aliases included. Raises AffuseError for a
    damaged file.
    """
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
    except (KeyError, TypeError, ValueError) as error:
        raise AffuseError(f"{model_bin} is not a float Whisper model in CTranslate2's form ({error}).") from None


def _as_published(name: str, value: np.ndarray) -> torch.Tensor:
    if value.dtype.kind != "f":
        raise TypeError(f"{name} is {value.dtype}")
    single = value.ndim == 1 or "positional" in name
    return torch.from_numpy(value.astype(np.float32 if single else np.float16))


def _state_dict(variables: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rename CTranslate2's variables to openai-whisper's, and part the joined attention projections."""
    state: dict[str, np.ndarray] = {}

    def linear(target: str, source: str) -> None:
        state[f"{target}.weight"] = variables[f"{source}/weight"]
        state[f"{target}.bias"] = variables[f"{source}/bias"]

    def norm(target: str, source: str) -> None:
        state[f"{target}.weight"] = variables[f"{source}/gamma"]
        state[f"{target}.bias"] = variables[f"{source}/beta"]

    def joined(target: str, source: str, parts: tuple[str, ...]) -> None:
        weights = np.split(variables[f"{source}/weight"], len(parts))
        biases = np.split(variables[f"{source}/bias"], len(parts))
        for part, weight, bias in zip(parts, weights, biases, strict=True):
            state[f"{target}.{part}.weight"] = weight
            if part != "key":  # Whisper's keys have no bias; CTranslate2 fills in zeros
                state[f"{target}.{part}.bias"] = bias

    for side in ("encoder", "decoder"):
        state[f"{side}.positional_embedding"] = variables[f"{side}/position_encodings/encodings"]
        for index in range(_layers(variables, side)):
            block, layer = f"{side}.blocks.{index}", f"{side}/layer_{index}"
            joined(f"{block}.attn", f"{layer}/self_attention/linear_0", ("query", "key", "value"))
            linear(f"{block}.attn.out", f"{layer}/self_attention/linear_1")
            norm(f"{block}.attn_ln", f"{layer}/self_attention/layer_norm")
            if side == "decoder":
                linear(f"{block}.cross_attn.query", f"{layer}/attention/linear_0")
                joined(f"{block}.cross_attn", f"{layer}/attention/linear_1", ("key", "value"))
                linear(f"{block}.cross_attn.out", f"{layer}/attention/linear_2")
                norm(f"{block}.cross_attn_ln", f"{layer}/attention/layer_norm")
            linear(f"{block}.mlp.0", f"{layer}/ffn/linear_0")
            linear(f"{block}.mlp.2", f"{layer}/ffn/linear_1")
            norm(f"{block}.mlp_ln", f"{layer}/ffn/layer_norm")
    linear("encoder.conv1", "encoder/conv1")
    linear("encoder.conv2", "encoder/conv2")
    norm("encoder.ln_post", "encoder/layer_norm")
    norm("decoder.ln", "decoder/layer_norm")
    state["decoder.token_embedding.weight"] = variables["decoder/embeddings/weight"]
    return state


def _layers(variables: dict[str, np.ndarray], side: str) -> int:
    return len({name.split("/")[1] for name in variables if name.startswith(f"{side}/layer_") and name.count("/") > 2})


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
        "n_audio_layer": _blocks(state, "encoder"),
        "n_text_ctx": text_context,
        "n_text_state": text_width,
        "n_text_head": text_width // HEAD_WIDTH,
        "n_text_layer": _blocks(state, "decoder"),
    }


def _blocks(state: dict[str, np.ndarray], side: str) -> int:
    return len({name.split(".")[2] for name in state if name.startswith(f"{side}.blocks.")})
