"""A user's own encoder, of a file or of an installed package: found, loaded, and whatever it gives checked.

It says what it is by three names. `load(device, dtype)` is a class method that gives the encoder; without it the class
itself is called with these. `width` (int) is its embedding's, of the class or of what was loaded. `encode`, with D for
the width, is called under torch.inference_mode, from several threads but by one at a time:

    visual   encode(crops)            RGB (n, 3, S, S) float32 0–255 on the device, S its attribute `size` → (n, D)
    audio    encode(samples, begin)   (N,) float32 at 16 kHz and (T,) seconds: what is heard at a frame begins there, by
                                      the setting audio_anchor at its time; may lie before 0 → (T, D)
    text     encode(words)            a list of W str in spoken order → (W, D)

What it gives is a tensor or an array, finite in float16. `licence` (str) is kept where there is one. The store is
identified by the file's name and sha256, so that an edited file makes other features; of what the file itself imports
or reads, nothing is known.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Lock

import numpy as np
import torch

from affuse.config import nearest
from affuse.device import gpu_lost
from affuse.errors import AffuseError, UsageError
from affuse.extract.sound import SAMPLE_RATE
from affuse.extract.transcripts import Word
from affuse.extract.weights.locate import Located
from affuse.extract.weights.table import UNSTATED, BackboneSource
from affuse.files import sha256_of
from affuse.plugins import installed, run_file, said, split

GROUP = "affuse.backbones"  # of entry points


def of_file(part: str, name: str, folder: Path) -> Located:
    """`name` is FILE.py:CLASS, of a file that is there or in `folder`. Raises UsageError for what is not."""
    named, member = split(name)
    path = next((p for p in (named, folder / named.name) if p.is_file()), None)
    if path is None:
        raise UsageError(f"The file {named} of backbone {name!r} is neither there nor in {folder}: check its path.")
    module = run_file("backbone", path, path.read_bytes())
    if not hasattr(module, member):
        own = [key for key, value in inspect.getmembers(module, inspect.isclass) if hasattr(value, "encode")]
        raise UsageError(f"{path} has no {member!r}{nearest(member, own)}")
    return _located(part, f"{path.name}:{member}", path, f"file:{path.name}", getattr(module, member))


def of_package(part: str, name: str) -> Located:
    """What an installed package offers under that name. Raises UsageError where there is none."""
    offered = installed(GROUP)
    if name not in offered:
        raise UsageError(f"No installed package offers the backbone {name!r}{nearest(name, offered)}")
    entry = offered[name]
    try:
        stranger = entry.load()
        path = Path(inspect.getfile(stranger if inspect.isclass(stranger) else type(stranger)))
    except Exception as error:
        raise UsageError(f"Backbone {name!r} ({entry.value}) cannot be imported: {said(error)}.") from None
    return _located(part, name, path, f"package:{entry.dist.name} {entry.dist.version}", stranger)


def _located(part: str, name: str, path: Path, source: str, stranger) -> Located:
    width = getattr(stranger, "width", None)
    known = width if isinstance(width, int) else 0  # else it is of what is loaded
    entry = BackboneSource(name, part, known, str(getattr(stranger, "licence", UNSTATED)))
    return Located(name, path, source, sha256_of(path), True, entry, stranger)


class Stranger:
    """The encoder, loaded; it stands for ours of its part. anchor: seconds from a frame to what is heard at it."""

    portion = sys.maxsize  # sound is encoded as a whole

    def __init__(self, located: Located, device: torch.device, dtype: torch.dtype, anchor: float = 0.0):
        made, self.part = located.encoder, located.entry.part
        self.located, self.anchor, self._turn = located, anchor, Lock()
        load = getattr(made, "load", made if inspect.isclass(made) else lambda *_: made)
        try:
            self.encoder = load(device, dtype)
        except Exception as error:
            raise AffuseError(f"Backbone {located.name!r} cannot be loaded: {said(error, located.path)}.") from None
        needed = {"encode": Callable, "width": int} | ({"size": int} if self.part == "visual" else {})
        for name, kind in needed.items():
            if not isinstance(getattr(self.encoder, name, None), kind):
                raise UsageError(
                    f"Backbone {located.name!r} in {located.path} has no `{name}`. A backbone has load(device, dtype), "
                    "`width`, a whole number, and encode; one of pictures also `size`, the side of its crops in pixels."
                )
        self.width, self.size = self.encoder.width, getattr(self.encoder, "size", 0)
        trials = {
            "visual": [torch.zeros(1, 3, self.size, self.size, device=device)],
            "audio": [np.zeros(SAMPLE_RATE, np.float32), np.zeros(1)],
            "text": [[Word("word", 0, 0)]],
        }
        self(*trials[self.part])  # before the first video

    @torch.inference_mode()
    def __call__(self, first, *time: np.ndarray):
        """Crops, sound and frame times, or Words → embeddings (n, width) float16: a tensor of crops, else an array.

        Raises AffuseError where it makes anything else of them.
        """
        given = [[word.text for word in first]] if self.part == "text" else [first[:], *(t + self.anchor for t in time)]
        name, wanted = self.located.name, (len(given[-1]), self.width)
        try:
            with self._turn:
                made = torch.as_tensor(self.encoder.encode(*given)).detach().cpu().half()
        except Exception as error:
            if gpu_lost(error):
                raise
            raise AffuseError(f"Backbone {name!r} failed: {said(error, self.located.path)}.") from None
        if made.shape != wanted:
            raise AffuseError(f"Backbone {name!r} gave {tuple(made.shape)}, where {wanted} is wanted.")
        if not made.isfinite().all():
            raise AffuseError(f"Backbone {name!r} gave NaN, or values beyond float16, as embeddings.")
        return made if self.part == "visual" else made.numpy()
