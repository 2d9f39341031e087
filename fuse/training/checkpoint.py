"""What a training leaves on disk: the run folder, and tensors with JSON in files that are never half written.

config.yaml        the resolved settings; `--config` takes it as it is
data.json          digests of the features and labels of each video
model.safetensors  best weights and normalisation; with them model options, settings, frame rate, provenance of the
                   features
metrics.csv        one row per epoch                events/   the same for TensorBoard
predictions/       one CSV per validation video     figures/  learning curve and predictions
card.md            the model card                   checkpoint.safetensors  while the run is unfinished

Where a run was trained with several seeds, each has such a folder in it, and ensemble.json names them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from affuse.config import read_yaml
from affuse.device import pick_precision
from affuse.errors import AffuseError, UsageError, first_line
from affuse.features.record import Provenance
from affuse.files import file_name, make_folder, sweep, write_bytes, write_text
from affuse.fuse.data.corpus import Corpus
from affuse.fuse.data.fingerprint import Fingerprint, changes, keep
from affuse.fuse.data.windows import Normalisation
from affuse.fuse.models.model import FusionModel
from affuse.fuse.models.registry import code, located
from affuse.fuse.reports.figures import save_figure
from affuse.fuse.scoring.estimate import Estimate
from affuse.fuse.scoring.predict import by_video
from affuse.fuse.training.settings import TrainSettings
from affuse.version import VERSION

FIGURES = 4  # validation videos drawn
FORMAT = 1  # of everything written by `write_tensors`

# Settings that a resumed run may have otherwise, since no weight depends on them.
FREE_TO_CHANGE = {"device", "tensorboard", "checkpoint_seconds"}
DECIDED = ("precision", "threads")  # when a run begins, where they are "auto"


class RunFolder:
    """The paths of a run, and what may be done there."""

    def __init__(self, path: Path):
        self.path = path
        self.config, self.data = path / "config.yaml", path / "data.json"
        self.model, self.checkpoint = path / "model.safetensors", path / "checkpoint.safetensors"
        self.ensemble = path / "ensemble.json"
        self.metrics, self.card = path / "metrics.csv", path / "card.md"
        self.figures, self.predictions = path / "figures", path / "predictions"

    @property
    def finished(self) -> bool:
        """The model is written last but for the removal of the checkpoint."""
        return self.model.exists() and not self.checkpoint.exists()

    def member(self, seed: int) -> RunFolder:
        """Where the run of one of several seeds is."""
        return RunFolder(self.path / f"seed{seed}")

    def check(self, settings: TrainSettings, data: Fingerprint) -> bool:
        """See that a run with these settings on these data is here, or can begin or go on; whether it is finished.

        Raises UsageError for a run with other settings (naming them) and for a folder of other things, AffuseError
        where other data were trained on (naming the videos).
        """
        if not self.config.exists():
            if self.ensemble.exists():
                raise UsageError(f"{self.path} holds a run of several seeds. Give --seeds, or choose another --out.")
            if taken(self.path):
                raise UsageError(f"{self.path} is not empty and holds no run. Choose another folder for --out.")
            return False
        run = f"{self.path} holds {'a finished' if self.finished else 'an unfinished'} run"
        if differences := "; ".join(self.differences(settings)):
            raise UsageError(
                f"{run} with other settings: {differences}. Give the same ones (--config {self.config}), or choose "
                "another folder for --out."
            )
        if changed := self.changes(data):
            raise AffuseError(
                f"{run} that began with other data: {changed}. Bring the data back, or choose another folder for --out "
                "to train on what is there now."
            )
        return self.finished

    def decided(self, settings: TrainSettings, device: torch.device) -> TrainSettings:
        """The settings with their precision and threads: "auto" is that of the run once it is begun, before that what
        suits the device, and what torch takes now."""
        begun = read_yaml(self.config) if self.config.exists() else {}
        asked = {key: getattr(settings, key) for key in DECIDED}
        chosen = {key: begun.get(key, value) if value == "auto" else value for key, value in asked.items()}
        chosen["precision"] = pick_precision(chosen["precision"], device)
        if chosen["threads"] == "auto":
            chosen["threads"] = torch.get_num_threads()
        return settings.model_copy(update=chosen)

    def begin(self, settings: TrainSettings, data: Fingerprint) -> None:
        """Make the folder with settings and data, unless there is one to go on with."""
        if self.config.exists():
            sweep(self.path)
        else:
            make_folder(self.path)
            head = "# The resolved settings of this run. Train again with --config and this file.\n"
            write_text(self.config, head + yaml.safe_dump(settings.model_dump(), sort_keys=False))
            for name, content in code(settings.model):
                write_bytes(self.path / name, content)
        if not self.checkpoint.exists():
            keep(self.data, data)

    def discard(self) -> None:
        """Forget what was trained here but for the settings."""
        for path in (self.model, self.checkpoint, self.data, self.metrics, self.card):
            path.unlink(missing_ok=True)
        for folder in (self.path / "events", self.predictions, self.figures):
            shutil.rmtree(folder, ignore_errors=True)

    def changes(self, data: Fingerprint) -> str:
        """How these data differ from those that were trained on here; empty where they do not or nothing was."""
        trained = self.model.exists() or self.checkpoint.exists()
        return changes(self.data, data) if trained else ""

    def differences(self, settings: TrainSettings) -> list[str]:
        """How the settings in the folder differ from these, those of `FREE_TO_CHANGE` aside."""
        there, here = read_yaml(self.config), settings.model_dump()
        free = FREE_TO_CHANGE | {key for key in DECIDED if here[key] == "auto"}
        return [
            f"{name} is not what it was"
            for name, content in code(settings.model)
            if (copy := self.path / name).exists() and copy.read_bytes() != content
        ] + [
            f"{key} is {there.get(key)!r} there and {here.get(key)!r} here"
            for key in dict.fromkeys([*there, *here])
            if key not in free and there.get(key) != here.get(key)
        ]

    def write_metrics(self, history: list[dict]) -> None:
        """One row per epoch, numbers in full precision."""
        write_text(self.metrics, pd.DataFrame(history).to_csv(index=False, na_rep="nan", lineterminator="\n"))

    @contextmanager
    def events(self, wanted: bool, epoch: int) -> Iterator[Callable[[dict], None]]:
        """A function that writes a row of metrics for TensorBoard; events of epochs that are repeated are purged."""
        if not wanted:
            yield lambda row: None
            return
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and not everybody wants it

        with SummaryWriter(str(self.path / "events"), purge_step=epoch + 1) as writer:

            def write(row: dict) -> None:
                for name, value in row.items():
                    if name not in ("epoch", "best"):
                        writer.add_scalar(name, value, row["epoch"])

            yield write

    def show(self, corpus: Corpus, estimate: Estimate, model: str) -> None:
        """A CSV of every validation video, and a figure beside the truth of the first few."""
        for video, (name, made) in enumerate(by_video(corpus, estimate, model).items()):
            made.write_csv(self.predictions / f"{file_name(name)}.csv")
            if video < FIGURES:
                own = corpus.own(video)
                truth = np.where(own.annotated[:, None], own.truth, np.nan)
                make_folder(self.figures)
                save_figure(made.plot(truth), self.figures / f"{file_name(name)}.png")

    def write_model(
        self,
        model: FusionModel,
        normalisation: Normalisation,
        settings: TrainSettings,
        provenance: Provenance,
        learned: dict,
    ) -> None:
        """The weights with everything that is needed to use them; learned: `devices` of `Progress`, and of `Run` best,
        fps, noise and offsets."""
        facts = {
            "version": VERSION,
            "git": git_revision(),
            "model": {**model.config, "name": located(model.config["name"], self.path)},
            "settings": settings.model_dump(),
            "provenance": provenance.as_dict(),
            **learned,
        }
        tensors = prefixed(model=model.state_dict(), mean=normalisation.mean, std=normalisation.std)
        write_tensors(self.model, tensors, facts)


def taken(path: Path) -> bool:
    """Whether a folder has anything in it but what a killed process left half written."""
    return path.is_dir() and any(not found.name.endswith(".partial") for found in path.iterdir())


def write_tensors(path: Path, tensors: dict[str, Tensor], facts: dict) -> None:
    """Write tensors (from any device) and JSON-able facts as one file."""
    on_cpu = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    said = {"format": FORMAT, **facts}
    write_bytes(path, _packed(on_cpu, {**said, "digest": sha256(_packed(on_cpu, said)).hexdigest()}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict]:
    """Tensors (on the CPU) and facts as `write_tensors` left them. Raises AffuseError for any other file."""
    with blaming(path):
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        if "affuse" not in metadata:
            raise AffuseError(f"{path} is a safetensors file, but not one of affuse's.")
        facts = json.loads(metadata["affuse"])
        if (there := facts["format"]) > FORMAT:
            raise AffuseError(
                f"{path} was written by a newer affuse (format {there}; this one knows {FORMAT}). Update affuse."
            )
        if facts.pop("digest") != sha256(_packed(tensors, facts)).hexdigest():
            raise ValueError("it is not what was written")
    return tensors, facts


@contextmanager
def blaming(path: Path) -> Iterator[None]:
    """Whatever goes wrong with what a file says is told as an error of that file."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None
    except (LookupError, OSError, RuntimeError, SafetensorError, TypeError, ValueError, AttributeError) as error:
        why, advice = f"{type(error).__name__}: {first_line(error)}", "or delete it and run the same training again"
        raise AffuseError(f"{path} cannot be read ({why}). Restore it from a copy, {advice}.") from error


