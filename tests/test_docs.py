"""What README and pages say can be said: every command line is one that click takes, all Python is Python, no file is
missing. `make docs-check` runs them."""

import re
import runpy
import shlex
from pathlib import Path

import click
import pytest
from markdown_it import MarkdownIt

from affuse.commands import main
from affuse.pipelines.settings import listed

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
SETTINGS = {row["name"].removeprefix("backbones.") for rows in listed().values() for row in rows}


def tokens(text: str) -> list:
    """All tokens of a page, those within lines of text included."""
    return [
        t
        for token in MarkdownIt("gfm-like", {"linkify": False}).parse(text)
        for t in (token, *(token.children or ()))
    ]


def command_lines(text: str) -> dict[str, bool]:
    """What begins with affuse, and whether it is whole, as in blocks of sh, or may leave something out, as between
    backticks."""
    found = {}
    for token in tokens(text):
        if token.type == "code_inline":
            found.setdefault(token.content, False)
        elif token.type == "fence" and token.info == "sh":
            found |= dict.fromkeys(re.sub(r"\\\n\s*", "", token.content).splitlines(), True)
    return {line: whole for line, whole in found.items() if line.startswith("affuse ")}


def words_of(line: str) -> list[str]:
    return [word for word in shlex.split(line, comments=True)[1:] if word != "…"]


def command_of(words: list[str]) -> tuple[click.Command, list[str]]:
    """The command that the words name, and the rest of them; `click.UsageError` for none."""
    command, rest = main, list(words)
    while isinstance(command, click.Group) and rest and not rest[0].startswith("-"):
        name, *rest = rest
        group, command = command, command.get_command(click.Context(command), name)
        if command is None:
            raise click.UsageError(f"{group.name} has no command {name!r}")
    return command, rest


def parse(line: str, whole: bool = True) -> None:
    """Raises `click.UsageError` for what click would not take."""
    command, rest = command_of(words_of(line))
    if isinstance(command, click.Group):
        return
    try:
        context = command.make_context(command.name, rest)
    except click.MissingParameter:
        if whole:
            raise
        return
    for assignment in context.params.get("assignments") or ():
        if assignment.split("=")[0] not in SETTINGS:
            raise click.UsageError(f"no setting {assignment!r}")


def all_options(command: click.Command = main) -> set[str]:
    """Of a command and those below it."""
    own = {option for parameter in command.get_params(click.Context(command)) for option in parameter.opts}
    return own.union(*map(all_options, getattr(command, "commands", {}).values()))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_options_code_and_files_are_there(page):
    text = page.read_text(encoding="utf-8")
    for line, whole in command_lines(text).items():
        try:
            parse(line, whole)
        except click.UsageError as error:
            pytest.fail(f"{line}: {error.format_message()}")
    for token in tokens(text):
        if token.type == "fence" and token.info == "python":
            compile(token.content, page.name, "exec")
        if token.type == "code_inline" and token.content.startswith("--"):
            option, *value = token.content.split()
            assert option in all_options(), token.content
            if option == "--set" and value:
                assert value[0].strip("'").split("=")[0] in {*SETTINGS, "KEY", "NAME"}, token.content
        target = token.attrGet("href") or token.attrGet("src") or ""
        if target and not target.startswith(("http", "#")):
            assert (page.parent / target.split("#")[0]).exists(), target


def test_most_of_the_commands_are_told_of():
    """The parser above reads what it is to read."""
    lines = [line for page in PAGES for line in command_lines(page.read_text(encoding="utf-8"))]
    told = {command_of(words_of(line))[0].callback for line in lines}
    every = {
        c.callback
        for group in (main, *main.commands.values())
        for c in getattr(group, "commands", {}).values()
    }
    assert len(lines) > 80
    assert every - told <= {g.callback for g in main.commands.values() if isinstance(g, click.Group)}


@pytest.mark.parametrize(
    "line",
    [
        "affuse extrakt --video-dir videos --out store",
        "affuse extract --video-dri videos --out store",
        "affuse extract --video-dir videos",
        "affuse fuse train --features s --labels l --out r --set windwo=3",
        "affuse fuse train --seeds x",
    ],
)
def test_a_line_that_cannot_be_is_found(line):
    with pytest.raises(Exception, match=r"(?i)no such|no command|missing|no setting|whole numbers|required"):
        parse(line)


def test_docstrings_are_read_as_they_are_written():
    reread = runpy.run_path(str(ROOT / "docs" / "extensions" / "docstrings.py"))["reread"]
    arguments = ["Of two.", "", "one     the first", "        of them", "two, three  others", ""]
    rest = ["    code = 1", "", "Raises.", "", ">>> table", "  a  b", "c  1  2", ""]
    text = "\n".join(reread(arguments + rest))
    assert ":one: the first\n    of them\n:two, three: others\n" in text
    assert "\n\n.. code-block:: text\n\n    code = 1\n\n" in text
    assert "\nRaises.\n\n>>> table\n  a  b\nc  1  2\n" in text


def test_the_notebook_is_the_page():
    """`python docs/notebook.py` writes it anew."""
    nbformat = pytest.importorskip("nbformat")
    notebook = runpy.run_path(str(ROOT / "docs" / "notebook.py"))
    assert nbformat.read(notebook["NOTEBOOK"], 4) == notebook["made"]()
