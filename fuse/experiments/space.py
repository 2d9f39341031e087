"""What a search draws settings from: ranges and choices, as people write them and as Optuna has them.

KEY=LOW..HIGH            a range, on a log scale where it spans more than a decade
KEY=VALUE,VALUE…         choices
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import yaml

from affuse.config import number, parse_assignments, resolve
from affuse.errors import UsageError
from affuse.fuse.training.memory import measured
from affuse.fuse.training.settings import TrainSettings, preset_of

if TYPE_CHECKING:
    import optuna

NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
RANGE = re.compile(rf"\s*({NUMBER})\.\.({NUMBER})\s*")
DECADE = 10.0  # a range whose ends are more than that apart is drawn from on a log scale


def split_space(assignments: Iterable[str]) -> tuple[dict[str, str], list[str]]:
    """Of `key=value` assignments those that give a range or choices {key: text}, and the others."""
    space, fixed = {}, []
    for assignment in assignments:
        key, _, text = assignment.partition("=")
        if RANGE.fullmatch(text) or len(choices(text)) > 1:
            space[key.strip()] = text
        else:
            fixed.append(assignment)
    return space, fixed


def choices(text: str) -> list:
    """The values that commas separate, outside of brackets."""
    with suppress(yaml.YAMLError):
        return [number(value) for value in yaml.safe_load(f"[{text}]")]
    return []


@dataclass(frozen=True)
class Drawn:
    """How a setting is drawn: by which distribution, and what its draws are as values."""

    key: str
    text: str
    low: float | None = None
    high: float | None = None
    whole: bool = False

    @classmethod
    def of(cls, key: str, text: str, settings: TrainSettings, widths: dict[str, int]) -> Drawn:
        """The others are `settings`, widths those of the features. Raises UsageError where the setting does not exist,
        naming the nearest, or cannot be one of the values."""
        match = RANGE.fullmatch(text)
        for value in [number(end) for end in match.groups()] if match else choices(text):
            measured(changed(settings, {key: value}).model_options(widths))
        if not match:
            return cls(key, text)
        low, high = (float(end) for end in match.groups())
        if low >= high:
            raise UsageError(f"--set {key}={text}: a range goes from the lower value to the higher one.")
        whole = low.is_integer() and high.is_integer()
        with suppress(UsageError):
            changed(settings, {key: low + 0.5})
            whole = False
        return cls(key, text, low, high, whole)

    def distribution(self) -> optuna.distributions.BaseDistribution:
        from optuna import distributions

        if self.low is None or self.high is None:
            return distributions.CategoricalDistribution([json.dumps(value) for value in choices(self.text)])
        log = self.low > 0 and self.high / self.low > DECADE
        if self.whole:
            return distributions.IntDistribution(int(self.low), int(self.high), log=log)
        return distributions.FloatDistribution(self.low, self.high, log=log)

    def value(self, drawn: Any) -> Any:
        return json.loads(drawn) if self.low is None else drawn


def changed(settings: TrainSettings, changes: Mapping[str, Any]) -> TrainSettings:
    """The settings with others {key, with dots for what is within: value}; a preset brings all of its own."""
    tree = parse_assignments([f"{key}={json.dumps(value)}" for key, value in changes.items()])
    preset = preset_of(tree["preset"]) if "preset" in tree else {}
    return resolve(TrainSettings, settings.model_dump(), preset, tree)
