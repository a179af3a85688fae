"""What the README and the service's page show is what happens."""

import json
import re
import subprocess
import sys
from typing import Any

import pytest

from calibrant.__main__ import main
from tests.service.process import Server
from tests.shared import ROOT

README = (ROOT / "README.md").read_text()
SERVICE = (ROOT / "docs" / "service.md").read_text()


def shown(begins: str) -> dict[str, Any]:
    """The JSON document of the README that begins like this."""
    for block in re.findall(r"```json\n(.*?)```", README, re.DOTALL):
        if block.startswith(begins):
            document: dict[str, Any] = json.loads(block)
            return document
    raise AssertionError(f"the README shows no document that begins with {begins}")


def test_the_answer_shown_is_the_answer_given(capsys: pytest.CaptureFixture[str]) -> None:
    told = shown('{"model"')
    assert main(["calibrate", str(ROOT / "examples" / "dax_20020705.csv"), "--json"]) == 0
    given = json.loads(capsys.readouterr().out)
    assert told.keys() == given.keys() | {"as_of"}
    assert told["timing_us"].keys() == given["timing_us"].keys()
    assert told["fit"].keys() == given["fit"].keys()
    assert told["fit"]["rmse_bp"] == pytest.approx(given["fit"]["rmse_bp"], rel=1e-6)
    for name in ("parameters", "standard_errors"):
        assert told[name] == pytest.approx(given[name], rel=1e-4)
    # Not the start, nor the network's version: another release may get to the same optimum by another way.
    for name in ("status", "out_of_domain", "at_bounds"):
        assert told[name] == given[name]
    assert told["arbitrage"]["quotes"]["n_violations"] == given["arbitrage"]["quotes"]["n_violations"]


def test_the_table_shown_is_the_table_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", str(ROOT / "examples" / "dax_20020705.csv")]) == 0
    assert capsys.readouterr().out in README


def test_the_client_shown_is_the_example() -> None:
    code = (ROOT / "examples" / "client.py").read_text().split("\n\n", 1)[1]
    assert f"```python\n{code}```" in README


def test_the_program_shown_without_a_service_prints_the_fit() -> None:
    (program,) = re.findall(r"```python\n(from calibrant import .*?)```", README, re.DOTALL)
    printed = output_of("-c", program)
    assert printed.startswith("DAX 2002-07-05\nheston: converged")
    assert "131.70 bp" in printed


def test_the_programs_shown_run_against_a_server(server: Server) -> None:
    (tensors,) = re.findall(r"```python\n(.*?)```", SERVICE, re.DOTALL)
    client = (ROOT / "examples" / "client.py").read_text()
    tensors, client = (of.replace("127.0.0.1:8000", f"127.0.0.1:{server.port}") for of in (tensors, client))
    assert len(output_of("-c", tensors).strip(" []\n").split()) == 5
    assert "converged, 131.7 bp" in output_of("-c", client)


def output_of(*arguments: str) -> str:
    run = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=60, check=True, cwd=ROOT)
    return run.stdout
