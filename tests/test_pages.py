"""What the pages show is what happens: README, docs/ and the notes of the programs, block by block.

* Blocks of `python` are run, those of a page one after the other, and print what a block of `text` below them shows.
* Blocks of `sh` are run where the line above says <!-- run -->, in a folder with the repository's `examples/`;
  what they print a block of `text` or `json` below them shows. Others install, deploy or train: the shell reads them.
* Where 127.0.0.1:8000 is spoken to, a service is started.
"""

import io
import json
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.service.process import Server
from tests.shared import ROOT

PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *(ROOT / folder / "README.md" for folder in ("deploy", "docker", "training")),
    *sorted((ROOT / "docs").glob("*.md")),
]
BLOCK = re.compile(r"(?ms)^(<!-- run -->\n)?```(\w+)\n(.*?)^```$\n(?:\n```(text|json)\n(.*?)^```$)?")
OF_THE_RUN = {"timing_us", "iterations", "model_version", "request_id"}
"""Fields of an answer that another run, or the next release of a network, has otherwise."""


class Block(NamedTuple):
    marked: bool
    language: str
    text: str
    shown_as: str
    shown: str

    @property
    def runs(self) -> bool:
        return self.language == "python" or (self.language == "sh" and self.marked)


def blocks(page: Path) -> list[Block]:
    return [Block(bool(marked), *rest) for marked, *rest in BLOCK.findall(page.read_text())]


@pytest.mark.parametrize("page", [p for p in PAGES if any(b.runs for b in blocks(p))], ids=lambda page: page.name)
def test_the_page_shows_what_happens(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    names: dict[str, Any] = {"__name__": "__main__"}
    for block in blocks(page):
        if block.runs:
            text = block.text.replace(".venv/bin/", "")
            if "127.0.0.1:8000" in text:
                server: Server = request.getfixturevalue("server")
                text = text.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}")
            printed = printed_by_python(text, names) if block.language == "python" else printed_by_shell(text)
            if block.shown_as == "json":
                given, told = json.loads(printed), json.loads(block.shown)
                assert comparable(given, exact=True) == comparable(told, exact=False), block.text
            elif block.shown or block.language == "python":
                assert lines(printed) == lines(block.shown), block.text
    for picture in re.findall(r"savefig\(\"(.*?)\"\)", page.read_text()):
        assert (tmp_path / picture).stat().st_size > 10_000


def printed_by_python(program: str, names: dict[str, Any]) -> str:
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(program, names)
    return printed.getvalue()


def printed_by_shell(commands: str) -> str:
    run = subprocess.run(["bash", "-euc", commands], capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, commands + run.stderr
    return run.stdout


def lines(text: str) -> list[str]:
    """Without the blanks that pandas fills its lines up with."""
    return [line.rstrip() for line in text.splitlines()]


def comparable(document: Any, *, exact: bool) -> Any:
    """With numbers that equal those of another processor's, and of what is of the run no more than its fields."""
    if isinstance(document, dict):
        return {
            name: (sorted(value) if isinstance(value, dict) else None)
            if name in OF_THE_RUN
            else comparable(value, exact=exact)
            for name, value in document.items()
        }
    if isinstance(document, list):
        return [comparable(each, exact=exact) for each in document]
    return document if exact or not isinstance(document, float) else pytest.approx(document, rel=1e-4)


def test_the_client_shown_is_the_example() -> None:
    code = (ROOT / "examples" / "client.py").read_text().split("\n\n", 1)[1]
    assert f"```python\n{code}```" in (ROOT / "docs" / "service.md").read_text()


def test_the_shell_reads_every_command() -> None:
    for page in PAGES:
        for block in blocks(page):
            if block.language == "sh":
                run = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, timeout=60)
                assert run.returncode == 0, f"{page}: {block.text}{run.stderr}"


def test_every_document_is_json() -> None:
    shown = [b.text if b.language == "json" else b.shown for p in PAGES for b in blocks(p) if "json" in b[1::2]]
    assert len(shown) >= 3
    for text in shown:
        json.loads(text)


def test_every_block_says_what_it_is_in() -> None:
    """A fence without a language would escape all of the above."""
    for page in PAGES:
        opened = re.findall(r"^```(.*)$", page.read_text(), re.MULTILINE)[::2]
        assert {"python", "py", "sh", "json", "text", "math", "{toctree}"} >= set(opened), page
