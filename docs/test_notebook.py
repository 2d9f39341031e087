"""The notebook is the page, and runs to its end: with what `affuse demo` makes as short as the pages have it."""

import os
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

from docs.notebook import NOTEBOOK

ROOT = Path(__file__).parents[1]
SHORT = f"""#!{sys.executable}
from docs.examples import shorten

shorten()
from affuse.__main__ import main

if __name__ == "__main__":  # processes that it starts read this, too
    main()
"""


def test_the_notebook_runs(tmp_path, monkeypatch):
    program = tmp_path / "bin" / "affuse"
    program.parent.mkdir()
    program.write_text(SHORT)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    work = {"metadata": {"path": str(tmp_path)}}
    ran = NotebookClient(nbformat.read(NOTEBOOK, 4), timeout=None, resources=work).execute()
    told = "".join(output.get("text", "") for cell in ran.cells for output in cell.get("outputs", ()))
    assert "Words that Whisper got right" in told
    assert (tmp_path / "demo" / "report.html").stat().st_size > 1e6
    assert (tmp_path / "speaker12.png").exists()
