"""The model card: a run in Markdown, for whoever gets the folder without having trained it."""

from __future__ import annotations

from datetime import date
from typing import TYPE_CHECKING

from affuse.errors import counted
from affuse.fuse.reports.tables import SCORES, markdown
from affuse.version import VERSION

if TYPE_CHECKING:
    from affuse.features.record import Provenance


def model_card(settings: dict, provenance: Provenance, best: dict, result: dict, facts: dict) -> str:
    """The run in Markdown: what it predicts, from what, how well, and where it should not be trusted.

    best {"epoch"}, of a ridge also "ridge" and "smoothing"; result as `score` gives it; facts: parameters, fps, window
    (None for one that sees whole videos), and of the training videos, frames, views, left_out, unlabelled.
    """
    targets, views = list(result["ccc"]), facts["views"]
    untrained = (
        f"**Untrained backbones: {', '.join(provenance.untrained)}.** Their features are a fixed random "
        "projection of the input; these numbers say nothing about the method.\n\n"
    )
    scores = [[target, *(f"{result[score][target]:.3f}" for score in SCORES)] for target in targets]
    backbones = [
        [part, b.name, b.source, b.sha256[:12] or "–", "yes" if b.trained else "**no**", b.licence or "unknown"]
        for part, b in provenance.backbones.items()
    ]
    seen = (
        f"\nEach training window saw one of {1 + len(views)} views of its faces (centre, {', '.join(views)}), "
        "drawn anew\nin every epoch; validation saw the centre."
    )
    clock = (
        f"at {facts['fps']:g} frames per second.\n"
        "A video of another rate is read at this one, and predicted on its own frames."
        if facts["fps"]
        else "on every video's own frames:\nat another rate than in training, its seconds are other seconds."
    )
    flatter = "chosen by these same videos, so\nthe numbers flatter a little."
    if facts["window"]:
        chosen = f"Best of at most {settings['epochs']} epochs: epoch {best['epoch']}. It was {flatter}"
    elif "ridge" in best:
        chosen = f"Ridge {best['ridge']:g} and {best['smoothing']} s of smoothing were {flatter}"
    else:
        chosen = "Nothing was fitted and nothing chosen."
    return _CARD.format(
        settings=settings,
        targets=" and ".join(targets[:-1]),
        today=date.today().isoformat(),
        version=VERSION,
        modalities=", ".join(settings["modalities"]),
        untrained=untrained if provenance.untrained else "",
        best=best,
        result=result,
        scores=markdown(["target", "CCC", "mean CCC per video", "Pearson r", "RMSE"], scores),
        **{**facts, "views": seen if views else ""},
        scored=counted(result["videos"], "video"),
        trained_on=counted(facts["videos"], "video"),
        clock=clock,
        chosen=chosen,
        reach=f"window {facts['window']} frames" if facts["window"] else "whole videos",
        hash=provenance.settings_hash,
        backbones=markdown(["part", "backbone", "source", "sha256", "trained", "licence"], backbones),
    )


_CARD = """# {settings[model]} ({settings[variant]}): {targets} per frame

Trained on {today} with affuse {version}: {parameters:,} parameters, modalities {modalities}, {reach},
preset `{settings[preset]}`, seed {settings[seed]}. All settings are in `config.yaml`.

{untrained}## Agreement on the validation videos

{chosen} CCC is over the concatenation of all {result[frames]:,} annotated frames,
from {scored}.

{scores}

## Data

Trained on {trained_on} with {frames:,} annotated frames. Left out for want of features:
{left_out}; without a label in the store: {unlabelled}.{views}

## Features

Extraction settings `{hash}`.
The model takes features of exactly this kind, and reads them {clock}

{backbones}

## Limits

Valence and arousal here are what raters saw in the training videos, not what a person felt. The model
knows the people, languages and recording conditions of its training data; on others its error is
unknown until measured. It is not fit for decisions about a person. A frame without any modality gets a
value interpolated from its neighbours, and `valid` 0. Some backbones are licensed for research only:
see the table above.
"""
