"""What can be set, as the settings classes themselves have it: names, values, what is allowed, meanings."""

from __future__ import annotations

import math
from textwrap import fill
from typing import Any

import yaml

from affuse.config import Settings
from affuse.errors import UsageError
from affuse.extract.extraction import extract_settings
from affuse.fuse.training.settings import train_settings

KINDS = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null"}
BOUNDS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "below"}
WIDTH = 110  # characters of a line of text


def listed(which: str | None = None, profile: str | None = None, preset: str | None = None) -> dict[str, list[dict]]:
    """{"extract": rows, "fuse": rows}, or one of the two, which is named; by default of profile paper, preset affuse.

    A row has name, as `--set` takes it; value; allowed, its choices or bounds in words; meaning. Raises UsageError for
    an unknown profile or preset, or one that has nothing to do with what is asked for.
    """
    for option, given, owner in (("--profile", profile, "extract"), ("--preset", preset, "fuse")):
        if given and which not in (owner, None):
            raise UsageError(f"{option} is of `affuse settings {owner}`: settings of {which} do not depend on it.")
    made = {"extract": lambda: extract_settings(profile or "paper"), "fuse": lambda: train_settings(preset=preset)}
    return {own: rows(settings()) for own, settings in made.items() if which in (own, None)}


def rows(settings: Settings, above: str = "") -> list[dict]:
    """The settings of a class in order, those within another by its name and a dot."""
    found: list[dict] = []
    for name, schema in type(settings).model_json_schema()["properties"].items():
        value = getattr(settings, name)
        if isinstance(value, Settings):
            found += rows(value, f"{above}{name}.")
        else:
            meaning = " ".join(schema.get("description", "").split())
            found.append({"name": above + name, "value": value, "allowed": allowed(schema), "meaning": meaning})
    return found


def allowed(schema: dict) -> str:
    """The values that a JSON schema allows, in words."""
    if "anyOf" in schema:
        return ", or ".join(map(allowed, schema["anyOf"]))
    if "const" in schema or "enum" in schema:
        return ", ".join(schema.get("enum") or [schema["const"]])
    if schema["type"] == "array":
        return f"list of: {allowed(schema['items'])}"
    if schema["type"] == "object":
        return f"{{name: {allowed(schema['additionalProperties'])}}}"
    return " ".join([KINDS[schema["type"]], *(f"{w} {schema[key]:.10g}" for key, w in BOUNDS.items() if key in schema)])


def spelt(value: Any) -> str:
    """A value as `--set` reads it."""
    return yaml.safe_dump(value, default_flow_style=True, width=math.inf).removesuffix("...\n").strip()


def table(found: dict[str, list[dict]]) -> str:
    """As text: a line with name, value and what is allowed, below it the meaning."""
    lines = []
    for which, settings in found.items():
        lines += ["" if lines else None, f"{which}: --set NAME=VALUE, or NAME: VALUE in the file of --config", ""]
        for row in settings:
            lines.append(f"{row['name']} = {spelt(row['value'])}  ({row['allowed']})")
            lines.append(fill(row["meaning"], WIDTH, initial_indent="    ", subsequent_indent="    "))
    return "\n".join(line for line in lines if line is not None)
