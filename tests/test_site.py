"""The site is built without a warning, and nothing that a browser loads with its pages comes from outside."""

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from tests.shared import ROOT

LOADED_BY_TAG = {"audio", "embed", "iframe", "img", "input", "link", "object", "script", "source", "track", "video"}
OUTSIDE = re.compile(r"(?:[a-z]+:)?//", re.IGNORECASE)
IN_SCRIPTS = re.compile(r"[\"'`]((?:https?:)?//(?!www\.w3\.org/2000/svg)[\w.]+\.[a-z]{2,}[^\"'`]*)")
"""All but the name of a kind of XML, which nobody fetches."""
IN_STYLES = re.compile(r"(?:url\(|@import)\s*[\"']?([^\"')\s;]+)")


class Loads(HTMLParser):
    """The addresses that a browser fetches of itself on a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = IN_STYLES.findall(page)
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in LOADED_BY_TAG:
            sources = [given.get(name) or "" for name in ("src", "href", "data", "poster")]
            sources += re.split(r"[\s,]+", given.get("srcset") or "")
            self.found += filter(None, sources)


def outside(page: Path) -> list[str]:
    """The addresses of other hosts that a file of the site has loaded; in a script all there are."""
    text = page.read_text()
    if page.suffix == ".js":
        return IN_SCRIPTS.findall(re.sub(r"(?s)/\*.*?\*/", "", text))
    loads = Loads(text).found if page.suffix == ".html" else IN_STYLES.findall(text)
    return [address for address in loads if OUTSIDE.match(address)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    # By `make docs`' own line, so that it is this that works; what Sphinx's dependencies are warned of is theirs.
    command = next(line for line in (ROOT / "Makefile").read_text().splitlines() if "sphinx" in line).strip()
    command = command.replace("$(DEV)/bin/python", sys.executable).replace("build/site", str(out))
    run = subprocess.run(
        command.split(), cwd=ROOT, capture_output=True, text=True, timeout=300, env={**os.environ, "PYTHONWARNINGS": ""}
    )
    assert run.returncode == 0, run.stderr
    return out


def test_nothing_that_a_browser_loads_comes_from_outside(site: Path) -> None:
    files = [file for file in site.rglob("*") if file.suffix in (".html", ".css", ".js")]
    assert len(files) > 30
    assert {str(file.relative_to(site)): found for file in files if (found := outside(file))} == {}


def test_every_page_is_in_the_site(site: Path) -> None:
    pages = [page.relative_to(ROOT) for page in [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]]
    assert [page for page in pages if not (site / page.with_suffix(".html")).is_file()] == []


def test_formulas_are_set_by_the_browser_itself(site: Path) -> None:
    for name, least in (("objective", 20), ("mathematics", 50)):
        page = (site / "docs" / f"{name}.html").read_text()
        assert page.count("<math ") >= least
        assert "$" not in re.sub(r"(?s)<(pre|code|script)\b.*?</\1>", "", page)


@pytest.mark.parametrize(
    "planted",
    [
        '<script src="https://cdn.example/katex.js"></script>',
        '<link rel="stylesheet" href="//fonts.example/inter.css">',
        '<img src="a.png" srcset="a.png 1x, https://cdn.example/a.png 2x">',
        "<style>@import 'https://fonts.example/inter.css';</style>",
        '<p style="background: url(http://cdn.example/a.png)">',
    ],
)
def test_an_address_of_another_host_would_be_found(planted: str, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text(f'<a href="https://example.org">a link loads nothing</a>{planted}')
    assert len(outside(page)) == 1
