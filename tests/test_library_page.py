"""What docs/library.md shows is what happens: its programs, one after the other, print what stands below them."""

import io
import re
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from tests.shared import ROOT

PAGE = (ROOT / "docs" / "library.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", PAGE, re.DOTALL)


def lines(text: str) -> list[str]:
    """Without the blanks that pandas fills its lines up with."""
    return [line.rstrip() for line in text.splitlines()]


def run_programs(programs: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    """What each prints, one after the other, as in a notebook; what it should print, and itself."""
    notebook: dict[str, Any] = {}
    for program, shown in programs:
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(program, notebook)
        yield printed.getvalue(), shown, program


def test_the_programs_print_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for printed, shown, program in run_programs(PROGRAMS):
        assert lines(printed) == lines(shown), program
    assert (tmp_path / "dax.png").stat().st_size > 10_000


def test_the_page_shows_every_name_of_the_library() -> None:
    import calibrant

    assert {name for name in calibrant.__all__ if name not in PAGE} <= {"CalibrationResult", "Prices", "__version__"}


def test_the_page_quotes_the_file_that_adds_a_model() -> None:
    file = (ROOT / "src" / "calibrant" / "models" / "double_heston.py").read_text()
    (quoted,) = re.findall(r"```py\n(.*?)```", PAGE, re.DOTALL)
    assert quoted == file.split("\n\n", 1)[1]


def test_the_page_names_every_model_with_its_factors() -> None:
    from calibrant.models import MODELS

    assert re.findall(r"^\| `(\w+)` \| .*(?:factor|jumps)", PAGE, re.MULTILINE) == list(MODELS)
