"""The directives `{settings} extract` and `{settings} fuse`: all that --set takes, as `affuse settings` lists it."""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from affuse.pipelines.settings import listed, spelt


class Settings(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        which = self.arguments[0]
        return [_definitions(listed(which)[which])]


def _definitions(rows: list[dict]) -> nodes.definition_list:
    """A setting with its value and what is allowed, and below it the meaning."""
    found = nodes.definition_list(classes=["settings"])
    for row in rows:
        name = nodes.literal(text=f"{row['name']} = {spelt(row['value'])}")
        term = nodes.term("", "", name, nodes.inline(text=f" {row['allowed']}", classes=["allowed"]))
        found += nodes.definition_list_item("", term, nodes.definition("", _paragraph(row["meaning"])))
    return found


def _paragraph(text: str) -> nodes.paragraph:
    """What stands between backticks is code."""
    paragraph = nodes.paragraph()
    for index, part in enumerate(text.split("`")):
        paragraph += nodes.literal(text=part) if index % 2 else nodes.Text(part)
    return paragraph


def setup(app: Sphinx) -> dict:
    app.add_directive("settings", Settings)
    return {"parallel_read_safe": True}
