"""What the columns of a feature file are, by their names: its clock, its features, and what is neither."""

from __future__ import annotations

import csv
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from affuse.errors import AffuseError

FEW = 4  # names that a message lists
SEPARATORS = ",;\t"
SPANS = ("start", "end")
CLOCKS = {"time", "timestamp", "frametime", "seconds", "second", "secs", "sec"}  # small letters and digits alone
NO_FEATURES = CLOCKS | {
    *("start", "end", "milliseconds", "ms", "frame", "frameindex", "frameid", "framenumber", "index", "idx", "row"),
    *("id", "faceid", "confidence", "success", "valid"),
    *("valence", "arousal", "dominance", "liking", "emotion", "expression", "label"),
}


@dataclass(frozen=True)
class Columns:
    """Names of columns: `time` hold the seconds, one in each file; `ignored` are neither time nor feature, `wanted` are
    features whatever they are called."""

    time: Collection[str] = ("time",)
    ignored: Collection[str] = ()
    wanted: Collection[str] = ()

    def times(self, path: Path, names: Iterable[str]) -> dict[str, str]:
        """{name in the file: name in a table} of the columns of seconds. Raises AffuseError for two clocks."""
        known = {**dict.fromkeys(self.time, "time"), **{name: name for name in SPANS}}
        found = {n: known[n] for n in names if n in known and n not in self.ignored and n not in self.wanted}
        clocks = [name for name, own in found.items() if own == "time"]
        if len(clocks) > 1:
            raise AffuseError(
                f"Feature file {path} has the seconds twice, in {' and '.join(clocks)}. Leave one out: --ignore "
                f"{shlex.quote(clocks[1])}."
            )
        return found

    def features(self, path: Path, names: list[str]) -> list[str]:
        """The features among the columns of a file.

        Raises AffuseError for a header that does not name every column, and for features that by name are none.
        """
        times = self.times(path, names)
        features = [name for name in names if name not in times and name not in self.ignored]
        nameless = "" in features
        fractions = [name for name in names if is_number(name) and not name.isdigit()]
        if not features or nameless or fractions:
            what = "a column has no name; leave it out with --ignore ''" if nameless else "it names no features"
            what = f"{fractions[0]!r} is no name" if fractions else what
            raise AffuseError(
                f"Feature file {path}, line 1: expected a header that names every column, its time and its features; "
                f"{what}."
            )
        self.refuse(path, features, bool(times))
        return features

    def refuse(self, path: Path, features: list[str], timed: bool) -> None:
        """Raise AffuseError for those that by name are a clock, a counter, a mark or a label. timed: the file has a
        clock besides."""
        wrong = [name for name in features if _plain(name) in NO_FEATURES and name not in self.wanted]
        clock = next((name for name in wrong if _plain(name) in CLOCKS and not timed), None)
        if wrong:
            options = [f"--{'time-column' if name == clock else 'ignore'} {shlex.quote(name)}" for name in wrong]
            raise AffuseError(
                f"Feature file {path}: by their names these columns are clocks, counters, marks or labels, no "
                f"features: {', '.join(wrong)}. Give {' '.join(options)}, or --feature NAME for one that is a feature "
                "all the same."
            )


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", name).lower()


def listed(names: Sequence[str]) -> str:
    """Some names, or the first and the last of many."""
    return ", ".join(names) if len(names) <= FEW else f"{names[0]} … {names[-1]}"


def is_number(text: str) -> bool:
    """Whether it reads as a number, NaN and infinity included."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def header_of(path: Path) -> tuple[list[str], str]:
    """The column names of a .csv, and what separates them: comma, semicolon or tab."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            line = file.readline()
    except UnicodeDecodeError:
        raise AffuseError(f"Feature file {path} is no text in UTF-8. Save it so.") from None
    except OSError as error:
        raise AffuseError(f"Feature file {path} cannot be read: {error}. Check the file.") from None
    separator = max(SEPARATORS, key=line.count)
    names = [name.strip() for name in next(csv.reader([line], delimiter=separator, skipinitialspace=True), [])]
    for name in names:
        if names.count(name) > 1:
            raise AffuseError(f"Feature file {path}, line 1: the column {name!r} is there twice.")
    return names, separator


def rows_of(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Number and fields of every line of a .csv below its header."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter=separator, skipinitialspace=True)
        next(rows, None)
        yield from enumerate(rows, start=2)
