"""Encoders that are not of our table, as `affuse.extract.backbones` found them: pictures for FaceEncoder, and what
stands in the place of SoundEncoder and WordEncoder."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from affuse.errors import AffuseError, UsageError
from affuse.extract.audio import ANCHORS, PATCH
from affuse.extract.backbones import lacking
from affuse.extract.media import SAMPLE_RATE
from affuse.extract.transcripts import Word
from affuse.extract.weights.checkpoints import load_transformer
from affuse.extract.weights.locate import SEED, Located
from affuse.extract.weights.table import FaceInput
from affuse.plugins import said

PIECE = 20.0  # s of sound encoded at once, so that memory does not grow with its length
MARGIN = 2.0  # s of sound heard before and after a piece
SHORTEST = 1600  # samples that an encoder is given at least


def picture_network(
    located: Located, device: torch.device, dtype: torch.dtype
) -> tuple[Callable[[torch.Tensor], torch.Tensor], FaceInput]:
    """A picture network, crops → embeddings, and how its input is made; a library's is still on the CPU."""
    if located.encoder:
        stranger = Stranger(located, "start", device, dtype)
        return stranger, FaceInput("stranger", False, stranger.size, stranger.size, "RGB", (0.0, 0.0, 0.0))
    scheme, _, model = located.name.partition(":")
    if scheme == "timm":
        from timm.data import resolve_model_data_config

        network = timm_network(model, located.trained)
        wanted = resolve_model_data_config(network)
        centre, scale = wanted["input_size"][-1], 255
        side = int(centre / wanted["crop_pct"])
    else:
        from transformers import AutoImageProcessor

        network = Pooled(located)
        wanted = AutoImageProcessor.from_pretrained(located.path, local_files_only=True).to_dict()
        scale = 1 / wanted["rescale_factor"]
        side = _side(wanted["size"])
        centre = _side(wanted["crop_size"]) if wanted.get("do_center_crop") else side
        wanted = {"mean": wanted["image_mean"], "std": wanted["image_std"]}
    mean, std = (tuple(scale * value for value in wanted[key]) for key in ("mean", "std"))
    return network, FaceInput(scheme, False, side, centre, "RGB", mean, std)


def _side(size: dict[str, int]) -> int:
    return size.get("height") or size["shortest_edge"]


def timm_network(model: str, trained: bool) -> nn.Module:
    """The network of that name without its classifier: (n, 3, S, S) → (n, D)."""
    import timm

    torch.manual_seed(SEED)  # decides the weights of an untrained network, and nothing else
    return timm.create_model(model, pretrained=trained, num_classes=0)


class Pooled(nn.Module):
    """A picture network of transformers: its own pooled output, or, where its weights have no pooling of theirs, the
    mean of the last hidden states."""

    def __init__(self, located: Located):
        super().__init__()
        network, missing = load_transformer(located, "picture encoder")
        self.network = getattr(network, "vision_model", network)  # of those that read text too
        self.own = not any(".pooler." in f".{name}" for name in missing)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        made = self.network(pixel_values=pixels)
        if self.own and getattr(made, "pooler_output", None) is not None:
            return made.pooler_output.flatten(1)
        hidden = made.last_hidden_state
        return hidden.mean(dim=1) if hidden.ndim == 3 else hidden.mean(dim=(2, 3))


