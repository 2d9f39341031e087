"""Errors meant for the person at the keyboard: one sentence with what, which file, why and what to do.

The command line prints the message without a traceback and leaves with `exit_code`; anything else that
is raised is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

NAMED = 8  # of many, how many are named


class AffuseError(Exception):
    """Work failed for some input. The message is complete: nothing needs to be added by the caller."""

    exit_code = 1


class RecordError(AffuseError):
    """A video's features cannot be kept, such as for NaN in an embedding, which breaks the record's contract."""


class UsageError(AffuseError):
    """The request itself was wrong: an unknown name, a bad option, settings that contradict each other."""

    exit_code = 2


def first_line(error: Exception, silent: str = "") -> str:
    """What an error of a library says, in a line without full stop; where it says nothing, `silent`, or its kind."""
    return (str(error).strip().splitlines() or [silent or type(error).__name__])[0].rstrip(". ")


def listed(names: Sequence[str], most: int = NAMED) -> str:
    """ "a, b, c", of more than `most` "a, b and 7 more"."""
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")


def by_reason(failures: Mapping[str, str]) -> dict[str, list[str]]:
    """{id: reason} → {reason: its ids}, so that each reason is said once."""
    grouped: dict[str, list[str]] = {}
    for name, reason in failures.items():
        grouped.setdefault(reason, []).append(name)
    return grouped


def counted(number: int, noun: str) -> str:
    """ "1 video", "2 videos": for nouns that take an s."""
    return f"{number} {noun}{'s' * (number != 1)}"
