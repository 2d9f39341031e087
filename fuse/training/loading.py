"""Finished runs read back from their folders: one, the seeds of one, or several that predict together."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from affuse.config import resolve
from affuse.errors import AffuseError, UsageError
from affuse.features.record import Provenance
from affuse.files import as_path, sha256_of
from affuse.fuse.data.windows import Normalisation
from affuse.fuse.models.model import build_model
from affuse.fuse.training.checkpoint import RunFolder, blaming, read_tensors, unprefixed
from affuse.fuse.training.memory import SHORT, measured
from affuse.fuse.training.run import Run
from affuse.fuse.training.settings import TrainSettings

NAMED = 4  # differences spelled out; the rest are counted


def load_run(path: Path | str | Iterable[Path | str]) -> Run:
    """Read a finished run; nothing of its training data is needed. The model is in evaluation mode, on the CPU. Of
    several paths one run, see `together`.

    Raises AffuseError when the folder holds no finished run.
    """
    if isinstance(path, (list, tuple)):
        return together([load_run(each) for each in path])
    folder = RunFolder(as_path("the path of a run", path))
    if folder.ensemble.exists():
        return _of_seeds(folder)
    if not folder.finished:
        if folder.config.exists():
            raise AffuseError(f"The run in {folder.path} is not finished. Go on with the same train command and --out.")
        raise AffuseError(f"{folder.path} is not a run folder: it has no {folder.model.name}. Check --run.")
    tensors, facts = read_tensors(folder.model)
    weights = unprefixed("model", tensors)
    with blaming(folder.model):
        if facts["model"]["window"] > SHORT:  # no memory is taken for weights that are not in the file
            check_weights(measured(facts["model"]), weights, "it")
        with torch.random.fork_rng(devices=[]):  # the weights drawn are replaced: nobody should feel the drawing
            model = build_model(**facts["model"])
        settings, provenance = resolve(TrainSettings, facts["settings"]), Provenance.from_dict(facts["provenance"])
        learned = {"noise": np.array(facts["noise"], float).reshape(len(model.targets)), "offsets": facts["offsets"]}
        best = {"epoch": int(facts["best"]["epoch"]), "ccc": dict(facts["best"]["ccc"])}
    load_weights(model, weights, str(folder.model))
    normalisation = Normalisation(unprefixed("mean", tensors), unprefixed("std", tensors))
    return Run(folder.path, model.eval(), normalisation, settings, provenance, best, facts["fps"], **learned)


def _of_seeds(folder: RunFolder) -> Run:
    """The run of several seeds in a folder, each as it was when they were put together."""
    with blaming(folder.ensemble):
        facts = json.loads(folder.ensemble.read_bytes())
        runs = {folder.member(int(seed)): digest for seed, digest in facts["seeds"].items()}
        for run, digest in runs.items():
            if not run.finished or sha256_of(run.model) != digest:
                raise AffuseError(
                    f"{run.path} is not as it was when it became a part of {folder.path}. Give the same training again."
                )
        first, *others = [load_run(run.path) for run in runs]
        noise = np.array(facts["noise"], float).reshape(len(first.model.targets))
        best = {**first.best, "ccc": dict(facts["ccc"])}
        if not (noise >= 0).all():
            raise ValueError(f"noise cannot be {facts['noise']}")
    return replace(first, path=folder.path, others=tuple(others), noise=noise, best=best)


def together(runs: Sequence[Run]) -> Run:
    """Of several runs, such as seeds or folds, one: it predicts the mean over their models, each of which counts once,
    and how far off that may be, by how far they are apart and by the mean of their own noise.

    Raises UsageError, saying how they differ, for runs that do not predict the same from the same features.
    """
    if not runs:
        raise UsageError("There is no run among none. Give the path of one at least.")
    first, *rest = runs
    for run in rest:
        if differences := first.apart(run):
            raise UsageError(
                f"{first.path} and {run.path} cannot predict together: {differences}. Leave one of them out."
            )
    members = [replace(member, others=()) for run in runs for member in (run, *run.others)]
    for one, other in permutations([run.path.resolve() for run in runs], 2):
        if one in (other, *other.parents):
            raise UsageError(f"The run {other} is given twice, or with one that it is a part of. Give each once.")
    if not rest:
        return first
    ccc = {target: float(np.mean([run.best["ccc"][target] for run in runs])) for target in first.best["ccc"]}
    noise = np.mean([run.noise for run in runs], axis=0)
    return replace(first, others=tuple(members[1:]), noise=noise, best={**first.best, "ccc": ccc})


def as_run(run: Run | Path | str | Iterable[Path | str]) -> Run:
    """A run, or the finished run at a path, or at several together. Raises UsageError for anything else."""
    if isinstance(run, (Run, list, tuple)):
        return run if isinstance(run, Run) else load_run(run)
    return load_run(as_path("a Run or the path of one", run))


def load_weights(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """Load a state dictionary into `model`, all of it or nothing. Raises as `check_weights` does."""
    check_weights(model, state, source)
    model.load_state_dict(state)


def check_weights(model: nn.Module, state: dict[str, Tensor], source: str) -> None:
    """See that a state dictionary fits `model`, which may be one of torch's device "meta".

    source names the file in the message. Raises UsageError saying how the weights differ: tensors that are
    missing, tensors the model has no place for, tensors of another shape.
    """
    own, given = ({k: tuple(v.shape) for k, v in tensors.items()} for tensors in (model.state_dict(), state))
    differences = [f"{k} is missing" for k in own if k not in given]
    differences += [f"{k} has no place in the model" for k in given if k not in own]
    reshaped = [k for k in own if k in given and own[k] != given[k]]
    differences += [f"{k} is {given[k]} in the file and {own[k]} in the model" for k in reshaped]
    if differences:
        more = len(differences) - NAMED
        rest = f"; and {more} more" if more > 0 else ""
        raise UsageError(
            f"The weights in {source} belong to another model, other widths or another window: "
            f"{'; '.join(differences[:NAMED])}{rest}. Build the model from the settings saved with them."
        )
