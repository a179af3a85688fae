"""The command and its settings."""

import subprocess
import sys
from pathlib import Path

import pytest

from service.__main__ import described, main
from service.settings import Settings, unknown
from tests.shared import ROOT


def test_every_setting_is_documented() -> None:
    text = described()
    for name, field in Settings.model_fields.items():
        assert f"CALIBRANT_{name.upper()} = " in text
        assert (field.description or "").endswith("."), name


def test_a_setting_that_makes_no_sense_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CALIBRANT_DRAIN_S", "-1")
    monkeypatch.setenv("CALIBRANT_WORKERS", "many")
    assert main([]) == 2
    error = capsys.readouterr().err
    assert "CALIBRANT_DRAIN_S" in error
    assert "CALIBRANT_WORKERS" in error


@pytest.mark.parametrize("name", Settings.model_fields)
def test_a_setting_with_a_letter_missing_is_no_setting_and_the_right_one_is_named(
    name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    misspelt = f"CALIBRANT_{name[:1]}{name[2:]}".upper()
    monkeypatch.setenv(misspelt, "1")
    assert main([]) == 2
    assert capsys.readouterr().err == f"{misspelt} is no setting; the nearest is CALIBRANT_{name.upper()}.\n"


def test_settings_in_small_letters_are_known() -> None:
    assert unknown(["calibrant_port", "PATH", "CALIBRANTPORT"]) == {}


def test_a_file_without_keys_does_not_open_the_service(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    path = tmp_path / "keys.json"
    monkeypatch.setenv("CALIBRANT_API_KEYS", str(path))
    assert main([]) == 2
    path.write_text("{}")
    assert main([]) == 2
    assert capsys.readouterr().err.count("CALIBRANT_API_KEYS") == 2


def test_help_is_printed_and_nothing_else_understood(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    assert "CALIBRANT_PORT = 8000" in capsys.readouterr().out
    assert main(["--port", "1"]) == 2


def test_a_port_that_is_taken_is_said_so() -> None:
    command = [sys.executable, "-m", "service"]
    run = subprocess.run(command, cwd=ROOT, env={"CALIBRANT_HOST": "192.0.2.1"}, capture_output=True, text=True)
    assert run.returncode == 1
    assert "cannot listen on 192.0.2.1 port 8000" in run.stderr


def test_the_supervisor_loads_none_of_the_numbers() -> None:
    # It must stay small: it is there to replace what runs out of memory.
    code = "import sys, service.supervisor; print([m for m in ('numpy', 'numba', 'onnxruntime') if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
