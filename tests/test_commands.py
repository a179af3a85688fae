"""The command line's other abilities, run as a function and, where the system matters, as users run it."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import calibrant
from calibrant import price
from calibrant.__main__ import main
from tests.intake.chains import AS_OF, chain, rows_as, truth
from tests.intake.test_kinds import PLAIN, delimited, parquet, table, workbook
from tests.shared import ROOT, SHARED, needs_shared

DAX = str(ROOT / "examples" / "dax_20020705.csv")
FILES = SHARED / "cases" / "files"


def answer_of(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, Any]:
    assert main(["calibrate", *arguments, "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    answer: dict[str, Any] = json.loads(line)
    return answer


@pytest.fixture
def raw(tmp_path: Path) -> str:
    path = tmp_path / "chain.csv"
    path.write_text(delimited(table()))
    return str(path)


# calibrate ----------------------------------------------------------------------------------------------------------


def test_parameters_are_held_bounded_and_believed_as_asked(capsys: pytest.CaptureFixture[str]) -> None:
    free = answer_of(capsys, DAX)
    held = answer_of(capsys, DAX, "--fixed", "kappa=3,rho=-0.5")
    assert (held["parameters"]["kappa"], held["parameters"]["rho"]) == (3.0, -0.5)
    bounded = answer_of(capsys, DAX, "--bounds", "kappa=0.1:4")
    assert bounded["parameters"]["kappa"] <= 4.0 < free["parameters"]["kappa"]
    believed = answer_of(capsys, DAX, "--prior", "kappa=5:0.1,noise_bp=50")
    assert abs(believed["parameters"]["kappa"] - 5.0) < 1.0
    assert believed["noise_bp"] == 50.0
    started = answer_of(capsys, DAX, "--start", "kappa=15,theta=0.07,xi=3,rho=-0.5,v0=0.19")
    assert started["parameters"] == pytest.approx(free["parameters"], rel=1e-3)
    assert answer_of(capsys, DAX, "--loss", "huber")["parameters"] != free["parameters"]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--fixed", "lambda=3"], "`--fixed.lambda` is not a parameter of heston"),
        (["--fixed", "kappa"], "must be NAME=VALUE"),
        (["--fixed", "kappa=much"], "kappa must be a number"),
        (["--bounds", "kappa=4"], "must be bounds such as 0.1:20"),
        (["--bounds", "kappa=4:1"], "`--bounds.kappa` must be a rising pair"),
        (["--prior", "kappa=2"], "must be mean and standard deviation"),
        (["--start", "kappa=2"], "`--start.theta` is required"),
        (["--out", "fit.xls"], "`--out` must end in .csv, .json or .parquet"),
        (["--strike-unit", "-1"], "`strike_unit` must be a finite number > 0"),
    ],
)
def test_flags_that_mean_nothing_are_one_line_and_code_2(
    flags: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        code = main(["calibrate", DAX, *flags])
    except SystemExit as ended:
        code = int(str(ended.code))
    out, err = capsys.readouterr()
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert told in err


def test_a_raw_chain_calibrates_as_its_panel_does(raw: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    panel = tmp_path / "panel.csv"
    assert main(["panel", raw, "--out", str(panel)]) == 0
    assert "parity" in capsys.readouterr().err
    direct, by_panel = answer_of(capsys, raw), answer_of(capsys, str(panel))
    assert direct["parameters"] == pytest.approx(by_panel["parameters"], rel=1e-12)
    assert direct["fit"]["n_quotes"] == by_panel["fit"]["n_quotes"]


def test_workbooks_and_parquet_and_standard_input_calibrate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "chain.xlsx").write_bytes(workbook())
    (tmp_path / "chain.parquet").write_bytes(parquet())
    answers = [answer_of(capsys, str(tmp_path / name)) for name in ("chain.xlsx", "chain.parquet")]

    class Input:
        buffer = io.BytesIO(delimited(table()).encode())

    monkeypatch.setattr("sys.stdin", Input())
    answers.append(answer_of(capsys, "-"))
    assert answers[0]["parameters"] == answers[1]["parameters"] == answers[2]["parameters"]


@pytest.mark.parametrize("suffix", ["csv", "json", "parquet"])
def test_results_are_written_a_row_a_panel(suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    head, *rows = Path(DAX).read_text().splitlines()
    two = tmp_path / "two.csv"
    two.write_text("\n".join([head, *rows, *(row.replace("2002-07-05", "2002-07-08") for row in rows)]))
    out = tmp_path / f"fits.{suffix}"
    assert main(["calibrate", str(two), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert "DAX 2002-07-08" in shown
    if suffix == "json":
        answers = [json.loads(line) for line in out.read_text().splitlines()]
        assert [answer["id"] for answer in answers] == ["DAX 2002-07-05", "DAX 2002-07-08"]
        return
    if suffix == "csv":
        with out.open() as file:
            written: list[dict[str, Any]] = list(csv.DictReader(file))
    else:
        written = pytest.importorskip("pyarrow.parquet").read_table(out).to_pylist()
    assert [row["panel"] for row in written] == ["DAX 2002-07-05", "DAX 2002-07-08"]
    assert float(written[0]["kappa"]) == pytest.approx(15.266, abs=0.1)
    assert float(written[0]["kappa_error"]) == pytest.approx(1.4, abs=0.1)
    assert str(written[0]["out_of_domain"]) == "False"


def test_smiles_are_drawn(tmp_path: Path, raw: str, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "fit.png"
    assert main(["calibrate", raw, "--plot", str(picture)]) == 0
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main(["calibrate", DAX, raw, "--plot", str(picture)]) == 0
    assert {path.name for path in tmp_path.glob("fit*.png")} == {"fit.png", "fit-1.png", "fit-2.png"}
    capsys.readouterr()


def test_what_no_network_knows_is_said_in_the_table(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    far = chain((chain()[0].expiration,))
    file = tmp_path / "short.csv"
    calm = rows_as(far, **{**PLAIN, "expiration": "2026-03-04"})
    file.write_text(delimited(calm))
    main(["calibrate", str(file)])
    assert "\n  out_of_domain: " in capsys.readouterr().out


def test_progress_is_shown_to_who_watches_and_to_nobody_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    head, *rows = Path(DAX).read_text().splitlines()
    many = tmp_path / "many.csv"
    many.write_text("\n".join([head, *(row.replace("-05", f"-{day:02d}") for day in range(1, 9) for row in rows)]))
    assert main(["calibrate", str(many)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert main(["calibrate", str(many)]) == 0
    again, err = capsys.readouterr()
    assert "8/8 panels" in err
    assert again == out


@needs_shared
@pytest.mark.parametrize(
    ("file", "flags"),
    [
        ("03_bbg_delta_grid.csv", ("--pair", "--convention")),
        ("14_spot.csv", ("--rate",)),
        ("30_days_short.csv", ("--expiry-unit",)),
        ("34_swapped.csv", ("--columns",)),
    ],
)
def test_what_a_file_leaves_open_is_asked_in_one_line_with_the_flag_that_answers(
    file: str, flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("calibrate", "panel"):
        assert main([command, str(FILES / file)]) == 2
        out, err = capsys.readouterr()
        assert (out, err.count("\n")) == ("", 1)
        for flag in flags:
            assert flag in err


@needs_shared
@pytest.mark.parametrize(
    ("file", "flags"),
    [
        ("03_bbg_delta_grid.csv", ["--convention", "premium_adjusted=false,delta=forward"]),
        ("14_spot.csv", ["--rate", "0.04", "--dividend-yield", "0.013"]),
        ("30_days_short.csv", ["--expiry-unit", "days"]),
        ("34_swapped.csv", ["--columns", "strike=forward,forward=strike"]),
    ],
)
def test_the_flag_answers(file: str, flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert answer_of(capsys, str(FILES / file), *flags)["status"] == "converged"


def test_a_bad_panel_of_a_file_of_chains_fails_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = [*table(ticker="GOOD"), *[{**row, "ask": 0.0} for row in table(ticker="BAD")]]
    file = tmp_path / "two.csv"
    file.write_text(delimited(rows))
    assert main(["calibrate", str(file), "--json", "--exercise", "european"]) == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["id"] == f"GOOD {AS_OF}"
    assert "BAD" in err
    assert "no ask" in err


# panel --------------------------------------------------------------------------------------------------------------


def test_a_panel_is_written_with_how_it_was_made_beside_it(raw: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["panel", raw]) == 0
    out, err = capsys.readouterr()
    rows = list(csv.DictReader(io.StringIO(out)))
    known = truth(chain())
    assert len(rows) == len(known)
    for row in rows:
        assert float(row["mid_iv"]) == pytest.approx(known[float(row["expiry_years"]), float(row["strike"])], abs=6e-4)
    assert err.count("parity") == 3
    assert "Left out: 63 in the money" in err
    assert main(["panel", raw, "--quiet"]) == 0
    assert capsys.readouterr() == (out, "")
    assert main(["panel", raw, "--json"]) == 0
    assert set(json.loads(capsys.readouterr().out)) >= {"quotes", "expiries", "excluded", "warnings", "as_of"}


def test_the_correction_for_early_exercise_is_shown(raw: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("QuantLib")
    assert main(["panel", raw, "--exercise", "american", "--spot", "500", "--rate", "0.04"]) == 0
    assert capsys.readouterr().err.count("early exercise: ") == 3


# price --------------------------------------------------------------------------------------------------------------

HESTON = {"kappa": 2.0, "theta": 0.06, "xi": 0.5, "rho": -0.6, "v0": 0.05}
SAID = ",".join(f"{name}={value}" for name, value in HESTON.items())


def test_prices_are_those_of_the_library(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = ["--expiry", "0.5,1", "--log-moneyness=-0.1,0,0.1"]
    assert main(["price", "--parameters", SAID, *grid, "--json", "--gradient"]) == 0
    answer = json.loads(capsys.readouterr().out)
    expected = price("heston", HESTON, np.repeat([0.5, 1.0], 3), np.tile([-0.1, 0.0, 0.1], 2), gradient=True)
    assert answer["call"] == expected.call.tolist()
    assert answer["implied_vol"] == expected.implied_vol.tolist()
    assert expected.gradient is not None
    assert answer["gradient"]["rho"] == expected.gradient["rho"].tolist()
    strikes = ["--expiry", "0.5", "--strike", "90,100", "--forward", "100"]
    assert main(["price", "--parameters", SAID, *strikes, "--out", str(tmp_path / "prices.csv")]) == 0
    with (tmp_path / "prices.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["strike"]) for row in rows] == [90.0, 100.0]
    assert float(rows[1]["call"]) == price("heston", HESTON, 0.5, 0.0).call
    assert main(["price", "--parameters", SAID, *strikes]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["expiry", "strike", "call", "put", "implied_vol"]


def test_an_answer_is_priced_as_it_came(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit = tmp_path / "fit.json"
    assert main(["calibrate", DAX, "--model", "bates", "--json"]) == 0
    fit.write_text(capsys.readouterr().out)
    assert main(["price", "--parameters", str(fit), "--expiry", "0.5", "--log-moneyness", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["model"] == "bates"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--parameters", "kappa=2", "--expiry", "1", "--log-moneyness", "0"],
        ["--parameters", SAID, "--expiry", "1"],
        ["--parameters", SAID, "--expiry", "1", "--strike", "100"],
        ["--parameters", SAID, "--expiry", "1,2,3", "--strike", "100", "--forward", "1,2"],
        ["--parameters", SAID, "--expiry", "-1", "--log-moneyness", "0"],
        ["--parameters", "nowhere.json", "--expiry", "1", "--log-moneyness", "0"],
        ["--parameters", DAX, "--expiry", "1", "--log-moneyness", "0"],
        ["--parameters", "kappa=a", "--expiry", "1", "--log-moneyness", "0"],
    ],
)
def test_what_cannot_be_priced_is_one_line_and_code_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["price", *arguments]) == 2
    out, err = capsys.readouterr()
    assert (out, err.count("\n")) == ("", 1)


# As users run it ----------------------------------------------------------------------------------------------------


def run(*arguments: str, **more: Any) -> "subprocess.CompletedProcess[str]":
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **more.pop("environment", {})}
    command = [sys.executable, "-m", "calibrant", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, **more)


def test_it_tells_its_version() -> None:
    assert run("--version").stdout == f"calibrant {calibrant.__version__}\n"


def test_a_pipe_that_is_closed_is_no_traceback() -> None:
    head, *rows = Path(DAX).read_text().splitlines()
    text = "\n".join([head, *(row.replace("-05", f"-{day:02d}") for day in range(1, 4) for row in rows)])
    command = f"{sys.executable} -m calibrant calibrate - --json | head -c 1; echo ${{PIPESTATUS[0]}}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(
        ["bash", "-c", command], input=text, env=environment, capture_output=True, text=True, timeout=120
    )
    assert (done.stdout, done.stderr) == ("{141\n", "")


def test_where_no_kernel_can_be_kept_the_variable_is_named_in_one_line() -> None:
    # What numba falls back to where neither the package's folder nor a home can be written: no place at all.
    done = run("calibrate", DAX, environment={"NUMBA_CACHE_LOCATOR_CLASSES": "ZipCacheLocator"})
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "NUMBA_CACHE_DIR" in done.stderr


def test_reading_plain_text_loads_no_heavy_package() -> None:
    code = (
        "import sys; from calibrant.intake import read_quotes; read_quotes(sys.argv[1]);"
        "print([name for name in ('pandas', 'openpyxl', 'pyarrow', 'QuantLib', 'matplotlib') if name in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code, DAX], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
