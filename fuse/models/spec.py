"""What a caller of `build_model` may ask for, checked against the specification before any weight is made."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from affuse.features.record import MODALITIES
from affuse.fuse.models.registry import ATTENTIONS, ENCODERS, EQUATIONS, GATES, MODELS, VARIANTS, ModelSpec

from affuse.config import nearest
from affuse.errors import UsageError

DROPOUTS = ("encoder", "attention", "fusion", "head")
TARGETS = {"both": ("valence", "arousal"), "valence": ("valence",), "arousal": ("arousal",)}


@dataclass(frozen=True)
class Options:
    """A resolved request: nothing left to default. Its fields are build_model's arguments."""

    name: str
    widths: dict[str, int]
    window: int
    recursions: int  # l; one for JCA and CA, none for the baselines
    variant: str
    target: list[str]
    attention: str
    channels: dict[str, list[int]]
    encoder: str
    gates: str
    dropout: dict[str, float]
    tied: bool
    modality_dropout: float

    def config(self) -> dict:
        """JSON-able; build_model(**config) makes the same model."""
        return asdict(self)

    def encoded_widths(self) -> dict[str, int]:
        """Width of every modality's features behind its encoder."""
        return self.widths if self.encoder == "none" else {m: c[-1] for m, c in self.channels.items()}


def resolve_options(
    *,
    name,
    widths,
    window,
    recursions,
    variant,
    target,
    attention,
    channels,
    encoder,
    gates,
    dropout,
    tied,
    modality_dropout,
) -> Options:
    """Fill in the specification's values and check the whole. Raises UsageError."""
    _known("model", name, MODELS)
    _known("variant", variant, VARIANTS)
    _known("attention", attention, ATTENTIONS)
    _known("encoder", encoder, ("spec", *ENCODERS))
    _known("gates", gates, ("spec", *GATES))
    spec = MODELS[name]
    widths = _widths(name, spec, widths)
    recursions = _recursions(name, spec, recursions, variant, tied)
    gates = _gates(name, spec, gates, recursions)
    if attention == "frame" and not spec.recursive:
        raise UsageError(
            f"attention='frame' is another reading of the joint attention, which {name!r} does not have."
        )
    if not _whole(window, 2):
        raise UsageError(
            f"window must be a whole number of frames, at least 2 (one has no CCC), not {window!r}."
        )
    if not 0 <= modality_dropout < 1:
        raise UsageError(f"modality_dropout is a probability from 0 to below 1, not {modality_dropout!r}.")
    if modality_dropout and len(widths) == 1:
        raise UsageError("modality_dropout needs at least two modalities: the last one is never dropped.")
    return Options(
        name=name,
        widths=widths,
        window=int(window),
        recursions=recursions,
        variant=variant,
        target=_targets(target),
        attention=attention,
        channels=_channels(spec, spec.encoder if encoder == "spec" else encoder, widths, channels),
        encoder=spec.encoder if encoder == "spec" else encoder,
        gates=gates,
        dropout=_dropout(spec, variant, dropout),
        tied=bool(tied),
        modality_dropout=float(modality_dropout),
    )


def _known(what: str, value, known) -> None:
    if value not in known:
        raise UsageError(f"Unknown {what} {value!r}{nearest(value, known)}")


def _whole(value, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _widths(name: str, spec: ModelSpec, widths: dict[str, int]) -> dict[str, int]:
    for m, width in widths.items():
        _known("modality", m, MODALITIES)
        if not _whole(width, 1):
            raise UsageError(f"The width of {m} must be a whole number of at least 1, not {width!r}.")
    fewest, most = spec.modalities
    if not fewest <= len(widths) <= most:
        takes = f"exactly {fewest}" if fewest == most else f"{fewest} to {most}"
        why = {
            "unimodal": "it is the baseline of one modality; use 'concat' for several",
            "concat": "there is nothing to concatenate; use 'unimodal' for one",
            "ca": "its attention is the correlation of one modality with one other",
        }.get(name, "attention across modalities has nothing to attend to; use 'unimodal' for one")
        raise UsageError(
            f"Model {name!r} takes {takes} modalities, not {len(widths)} ({', '.join(widths)}): {why}."
        )
    return {m: int(widths[m]) for m in MODALITIES if m in widths}


def _recursions(name: str, spec: ModelSpec, recursions: int | None, variant: str, tied: bool) -> int:
    own = spec.recursions.get(variant, 1 if spec.block else 0)
    if recursions is None:
        recursions = own
    if not _whole(recursions, 0):
        raise UsageError(f"recursions must be a whole number, 0 or more, not {recursions!r}.")
    if not spec.recursive and recursions != own:
        what = "makes one pass through its attention" if spec.block else "has no attention to repeat"
        raise UsageError(f"Model {name!r} {what}; recursions={recursions} means nothing to it. Leave it out.")
    if tied and recursions < 2:
        raise UsageError(
            f"tied=True shares weights between recursions; model {name!r} has {recursions} of them."
        )
    return recursions


def _gates(name: str, spec: ModelSpec, gates: str, recursions: int) -> str:
    gates = (spec.gates or "none") if gates == "spec" else gates
    if gates != "none" and not spec.recursive:
        raise UsageError(
            f"gates={gates!r} choose among the results of recursions, which {name!r} does not have."
        )
    if gates != "none" and not recursions:
        raise UsageError(
            f"Model {name!r} gates the results of its recursions; with recursions=0 there are none."
        )
    return gates


def _targets(target) -> list[str]:
    if isinstance(target, str):
        _known("target", target, TARGETS)
        return list(TARGETS[target])
    names = list(target)
    if not names or len(set(names)) != len(names) or not all(isinstance(n, str) and n for n in names):
        raise UsageError(
            f"target must be 'both', 'valence', 'arousal' or a list of different names, not {target!r}."
        )
    return names


def _channels(spec: ModelSpec, encoder: str, widths: dict, channels: dict | None) -> dict[str, list[int]]:
    if encoder == "none":
        return {}
    for m in channels or {}:
        _known("modality in channels", m, widths)
    resolved = {m: [int(c) for c in (channels or {}).get(m, spec.channels[m])] for m in widths}
    for m, c in resolved.items():
        if not c or min(c) < 1 or (encoder == "bilstm" and c[-1] % 2):
            raise UsageError(
                f"channels of {m} must be positive, and even for a bilstm (two directions), not {c}."
            )
    return resolved


def _dropout(spec: ModelSpec, variant: str, dropout: dict | None) -> dict[str, float]:
    for part, p in (dropout or {}).items():
        _known("dropout", part, DROPOUTS)
        if not 0 <= p < 1:
            raise UsageError(f"dropout of the {part} is a probability from 0 to below 1, not {p!r}.")
    own = {
        "encoder": spec.encoder_dropout,
        "attention": EQUATIONS[variant].dropout if spec.recursive else 0.0,
        "fusion": spec.fusion_dropout,
        "head": spec.head.dropout,
    }
    return {**own, **{part: float(p) for part, p in (dropout or {}).items()}}
