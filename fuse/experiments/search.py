"""A search for settings: trials that Optuna's TPE sampler draws from ranges and choices, scored on validation videos.

Trials are asked for in rounds, of as many as were at work at the same time when the search began, and every trial has a
sampler seeded by its number: however often the search is stopped, and whatever is at work then, it draws the same.
"""

from __future__ import annotations

import hashlib
import math
import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from affuse.errors import AffuseError, UsageError, counted
from affuse.files import as_path, write_text
from affuse.fuse.data.corpus import Features, as_store
from affuse.fuse.data.fingerprint import fingerprint
from affuse.fuse.data.pool import Pool
from affuse.fuse.experiments.space import Drawn, changed
from affuse.fuse.experiments.trials import check_folder
from affuse.fuse.reports import tables
from affuse.fuse.scoring.evaluate import score
from affuse.fuse.training.checkpoint import FREE_TO_CHANGE, RunFolder
from affuse.fuse.training.loading import load_run
from affuse.fuse.training.parallel import DeathError, Trained, Training, how_many, train_each
from affuse.fuse.training.settings import TrainSettings, as_settings

if TYPE_CHECKING:
    import optuna

JOURNAL = "study.journal"  # Optuna's


@dataclass(frozen=True)
class Found:
    """table: one row per trial, in order: trial, each setting that is searched, the CCC of each target and mean, run,
    failure. best: the row of the trial with the highest mean, and "train", the command that trains it again. facts: all
    of it, JSON-able. text: for a person."""

    table: pd.DataFrame
    best: dict
    facts: dict
    text: str


def search(
    store: Features,
    labels: Path | str,
    out: Path | str,
    space: Mapping[str, str],
    settings: TrainSettings | None = None,
    budget: int = 20,
    announce: Callable[[str], None] = lambda text: None,
    on_epoch: Callable[[dict], None] | None = None,
    jobs: int | None = 1,
) -> Found:
    """Train as many trials as `budget` says in `<out>/runs`, each with other values of the settings in `space`.

    space     {setting, such as "dropout.attention": what is drawn from, as `space` has it: "0.1..0.5", "0.1,0.3,0.5"}
    settings  all others, their seed that of the draws, too
    jobs      as in `compare`

    Only the validation partition is scored. Writes trials.csv, trials.md and results.json; Optuna's study is beside
    them. Called again it goes on; with a larger budget it goes further. Raises UsageError before any training for a
    space that cannot be or a folder of another search, AffuseError where the data have changed; a trial that fails
    stays in the table with the reason.
    """
    if find_spec("optuna") is None:
        raise UsageError("A search needs Optuna, which is not installed: pip install 'affuse[search]'.")
    settings, store, out = as_settings(settings), as_store(store), as_path("a folder for the search", out)
    if budget < 1:
        raise UsageError(f"A budget of {budget} trials finds nothing. Give 1 or more.")
    drawn = {key: Drawn.of(key, text, settings, store.widths) for key, text in space.items()}
    if not drawn:
        raise UsageError("Nothing is searched. Give a range or choices, for example --set learning_rate=1e-5..1e-3.")
    check_folder(out, fingerprint(store, labels, settings.split))
    study = _study(out, space, settings)
    if "at_once" not in study.user_attrs:
        trainings = [Training("", RunFolder(out), settings)] * budget
        study.set_user_attr("at_once", how_many(jobs, trainings))
    pool = Pool(store, shared=jobs != 1)
    while asked := _ask(study, drawn, settings.seed, budget):
        _round(study, asked, drawn, settings, budget, pool, labels, out, announce, on_epoch, jobs)
    return _found(study, drawn, store.path, labels, out)


# ---- Optuna's study


def _study(out: Path, space: Mapping[str, str], settings: TrainSettings) -> optuna.Study:
    """The study in a folder, begun or gone on with. Raises UsageError where it is another one's."""
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(out / JOURNAL)))
    study = optuna.create_study(storage=storage, study_name="search", direction="maximize", load_if_exists=True)
    for name, told in (("space", dict(space)), ("settings", settings.model_dump(exclude=FREE_TO_CHANGE))):
        if (before := study.user_attrs.get(name, told)) != told:
            keys = dict.fromkeys([*before, *told])
            other = "; ".join(
                f"{key} is {before.get(key)!r} there and {told.get(key)!r} here"
                for key in keys
                if before.get(key) != told.get(key)
            )
            raise UsageError(f"{out} holds another search: {other}. Give the same, or choose another folder for --out.")
        study.set_user_attr(name, told)
    return study


