"""What a model is (`ModelSpec`), what may be asked of it (`ModelSettings`), and both resolved (`Options`).

A specification holds the classes that a model is put together from. What is asked is checked against it before any
weight is made.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated

from pydantic import Field, WithJsonSchema, field_validator
from torch import nn
from torch.nn import functional as F

from affuse.config import Settings, nearest
from affuse.errors import UsageError
from affuse.features.parts import MODALITIES
from affuse.fuse.models.encoders import ENCODERS
from affuse.fuse.models.gates import GATES
from affuse.fuse.models.heads import Concatenation, Head

VARIANTS = ("released", "paper")
ATTENTIONS = ("channel", "frame")
DROPOUTS = ("encoder", "attention", "fusion", "head")
TARGETS = {"both": ("valence", "arousal"), "valence": ("valence",), "arousal": ("arousal",)}
FITS = ("ridge", "rescaled", "nothing")
LONGEST = 10**5  # frames of a window: the weights that mix them may take their square
TRIMODAL = ("visual", "audio", "text")

TCN_RJCMA = {"visual": (512, 512, 256, 256), "audio": (128, 128, 128, 128), "text": (256, 256, 128, 128)}
HEAD_RJCMA = partial(Head, hidden=256, norm=True, activation=F.leaky_relu, tanh=True)


class ModelSettings(Settings):
    """What may be asked of a model, beside its name and the widths of its features."""

    window: int = Field(300, json_schema_extra={"minimum": 2, "maximum": LONGEST})
    """L, the frames that a model sees at once; what the time-mixing weights are made for."""
    recursions: Annotated[int, WithJsonSchema({"type": "integer", "minimum": 0})] | None = None
    """l, the passes through the attention; null is the variant's own, 0 leaves the attention out."""
    variant: str = Field("released", json_schema_extra={"enum": [*VARIANTS]})
    """Which reading of the model: released, what made the published numbers; paper, what is printed."""
    target: str | list[str] = "both"
    """What is predicted: both, valence, arousal, or a list of names that the labels have."""
    attention: str = Field("channel", json_schema_extra={"enum": [*ATTENTIONS]})
    """Of the joint attention, whether its matrix C is channel × channel, or frame × frame."""
    channels: dict[str, list[int]] | None = Field(None, examples=[{"visual": [64, 64], "audio": [32]}])
    """Widths of the encoder's layers, per modality; null leaves them to `size` and the model."""
    encoder: str = Field("spec", json_schema_extra={"enum": ["spec", *ENCODERS]})
    """What mixes frames before the attention: spec, the model's own; linear, which sees no other frame; none, features
    as they are."""
    gates: str = Field("spec", json_schema_extra={"enum": ["spec", *GATES, "none"]})
    """What chooses among the results of the recursions: spec, the model's own. Only what recurses can have any."""
    dropout: dict[str, float] = Field(default_factory=dict, examples=[{"attention": 0.3}])
    """Probabilities of dropout by part, encoder, attention, fusion or head; the model's own where none is given."""
    tied: bool = False
    """Every recursion uses the same weights."""
    deviations: bool = False
    """The model gives of every target a standard deviation, too; in training, leave it to loss=gaussian."""
    modality_dropout: float = Field(0.0, json_schema_extra={"minimum": 0, "exclusiveMaximum": 1})
    """Probability, in training, of leaving out each modality of a sample but one."""

    @field_validator("window")
    @classmethod
    def _has_a_ccc(cls, window: int) -> int:
        if not 2 <= window <= LONGEST:
            raise ValueError(f"a window has at least 2 frames (one has no CCC) and at most {LONGEST}")
        return window


class Options(ModelSettings):
    """A resolved request: nothing left to default. Its fields are build_model's arguments."""

    name: str
    widths: dict[str, int]
    recursions: int  # l; one for JCA and CA, none for the baselines
    target: list[str]
    channels: dict[str, list[int]]
    sha256: str | None = None  # of the file that the model was registered in

    def config(self) -> dict:
        """JSON-able; build_model(**config) makes the same model."""
        return self.model_dump(exclude_none=True)


