"""The family at a glance: one entry per model, and the entries differ in exactly what the papers differ in.

Read a column to compare the papers. A model of your own is a block in your own file, under `register`. It is named
FILE.py:NAME wherever a model is named; NAME alone does where this process has registered it, or an installed package
offers it as an entry point of the group `affuse.models` (NAME = "module"). Only code that you name is run, or that
lies, unchanged, where a run of yours left its copy: a run folder from elsewhere runs none of its own.
"""

from __future__ import annotations

import hashlib
import inspect
import os
import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import nn
from torch.nn import functional as F

from affuse.config import nearest, resolve
from affuse.errors import UsageError
from affuse.fuse.models.attention import (
    EQUATIONS,
    CrossAttention,
    JointCrossAttention,
    LeaderFollower,
    OnePassJointAttention,
)
from affuse.fuse.models.heads import ConcatenationBiLSTM, EvenShares, Head, SumOfShares, TrailingMean
from affuse.fuse.models.layers import Start, default, xavier
from affuse.fuse.models.spec import ATTENTIONS, TRIMODAL, VARIANTS, ModelSettings, ModelSpec, Options, known
from affuse.plugins import installed, run_file, said, split

AUDIO_VISUAL = ("visual", "audio")
HEAD_LINEAR = partial(Head, tanh=True)
HEAD_JCA = partial(Head, hidden=128)


def both(value) -> dict:
    return dict.fromkeys(VARIANTS, value)


def recursive(joint: str, unused_fc: tuple[str, ...] = (), start: Start = default, **fields) -> ModelSpec:
    """A model of the joint cross-attention, twice unless said."""
    return ModelSpec(
        block=partial(JointCrossAttention, joint=joint, unused_fc=unused_fc, start=start),
        joint=joint,
        attentions=ATTENTIONS,
        attention_dropout={variant: equations.dropout for variant, equations in EQUATIONS.items()},
        **{"recursions": both(2), **fields},
    )


gated = partial(
    recursive,
    "all",
    start=xavier,
    paper="Rajasekhar, Alam, Charton, 2025, CVPRW (ABAW8)",
    standard=AUDIO_VISUAL,
    l2="encoded",
)
baseline = partial(ModelSpec, paper="baseline", block=None)
fitted = partial(baseline, modalities=(1, 3), encoder="none", fusion=TrailingMean, head=Head, normalisation="channels")
of_lstms = partial(
    recursive,
    "all",
    start=xavier,
    standard=AUDIO_VISUAL,
    encoder="bilstm",
    channels=dict.fromkeys(TRIMODAL, (512,)),
    l2="features",
    fusion=ConcatenationBiLSTM,
    head=partial(Head, hidden=128, activation=F.relu, per_target=True, start=xavier),
    head_dropout=0.6,
)

