"""Models side by side on a page, by the numbers that `affuse fuse compare` has written: nothing is scored again."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path

import pandas as pd

from affuse.errors import AffuseError, first_line
from affuse.fuse.reports.tables import flattered, not_above, what_differs
from affuse.pipelines.report.collect import Facts
from affuse.version import VERSION

RESULTS = "results.json"
WRITTEN = (RESULTS, "table.csv", "differences.csv")  # by a comparison, and by nothing else together


def is_comparison(source: Path | str) -> bool:
    """Whether `affuse fuse compare` has written what is in a folder."""
    return isinstance(source, (str, Path)) and all(Path(source, name).is_file() for name in WRITTEN)


def collect_comparison(path: Path) -> Facts:
    """The facts of a comparison's page. Raises AffuseError where its results cannot be read."""
    file = path / RESULTS
    try:
        facts = json.loads(file.read_bytes())
        return Facts(
            "comparison",
            path.resolve().name,
            f"affuse {VERSION}, {date.today().isoformat()}",
            facts["targets"],
            about=_about(facts),
            untrained=facts["untrained"],
            comparison=_side_by_side(facts),
        )
    except (OSError, LookupError, TypeError, ValueError) as error:
        why = f"it has no {error}" if isinstance(error, KeyError) else first_line(error)
        raise AffuseError(f"{file} cannot be read: {why}. Give the same compare command again.") from None


def _about(facts: dict) -> list[list[str]]:
    where = facts["environment"]
    return [
        ["seeds", ", ".join(map(str, facts["seeds"]))],
        *([key.replace("_", " "), _plain(value)] for key, value in facts["protocol"].items()),
        ["trained", f"{where['date']}, affuse {where['affuse']}, torch {where['torch']}, {where['hardware']}"],
    ]


def _plain(value: object) -> str:
    """A setting as a person writes it."""
    if isinstance(value, dict):
        return "; ".join(f"{key} {_plain(each)}" for key, each in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _side_by_side(facts: dict) -> dict:
    """{"reference", "seeds": how many, "rows", "verdict", "notes"}: a row per model, the best first, as `compare` has
    it, with "difference", "low" and "high": its mean CCC less that of the reference, with the 95 % interval; None of
    the reference. The verdict says which differences are larger than their intervals."""
    apart = {row["model"]: row for row in facts["differences"] if row["target"] == "mean"}
    rows = [
        {**row, **_turned(apart.get(row["model"]))} for row in sorted(facts["models"], key=lambda row: -row["mean"])
    ]
    table = pd.DataFrame(facts["models"]).set_index("model")
    return {
        "reference": facts["reference"],
        "seeds": len(facts["seeds"]),
        "rows": rows,
        "verdict": _verdict(facts["reference"], rows),
        "notes": [*not_above(table, facts["baselines"]), *([what_differs(facts), *flattered(facts)] if apart else [])],
    }


def _turned(row: dict | None) -> dict[str, float | None]:
    """A difference the other way round: of the model less the reference."""
    value, low, high = (None, None, None) if row is None else (row["difference"], row["high"], row["low"])
    return {name: x if x is None else -x for name, x in (("difference", value), ("low", low), ("high", high))}


def _verdict(reference: str, rows: list[dict]) -> str:
    """Which models are above, below, or not told apart from the reference."""
    told = [row for row in rows if row["low"] is not None]
    kinds = {
        f"Above {reference} by more than the interval": [row["model"] for row in told if row["low"] > 0],
        f"Below {reference} by more than the interval": [row["model"] for row in told if row["high"] < 0],
        f"Not told apart from {reference}": [row["model"] for row in told if row["low"] <= 0 <= row["high"]],
    }
    return " ".join(f"{kind}: {', '.join(names)}." for kind, names in kinds.items() if names)
