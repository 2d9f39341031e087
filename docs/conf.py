"""How the pages become a site: `make docs`. Nothing in it is fetched from elsewhere when a page is read."""

import sys
from importlib.util import find_spec
from pathlib import Path

from affuse.version import VERSION

sys.path.insert(0, str(Path(__file__).parent / "extensions"))

project = "affuse"
author = "The affuse developers"
copyright = "2026, the affuse developers, MIT licence"
version = release = VERSION

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx_click",
    "sphinx_copybutton",
    "docstrings",
    "settings",
]
source_suffix = {".md": "markdown"}
myst_enable_extensions = ["dollarmath", "deflist"]
myst_heading_anchors = 3
smartquotes = False  # --set is no dash
default_role = "literal"  # what stands between backticks in our docstrings
nitpicky = True
nitpick_ignore_regex = [("py:.*", r".*")]  # types of signatures, most of which have no page

autodoc_member_order = "bysource"
autodoc_class_signature = "mixed"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_maximum_signature_line_length = 90
add_module_names = False

html_theme = "furo"
html_title = f"affuse {VERSION}"
mathjax_path = "tex-svg.js"  # draws equations without fonts; of the package django-static-mathjax
mathjax = Path(find_spec("mathjax").origin).parent / "static" / "mathjax" / "es5" / mathjax_path
html_static_path = ["static", str(mathjax)]
html_css_files = ["pages.css"]
html_show_sourcelink = html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