def _packed(tensors: dict[str, Tensor], facts: dict) -> bytes:
    # One key only: safetensors writes several in an order that changes from run to run.
    return save(tensors, {"affuse": json.dumps(facts)})


def prefixed(**groups: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of all groups, named `group.name`."""
    return {f"{group}.{name}": tensor for group, tensors in groups.items() for name, tensor in tensors.items()}


def unprefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors named `prefix.…`, without the prefix."""
    return {name.removeprefix(f"{prefix}."): t for name, t in tensors.items() if name.startswith(f"{prefix}.")}


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's state, flat: "{parameter number}.{name}" → tensor."""
    state = optimiser.state_dict()["state"]
    return {f"{number}.{name}": tensor for number, part in state.items() for name, tensor in part.items()}


def restore_optimiser(optimiser: torch.optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Undo `optimiser_tensors` on an optimiser made with the same options."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = tensor
    optimiser.load_state_dict({**optimiser.state_dict(), "state": state})


def git_revision() -> str:
    """The commit of the code that runs, with "+" when it has been changed since; empty outside a repository."""
    here = ["git", "-C", str(Path(__file__).parent)]
    questions = (["ls-files", "--error-unmatch", Path(__file__).name], ["rev-parse", "HEAD"], ["status", "-suno"])
    try:
        answers = [subprocess.run([*here, *q], capture_output=True, text=True) for q in questions]  # noqa: S603
    except OSError:
        return ""
    if any(answer.returncode for answer in answers):
        return ""
    return answers[1].stdout.strip() + ("+" if answers[2].stdout.strip() else "")