@dataclass(frozen=True)
class ModelSpec:
    """What a model is. Fields given per variant are dictionaries released/paper."""

    title: str
    paper: str  # authors, year, venue
    block: Callable[[dict[str, int], Options], nn.Module] | None  # one pass of attention; None: no attention
    standard: tuple[str, ...] = TRIMODAL  # modalities of the publication
    modalities: tuple[int, int] = (2, 3)  # fewest and most it can take
    why: str = "attention across modalities has nothing to attend to; use 'unimodal' for one"  # no fewer or more
    joint: str = "–"  # whose features a modality is correlated with: 'all' | 'others'
    recursions: dict[str, int] = field(default_factory=dict)  # l, per variant; empty: one pass, or no attention
    attentions: tuple[str, ...] = ("channel",)  # readings of the joint attention that the block has
    gates: str = "none"
    encoder: str = "tcn"
    channels: dict[str, tuple[int, ...]] = field(default_factory=lambda: TCN_RJCMA)
    l2: str | None = None  # frames of unit length: 'features' as they come in, 'encoded' before the attention
    fusion: Callable[[dict[str, int], float], nn.Module] = Concatenation  # what joins the modalities
    head: Callable[[int, int, float], nn.Module] = HEAD_RJCMA
    encoder_dropout: float = 0.1
    attention_dropout: dict[str, float] = field(default_factory=dict)  # per variant
    fusion_dropout: float = 0.0
    head_dropout: float = 0.0
    # Weights that follow from the data at once, over whole videos: 'ridge', 'rescaled' (a ridge as spread as the
    # labels), 'nothing' (there are none; the inputs are predictions). None: by descent, over windows.
    fit: str | None = None
    normalisation: str | None = None  # whatever the setting of that name says
    sha256: str | None = None

    def __post_init__(self):
        known("fit", self.fit, (*FITS, None))
        known("encoder", self.encoder, ENCODERS)
        known("gates", self.gates, (*GATES, "none"))
        known("l2", self.l2, ("features", "encoded", None))

    @property
    def recursive(self) -> bool:
        return bool(self.recursions)

    def dropout(self, variant: str) -> dict[str, float]:
        """The model's own probabilities, by part."""
        own = {part: getattr(self, f"{part}_dropout") for part in DROPOUTS}
        return own | {"attention": own["attention"].get(variant, 0.0)}

    def resolve(self, name: str, widths: dict[str, int], asked: ModelSettings) -> Options:
        """Fill in the specification's values and check the whole. Raises UsageError."""
        known("variant", asked.variant, VARIANTS)
        known("attention", asked.attention, ATTENTIONS)
        known("encoder", asked.encoder, ("spec", *ENCODERS))
        known("gates", asked.gates, ("spec", *GATES, "none"))
        if self.recursive and asked.variant not in self.recursions:
            raise UsageError(f"Model {name!r} is only {' and '.join(self.recursions)}, not {asked.variant!r}.")
        widths = _widths(name, self, widths)
        if asked.attention not in self.attentions:
            reading = f"attention={asked.attention!r} is another reading of the joint attention"
            raise UsageError(f"{reading}, which {name!r} does not have.")
        if not 0 <= (p := asked.modality_dropout) < 1:
            raise UsageError(f"modality_dropout is a probability from 0 to below 1, not {p!r}.")
        if p and len(widths) == 1:
            raise UsageError("modality_dropout needs at least two modalities: the last one is never dropped.")
        encoder = self.encoder if asked.encoder == "spec" else asked.encoder
        if self.fit and encoder != self.encoder:
            raise UsageError(f"Model {name!r} takes features as they are; encoder={encoder!r} means nothing to it.")
        targets = _targets(asked.target)
        if self.fit == "nothing":
            _are_predictions(name, widths, targets)
        resolved = asked.model_dump() | {
            "recursions": (recursions := _recursions(name, self, asked)),
            "target": targets,
            "channels": _channels(self, encoder, widths, asked.channels or {}),
            "encoder": encoder,
            "gates": _gates(name, self, asked.gates, recursions),
            "dropout": self.dropout(asked.variant) | _probabilities(asked.dropout),
        }
        return Options(name=name, widths=widths, sha256=self.sha256, **resolved)


