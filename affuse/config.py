"""Settings as people write them: defaults ← a YAML file ← `--set a.b=c`. An unknown key names its nearest."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from affuse.errors import UsageError

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

LISTED = 60  # known names that a message lists


class Settings(BaseModel):
    """Base of every settings class: unknown keys are errors, values do not change once resolved. The text below a field
    is its meaning, which `affuse settings` shows; its `examples` are what a message about it shows."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @classmethod
    def named(cls) -> Iterator[str]:
        """The settings as `--set` names them: one within another after its name and a dot."""
        for name, field in cls.model_fields.items():
            within = _settings(field.annotation)
            yield from (f"{name}.{key}" for key in within.named()) if within else (name,)


S = TypeVar("S", bound=Settings)


def _settings(kind: object) -> type[Settings] | None:
    """The class of settings that a setting is of; None of a plain one."""
    return kind if isinstance(kind, type) and issubclass(kind, Settings) else None


def nearest(name: object, known: Iterable) -> str:
    """'; did you mean X? Known: …' for an unknown name, to end an error message with."""
    known = [str(k) for k in known] or ["none"]
    match = difflib.get_close_matches(str(name), known, n=1, cutoff=0.4)
    more = f" and {len(known) - LISTED} more" if len(known) > LISTED else ""
    return (f"; did you mean {match[0]!r}?" if match else ".") + f" Known: {', '.join(known[:LISTED])}{more}."


def parse_assignments(assignments: list[str] | tuple[str, ...]) -> dict:
    """["a.b=1", "c=x"] → {"a": {"b": 1}, "c": "x"}; values are read as YAML."""
    tree: dict = {}
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals or not path:
            raise UsageError(f"--set {assignment!r} is not key=value; write for example --set learning_rate=1e-4.")
        *parents, key = path.strip().split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
            if not isinstance(node, dict):
                raise UsageError(f"--set {assignment!r}: {parent!r} was already set to a plain value.")
        try:
            node[key] = number(yaml.safe_load(text))
        except yaml.YAMLError as error:
            raise UsageError(f"--set {assignment!r}: the value is not readable as YAML ({error}).") from None
    return tree


def number(value: object) -> object:
    """YAML 1.1 reads 1e-4 as text; people mean a number."""
    if isinstance(value, str):
        with suppress(ValueError):
            return float(value)
    return value


def read_yaml(path: Path) -> dict:
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"Settings file {path} cannot be read: {error.strerror}. Check --config.") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UsageError(f"Settings file {path} is not valid YAML: {error}") from None
    if not isinstance(data, (dict, type(None))):
        raise UsageError(f"Settings file {path} must hold key: value lines, not a {type(data).__name__}.")
    return data or {}


def merge(base: dict, *overrides: dict) -> dict:
    """Later dictionaries win, key by key, at every depth."""
    merged = dict(base)
    for override in overrides:
        for key, value in override.items():
            both = isinstance(value, dict) and isinstance(merged.get(key), dict)
            merged[key] = merge(merged[key], value) if both else value
    return merged


def resolve(cls: type[S], *layers: dict) -> S:
    """Build `cls` from its defaults and the layers over them, the last one winning.

    Raises UsageError naming the key, and for an unknown key the nearest known one.
    """
    try:
        return cls(**merge({}, *layers))
    except ValidationError as error:
        raise UsageError("\n".join(_explain(cls, problem) for problem in error.errors())) from None


def _explain(cls: type[Settings], problem: ErrorDetails) -> str:
    where = [str(part) for part in problem["loc"]]
    if problem["type"] != "extra_forbidden":
        reason = problem["msg"].removeprefix("Value error, ")
        return (
            f"Setting {'.'.join(where) or cls.__name__}: {reason} (given: {problem['input']!r}).{_example(cls, where)}"
        )
    owner: Any = cls
    for part in where[:-1]:
        owner = owner.model_fields[part].annotation
    return f"Unknown setting {'.'.join(where)!r}{nearest(where[-1], owner.model_fields)}"


def _example(cls: type[Settings], where: list[str]) -> str:
    """How the setting there may be written, where there is an example of it."""
    owner: type[Settings] | None = cls
    for depth, part in enumerate(where):
        if owner is None or part not in owner.model_fields:
            break
        field = owner.model_fields[part]
        if field.examples:
            value = yaml.safe_dump(field.examples[0], default_flow_style=True).strip()
            return f" Write for example --set '{'.'.join(where[: depth + 1])}={value}'."
        owner = _settings(field.annotation)
    within = ", ".join(f"{'.'.join(where)}.{key}" for key in owner.named()) if owner else ""
    return f" It is set by {within}." if within else ""
