"""The site: `make docs`. Its source is the repository itself, so that a link leads to the same page there, in an editor
and here; nothing that a browser loads comes from outside.

Formulas are MathML, which browsers set themselves: a script would be fetched from somewhere, or shipped.
"""

from pathlib import Path

from docutils import nodes
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.writers.html5 import HTML5Translator

from calibrant import __version__

project, author, release = "Calibrant", "the Calibrant authors", __version__
project_copyright = author
root_doc = "docs/index"
include_patterns = [
    "README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "docs/**.md",
    "docs/notebooks/*.ipynb",
    "deploy/README.md",
    "docker/README.md",
    "training/README.md",
    "networks/*/*/CARD.md",
]
extensions = ["myst_nb"]
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4
# The notebook is executed by its test, and shown as it was left.
nb_execution_mode = "off"
html_theme = "furo"
html_title = f"{project} {release}"
html_math_renderer = "mathml"
html_copy_source = html_show_sourcelink = False


def visit_inline(page: HTML5Translator, node: nodes.math) -> None:
    page.body.append(tex2mathml(node.astext()))
    raise nodes.SkipNode


def visit_block(page: HTML5Translator, node: nodes.math_block) -> None:
    page.body.append(tex2mathml(node.astext(), as_block=True))
    raise nodes.SkipNode


def without_absent_pages(app: Sphinx, page: str, content: list[str]) -> None:
    """The index names all pages there may be; one that is there and not named is an error of Sphinx's."""
    if page == root_doc:
        entries = content[0].splitlines()
        content[0] = "\n".join(e for e in entries if e[:1] != "/" or any(Path(app.srcdir).glob(f"{e[1:]}.*")))


def setup(app: Sphinx) -> None:
    app.connect("source-read", without_absent_pages)
    app.add_html_math_renderer("mathml", (visit_inline, None), (visit_block, None))
