"""The command line, run as users run it and as a function."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from calibrant.__main__ import main
from tests.shared import ROOT

DAX = str(ROOT / "examples" / "dax_20020705.csv")


def test_the_table_shows_parameters_errors_and_fit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", DAX]) == 0
    head, values, errors, *_ = capsys.readouterr().out.splitlines()
    assert head.split() == [*["panel", "kappa", "theta", "xi", "rho", "v0", "rmse_bp", "max_bp", "quotes", "status"]]
    assert values.startswith("DAX 2002-07-05 ")
    kappa = float(values.split()[2])
    assert kappa == pytest.approx(15.66, abs=0.5)
    assert values.endswith("converged")
    assert errors.split()[0] == "+-"
    assert 0.0 < float(errors.split()[1]) < kappa


@pytest.mark.parametrize("refine", ["lm", "lbfgs", "none"])
def test_json_is_one_line_a_panel(refine: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", DAX, "--refine", refine, "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    answer = json.loads(line)
    assert answer["id"] == "DAX 2002-07-05"
    assert answer["status"] == ("network_only" if refine == "none" else "converged")
    assert answer["fit"]["n_quotes"] + len(answer["fit"]["excluded"]) == 104


def test_several_panels_in_a_file_are_told_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head, *rows = Path(DAX).read_text().splitlines()
    moved = [row.replace("2002-07-05", "2002-07-08") for row in rows]
    # Interleaved, and with a column that means nothing here.
    both = [f"{row},x" for pair in zip(rows, moved, strict=True) for row in pair]
    file = tmp_path / "two.csv"
    file.write_text("\n".join([f"{head},remark", *both]))
    assert main(["calibrate", str(file), "--json"]) == 0
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (first["id"], second["id"]) == ("DAX 2002-07-05", "DAX 2002-07-08")
    assert first["parameters"] == second["parameters"]


def test_another_network_can_be_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["calibrate", DAX, "--json", "--network", str(ROOT / "networks" / "heston" / "1")]) == 0
    assert json.loads(capsys.readouterr().out)["model_version"].startswith("heston-1@sha256:")


BAD_FILES = {
    "no such column": ("strike,forward,mid_iv\n100,100,0.2\n", "expiry_years"),
    "negative strike": ("expiry_years,strike,forward,mid_iv\n0.1,-100,100,0.2\n0.1,101,100,0.2\n", "line 2"),
    "neither decimals nor percent": (
        "expiry_years,strike,forward,mid_iv\n0.1,100,100,2000\n0.1,101,100,2100\n",
        "vol above 5",
    ),
    "text for a number": ("expiry_years,strike,forward,mid_iv\n0.1,100,100,high\n", "line 2"),
    "one quote": ("expiry_years,strike,forward,mid_iv\n0.1,100,100,0.2\n", "at least 5 usable quotes"),
    "no quotes": ("expiry_years,strike,forward,mid_iv\n", "only a header"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_input_is_one_line_and_code_2(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text, told = BAD_FILES[name]
    file = tmp_path / "quotes.csv"
    file.write_text(text)
    assert main(["calibrate", str(file)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    assert err.startswith("calibrant: ")
    assert told in err


@pytest.mark.parametrize("arguments", [["nowhere.csv"], [DAX, "--network", "nowhere"]])
def test_a_file_that_is_not_there_is_one_line_and_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert "nowhere" in err


@pytest.mark.parametrize("arguments", [[DAX, "--refine", "newton"], [DAX, "--model", "sabr"], [DAX, "--jason"], []])
def test_arguments_that_mean_nothing_are_one_line_and_code_2(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["calibrate", *arguments])
    assert ended.value.code == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)


def test_a_good_panel_is_answered_beside_a_bad_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lone = "LONE,2002-07-05,0.5,100,100,0.2"
    file = tmp_path / "mixed.csv"
    file.write_text(Path(DAX).read_text() + lone + "\n")
    assert main(["calibrate", str(file), "--json"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["id"] == "DAX 2002-07-05"
    assert "LONE" in err


def test_a_table_says_what_was_left_out_and_what_looks_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    head, *rows = Path(DAX).read_text().splitlines()
    no_vol = ["DAX,2002-07-05,0.5,100,100,0.0"] * (len(rows) + 1)
    file = tmp_path / "broken.csv"
    file.write_text("\n".join([head, *rows, *no_vol, "DAX,2002-07-05,-0.1,100,100,0.2"]))
    assert main(["calibrate", str(file)]) == 0
    told = capsys.readouterr().out
    assert f"  Left out: {len(no_vol)} vol is zero or negative, 1 expired" in told
    assert f"  many_quotes_excluded: {len(no_vol) + 1} of the " in told
    assert main(["calibrate", str(file), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert "many_quotes_excluded" in [warning["code"] for warning in answer["warnings"]]
    assert {"index": len(rows) + len(no_vol), "reason": "expired"} in answer["fit"]["excluded"]


def test_it_runs_anywhere_as_a_module(tmp_path: Path) -> None:
    # Without a network in reach of an installation there would be a remark on stderr; from a checkout there is one.
    command = [sys.executable, "-m", "calibrant", "calibrate", DAX, "--json"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert json.loads(run.stdout)["start"] in ("network", "fallback")
    assert run.stderr == ""