class FramedSound:
    """A sound network of transformers with frames of its own rate (wav2vec2, HuBERT, WavLM): a row is the mean of the
    last hidden states of those frames whose middle lies in the 0.96 s that VGGish would hear for it.

    Where the sound ends sooner, of what there is, and at least of the nearest frame. Long sound is encoded in pieces.
    """

    portion = 1024  # frames

    def __init__(self, located: Located, anchor: str, device: torch.device, dtype: torch.dtype):
        from transformers import AutoFeatureExtractor

        network, _ = load_transformer(located, "sound encoder")
        self.network = network.eval().requires_grad_(False).to(device, dtype)
        self.scaled = AutoFeatureExtractor.from_pretrained(located.path, local_files_only=True)
        self.anchor, self.device, self.dtype = ANCHORS[anchor], device, dtype
        self.width = self(np.zeros(SAMPLE_RATE, np.float32), np.zeros(1)).shape[1]

    @torch.inference_mode()
    def __call__(self, samples: np.ndarray, time: np.ndarray) -> np.ndarray:
        """Sound (samples,) and rising frame times (T,) → embeddings (T, width) float16."""
        begin, rows = time + self.anchor, []
        while len(begin):
            count = int(np.searchsorted(begin, begin[0] + PIECE))
            rows.append(self._piece(samples, begin[:count]))
            begin = begin[count:]
        return np.concatenate(rows).astype(np.float16)

    def _piece(self, samples: np.ndarray, begin: np.ndarray) -> np.ndarray:
        length = PATCH / SAMPLE_RATE
        first = max(0, round((begin[0] - MARGIN) * SAMPLE_RATE))
        heard = samples[first : max(first, round((begin[-1] + length + MARGIN) * SAMPLE_RATE))]
        given = self.scaled(
            np.pad(heard, (0, max(0, SHORTEST - len(heard)))), sampling_rate=SAMPLE_RATE, return_tensors="pt"
        )
        given = {n: v.to(self.device, self.dtype if v.is_floating_point() else None) for n, v in given.items()}
        frames = self.network(**given).last_hidden_state[0].float().cpu().numpy()  # (F, width)
        seconds = max(SHORTEST, len(heard)) / SAMPLE_RATE
        middle = first / SAMPLE_RATE + (np.arange(len(frames)) + 0.5) * seconds / len(frames)
        last = np.searchsorted(middle, (first + len(heard)) / SAMPLE_RATE).clip(1)
        low = np.searchsorted(middle, begin).clip(0, last - 1)
        high = np.searchsorted(middle, begin + length).clip(low + 1, last)
        total = np.concatenate([np.zeros((1, frames.shape[1])), np.cumsum(frames, axis=0, dtype=np.float64)])
        return (total[high] - total[low]) / (high - low)[:, None]


class Stranger:
    """An encoder of a file or a package, loaded; it stands for that of its part, and whatever it gives is checked."""

    portion = sys.maxsize  # sound is encoded as a whole

    def __init__(self, located: Located, anchor: str, device: torch.device, dtype: torch.dtype):
        made, self.part = located.encoder, located.entry.part
        self.located, self.anchor = located, ANCHORS[anchor]
        load = getattr(made, "load", made if inspect.isclass(made) else lambda *_: made)
        try:
            self.encoder = load(device, dtype)
        except Exception as error:
            raise AffuseError(f"Backbone {located.name!r} cannot be loaded: {said(error, located.path)}.") from None
        for need in ("width", "size")[: 2 if self.part == "visual" else 1]:
            if not isinstance(getattr(self.encoder, need, None), int):
                raise UsageError(lacking(located.name, located.path, need))
        self.width, self.size = self.encoder.width, getattr(self.encoder, "size", 0)
        trials = {  # before the first video
            "visual": lambda: self(torch.zeros(1, 3, self.size, self.size, device=device)),
            "audio": lambda: self(np.zeros(SAMPLE_RATE, np.float32), np.zeros(1)),
            "text": lambda: self([Word("word", 0, 0)]),
        }
        trials[self.part]()

    @torch.inference_mode()
    def __call__(self, first, *time: np.ndarray):
        """Crops, sound and frame times, or Words → embeddings (n, width) float16: a tensor of crops, else an array.

        Raises AffuseError where it makes anything else of them.
        """
        given = [[word.text for word in first]] if self.part == "text" else [first, *(t + self.anchor for t in time)]
        name, wanted = self.located.name, (len(given[-1]), self.width)
        try:
            made = torch.as_tensor(self.encoder.encode(*given)).detach().cpu().half()
        except Exception as error:
            raise AffuseError(f"Backbone {name!r} failed: {said(error, self.located.path)}.") from None
        if made.shape != wanted:
            raise AffuseError(f"Backbone {name!r} gave {tuple(made.shape)}, where {wanted} is wanted.")
        if not made.isfinite().all():
            raise AffuseError(f"Backbone {name!r} gave NaN, or values beyond float16, as embeddings.")
        return made if self.part == "visual" else made.numpy()
