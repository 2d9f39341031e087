"""What a visitor of the repository looks for: it is there, it is valid, and it says what the code says."""

import re
from pathlib import Path

import pytest
import yaml
from click import Group
from setuptools.config.pyprojecttoml import read_configuration

from affuse.commands import main
from affuse.version import VERSION

ROOT = Path(__file__).parents[1]
WINGS = ("affuse", "extract", "features", "fuse", "pipelines")
PROJECT = read_configuration(ROOT / "pyproject.toml", expand=False)["project"]


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_changelog_is_of_this_version():
    headings = re.findall(r"^## \[(.+)\] - (Unreleased|\d{4}-\d\d-\d\d)$", read("CHANGELOG.md"), re.MULTILINE)
    assert headings[0][0] == VERSION
    for name in re.findall(r"`affuse ([a-z]+)`", read("CHANGELOG.md")):
        assert name in main.commands


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load(read("CITATION.cff"))
    assert citation.keys() >= {"cff-version", "message", "title", "authors"}  # what the format demands
    assert citation["version"] == VERSION
    assert citation["license"] == PROJECT["license"]
    assert citation["authors"] == [{"name": "The affuse developers"}]


def test_every_python_that_is_promised_is_tested_on_every_system():
    matrix = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]["test"]["strategy"]["matrix"]
    assert PROJECT["requires-python"] == f">={matrix['python'][0]}"
    assert {name.partition("-")[0] for name in matrix["os"]} == {"ubuntu", "macos", "windows"}


def recipe(target: str) -> str:
    """The lines of a target of the Makefile."""
    return re.search(rf"^{target}:.*\n((?:\t.*\n)+)", read("Makefile"), re.MULTILINE)[1]


def test_windows_runs_what_make_runs():
    steps = yaml.safe_load(read(".github/workflows/ci.yml"))["jobs"]["test"]["steps"]
    (by_hand,) = (step["run"].splitlines() for step in steps if step.get("if") == "runner.os == 'Windows'")
    (tested,) = recipe("test").split("\n")[:1]
    assert by_hand[-1] == tested.strip().replace("$(BIN)/", "")
    assert by_hand[-1].replace("python", r".venv\Scripts\python", 1) in read("CONTRIBUTING.md")


def test_what_is_run_before_a_commit_is_what_lint_runs():
    (repo,) = yaml.safe_load(read(".pre-commit-config.yaml"))["repos"]
    entries = {hook["entry"].replace(" --force-exclude", "") for hook in repo["hooks"]}
    assert entries == {"ruff check", "ruff format --check", "make contracts"}
    assert repo["repo"] == "local"
    assert {"$(BIN)/ruff check .", "$(BIN)/ruff format --check .", "$(MAKE) contracts"} <= {
        line.strip() for line in recipe("lint").splitlines()
    }


@pytest.mark.parametrize("name", ["bug.yml", "feature.yml"])
def test_a_form_for_issues_is_one(name):
    form = yaml.safe_load(read(f".github/ISSUE_TEMPLATE/{name}"))
    assert form.keys() >= {"name", "description", "body"}
    assert all(part["attributes"]["label"] for part in form["body"])
    ids = [part["id"] for part in form["body"]]
    assert len({*ids}) == len(ids)


def test_extras_that_are_named_are_there():
    named = {
        extra
        for file in (
            *(path for wing in WINGS for path in (ROOT / wing).rglob("*.py")),
            ROOT / "CONTRIBUTING.md",
        )
        for extra in re.findall(r"affuse\[([a-z,]+)\]", file.read_text(encoding="utf-8"))
    }
    assert named >= {"offline", "demo", "parquet", "timm"}
    extras = PROJECT["optional-dependencies"]
    assert named <= extras.keys()
    assert {*re.search("ARG EXTRAS=(.*)", read("Dockerfile"))[1].split(",")} <= extras.keys()
    assert all(extras.values())


def test_files_and_folders_that_contributors_are_sent_to_are_there():
    told = re.findall(r"`([\w./]+(?:\.py|/))`", read("CONTRIBUTING.md"))
    assert len(told) > 8
    assert [name for name in told if not (ROOT / name).exists() and not [*(ROOT / "fuse").rglob(name)]] == []


def test_the_image_takes_what_the_wheel_is_made_of():
    taken = {line[1:].rstrip("/") for line in read(".dockerignore").splitlines() if line.startswith("!")}
    assert taken == {*WINGS, "constraints.txt", "LICENSE", "README.md", "pyproject.toml"}


def test_groups_are_groups_of_ours():
    """So that a new one has -v, -q and examples, as all have."""
    from affuse.console import Command

    def below(command):
        return [command, *(own for c in getattr(command, "commands", {}).values() for own in below(c))]

    assert [command.name for command in below(main) if not isinstance(command, Command)] == []
    assert sum(isinstance(command, Group) for command in below(main)) > 4