MODELS: dict[str, ModelSpec] = {
    "rjcma": recursive(
        "all",
        title="Recursive Joint Cross-Modal Attention",
        paper="Praveen, Alam, 2024, CVPRW (ABAW6)",
        unused_fc=("released",),
        recursions={"released": 2, "paper": 3},
    ),
    "rcma": recursive(
        "others",
        title="Recursive Cross-Modal Attention",
        paper="Praveen, Alam, 2024, CVPRW (ABAW6), first release",
        channels={"visual": (512, 512, 512, 512), "audio": (128, 128, 128, 128), "text": (512, 512, 512, 512)},
        head=HEAD_LINEAR,
    ),
    "grjca": gated(title="Gated Recursive Joint Cross-Attention", gates="grjca"),
    "hgrjca": gated(title="Hierarchically Gated Recursive Joint Cross-Attention", gates="hgrjca"),
    "dca": of_lstms(title="Dynamic Cross-Attention", paper="Praveen, Alam, 2024, ICME", gates="dca"),
    "rjca": of_lstms(
        title="Recursive Joint Cross-Attention with LSTMs",
        paper="Praveen, Granger, Cardinal, 2023, ICASSP",
        recursions=both(1),
    ),
    "jca": ModelSpec(
        title="Joint Cross-Attention",
        paper="Praveen et al., 2022, CVPRW (ABAW3)",
        block=OnePassJointAttention,
        standard=AUDIO_VISUAL,
        joint="all",
        encoder="linear",
        channels=dict.fromkeys(TRIMODAL, (128,)),
        head=HEAD_JCA,
        head_dropout=0.6,
    ),
    "ca": ModelSpec(
        title="Cross-Attention",
        paper="Praveen, Granger, Cardinal, 2021, FG",
        block=CrossAttention,
        standard=AUDIO_VISUAL,
        modalities=(2, 2),
        why="its attention is the correlation of one modality with one other",
        joint="others",
        encoder="none",
        l2="features",
        head_dropout=0.6,
        head=HEAD_JCA,  # the paper regresses clips, not frames; JCA's head is its successor per frame
    ),
    "lfan": ModelSpec(
        title="Leader–Follower Attention Network",
        paper="Zhang et al., 2022, CVPRW (ABAW3)",
        block=None,
        channels={"visual": (256, 256, 128, 128), "audio": (64, 64, 32, 32), "text": (256, 256, 128, 128)},
        fusion=LeaderFollower,
        fusion_dropout=0.1,
        head=HEAD_LINEAR,
    ),
    "linear": fitted(title="Ridge regression", fit="ridge"),
    "linear-rescaled": fitted(title="Ridge regression, as spread as the labels", fit="rescaled"),
    "mean": fitted(
        title="Mean of inputs that are predictions",
        fusion=EvenShares,
        head=SumOfShares,
        fit="nothing",
        normalisation="none",
    ),
    "concat": baseline(title="Concatenation", why="there is nothing to concatenate; use 'unimodal' for one"),
    "unimodal": baseline(
        title="One modality alone",
        standard=("visual",),
        modalities=(1, 1),
        why="it is the baseline of one modality; use 'concat' for several",
    ),
}

OWN: dict[str, ModelSpec] = {}  # registered in this process, or by an installed package
ENTRY_POINTS = "affuse.models"
STAND_IN = "AFFUSE_MODEL_FILE"
_files: dict[str, dict[str, ModelSpec]] = {}  # {sha256 of a file that was run: what it registered}
_shelves = [OWN]  # `register` writes on the last


def register(
    name: str, *, recursions: int | dict[str, int] | None = 1, attention_dropout: float = 0.0, **fields
) -> Callable[[type], type]:
    """Make a fusion model of a block of your own: `@register("mbt", recursions=4)` over an nn.Module with

        __init__(self, widths, options)   {m: d_m} behind the encoders; `Options`: options.window, .variant,
                                          .dropout["attention"] …
        forward(self, x, valid)           one recursion, {m: (batch, time, d_m)} → the same shapes

    valid is None where every frame counts, or {m: (batch, time) bool}. A frame that does not count is zero in x, and is
    made zero in what the block gives. In between the block may not let it act on other frames (a softmax gives it
    weight zero) and must stay finite, also where no frame counts. Encoders, masks, gates, tied weights, modality
    dropout and the head are the family's; with 0 recursions it is the concatenation.

    recursions  l where none is asked for, for `released` alone or per variant; None: one pass that cannot be repeated
    fields      of `ModelSpec`: title, paper; modalities, encoder, channels, gates, l2, fusion, head … if not RJCMA's

    Raises UsageError for a name that is taken or cannot be one, and for fields that cannot be.
    """
    for key in fields:
        known("field of a model", key, ModelSpec.__dataclass_fields__)
    if not (isinstance(name, str) and re.fullmatch(r"[\w.+-]+", name)) or name == "all":
        raise UsageError(f"A model cannot be named {name!r}: use letters, digits and . + - _ only, and not `all`.")

    def keep(block: type) -> type:
        if not (isinstance(block, type) and issubclass(block, nn.Module)):
            raise UsageError(f"The block of model {name!r} must be a class of torch.nn.Module, not {block!r}.")
        shelf = _shelves[-1]
        taken = MODELS.get(name) or shelf.get(name)
        if taken and (shelf is not OWN or _home(taken.block) != _home(block)):  # a notebook's cell runs again
            raise UsageError(f"There is a model {name!r} already: {taken.title}. Name yours otherwise.")
        own = {"title": name, "paper": "–", "block": block, "why": "as it was registered", "sha256": sha256(block)}
        own["recursions"] = {"released": recursions} if isinstance(recursions, int) else recursions or {}
        shelf[name] = ModelSpec(**{**own, "attention_dropout": both(attention_dropout), **fields})
        return block

    return keep


