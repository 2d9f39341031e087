"""Faces to embeddings: the frozen visual backbone, of whatever origin, over batches of crops, and each face's views.

Views are kept beside the centre crop for training to draw from: a mirror image, crops at corners. The reference code
shifts and mirrors every window's faces at random. Frozen features can do the same with what was computed once: centre,
its mirror image, and the four corners (which are not mirrored).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from affuse.extract.gpu import captured
from affuse.extract.lanes import Gathered
from affuse.extract.strangers import Stranger
from affuse.extract.weights.checkpoints import load_transformer, load_weights
from affuse.extract.weights.locate import SEED, Located
from affuse.extract.weights.table import FaceInput

CHOICES = ("centre", "flip", "corners")  # what the setting `views` may name, in its one order
CORNERS = {"top-left": (0, 0), "top-right": (0, 1), "bottom-left": (1, 0), "bottom-right": (1, 1)}
ROOM = 8 / 7  # of the network's input, where the backbone leaves none: 256 for 224, as others have
BATCH = {"cpu": 8, "cuda": 64}  # faces; on CPU what stays in the cache of a core
PORTION = {"cpu": 8, "cuda": 16}  # faces that a thread brings; on a GPU several threads' fill a batch


def stored_views(chosen: tuple[str, ...]) -> list[str]:
    """The views kept beside the centre, by name and in order: flip, top-left, top-right, bottom-left, bottom-right."""
    return [*(["flip"] if "flip" in chosen else []), *(CORNERS if "corners" in chosen else [])]


def sides(chosen: tuple[str, ...], encoder: FaceEncoder) -> set[int]:
    """The sides, in pixels, to which each face's square is resized for these views."""
    return {encoder.size, encoder.room} if "corners" in chosen else {encoder.size}


def cut_view(view: str, squares: Mapping[int, Tensor], encoder: FaceEncoder) -> Tensor:
    """One view of faces, as the encoder takes it.

    squares {side S: (n, 3, S, S)}, the same faces at the sides that `sides` names. flip is the whole square mirrored,
    from which the encoder takes the centre; a corner is that of the square of side `room`, as large as the network's
    input: it lies (room − input) / 2 pixels beside the centre of that square, in both directions.
    """
    if view == "flip":
        return squares[encoder.size].flip(3)
    lower, right = CORNERS[view]
    beyond = encoder.room - encoder.centre
    top, left = lower * beyond, right * beyond
    return squares[encoder.room][:, :, top : top + encoder.centre, left : left + encoder.centre]


def build(located: Located) -> nn.Module:
    """The network of a located backbone, its weights loaded, or seeded where it is untrained."""
    from affuse.extract.resnet import IR50, ResNet50, damp  # with torchvision, slow to import

    face = located.entry.face
    torch.manual_seed(SEED)  # decides the weights of an untrained network, and nothing else
    if face.architecture == "ir50":
        network = IR50()
    else:
        network = ResNet50(face.caffe, face.ceil_pool, face.keras_stem, face.projection)
    if located.trained:
        load_weights(network, located, without=("fc.", "logits."))  # classifiers
    else:
        damp(network)
    return network


def picture_network(
    located: Located, device: torch.device, dtype: torch.dtype
) -> tuple[Callable[[Tensor], Tensor], FaceInput]:
    """A picture network, crops → embeddings, and how its input is made; all but a user's own is still on the CPU."""
    if located.entry.face:
        return build(located), located.entry.face
    if located.encoder:
        stranger = Stranger(located, device, dtype)
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

    def forward(self, pixels: Tensor) -> Tensor:
        made = self.network(pixel_values=pixels)
        if self.own and getattr(made, "pooler_output", None) is not None:
            return made.pooler_output.flatten(1)
        hidden = made.last_hidden_state
        return hidden.mean(dim=1) if hidden.ndim == 3 else hidden.mean(dim=(2, 3))


class FaceEncoder:
    """A visual backbone with its own input scaling: crops in, embeddings out.

    In pixels: `size`, the side to which a face's square is resized; `centre`, the part of it that the network sees;
    `room`, the side of the square that corners are cut from, `size` where that is more than `centre`.
    together: several threads call, and fill batches of one shape together.
    """

    def __init__(
        self, located: Located, device: torch.device, dtype: torch.dtype = torch.float32, together: bool = False
    ):
        from affuse.extract.resnet import ResNet50, folded, for_cpu

        network, face = picture_network(located, device, dtype)
        own = isinstance(network, ResNet50)
        if isinstance(network, nn.Module):
            network = network.eval().requires_grad_(False)
            network = folded(network) if own and device.type == "cuda" else network
            network = network.to(device, dtype, memory_format=torch.channels_last)
        self.network = for_cpu(network) if own and device.type == "cpu" else network
        self.device, self.dtype = device, torch.float32 if located.encoder else dtype
        self.batch, self.portion = BATCH[device.type], PORTION[device.type]
        self.size, self.centre = face.face, face.size
        self.room = face.face if face.face > face.size else round(face.size * ROOM)
        self.flip = face.channels == "BGR"
        self.mean, self.std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (face.mean, face.std))
        self.gathered = Gathered(self._fill, self.batch) if together else None
        crops = torch.zeros(self.batch, 3, self.centre, self.centre, device=device, dtype=self.dtype)
        crops = crops.to(memory_format=torch.channels_last)
        self.compute = captured(self.network, crops) if together and located.entry.face else self.network
        self.width = located.entry.width or self(torch.zeros(1, 3, self.size, self.size)).shape[1]

    @torch.inference_mode()
    def __call__(self, crops: Tensor) -> np.ndarray:
        """RGB crops (n, 3, S, S), 0–255, S = size, or any that holds the centre → embeddings (n, D) float16, in one
        batch, or as those of other threads leave room."""
        edge = (crops.shape[-1] - self.centre) // 2
        pixels = crops[:, :, edge : edge + self.centre, edge : edge + self.centre].to(self.device).float()
        return np.stack(self.gathered(pixels)) if self.gathered else self._embed(pixels)

    @torch.inference_mode()
    def _fill(self, rows: list[Tensor]) -> np.ndarray:
        """Embeddings of these pixels, computed in a full batch."""
        empty = [torch.zeros_like(rows[0])] * (self.batch - len(rows))
        return self._embed(torch.stack([*rows, *empty]))[: len(rows)]

    def _embed(self, pixels: Tensor) -> np.ndarray:
        if self.flip:
            pixels = pixels.flip(1)
        scaled = ((pixels - self.mean) / self.std).to(self.dtype, memory_format=torch.channels_last)
        return self.compute(scaled).float().cpu().numpy().astype(np.float16)
