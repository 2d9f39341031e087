"""docs/start.ipynb, the page `docs/start.md` as a notebook: `python docs/notebook.py` writes it anew.

What the page shows and does not run is shown by the notebook, too. `make docs-check` runs it, as short as the pages.
"""

import re
from pathlib import Path

import jupytext
import nbformat

PAGE = Path(__file__).with_name("start.md")
NOTEBOOK = PAGE.with_suffix(".ipynb")
HEAD = """---
jupyter:
  kernelspec: {display_name: Python 3, language: python, name: python3}
---

"""
NOT_RUN = re.compile(r'<!-- skip: next "[^"]*" -->\n```sh\n')


def made() -> nbformat.NotebookNode:
    """The notebook of the page: a cell for each of its blocks of code, and for all that stands between."""
    text = NOT_RUN.sub("```console\n", PAGE.read_text(encoding="utf-8"))
    notebook = jupytext.reads(HEAD + text, fmt="md")
    del notebook.metadata["jupytext"]
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"  # else they are drawn anew
    return notebook


if __name__ == "__main__":
    nbformat.write(made(), NOTEBOOK)