def source(block: type) -> bytes:
    """The text of a class, also of a notebook's cell; nothing where Python does not know it."""
    try:
        return inspect.getsource(block).encode()
    except (OSError, TypeError):
        return b""


def sha256(block: type) -> str | None:
    """That of its text, where it is known."""
    return hashlib.sha256(text).hexdigest() if (text := source(block)) else None


def _home(block) -> tuple:
    return getattr(block, "__module__", block), getattr(block, "__qualname__", block)


def find(name: str, sha256: str | None = None) -> ModelSpec:
    """The model of a name: of the family, registered, of an installed package, or FILE.py:NAME.

    A file is run when a model of it is first asked for, and again when it has changed. sha256 is what it must have; a
    file that is gone or has changed may be replaced by the one that AFFUSE_MODEL_FILE names. Raises UsageError for a
    name that is not known, a file that cannot be run, and one that is another than it was.
    """
    path, model = split(name)
    if path:
        shelf = _registered(path, *_read(path, sha256))
        if model not in shelf:
            there = nearest(model, shelf) if shelf else '. Write @register("NAME") above its block.'
            raise UsageError(f"{path} registers no model {model!r}{there}")
        return shelf[model]
    offered = installed(ENTRY_POINTS)
    known("model", name, {**MODELS, **OWN, **offered})
    if name not in {**MODELS, **OWN}:
        package = offered[name].value
        try:
            offered[name].load()
        except Exception as error:
            raise UsageError(f"Model {name!r} comes with {package}, which cannot be loaded: {said(error)}.") from error
        if name not in OWN:
            raise UsageError(f"{package} promises a model {name!r} and registers none of that name.")
    spec = MODELS.get(name) or OWN[name]
    if sha256 and spec.sha256 != sha256:
        raise UsageError(
            f"The model {name!r} that is registered here is not the one that the run was trained with: its code is "
            "another. The run folder has a copy: register that, or train anew."
        )
    return spec


def located(name: str, folder: Path | None = None) -> str:
    """A model's name as it holds from every working directory; of its file in `folder` where one is given."""
    path, model = split(name)
    return f"{folder.resolve() / path.name if folder else path}:{model}" if path else name


def code(name: str) -> list[tuple[str, bytes]]:
    """The file that a model is from, or the class registered here, as file name and content; nothing of the family's.
    Raises as `find`."""
    path, model = split(name)
    if path:
        return [(path.name, _read(path, None)[0])]
    return [(f"{model}.py", source(OWN[model].block))] if model in OWN and OWN[model].sha256 else []


def _read(path: Path, sha256: str | None) -> tuple[bytes, str]:
    """A model's file and its sha256, which has to be the one asked for."""
    problems, stand_in = [], os.environ.get(STAND_IN)
    for file in [path, Path(stand_in)] if sha256 and stand_in else [path]:
        try:
            content = file.read_bytes()
        except OSError as error:
            problems.append(f"model file {file} cannot be read: {error.strerror}")
            continue
        found = hashlib.sha256(content).hexdigest()
        if sha256 in (None, found):
            return content, found
        problems.append(f"model file {file} is not the one that the model was trained with")
    advice = "A model of your own is named FILE.py:NAME."
    if sha256:
        advice = f"The run folder has a copy of it: read that, and if you trust it name it in {STAND_IN}."
    problems = "; ".join(problems)
    raise UsageError(f"{problems[0].upper()}{problems[1:]}. {advice}")


def _registered(path: Path, content: bytes, sha256: str) -> dict[str, ModelSpec]:
    """What the file registers. Once for each content, so that models of one file share their classes."""
    if sha256 not in _files:
        _shelves.append({})
        try:
            run_file("model", path, content)
        finally:
            shelf = _shelves.pop()
        _files[sha256] = {name: replace(spec, sha256=sha256) for name, spec in shelf.items()}
    return _files[sha256]


def resolve_options(name: str, widths: dict[str, int], sha256: str | None = None, **settings) -> Options:
    """What `build_model` is asked, with nothing left to default. Raises UsageError."""
    given = {key: value for key, value in settings.items() if value is not None}
    return find(name, sha256).resolve(located(name), widths, resolve(ModelSettings, given))