def known(what: str, value, names) -> None:
    """Raise UsageError for a name that is not among these, with the nearest that is."""
    if value not in names:
        raise UsageError(f"Unknown {what} {value!r}{nearest(value, names)}")


def _widths(name: str, spec: ModelSpec, widths: dict[str, int]) -> dict[str, int]:
    if not isinstance(widths, dict):
        like = "widths must be a dictionary {modality: width}, for example {'visual': 2048, 'audio': 128}"
        raise UsageError(f"{like}, not {widths!r}.")
    for m, width in widths.items():
        known("modality", m, MODALITIES)
        if not isinstance(width, int) or isinstance(width, bool) or width < 1:
            raise UsageError(f"The width of {m} must be a whole number of at least 1, not {width!r}.")
    fewest, most = spec.modalities
    if not fewest <= len(widths) <= most:
        takes = f"exactly {fewest}" if fewest == most else f"{fewest} to {most}"
        given = f"{len(widths)} ({', '.join(widths)})"
        raise UsageError(f"Model {name!r} takes {takes} modalities, not {given}: {spec.why}.")
    return {m: widths[m] for m in MODALITIES if m in widths}


def _recursions(name: str, spec: ModelSpec, asked: ModelSettings) -> int:
    own = spec.recursions.get(asked.variant, 1 if spec.block else 0)
    recursions = own if asked.recursions is None else asked.recursions
    if recursions < 0:
        raise UsageError(f"recursions must be a whole number, 0 or more, not {recursions!r}.")
    if not spec.recursive and recursions != own:
        what = "makes one pass through its attention" if spec.block else "has no attention to repeat"
        raise UsageError(f"Model {name!r} {what}; recursions={recursions} means nothing to it. Leave it out.")
    if asked.tied and recursions < 2:
        raise UsageError(f"tied=True shares weights between recursions; model {name!r} has {recursions} of them.")
    return recursions


def _gates(name: str, spec: ModelSpec, gates: str, recursions: int) -> str:
    gates = spec.gates if gates == "spec" else gates
    if gates != "none" and not spec.recursive:
        raise UsageError(f"gates={gates!r} choose among the results of recursions, which {name!r} does not have.")
    if gates != "none" and not recursions:
        raise UsageError(f"Model {name!r} gates the results of its recursions; with recursions=0 there are none.")
    return gates


def _targets(target: str | list[str]) -> list[str]:
    if isinstance(target, str):
        known("target", target, TARGETS)
        return list(TARGETS[target])
    if not target or len(set(target)) != len(target) or not all(target):
        raise UsageError(f"target must be 'both', 'valence', 'arousal' or a list of different names, not {target!r}.")
    return target


def _are_predictions(name: str, widths: dict[str, int], targets: list[str]) -> None:
    for m, width in widths.items():
        if width % (k := len(targets)):
            raise UsageError(
                f"Model {name!r} is the mean of inputs that are predictions: their columns are the targets in order "
                f"({', '.join(targets)}), once or repeated, so every width is a multiple of {k}. That of {m} is "
                f"{width}. Name the targets that it has, for example --set target=valence, or leave {m} out."
            )


def _channels(spec: ModelSpec, encoder: str, widths: dict, channels: dict) -> dict[str, list[int]]:
    if encoder == "none":
        return {}
    for m in channels:
        known("modality in channels", m, widths)
    resolved = {m: list(channels.get(m, spec.channels[m])) for m in widths}
    for m, c in resolved.items():
        if not c or min(c) < 1 or (encoder == "bilstm" and c[-1] % 2):
            raise UsageError(f"channels of {m} must be positive, and even for a bilstm (two directions), not {c}.")
    return resolved


def _probabilities(dropout: dict[str, float]) -> dict[str, float]:
    for part, p in dropout.items():
        known("dropout", part, DROPOUTS)
        if not 0 <= p < 1:
            raise UsageError(f"dropout of the {part} is a probability from 0 to below 1, not {p!r}.")
    return dropout
