"""Whether a run can be watched with, and the networks that its features need."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from affuse.config import parse_assignments, resolve
from affuse.errors import UsageError
from affuse.extract.networks import Networks, decided, extraction_device, locate_backbones, make_provenance
from affuse.extract.settings import ExtractSettings
from affuse.extract.videos import AnyPath
from affuse.features.parts import MODALITIES
from affuse.features.record import Provenance, settings_hash
from affuse.pipelines.prediction import Run

log = logging.getLogger("affuse")


def check_causal(run: Run) -> None:
    """Raise UsageError for a run one of whose models reads its window backwards."""
    for each in (run, *run.others):
        if not each.model.causal:
            raise UsageError(
                f"The run {each.path} cannot be watched with: its model, {each.model.options.name!r}, reads every "
                "window in both directions (BiLSTM), and has learned nothing of a frame that is the last. Train one "
                "with causal encoders, such as rjcma."
            )


def prepare(run: Run, assignments: list[str], weights_dir: AnyPath | None, device: str) -> tuple[Networks, Provenance]:
    """The networks that the run's features need, and how a record made with them is made.

    Raises UsageError for a run that cannot be watched with, AffuseError where what is made here would not be as what
    the run was trained on.
    """
    check_causal(run)
    taken = {"modalities": [m for m in MODALITIES if m in run.settings.modalities]}
    base = run.extraction().model_dump(mode="json")
    settings = resolve(ExtractSettings, base, parse_assignments(assignments), taken)
    if settings.detection.face == "all":
        raise UsageError(f"The run {run.path} was trained on everyone in a video, and one person is watched at a time.")
    target = extraction_device(device)
    settings = decided(settings, target)
    weights = Path(weights_dir).absolute() if weights_dir else None
    located = locate_backbones(settings, weights, allow_untrained=bool(run.provenance.untrained))
    made, trained = make_provenance(settings, located), run.provenance
    parts = {part: backbone for part, backbone in trained.backbones.items() if part in settings.parts}
    only = replace(trained, settings=trained.settings | taken, backbones=parts)
    replace(run, provenance=only).accept(made)
    if made.untrained:
        log.warning("untrained, seeded backbones: %s", ", ".join(made.untrained))
    kept = {key: value for key, value in trained.settings.items() if key != "resample"}
    kept |= {"views": ["centre"], "live": True}
    provenance = Provenance(kept, settings_hash(kept, trained.backbones), trained.backbones, made.versions)
    return Networks(settings, located, target, together=False), provenance
