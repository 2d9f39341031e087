"""Runs the pages' code: `make docs-check`. A plugin of pytest, by which every block of `sh` and `python` is a test.

All blocks run as they stand, page after page in one folder, the README first, whose `store` and `run` the others use.
In it lie the folders `videos`, `labels` and `new`, made as the demo makes its own, but short. What `affuse demo` makes
is as short, and it trains three models for an epoch. A block after
`<!-- file: NAME -->` is written to that file, one after `<!-- skip: next "why" -->` is not run.
"""

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from functools import partial
from pathlib import Path

import torch
from click.testing import CliRunner
from matplotlib.layout_engine import ConstrainedLayoutEngine
from sybil import Example, Sybil
from sybil.evaluators.python import PythonEvaluator
from sybil.parsers.markdown import CodeBlockParser, SkipParser

from affuse.commands import main
from affuse.pipelines.demo import data, picture, recipe

ROOT = Path(__file__).parents[1]
WORK = Path(tempfile.mkdtemp(prefix="affuse-docs-"))
SHORT = {"seconds": 2.0, "fps": 4}
A_FILE = re.compile(r"<!-- file: (\S+) -->\s*\Z")


def shorten() -> None:
    """What `affuse demo` makes is short from here on, and trained on for an epoch."""
    os.environ |= {"MPLBACKEND": "Agg", "XDG_CACHE_HOME": str(WORK / "cache"), "OMP_NUM_THREADS": "1"}
    torch.set_num_threads(1)  # at these sizes several only wait for each other
    os.environ.pop("AFFUSE_WEIGHTS", None)
    recipe.make_dataset = partial(data.make_dataset, **SHORT)
    picture.SPAN = SHORT["seconds"]
    recipe.SCHEDULE["epochs"] = 1
    recipe.MODELS = {name: recipe.MODELS[name] for name in ("visual", "concatenation", "rjcma")}
    ConstrainedLayoutEngine.execute = lambda engine, figure: None  # half of a small figure's time


def pytest_configure(config) -> None:
    shorten()


def pytest_sessionstart(session) -> None:
    made = data.make_dataset(WORK / "made", seed=1, speakers=6, **SHORT)
    made.videos.rename(WORK / "videos")
    made.labels.rename(WORK / "labels")
    (WORK / "new").mkdir()
    shutil.copy(WORK / "videos" / f"{made.validation[0]}.mp4", WORK / "new" / "clip.mp4")


def pytest_unconfigure(config) -> None:
    shutil.rmtree(WORK, ignore_errors=True)


def written(example: Example) -> bool:
    """Whether the block is a file's content, which it then is put into."""
    name = A_FILE.search(example.document.text[: example.region.start])
    if name:
        path = WORK / name[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(example.parsed, encoding="utf-8")
    return name is not None


def commands(text: str) -> list[str]:
    """The commands of a shell's block, without comments and continued lines."""
    lines = re.sub(r"\\\n\s*", "", text).splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def run_shell(example: Example) -> None:
    for command in commands(example.parsed):
        words = shlex.split(command, comments=True)
        if words[0] != "affuse":
            subprocess.run(["bash", "-euc", command], check=True)
            continue
        result = CliRunner().invoke(main, words[1:])
        print(command, result.output, sep="\n")
        assert result.exit_code == 0, f"{command}\n{result.output}\n{result.exception!r}"


def run_python(example: Example) -> None:
    if not written(example):
        PythonEvaluator()(example)


pytest_collect_file = Sybil(
    [CodeBlockParser("sh", run_shell), CodeBlockParser("python", run_python), SkipParser()],
    path=str(ROOT),
    patterns=["README.md", "docs/*.md", "docs/reference/*.md"],
    setup=lambda namespace: os.chdir(WORK),
    teardown=lambda namespace: os.chdir(ROOT),
).pytest()
