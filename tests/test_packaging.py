"""What is installed: all our folders, under one name that no folder or file of the user's can stand in front of."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from setuptools.config.pyprojecttoml import read_configuration

ROOT = Path(__file__).parents[1]
WINGS = ("affuse", "extract", "features", "fuse", "pipelines")


def run(*command, **options) -> str:
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_folder_with_an_init_is_named():
    folders = [
        init.parent.relative_to(ROOT).parts for wing in WINGS for init in (ROOT / wing).rglob("__init__.py")
    ]
    found = {".".join(parts if parts[0] == "affuse" else ("affuse", *parts)) for parts in folders}
    named = read_configuration(ROOT / "pyproject.toml", expand=False)["tool"]["setuptools"]["packages"]
    assert sorted(named) == sorted(found)


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The wheel as pip installs it, built from a copy so that the checkout stays as it is."""
    place = tmp_path_factory.mktemp("wheel")
    for wing in WINGS:
        shutil.copytree(ROOT / wing, place / "source" / wing, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, place / "source")
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", place, place / "source")
    (wheel,) = place.glob("affuse-*.whl")
    run(*pip, "install", "--no-deps", "--no-compile", "--target", place / "target", wheel)
    return place / "target"


def test_nothing_but_affuse_lies_at_the_top(installed):
    top = {
        path.name for path in installed.iterdir() if path.name != "bin"
    }  # bin: pip makes the command there
    assert {name for name in top if not name.endswith(".dist-info")} == {"affuse"}
    assert len(top) == 2
    assert (installed / "affuse" / "py.typed").is_file()
    for wing in ("report", "watch"):
        page = Path("pipelines", wing, "page")
        assert {*os.listdir(installed / "affuse" / page)} == {*os.listdir(ROOT / page)}


@pytest.fixture
def crowded(tmp_path) -> Path:
    """A folder of somebody whose own code has our folders' names, and which must not be imported."""
    for name in ("features", "extract", "pipelines"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(f"raise RuntimeError('the decoy {name} was imported')\n")
    for name in ("cli.py", "fuse.py"):
        (tmp_path / name).write_text(f"raise RuntimeError('the decoy {name} was imported')\n")
    return tmp_path


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("-m", "affuse", "--version"), "affuse, version "),
        (("-m", "affuse", "extract", "--help"), "Usage: "),
        (
            ("-c", "import affuse; print(affuse.FeatureStore); from affuse.fuse import build_model"),
            "FeatureStore",
        ),
        (
            ("-c", "import affuse.fuse.models.model as m; print(m.__file__)"),
            "target/affuse/fuse/models/model.py",
        ),
    ],
)
def test_it_works_beside_folders_and_files_of_the_same_names(installed, crowded, arguments, said):
    path = os.pathsep.join(map(str, (installed, crowded)))
    out = run(sys.executable, *arguments, cwd=crowded, env={**os.environ, "PYTHONPATH": path})
    assert said in out


def test_the_command_line_runs_from_the_checkout():
    assert "Continuous valence and arousal" in run(sys.executable, "cli.py", "--help", cwd=ROOT)
