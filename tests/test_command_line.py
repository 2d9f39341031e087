"""The command line: what a shell completes, what the help says, one of a thing and several of it."""

import pytest
from click import Group
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


def commands(group, *above: str):
    for name, command in group.commands.items():
        yield from (
            commands(command, *above, name) if isinstance(command, Group) else [((*above, name), command)]
        )


EXAMPLES = [
    (words, line)
    for words, command in commands(main)
    for line in map(str.strip, (command.help or "").splitlines())
    if line.startswith("affuse ")
]


def test_these_have_examples():
    wanted = ("extract", "predict", "report", "settings", "fuse train", "fuse compare")
    assert {tuple(name.split()) for name in wanted} <= {words for words, _ in EXAMPLES}


@pytest.mark.parametrize(("words", "line"), EXAMPLES)
def test_an_example_is_of_its_command_and_can_be_given(words, line):
    """No option of it is unknown, or missing."""
    given, command = line.split()[1:], main
    for word in words:
        assert given.pop(0) == word
        command = command.commands[word]
    with command.make_context(words[-1], given):
        pass


def test_one_is_one():
    assert [counted(n, "video") for n in (0, 1, 2)] == ["0 videos", "1 video", "2 videos"]
