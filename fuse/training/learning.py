"""The learning loop: windows in memory, a loss, a schedule, a checkpoint; and what is written when it ends.

Every epoch starts from a random state derived from (seed, epoch), and a checkpoint is the state between two epochs. So
a run that was killed at any moment and gone on with ends with the same weights as one that was not.
"""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, fields

import torch
from torch import Tensor

from affuse.device import told
from affuse.errors import AffuseError
from affuse.features import FeatureStore
from affuse.files import write_text
from affuse.fuse.data.corpus import Corpus
from affuse.fuse.data.windows import Normalisation, Windows
from affuse.fuse.models.model import FusionModel
from affuse.fuse.reports.card import model_card
from affuse.fuse.reports.figures import learning_curve, save_figure
from affuse.fuse.scoring.estimate import Estimate, predict_frames
from affuse.fuse.scoring.evaluate import score, unexplained
from affuse.fuse.training.checkpoint import (
    RunFolder,
    blaming,
    optimiser_tensors,
    prefixed,
    read_tensors,
    restore_optimiser,
    unprefixed,
    write_tensors,
)
from affuse.fuse.training.closed_form import candidates, count
from affuse.fuse.training.losses import LOSSES
from affuse.fuse.training.schedule import Schedule, at_rest
from affuse.fuse.training.settings import TrainSettings
from affuse.fuse.training.subjects import offsets

log = logging.getLogger("affuse")


@dataclass
class Progress:
    """Where a run stands between two epochs: `epoch` is the next one, `weights` are the best so far; `devices`, what it
    was computed by, one after the other."""

    schedule: Schedule
    epoch: int = 0
    best: dict = field(default_factory=dict)
    devices: list[str] = field(default_factory=list)
    weights: dict[str, Tensor] = field(default_factory=dict)
    history: list[dict] = field(default_factory=list)


