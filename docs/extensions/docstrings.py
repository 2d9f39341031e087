"""Docstrings as they stand in the code, for autodoc: `name   meaning` is an argument, what is indented is code.

An argument's name is followed by two spaces or more, and its meaning may go on in indented lines.
"""

import re

from sphinx.application import Sphinx

ARGUMENT = re.compile(r"([^\W\d][\w, ]*?) {2,}(\S.*)")


def reread(lines: list[str]) -> list[str]:
    """The lines of one docstring as reStructuredText."""
    read: list[str] = []
    argument = code = example = False  # whether the line before belongs to one
    for line in lines:
        example = bool(line) and (example or line.startswith(">>>"))
        if example:
            read.append(line)
            continue
        indented = line.startswith("    ")
        if code and (indented or not line):
            read.append(line)
            continue
        if code:
            read.append("")
        code = False
        if match := ARGUMENT.fullmatch(line):
            if not argument:
                read.append("")
            read.append(f":{match[1]}: {match[2]}")
            argument = True
        elif argument and line.startswith(" "):
            read.append(f"    {line.strip()}")
        elif indented:
            read += ["", ".. code-block:: text", "", line]
            argument, code = False, True
        else:
            if argument and line:
                read.append("")
            read.append(line)
            argument = False
    return [*read, ""]


def _of_autodoc(app, what, name, thing, options, lines: list[str]) -> None:
    lines[:] = reread(lines)


def setup(app: Sphinx) -> dict:
    app.connect("autodoc-process-docstring", _of_autodoc)
    return {"parallel_read_safe": True}
