"""What docs/slv.md shows is what happens: its programs, one after the other, print what stands below them."""

import io
import re
from contextlib import redirect_stdout
from typing import Any

from tests.shared import ROOT

PROGRAMS = re.findall(
    r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", (ROOT / "docs" / "slv.md").read_text(), re.DOTALL
)


def test_the_programs_print_what_the_page_shows() -> None:
    notebook: dict[str, Any] = {}
    assert len(PROGRAMS) >= 4
    for program, shown in PROGRAMS:
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(program, notebook)
        assert printed.getvalue() == shown, program