def _ask(study: optuna.Study, drawn: Mapping[str, Drawn], seed: int, budget: int) -> list[optuna.trial.FrozenTrial]:
    """The trials of the round that is to be trained now; none where the budget is spent."""
    from optuna.samplers import TPESampler
    from optuna.trial import TrialState

    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        if set(trial.params) != set(drawn):  # stopped before all of it was drawn
            study.tell(trial.number, state=TrialState.FAIL)
    at_once, trials = study.user_attrs["at_once"], _whole(study, drawn)
    begun = any(trial.state == TrialState.RUNNING for trial in trials)
    wanted = -len(trials) % at_once or (0 if begun else at_once)
    for number in range(len(trials), min(len(trials) + wanted, budget)):
        own = int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:4], "big")
        study.sampler = TPESampler(seed=own, constant_liar=True)
        study.ask({key: each.distribution() for key, each in drawn.items()})
    return [trial for trial in _whole(study, drawn) if trial.state == TrialState.RUNNING]


def _whole(study: optuna.Study, drawn: Mapping[str, Drawn]) -> list[optuna.trial.FrozenTrial]:
    """The trials of which all settings are drawn, in order."""
    return [trial for trial in study.get_trials() if set(trial.params) == set(drawn)]


def _values(trial: optuna.trial.FrozenTrial, drawn: Mapping[str, Drawn]) -> dict:
    return {key: each.value(trial.params[key]) for key, each in drawn.items()}


def _run_of(out: Path, trial: optuna.trial.FrozenTrial) -> RunFolder:
    return RunFolder(out / "runs" / f"trial{trial.number:03d}")


def _round(study, asked, drawn, settings, budget, pool, labels, out, announce, on_epoch, jobs) -> None:
    """Train some trials, and tell the study what each came to, in order, when all have ended. Raises AffuseError where
    a process died: these trials are trained when the search goes on, but one that dies again has failed."""
    from optuna.trial import TrialState

    trainings, numbers, found, died = [], [], {}, []
    for number, trial in enumerate(asked):
        values = _values(trial, drawn)
        said = ", ".join(f"{key} {_cell(value)}" for key, value in values.items())
        try:
            trainings.append(Training(f"trial {trial.number}, {said}", _run_of(out, trial), changed(settings, values)))
            numbers.append(number)
        except UsageError as error:
            found[number] = error

    def say(index: int, what: str) -> None:
        announce(f"[{asked[numbers[index]].number + 1}/{budget}] {trainings[index].name}: {what}")

    def end(index: int, trained: Trained) -> None:
        found[numbers[index]] = mean = score(trained.corpus, trained.estimate.values)["ccc"]["mean"]
        say(index, f"validation CCC {mean:.3f}")

    def fail(index: int, error: AffuseError) -> None:
        died_before = f"died {asked[numbers[index]].number}"
        if isinstance(error, DeathError) and died_before not in study.user_attrs:
            study.set_user_attr(died_before, True)
            died.append(f"{trainings[index].name}: {error}")
        found[numbers[index]] = error
        say(index, f"failed: {error}")

    train_each(pool, labels, trainings, jobs, lambda index: say(index, "training"), on_epoch, end, fail)
    if died:
        raise AffuseError("\n".join(died))
    for number, trial in enumerate(asked):
        if isinstance(made := found[number], AffuseError) or not math.isfinite(made):
            study.set_user_attr(f"failure {trial.number}", str(made))
            study.tell(trial.number, state=TrialState.FAIL)
        else:
            study.tell(trial.number, made)


# ---- what was found


def _found(study, drawn, store: Path, labels: Path | str, out: Path) -> Found:
    from optuna.trial import TrialState

    rows = []
    for trial in _whole(study, drawn):
        run, done = _run_of(out, trial), trial.state == TrialState.COMPLETE
        ccc = load_run(run.path).best["ccc"] if done else {}
        why = study.user_attrs.get(f"failure {trial.number}")
        rows.append({"trial": trial.number, **_values(trial, drawn), **ccc, "run": str(run.path), "failure": why})
    table = pd.DataFrame(rows)
    if "mean" not in table:
        raise AffuseError(f"All {counted(len(rows), 'trial')} failed; the first: {rows[0]['failure']}")
    (best,) = tables.records(table.loc[[table["mean"].idxmax()]])
    again = ["affuse", "fuse", "train", "--features", store, "--labels", labels, "--out", out / "best"]
    again += ["--config", Path(best["run"]) / "config.yaml"]
    best["train"] = shlex.join(map(str, again))
    facts = {"space": study.user_attrs["space"], "best": best, "trials": tables.records(table)}
    shown = table.drop(columns=["run"] + ["failure"] * bool(table["failure"].isna().all()))
    head = list(shown)
    cells = [[_cell(row[name]) for name in head] for row in tables.records(shown)]
    tables.write_csv(out / "trials.csv", table)
    write_text(out / "trials.md", tables.markdown(head, cells) + f"\n\nBest: trial {best['trial']}\n")
    tables.write_json(out / "results.json", facts)
    text = "\n".join(
        [
            *tables.aligned(head, cells),
            "",
            f"Best: trial {best['trial']}, validation CCC {best['mean']:.3f}, the highest of "
            f"{counted(len(rows), 'trial')} on these same videos, which flatters it. Run: {best['run']}",
            f"To train it again: {best['train']}",
        ]
    )
    return Found(table, best, facts, text)


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
