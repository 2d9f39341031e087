"""The command line: what a shell completes, what the help says, one of a thing and several of it."""

import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner

from affuse.commands import main
from affuse.errors import counted


def completed(*words: str) -> list[str]:
    *before, typed = words
    shell = ShellComplete(main, {}, "affuse", "_AFFUSE_COMPLETE")
    return [item.value for item in shell.get_completions(before, typed)]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("extract", "--profile", ""), ["paper", "offline"]),
        (("doctor", "--profile", "o"), ["offline"]),
        (("bench", "extract", "--profile", "p"), ["paper"]),
        (("recipe", "run", "--profile", "p"), ["paper"]),
        (("fuse", "train", "--preset", "r"), ["released", "rcma", "rjca"]),
        (("fuse", "train", "--model", "rjcma"), ["rjcma", "rjcma:released", "rjcma:paper"]),
        (("fuse", "models", "lf"), ["lfan"]),
    ],
)
def test_a_shell_completes_names(words, names):
    assert sorted(completed(*words)) == sorted(names)


def test_the_help_says_the_exit_statuses():
    said = " ".join(CliRunner().invoke(main, ["--help"]).stdout.split())
    assert "Exit status: 0 done, 1 the work failed for some input, 2 wrong usage, 130 stopped." in said


def test_one_is_one():
    assert [counted(n, "video") for n in (0, 1, 2)] == ["0 videos", "1 video", "2 videos"]
