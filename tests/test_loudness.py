"""-q leaves warnings and errors, -v lets all through that the packages say; every command has both."""

import logging

import pytest
from click.testing import CliRunner

from affuse import console
from affuse.commands import main
from affuse.extract.summary import Summary
from test_command_line import commands


@pytest.fixture
def extraction(monkeypatch, tmp_path):
    """An `affuse extract` that only talks; gives its arguments."""

    def talk(jobs, out, settings, *, announce, progress, **_):
        announce("2 videos, 2 to extract.")
        logging.getLogger("affuse").debug("visual: from /weights")
        logging.getLogger("affuse").warning("untrained")
        progress("1 of 2 videos", "one: broken", False)
        return Summary(failed={"one": "broken"}), None

    monkeypatch.setattr("affuse.extract.extraction.extract_jobs", talk)
    (tmp_path / "one.mp4").touch()
    return ["--video-dir", str(tmp_path), "--out", str(tmp_path / "store")]


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ([], [], "{announced}{warned}{failed}"),
        (["-q"], [], "{warned}{failed}"),
        ([], ["--quiet"], "{warned}{failed}"),
        (["-v"], [], "{announced}{detail}{warned}{failed}"),
        (["-q"], ["--verbose"], "{announced}{detail}{warned}{failed}"),
    ],
)
def test_the_group_and_the_command_take_both_and_the_last_counts(extraction, before, after, said):
    result = CliRunner().invoke(main, [*before, "extract", *extraction, *after])
    assert result.stderr == said.format(
        announced="2 videos, 2 to extract.\n",
        detail="debug: visual: from /weights\n",
        warned="warning: untrained\n",
        failed="failed: one: broken\n",
    )
    assert result.stdout
    assert result.exit_code == 1


def test_a_call_does_not_hear_of_the_one_before(extraction):
    CliRunner().invoke(main, ["-q", "extract", *extraction])
    assert "2 to extract" in CliRunner().invoke(main, ["extract", *extraction]).stderr


def test_errors_are_heard_when_quiet(tmp_path):
    result = CliRunner().invoke(main, ["features", "info", "-q", str(tmp_path / "none")])
    assert result.exit_code == 2
    assert result.stderr


@pytest.mark.parametrize(("loudness", "shown"), [(console.QUIET, False), (console.USUAL, True)])
def test_progress_is_not_shown_when_quiet(monkeypatch, loudness, shown):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    console.be(loudness)
    assert console.watched() is shown
    with console.progress_bar(total=1) as bar:
        assert bar.disable is not shown
    console.be(console.USUAL)


@pytest.mark.parametrize("words", [words for words, _ in commands(main)])
def test_every_command_has_both(words):
    said = CliRunner().invoke(main, [*words, "--help"]).stdout
    assert "-v, --verbose" in said
    assert "-q, --quiet" in said