class Learning:
    """One run: its data, model and optimiser, and the progress that a checkpoint keeps."""

    def __init__(
        self,
        folder: RunFolder,
        settings: TrainSettings,
        model: FusionModel,
        training: Corpus,
        validation: Corpus,
        store: FeatureStore,
        fps: float | None,
    ):
        self.folder, self.settings, self.model, self.store, self.fps = folder, settings, model, store, fps
        self.normalisation = Normalisation.fit(training, model.spec.normalisation or settings.normalisation)
        self.training, self.validation = (
            Windows(corpus, model.window, settings.hop, self.normalisation, settings.overlap)
            for corpus in (training, validation)
        )
        self.optimiser = self._optimiser()
        rule = {field.name for field in fields(Schedule)} & set(TrainSettings.model_fields)
        self.progress = Progress(Schedule(**settings.model_dump(include=rule)), devices=[told(training.device)])

    def _optimiser(self) -> torch.optim.Optimizer:
        make = torch.optim.AdamW if self.settings.optimiser == "adamw" else torch.optim.Adam
        # Fused, it is one pass over the weights: 4 times sooner on a CPU than tensor by tensor.
        return make(
            self.model.parameters(), self.settings.learning_rate, weight_decay=self.settings.weight_decay, fused=True
        )

    def learn(self, on_epoch: Callable[[dict], None]) -> None:
        """Epoch after epoch until the last one or the schedule's end."""
        progress, epochs = self.progress, self.settings.epochs
        saved = time.monotonic()
        with self.folder.events(self.settings.tensorboard, progress.epoch) as write_event:
            while progress.epoch < epochs and not progress.schedule.stop:
                if progress.schedule.spent:
                    self._restart()
                row = self._epoch(progress.epoch)
                progress.history.append(row)
                if at_rest(progress.history):
                    log.warning(
                        f"{progress.epoch + 1} epochs have moved neither the loss ({row['loss']:.3f}) nor the "
                        f"validation CCC ({row['ccc_mean']:.3f}). Try a higher learning_rate than "
                        f"{self.settings.learning_rate:g}, or another preset."
                    )
                progress.epoch += 1
                if time.monotonic() - saved >= self.settings.checkpoint_seconds or progress.epoch == epochs:
                    self._save()
                    saved = time.monotonic()
                self.folder.write_metrics(progress.history)
                write_event(row)
                on_epoch({**row, "epochs": epochs})

    def _restart(self) -> None:
        """Go on from the best weights as if training began, with an optimiser that remembers nothing."""
        self.model.load_state_dict(self.progress.weights)
        self.optimiser = self._optimiser()
        self.progress.schedule.restart(self.progress.epoch)

    def _epoch(self, epoch: int) -> dict:
        """Train on every window once, score the validation videos, keep the best weights."""
        began, settings = time.monotonic(), self.settings
        torch.manual_seed(_derived_seed(settings.seed, epoch))
        loss, rate = self._pass(epoch)
        if not torch.isfinite(loss):
            raise AffuseError(
                f"Training diverged in epoch {epoch + 1}: the loss is {float(loss)}. Try a lower "
                f"learning_rate than {settings.learning_rate:g}, or precision=float32."
            )
        row = self._judged(epoch, {"learning_rate": rate, "loss": float(loss)}, began)
        if settings.reload_best and not row["best"]:
            self.model.load_state_dict(self.progress.weights)
        return row

    def _judged(self, epoch: int, facts: dict, began: float) -> dict:
        """The epoch's row of metrics.csv, the model's weights kept if it is the best on the validation videos."""
        settings, progress = self.settings, self.progress
        estimate = predict_frames(self.model, self.validation, settings.batch, settings.precision)
        agreement = score(self.validation.corpus, estimate.values)["ccc"]
        improved = progress.schedule.observe(epoch, agreement["mean"])
        if improved:
            progress.best = {"epoch": epoch + 1, "ccc": agreement}
            progress.weights = {name: tensor.clone() for name, tensor in self.model.state_dict().items()}
        return {
            "epoch": epoch + 1,
            **facts,
            **{f"ccc_{target}": value for target, value in agreement.items()},
            "best": int(improved),
            "seconds": round(time.monotonic() - began, 3),
        }

    def _pass(self, epoch: int) -> tuple[Tensor, float]:
        """One optimiser step per batch of windows; the mean loss and the last learning rate."""
        settings, device = self.settings, self.training.corpus.device
        steps, total = -(-len(self.training) // settings.batch), 0.0
        order = _derived_seed(settings.seed, "order") if settings.shuffle == "once" else None
        batches = self.training.shuffled(settings.batch, _derived_seed(settings.seed, epoch), order)
        self.model.train()
        for step, batch in enumerate(batches):
            rate = self.progress.schedule.rate(epoch, step, steps)
            for group in self.optimiser.param_groups:
                group["lr"] = rate
            with torch.autocast(device.type, torch.bfloat16, enabled=settings.precision == "bfloat16"):
                prediction = self.model(batch.inputs, mask=batch.mask)
            loss = LOSSES[settings.loss](prediction, batch.truth, batch.counted)
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
            self.optimiser.step()
            total = total + loss.detach()  # stays on the device: asking for the number would wait for it
        return total / steps, rate

    def _save(self) -> None:
        """Write the checkpoint: everything that the next epoch depends on."""
        facts = {**vars(self.progress), "schedule": asdict(self.progress.schedule)}
        weights, optimiser = facts.pop("weights"), optimiser_tensors(self.optimiser)
        tensors = prefixed(model=self.model.state_dict(), best=weights, optimiser=optimiser)
        write_tensors(self.folder.checkpoint, tensors, facts)

    def resume(self) -> int:
        """Take up the checkpoint if there is one; the number of epochs that are done."""
        if not self.folder.checkpoint.exists():
            return 0
        tensors, facts = read_tensors(self.folder.checkpoint)
        device = self.training.corpus.device
        best = {name: tensor.to(device) for name, tensor in unprefixed("best", tensors).items()}
        with blaming(self.folder.checkpoint):
            self.model.load_state_dict(unprefixed("model", tensors))
            restore_optimiser(self.optimiser, unprefixed("optimiser", tensors))
            schedule = Schedule(**facts["schedule"])
            devices, here = facts["devices"], self.progress.devices
            if devices[-1:] != here:
                log.warning(
                    f"this run was on {devices[-1]} and goes on on {here[0]}: its weights will not be those of a run "
                    "that stayed"
                )
                devices += here
            self.progress = Progress(schedule, facts["epoch"], facts["best"], devices, best, facts["history"])
        self.folder.write_metrics(self.progress.history)
        return self.progress.epoch

    def finish(self, unlabelled: int) -> Estimate:
        """Write predictions, figures, card and model from the best weights; then the checkpoint may go. Gives what is
        predicted for the validation videos."""
        folder, corpus, progress = self.folder, self.validation.corpus, self.progress
        self.model.load_state_dict(progress.weights)
        how = self.settings.batch, self.settings.precision
        personal = {}
        if subjects := self.settings.subjects:
            personal = offsets(self.training.corpus, predict_frames(self.model, self.training, *how), corpus, subjects)
        estimate = predict_frames(self.model, self.validation, *how).shifted(corpus, personal)
        noise = unexplained(corpus, estimate)
        folder.show(corpus, estimate.widened(noise), self.settings.model)
        save_figure(
            learning_curve(progress.history, self.settings.model), folder.path / "figures" / "learning-curve.png"
        )
        training, result = self.training.corpus, score(corpus, estimate.values)
        progress.best["ccc"] = result["ccc"]
        facts = {
            "fps": self.fps,
            "window": self.model.window,
            "parameters": sum(p.numel() for p in self.model.parameters() if p.requires_grad),
            "videos": len(training.videos),
            "frames": int(training.annotated.sum()),
            "views": list(training.views),
            "left_out": len(training.left_out) + len(corpus.left_out),
            "unlabelled": unlabelled,
        }
        provenance, settings = self.store.provenance, self.settings
        write_text(folder.card, model_card(settings.model_dump(), provenance, progress.best, result, facts))
        learned = {
            "best": progress.best,
            "devices": progress.devices,
            "fps": self.fps,
            "noise": noise.tolist(),
            "offsets": personal,
        }
        folder.write_model(self.model, self.normalisation, settings, provenance, learned)
        folder.checkpoint.unlink(missing_ok=True)
        return estimate


class Fitting(Learning):
    """A run without descent: an epoch is one candidate for the weights. What was stopped begins anew."""

    def _optimiser(self) -> None:
        """There is nothing to step."""

    def learn(self, on_epoch: Callable[[dict], None]) -> None:
        """Candidate after candidate."""
        progress, began = self.progress, time.monotonic()
        for facts in candidates(self.model, self.training, self.fps):
            row = self._judged(progress.epoch, facts, began)
            if row["best"]:
                progress.best |= facts
            progress.history.append(row)
            progress.epoch, began = row["epoch"], time.monotonic()
            on_epoch({**row, "epochs": count(self.model)})
        self.folder.write_metrics(progress.history)


def _derived_seed(seed: int, use: int | str) -> int:
    """A seed of its own for every use of every run seed; an epoch is one."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{use}".encode()).digest()[:8], "big") >> 1
