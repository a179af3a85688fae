"""`calibrant leverage` and `calibrant one-touch`: the market's own files, what they ask for, what they keep."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import parquet

from calibrant.__main__ import main
from calibrant.slv.leverage_file import read_leverage
from calibrant.slv.requests import leverage_work
from calibrant.slv.requests_by_name import leverage_named
from calibrant.steps import finish
from tests.service.test_simulations import CLOSED_FORM, SMALL, UP
from tests.shared import SHARED, needs_shared

MARKET = SHARED / "market"
EURUSD = str(MARKET / "eurusd_frhfx_20170929.csv")
RATES = ["--domestic-rate", "0.013", "--foreign-rate=-0.003"]
FEW = ["--particles", "500", "--paths", "512"]


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    try:
        code = main(arguments)
    except SystemExit as ended:
        code = int(str(ended.code))
    return code, *capsys.readouterr()


@pytest.fixture
def request_file(tmp_path: Path) -> str:
    path = tmp_path / "request.json"
    path.write_text(json.dumps({"surface": CLOSED_FORM, **SMALL}))
    return str(path)


def test_a_request_is_calibrated_kept_and_priced_under(
    request_file: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    kept = tmp_path / "leverage.parquet"
    code, out, err = run(capsys, "leverage", request_file, "--json", "--out", str(kept), "--seed", "3")
    assert (code, err) == (0, "")
    answer: dict[str, Any] = json.loads(out)
    assert answer["settings"]["seed"] == 3
    # Anybody's reader finds the numbers that were answered.
    table = parquet.read_table(kept)
    assert table.column_names == ["expiry", "spot", "leverage"]
    assert np.array_equal(table["leverage"].to_numpy(), np.ravel(answer["leverage"]["value"]))
    found = read_leverage(kept).calibrated
    assert np.array_equal(found.leverage.value, answer["leverage"]["value"])
    assert np.allclose(np.exp(found.leverage.log_spot), answer["leverage"]["spot"], rtol=1e-12)
    barrier = ["--level", "1.13", "--direction", "up", "--expiry", "0.1", "--paths", "512", "--seed", "3"]
    code, out, _ = run(capsys, "one-touch", "--leverage", str(kept), *barrier, "--greeks", "--json")
    assert code == 0
    under = json.loads(out)
    assert under["prices"][0]["delta"] > 0.0
    # The same as from the beginning.
    whole = {"surface": CLOSED_FORM, **SMALL, "barriers": [UP]}
    Path(request_file).write_text(json.dumps(whole))
    code, out, _ = run(capsys, "one-touch", request_file, "--seed", "3", "--json")
    assert json.loads(out)["prices"][0]["price"] == pytest.approx(under["prices"][0]["price"], rel=1e-9)
    code, out, _ = run(capsys, "one-touch", request_file)
    assert (code, out.count("\n")) == (0, 2)


@needs_shared
def test_what_a_file_does_not_say_is_asked_for_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    code, out, err = run(capsys, "leverage", EURUSD)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert all(flag in err for flag in ("--spot", "--domestic-rate", "--foreign-rate"))
    code, _, err = run(capsys, "leverage", EURUSD, "--spot", "1.18", "--foreign-rate", "0.0")
    assert (code, "--spot" in err, "--domestic-rate" in err, "--foreign-rate" in err) == (2, False, True, False)


@needs_shared
@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("eurusd_frhfx_20170929", ["--spot", "1.18", *RATES]),
        ("eurgbp_frhfx_20170929", ["--spot", "0.88", *RATES]),
        ("eurusd_ore_20191230", ["--maturity", "1", *RATES]),
        # Its rates stand in the file.
        ("usdrub_20220224_invasion", []),
    ],
)
def test_the_markets_files_go_from_delta_quotes_to_a_leverage(
    name: str, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, "leverage", str(MARKET / f"{name}.csv"), *flags, *FEW, "--json")
    assert code == 0, err
    answer = json.loads(out)
    assert answer["surface"]["kind"] == "fx_pillars"
    assert answer["surface"]["conventions"]["atm"] == "delta_neutral"
    assert answer["surface"]["max_abs_bp"] < 10.0
    assert np.all(np.array(answer["leverage"]["value"]) > 0.0)
    assert answer["n_clipped"] < 0.05 * np.size(answer["leverage"]["value"])


@needs_shared
def test_usdjpy_tells_its_calendar_arbitrage_and_where_it_ends(capsys: pytest.CaptureFixture[str]) -> None:
    file, rates = str(MARKET / "usdjpy_ore_20191230.csv"), ["--domestic-rate=-0.001", "--foreign-rate", "0.017"]
    code, _, err = run(capsys, "leverage", file, *rates)
    assert (code, err.count("\n")) == (2, 1)
    assert "calendar arbitrage" in err
    assert "Up to 9 years" in err
    code, _, err = run(capsys, "leverage", file, *rates, "--maturity", "5", *FEW, "--step-days", "30")
    assert (code, "calendar_arbitrage" in err) == (0, True)


def test_a_leverage_that_misses_the_vanillas_says_so() -> None:
    calibrated = finish(leverage_work(leverage_named({"surface": CLOSED_FORM, **SMALL, "n_paths": 8192}).request))
    repriced = calibrated.repriced
    assert repriced is not None
    assert repriced.se_bp.max() < 10.0
    met = repriced._replace(model_iv=repriced.target_iv + 0.0020)
    assert calibrated._replace(repriced=met).cautions == ()
    missed = repriced._replace(
        model_iv=repriced.target_iv + np.where(np.arange(repriced.expiry.size) == 2, 0.0060, 0.0)
    )
    (caution,) = calibrated._replace(repriced=missed).cautions
    assert caution.code == "poor_repricing"
    assert f"1 of {repriced.expiry.size}, by 60 bp" in caution.detail


def test_rates_may_be_curves(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    quotes, curve = tmp_path / "quotes.csv", tmp_path / "curve.csv"
    quotes.write_text("underlying,as_of,expiry_years,atm,rr25,bf25\nEURUSD,2025-01-02,0.1,0.07,-0.005,0.002\n")
    curve.write_text("expiry,zero\n0.05,0.01\n0.1,0.03\n")
    barrier = ["--model", "bs", "--level", "1.2", "--direction", "up", "--expiry", "0.1", "--json"]

    def tv(rate: str) -> float:
        flags = ["--spot", "1.1", "--domestic-rate", rate, "--foreign-rate", "0.01"]
        code, out, err = run(capsys, "one-touch", str(quotes), *flags, *barrier)
        assert code == 0, err
        return float(json.loads(out)["prices"][0]["tv"])

    assert tv(str(curve)) == pytest.approx(tv("0.03"), rel=1e-9)
    assert tv(str(curve)) != tv("0.01")
    code, _, err = run(capsys, "leverage", str(quotes), "--domestic-rate", "none")
    assert (code, "number or a CSV file" in err) == (2, True)


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["leverage"], "FILE"),
        (["leverage", "{request}", "--mixing", "1.5"], "`mixing` must lie within [0, 1]"),
        (["leverage", "{request}", "--out", "x.csv"], "`--out` must end in .parquet"),
        (["leverage", "{request}", "--estimator", "spline"], "invalid choice"),
        (["one-touch", "{request}"], "`barriers` is required"),
        (["one-touch", "{request}", "--level", "1.0", "--direction", "up", "--expiry", "0.1"], "already hit"),
        (["one-touch", "--leverage", "{request}"], "must be a leverage"),
        (["one-touch", "{request}", "--leverage", "{request}"], "must be left out"),
        (["leverage", "absent.csv"], "absent.csv"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_code_2(
    flags: list[str], told: str, request_file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, *(flag.format(request=request_file) for flag in flags))
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert told in err
