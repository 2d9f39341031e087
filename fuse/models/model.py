"""A model of the family, put together from its entry in the registry: encoders → attention → gates → head.

model = build_model("rjcma", widths={"visual": 2048, "audio": 128, "text": 768})
model({"visual": v, "audio": a, "text": t}, mask=m)  # (batch, time, targets)
"""

from __future__ import annotations

from itertools import pairwise

import torch
from affuse.fuse.models.attention import (
    CrossAttention,
    JointCrossAttention,
    LeaderFollower,
    OnePassJointAttention,
)
from affuse.fuse.models.encoders import TCN, BiLSTM
from affuse.fuse.models.gates import build_gate
from affuse.fuse.models.heads import Head
from affuse.fuse.models.layers import Valid, any_valid, drop_modalities, unless_full, zero_invalid
from affuse.fuse.models.registry import EQUATIONS, MODELS, STANDARD_WIDTHS, VARIANTS, ModelSpec
from affuse.fuse.models.spec import Options, resolve_options
from torch import Tensor, nn
from torch.nn import functional as F

from affuse.errors import UsageError

NAMED = 4  # differences spelled out; the rest are counted


def load_weights(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load a state dictionary into `model`, all of it or nothing.

    source names the file in the message. Raises UsageError saying how the weights differ: tensors that are
    missing, tensors the model has no place for, tensors of another shape.
    """
    own = model.state_dict()
    differences = [f"{k} is missing" for k in own if k not in state]
    differences += [f"{k} has no place in the model" for k in state if k not in own]
    differences += [
        f"{k} is {tuple(state[k].shape)} in the file and {tuple(v.shape)} in the model"
        for k, v in own.items()
        if k in state and state[k].shape != v.shape
    ]
    if differences:
        more = len(differences) - NAMED
        rest = f"; and {more} more" if more > 0 else ""
        raise UsageError(
            f"The weights in {source} belong to another model, other widths or another window: "
            f"{'; '.join(differences[:NAMED])}{rest}. Build the model from the settings saved with them."
        )
    model.load_state_dict(state)


class FrameLinear(nn.Linear):
    """The encoder that looks at no other frame: (batch, time, width) → (batch, time, out)."""

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        return zero_invalid(super().forward(zero_invalid(x, valid)), valid)


class FusionModel(nn.Module):
    """Frame-synchronous features of one to three modalities → `targets` per frame. Made by `build_model`.

    config   JSON-able; build_model(**model.config) makes the same model
    targets  names of the output channels, in order
    """

    def __init__(self, options: Options):
        super().__init__()
        self.options = options
        self.spec: ModelSpec = MODELS[options.name]
        self.config = options.config()
        self.targets = tuple(options.target)
        self.modalities = tuple(options.widths)
        self.encoders = nn.ModuleDict({m: self._encoder(m) for m in self.modalities})
        encoded = options.encoded_widths()
        self.blocks = nn.ModuleList(
            self._block(encoded) for _ in range(1 if options.tied else options.recursions)
        )
        self.gates = nn.ModuleDict()
        if options.gates != "none":
            kind, l = options.gates, options.recursions
            self.gates.update({m: build_gate(kind, d, l) for m, d in encoded.items()})
        self.fusion, fused = self._fusion(encoded)
        self.head = Head(fused, len(self.targets), self.spec.head, options.dropout["head"])

    def _encoder(self, m: str) -> nn.Module:
        width, dropout = self.options.widths[m], self.options.dropout["encoder"]
        if self.options.encoder == "none":
            return nn.Identity()
        channels = self.options.channels[m]
        if self.options.encoder == "tcn":
            return TCN(width, channels, dropout)
        if self.options.encoder == "bilstm":
            return BiLSTM(width, channels[-1], dropout)
        return FrameLinear(width, channels[-1])

    def _block(self, widths: dict[str, int]) -> nn.Module:
        if self.spec.block == "jca":
            return OnePassJointAttention(widths, self.options.window)
        if self.spec.block == "ca":
            return CrossAttention(widths)
        return JointCrossAttention(
            widths,
            self.options.window,
            joint=self.spec.joint,
            fc=self.spec.fc[self.options.variant],
            attention=self.options.attention,
            equations=EQUATIONS[self.options.variant],
            dropout=self.options.dropout["attention"],
        )

    def _fusion(self, widths: dict[str, int]) -> tuple[nn.Module | None, int]:
        total, dropout = sum(widths.values()), self.options.dropout["fusion"]
        if self.spec.fusion == "leader":
            fusion = LeaderFollower(widths, dropout)
        elif self.spec.fusion == "bilstm":
            fusion = BiLSTM(total, next(iter(widths.values())), dropout)
        else:
            return None, total
        return fusion, fusion.width

    def forward(self, features: dict[str, Tensor], mask: Tensor | dict[str, Tensor] | None = None) -> Tensor:
        """features {m: (batch, time, width_m)} → (batch, time, targets).

        mask   True where a frame counts: None (all do), (batch, time) for every modality alike, or a
               dictionary of such; a modality it does not name counts everywhere, one wholly False is missing.
               `layers` says what a masked frame may touch. Where no modality is valid the output is the
               model's answer to no input: leave those frames out of loss and score.
        Shorter inputs than the window are padded with masked frames and the output is cut back; raises
        UsageError for longer ones, and for shapes that do not fit the model.
        """
        return self._run(features, mask)[0]

    @torch.no_grad()
    def explain(self, features: dict[str, Tensor], mask: Tensor | dict[str, Tensor] | None = None) -> dict:
        """What attention and gates did, for the same inputs as `forward`.

        output    (batch, time, targets)
        updates   {m: (batch, time, passes)}: ‖X^i − X^{i−1}‖ of every pass i, zero at masked frames
        gates     {m: (batch, time, k)}: the weights over `candidates`; empty for a model without gates
        candidates  the k names, such as X0, X1, X2
        inner_gates  HGRJCA only: {m: [(batch, time, i+1) for i = 1 … l]}, over X0 … Xi
        """
        output, steps, weights, time = self._run(features, mask)
        moved = {m: [(b[m] - a[m]).norm(dim=-1) for a, b in pairwise(steps)] for m in self.modalities}
        updates = {m: torch.stack(norms, -1)[:, :time] for m, norms in moved.items() if norms}
        return {
            "output": output,
            "updates": updates,
            "gates": {m: w[0][:, :time] for m, w in weights.items()},
            "candidates": next(iter(self.gates.values())).names if self.gates else [],
            "inner_gates": {m: [g[:, :time] for g in w[1:]] for m, w in weights.items() if len(w) > 1},
        }

    def _run(self, features, mask):
        x, valid, time = self._inputs(features, mask)
        if self.spec.l2 == "features":
            x = {m: F.normalize(v, dim=-1) for m, v in x.items()}
        x = {m: self._encode(m, v, None if valid is None else valid[m]) for m, v in x.items()}
        if self.spec.l2 == "encoded":
            x = {m: F.normalize(v, dim=-1) for m, v in x.items()}
        steps = [x]  # X^0, X^1 … X^l
        for i in range(self.options.recursions):
            steps.append(self.blocks[0 if self.options.tied else i](steps[-1], valid))
        x, weights = steps[-1], {}
        for m, gate in self.gates.items():
            chosen, weights[m] = gate([step[m] for step in steps])
            x = {**x, m: chosen}
        counted = any_valid(valid, self.modalities)
        if self.spec.fusion == "leader":
            fused = self.fusion(x, valid)
        else:
            fused = torch.cat([x[m] for m in self.modalities], -1)
            if self.fusion is not None:
                fused = self.fusion(fused, counted)
        return self.head(fused, counted)[:, :time], steps, weights, time

    def _encode(self, m: str, x: Tensor, valid: Tensor | None) -> Tensor:
        encoder = self.encoders[m]
        return x if isinstance(encoder, nn.Identity) else encoder(x, valid)

    def _inputs(self, features, mask) -> tuple[dict[str, Tensor], Valid, int]:
        """Features checked, ordered, zeroed where invalid, padded to the window; masks; length given."""
        batch, time = self._check(features)
        device = features[self.modalities[0]].device
        valid = None
        if (
            mask is not None
            or time < self.options.window
            or (self.training and self.options.modality_dropout)
        ):
            if not isinstance(mask, dict):
                mask = dict.fromkeys(self.modalities, mask)
            full = torch.ones(batch, time, dtype=torch.bool, device=device)
            valid = {m: full if mask.get(m) is None else mask[m].bool() for m in self.modalities}
            self._check_masks(mask, valid, (batch, time))
        if valid is not None and self.training and self.options.modality_dropout:
            valid = drop_modalities(valid, self.options.modality_dropout)
        x = {m: zero_invalid(features[m], None if valid is None else valid[m]) for m in self.modalities}
        short = self.options.window - time
        if short:
            x = {m: F.pad(v, (0, 0, 0, short)) for m, v in x.items()}
            valid = {m: F.pad(v, (0, short)) for m, v in valid.items()}
        return x, None if valid is None else unless_full(valid), time

    def _check(self, features: dict[str, Tensor]) -> tuple[int, int]:
        name, widths, window = self.options.name, self.options.widths, self.options.window
        if set(features) != set(widths):
            raise UsageError(
                f"Model {name!r} takes {', '.join(widths)}, not {', '.join(features) or 'nothing'}. "
                "For a missing one pass zeros and a mask that is False."
            )
        shapes = {m: tuple(v.shape) for m, v in features.items()}
        if any(len(s) != 3 for s in shapes.values()) or len({s[:2] for s in shapes.values()}) != 1:
            raise UsageError(f"Features must be (batch, time, width) of one batch and time, not {shapes}.")
        for m, width in widths.items():
            if shapes[m][2] != width:
                raise UsageError(
                    f"Model {name!r} was built for {m} features {width} wide, these are {shapes[m][2]} wide: "
                    "they come from another backbone, or the model from other features."
                )
        batch, time = shapes[self.modalities[0]][:2]
        if time > window or not time:
            raise UsageError(
                f"The input has {time} frames, the model's window {window}; cut it into windows."
            )
        return batch, time

    def _check_masks(self, mask: dict, valid: dict[str, Tensor], shape: tuple[int, int]) -> None:
        unknown = set(mask) - set(self.modalities)
        if unknown:
            raise UsageError(
                f"The mask names {', '.join(sorted(unknown))}; known: {', '.join(self.modalities)}."
            )
        for m, v in valid.items():
            if tuple(v.shape) != shape:
                raise UsageError(f"The mask of {m} is {tuple(v.shape)}; it must be (batch, time) = {shape}.")


def build_model(
    name: str,
    widths: dict[str, int],
    window: int = 300,
    recursions: int | None = None,
    variant: str = "released",
    target: str | list[str] = "both",
    attention: str = "channel",
    *,
    channels: dict[str, list[int]] | None = None,
    encoder: str = "spec",
    gates: str = "spec",
    dropout: dict[str, float] | None = None,
    tied: bool = False,
    modality_dropout: float = 0.0,
) -> FusionModel:
    """A model by name, its weights drawn from torch's random generator.

    name        rjcma, rcma, grjca, hgrjca, dca, rjca, jca, ca, lfan, concat or unimodal
    widths      width of every modality's features; any of visual, audio and text
    window      L, frames; what the time-mixing weights are made for
    recursions  l; None is the variant's own. 0 leaves the attention out
    variant     'released' (what made the published numbers) or 'paper' (what is printed)
    target      'both', 'valence', 'arousal', or a list of names
    attention   'channel' (C is channel × channel) or 'frame' (C is frame × frame)
    channels    widths of the encoder's layers per modality, the last being what it gives; None is the paper's
    encoder     'spec', 'tcn', 'bilstm', 'linear' (no other frame seen) or 'none' (features as they are)
    gates       'spec', 'dca', 'grjca', 'hgrjca' or 'none'; only what recurses has results to choose among
    dropout     any of encoder, attention, fusion and head, over the specification's
    tied        every recursion uses the same weights
    modality_dropout  probability, in training, of dropping each modality of a sample; one always stays

    Raises UsageError for an unknown name, with the nearest known, and for a combination that cannot be.
    """
    given = dict(locals())
    return FusionModel(resolve_options(**given))


def describe() -> list[dict]:
    """The family as rows: what each model is, and its parameters at visual 512, audio 128, text 768."""
    rows = []
    for name, spec in MODELS.items():
        widths = {m: STANDARD_WIDTHS[m] for m in spec.standard}
        parameters = {}
        for variant in VARIANTS:
            with torch.device("meta"):
                model = build_model(name, widths, variant=variant)
            parameters[variant] = sum(p.numel() for p in model.parameters())
        rows.append(
            {
                "name": name,
                "title": spec.title,
                "paper": spec.paper,
                "modalities": list(spec.standard),
                "joint": spec.joint or "–",
                "recursions": dict(spec.recursions),
                "gates": spec.gates or "–",
                "encoder": spec.encoder,
                "variants": list(VARIANTS) if spec.recursive else ["released"],
                "parameters": parameters,
            }
        )
    return rows
