"""Errors meant for the person at the keyboard: one sentence with what, which file, why and what to do.

The command line prints the message without a traceback and leaves with `exit_code`; anything else that
is raised is a defect of ours and keeps its traceback.
"""


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


def counted(number: int, noun: str) -> str:
    """ "1 video", "2 videos": for nouns that take an s."""
    return f"{number} {noun}{'s' * (number != 1)}"
