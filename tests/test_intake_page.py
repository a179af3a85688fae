"""What docs/intake.md shows is what happens: its programs print what stands below them, its commands run."""

import re
import shlex
from pathlib import Path

import pytest

from calibrant.__main__ import main
from calibrant.intake.settings import NAMES
from tests.shared import ROOT
from tests.test_library_page import lines, run_programs

PAGE = (ROOT / "docs" / "intake.md").read_text()
PROGRAMS = re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", PAGE, re.DOTALL)
COMMANDS = [
    re.sub(r"\s+#.*", "", line)
    for block in re.findall(r"```sh\n(.*?)```", PAGE, re.DOTALL)
    for line in block.splitlines()
]


def test_the_programs_print_what_the_page_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    for printed, shown, program in run_programs(PROGRAMS):
        assert lines(printed) == lines(shown), program


def test_the_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    assert main(["calibrate", "examples/chain.csv", "--json"]) == 0
    (tmp_path / "fit.json").write_text(capsys.readouterr().out)
    run = [line for line in COMMANDS if line.startswith("calibrant") and "..." not in line]
    assert len(run) == 4
    for line in run:
        assert main(shlex.split(line)[1:]) == 0, line


def test_every_setting_that_is_asked_for_is_one() -> None:
    asked = re.findall(r"^\| ((?:`\w+`(?:, )?)+) \| ", PAGE.partition("| asked, by")[2], re.MULTILINE)
    names = {name for cell in asked for name in re.findall(r"`(\w+)`", cell)}
    assert len(names) > 10
    assert names <= set(NAMES)
