"""A model of the family, put together from its entry in the registry: encoders → attention → gates → head.

model = build_model("rjcma", widths={"visual": 2048, "audio": 128, "text": 768})
model({"visual": v, "audio": a, "text": t}, mask=m)  # (batch, time, targets)
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from affuse.errors import AffuseError, UsageError
from affuse.fuse.models.encoders import ENCODERS, BiLSTM
from affuse.fuse.models.gates import GATES
from affuse.fuse.models.inputs import check_features, masks
from affuse.fuse.models.layers import (
    Valid,
    any_valid,
    at_least_single,
    drop_modalities,
    frames,
    unless_full,
    zero_invalid,
)
from affuse.fuse.models.registry import ENTRY_POINTS, MODELS, OWN, find, resolve_options
from affuse.fuse.models.spec import VARIANTS, ModelSpec, Options
from affuse.plugins import installed, said

STANDARD_WIDTHS = {"visual": 512, "audio": 128, "text": 768}  # IR-50, VGGish, BERT: parameters are counted at these
FIRST, NARROW_WIDE = -1.5, (-4.0, 1.0)  # logarithm of a deviation: where it starts, as of ratings, and its bounds


class FusionModel(nn.Module):
    """Frame-synchronous features of one to three modalities → `targets` per frame. Made by `build_model`.

    It is the bare network. It neither cuts videos into windows, nor normalises features, nor joins windows that
    overlap, and takes features of its own precision only (float32), not a store's float16: `Run.predict` does it all.

    config   JSON-able; `build_model(**model.config)` makes the same model
    targets  names of the output channels, in order; with `deviations` the standard deviation of each follows
    window   the most frames at once; None: any number
    """

    def __init__(self, spec: ModelSpec, options: Options):
        super().__init__()
        self.spec, self.options = spec, options
        self.config = options.config()
        self.targets = tuple(options.target)
        self.window = None if spec.fit else options.window
        self.modalities = tuple(options.widths)
        self.unproven = options.name not in MODELS
        encoder, dropout = ENCODERS[options.encoder], options.dropout
        self.encoders = nn.ModuleDict(
            {m: encoder(d, options.channels.get(m), dropout["encoder"]) for m, d in options.widths.items()}
        )
        encoded = {m: encoder.width for m, encoder in self.encoders.items()}
        passes = 1 if options.tied else options.recursions
        self.blocks = nn.ModuleList(spec.block(encoded, options) for _ in range(passes))
        self.gates = nn.ModuleDict()
        if options.gates != "none":
            gate = GATES[options.gates]
            self.gates.update({m: gate(d, options.recursions) for m, d in encoded.items()})
        self.fusion = spec.fusion(encoded, dropout["fusion"])
        outputs = len(self.targets) * (1 + options.deviations)
        self.head = spec.head(self.fusion.width, outputs, dropout["head"])
        own = spec.dropout(options.variant)
        for part in self.idle:
            if (asked := dropout[part]) not in (0, own[part]):
                raise UsageError(
                    f"The {part} of model {options.name!r} has no dropout: dropout.{part}={asked} would do nothing. "
                    "Leave it out."
                )

    @property
    def idle(self) -> list[str]:
        """The parts in which nothing is dropped, whatever `dropout` says; not an attention that 0 recursions leave out,
        nor anything of a model of your own."""
        parts = {"encoder": self.encoders, "attention": self.blocks, "fusion": self.fusion, "head": self.head}
        silent = [p for p, part in parts.items() if not any(isinstance(x, nn.Dropout) for x in part.modules())]
        return [p for p in silent if not self.unproven and not (p == "attention" and self.spec.recursive)]

    @property
    def causal(self) -> bool:
        """Whether neither encoders nor fusion read a window backwards: then its last frame can stand for now."""
        return not any(isinstance(part, BiLSTM) for part in self.modules())

    @property
    def memory(self) -> int:
        """How many frames, itself included, what it says of a frame can depend on, if those after it are left out."""
        return self.window or int(getattr(self.fusion, "frames", 1))

    def forward(self, features: dict[str, Tensor], mask: Tensor | dict[str, Tensor] | None = None) -> Tensor:
        """features {m: (batch, time, width_m)} → (batch, time, targets).

        mask   True where a frame counts: None (all do), (batch, time) for every modality alike, or a
               dictionary of such; a modality it does not name counts everywhere, one wholly False is missing.
               `layers` says what a masked frame may touch. Where no modality is valid the output is the
               model's answer to no input: leave those frames out of loss and score.
        Shorter inputs than the window are padded with masked frames and the output is cut back; raises
        UsageError for longer ones, and for shapes that do not fit the model.
        """
        x, valid, time = self._inputs(features, mask)
        return self.fuse(self.encode(x, valid), valid)[0][:, :time]

    @torch.no_grad()
    def explain(self, features: dict[str, Tensor], mask: Tensor | dict[str, Tensor] | None = None) -> dict:
        """What attention and gates did, for the same inputs as `forward`.

        output    (batch, time, targets)
        norms     {m: (batch, time)}: ‖X^0‖, the size of the features that attention gets
        updates   {m: (batch, time, passes)}: ‖X^i − X^{i−1}‖ of every pass i, zero at masked frames
        gates     {m: (batch, time, k)}: the weights over `candidates`; empty for a model without gates
        candidates  the k names, such as X0, X1, X2
        inner_gates  HGRJCA only: {m: [(batch, time, i+1) for i = 1 … l]}, over X0 … Xi
        """
        x, valid, time = self._inputs(features, mask)
        output, steps, weights = self.fuse(self.encode(x, valid), valid)
        moved = {m: [(b[m] - a[m]).norm(dim=-1) for a, b in pairwise(steps)] for m in self.modalities}
        updates = {m: torch.stack(norms, -1)[:, :time] for m, norms in moved.items() if norms}
        return {
            "output": output[:, :time],
            "norms": {m: steps[0][m].norm(dim=-1)[:, :time] for m in updates},
            "updates": updates,
            "gates": {m: w[0][:, :time] for m, w in weights.items()},
            "candidates": next(iter(self.gates.values())).names if self.gates else [],
            "inner_gates": {m: [g[:, :time] for g in w[1:]] for m, w in weights.items() if len(w) > 1},
        }

    def encode(self, x: dict[str, Tensor], valid: Valid) -> dict[str, Tensor]:
        """X^0, what attention gets of features {m: (batch, time, width_m)}: {m: (batch, time, d_m)}."""
        if self.spec.l2 == "features":
            x = {m: F.normalize(v, dim=-1) for m, v in x.items()}
        x = {m: self.encoders[m](v, frames(valid, m)) for m, v in x.items()}
        return {m: F.normalize(v, dim=-1) for m, v in x.items()} if self.spec.l2 == "encoded" else x

    def fuse(self, x: dict[str, Tensor], valid: Valid) -> tuple[Tensor, list[dict[str, Tensor]], dict[str, Tensor]]:
        """What is said of X^0 as long as the window: (batch, time, targets), then X^0 … X^l, and the gates' weights."""
        steps = [x]
        for i in range(self.options.recursions):
            steps.append(self._attend(self.blocks[0 if self.options.tied else i], steps[-1], valid))
        x, weights = dict(steps[-1]), {}
        for m, gate in self.gates.items():
            x[m], weights[m] = gate([step[m] for step in steps])
        fused = self.fusion(x, valid)
        with torch.autocast(fused.device.type, enabled=False):
            output = self.head(at_least_single(fused), any_valid(valid, self.modalities))
        if self.options.deviations:
            values, spread = output.chunk(2, -1)
            output = torch.cat([values, (FIRST + 2 * spread).clamp(*NARROW_WIDE).exp()], -1)
        return output, steps, weights

    def _attend(self, block: nn.Module, x: dict[str, Tensor], valid: Valid) -> dict[str, Tensor]:
        """One pass of the attention, zero at the frames that do not count whatever the block makes of them."""
        try:
            y = block(x, valid)
        except (AffuseError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            if not self.unproven:
                raise
            raise UsageError(f"The block of model {self.options.name!r} failed: {said(error)}.") from error
        expected = {m: tuple(v.shape) for m, v in x.items()}
        shapes = type(y).__name__
        if isinstance(y, dict):
            shapes = {m: tuple(v.shape) if isinstance(v, Tensor) else type(v).__name__ for m, v in y.items()}
        if shapes != expected:
            raise UsageError(
                f"The block of model {self.options.name!r} was given {expected} and has to give the same shapes, "
                f"not {shapes}."
            )
        if self.unproven:  # once only: an accelerator would wait for the answer
            for m, v in y.items():
                if all(o.isfinite().all() for o in x.values()) and not v.isfinite().all():
                    raise UsageError(
                        f"The block of model {self.options.name!r} makes NaN or infinity of finite {m} features. "
                        "A softmax over frames of which none counts does; padding is such frames."
                    )
            self.unproven = False
        return {m: zero_invalid(y[m], frames(valid, m)) for m in self.modalities}

    def _inputs(self, features, mask) -> tuple[dict[str, Tensor], Valid, int]:
        """Features checked, ordered, zeroed where invalid, padded to the window; masks; length given."""
        batch, time = check_features(features, self.options, self.window, next(self.parameters(), None))
        dropping = self.options.modality_dropout if self.training else 0.0
        valid, short = None, self.window - time if self.window else 0
        if mask is not None or short or dropping:
            valid = masks(mask, self.modalities, (batch, time), features[self.modalities[0]].device)
        if dropping:
            valid = drop_modalities(valid, dropping)
        x = {m: zero_invalid(features[m], frames(valid, m)) for m in self.modalities}
        if short:
            x = {m: F.pad(v, (0, 0, 0, short)) for m, v in x.items()}
            valid = {m: F.pad(v, (0, short)) for m, v in valid.items()}
        return x, None if valid is None else unless_full(valid), time


def build_model(name: str, widths: dict[str, int], **settings) -> FusionModel:
    """A model by name, its weights drawn from torch's random generator.

    name      rjcma, rcma, grjca, hgrjca, dca, rjca, jca, ca, lfan; concat, unimodal, linear, linear-rescaled, mean; or
              your own (FILE.py:NAME)
    widths    width of every modality's features; any of visual, audio and text
    settings  window, recursions, variant, target …: those of `affuse.fuse.models.spec.ModelSettings`, which says what
              they are; sha256 refuses another FILE.py than the one that a run was trained with

    Raises UsageError for an unknown name, with the nearest known, and for a combination that cannot be.
    """
    options = resolve_options(name, widths, **settings)
    return FusionModel(find(options.name, options.sha256), options)


def describe(names: Iterable[str] = ()) -> list[dict]:
    """Models as rows, the family and what is registered or installed if none is named: what each is, and its
    parameters at visual 512, audio 128, text 768."""
    rows = []
    for name in names or {**MODELS, **installed(ENTRY_POINTS), **OWN}:
        spec, parameters = find(name), {}
        for variant in spec.recursions or VARIANTS:
            with torch.device("meta"):
                model = build_model(name, {m: STANDARD_WIDTHS[m] for m in spec.standard}, variant=variant)
            parameters[variant] = sum(p.numel() for p in model.parameters())
        rows.append(
            {
                "name": name,
                "title": spec.title,
                "paper": spec.paper,
                "modalities": list(spec.standard),
                "joint": spec.joint,
                "recursions": dict(spec.recursions),
                "gates": "–" if spec.gates == "none" else spec.gates,
                "encoder": spec.encoder,
                "variants": list(spec.recursions) or ["released"],
                "parameters": parameters,
            }
        )
    return rows
