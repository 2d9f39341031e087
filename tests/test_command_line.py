"""The command line: what a shell completes, what the help says, one of a thing and several of it."""

import pytest
from click import Context, Group
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
        (("fuse", "ablate", "--model", "lf"), ["lfan"]),
        (("fuse", "compare", "--models", "a"), ["all"]),
        (("fuse", "compare", "--models", "rjcma,lf"), ["rjcma,lfan"]),
        (("fuse", "compare", "--reference", "lf"), ["lfan"]),
        (("recipe", "run", "recola", "RECOLA", "--model", "lf"), ["lfan"]),
        (("recipe", "run", "--preset", "lf"), ["lfan"]),
        (("recipe", "check", "rec"), ["recola"]),
        (("settings", "--preset", "lf"), ["lfan"]),
        (("settings", "--profile", "o"), ["offline"]),
        (("download", "--profile", "o"), ["offline"]),
        (("download", "vggish", "mini"), ["minilm-l6"]),
        (("features", "export", "--format", "a"), ["abaw3"]),
        (("fuse", "evaluate", "--partition", "t"), ["train", "test"]),
        (("extract", "--views", "centre,fl"), ["centre,flip"]),
        (("extract", "--set", "detection.m"), ["detection.min_face=", "detection.margin="]),
        (("watch", "--set", "lang"), ["language="]),
        (("bench", "extract", "--set", "backbones.t"), ["backbones.text="]),
        (("fuse", "train", "--set", "learning"), ["learning_rate="]),
        (("recipe", "run", "--set", "modality_d"), ["modality_dropout="]),
    ],
)
def test_a_shell_completes_names(words, names):
    assert sorted(completed(*words)) == sorted(names)


@pytest.mark.parametrize(
    ("words", "again"),
    [
        (("doctor", "--quick"), ""),
        (("bench", "fuse"), ""),
        (("watch", "--run", "run"), ""),
        (("report", "run"), ""),
        (
            ("predict", "--run", "run", "a b.mp4", "--out", "out"),
            "affuse predict --run run 'a b.mp4' --out out",
        ),
        (
            ("fuse", "train", "--features", "s", "--labels", "l", "--out", "r"),
            "affuse fuse train --features s",
        ),
        (("recipe", "run", "recola", "R", "--out", "r"), "affuse recipe run recola R --out r"),
    ],
)
def test_who_is_stopped_hears_how_to_go_on_where_that_can_be(words, again, monkeypatch):
    """The signal comes as the command begins."""

    def left(status):
        raise SystemExit(status)

    def stopped(context, *given, **options):
        if isinstance(context.command, Group):
            return invoke(context, *given, **options)
        raise KeyboardInterrupt

    invoke = Context.invoke
    monkeypatch.setattr("affuse.console.os._exit", left)
    monkeypatch.setattr(Context, "invoke", stopped)
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 130
    said, _, how = result.stderr.partition(" What was finished is kept. To go on from there: ")
    assert said.strip() == "Stopped."
    assert how.startswith(again) if again else not how


def test_the_help_says_the_exit_statuses():
    said = " ".join(CliRunner().invoke(main, ["--help"]).stdout.split())
    assert "Exit status: 0 done, 1 the work failed for some input, 2 wrong usage, 130 stopped." in said


def commands(command, *above: str):
    """(its words, it) of a command and, of a group, of all below it."""
    yield above, command
    for name, own in getattr(command, "commands", {}).items():
        yield from commands(own, *above, name)


def examples(command) -> list[str]:
    return [line for line in map(str.strip, command.help.splitlines()) if line.startswith("affuse ")]


EXAMPLES = [(words, line) for words, command in commands(main) for line in examples(command)]


@pytest.mark.parametrize(
    ("words", "command"), [(" ".join(words), command) for words, command in commands(main)]
)
def test_every_command_has_an_example(words, command):
    assert examples(command), words


@pytest.mark.parametrize(("words", "line"), EXAMPLES)
def test_an_example_is_of_its_command_and_can_be_given(words, line):
    """No option of it is unknown, or missing; that of a group is of a command below it."""
    given, command = line.split()[1:], main
    assert tuple(given[: len(words)]) == words
    while isinstance(command, Group):
        command = command.commands[given.pop(0)]
    with command.make_context(line, given):
        pass


@pytest.mark.parametrize("words", [words for words, command in commands(main) if isinstance(command, Group)])
def test_no_summary_in_a_list_of_commands_is_cut_off(words):
    said = CliRunner().invoke(main, [*words, "--help"]).stdout.partition("Commands:")[2].splitlines()
    summaries = [line.strip() for line in said if line.strip()]
    assert summaries
    assert [line for line in summaries if not line.endswith(".") or line.endswith("...")] == []


def test_one_is_one():
    assert [counted(n, "video") for n in (0, 1, 2)] == ["0 videos", "1 video", "2 videos"]
