"""The backlog: which rows make a panel, what starts it, and what is refused before anything is done."""

import fcntl
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
from pyarrow import compute, parquet

import calibrant
from calibrant.__main__ import main
from calibrant.backfill.parts import METADATA, schema_of
from calibrant.models import HESTON
from calibrant.options import CalibrationOptions
from calibrant.panel import OptionPanel
from calibrant.pipeline import assess
from calibrant.release import release_in_reach
from tests.shared import ROOT

from .quotes import EXPIRY, LOG_MONEYNESS, contents, quotes_of, rows_in, surfaces, written

Table = Any
BAD = (("B", 2),)


def backfilled(quotes: Path, out: Path, *arguments: str) -> list[dict[str, Any]]:
    assert main(["backfill", str(quotes), "--out", str(out), *arguments]) == 0
    return rows_in(out)


@pytest.fixture(scope="module")
def table() -> Table:
    """Two underlyings over the end of a month, one panel bad."""
    return quotes_of(["A", "B"], 16, BAD)


@pytest.fixture(scope="module")
def plain(table: Table, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The parts of that table."""
    folder = tmp_path_factory.mktemp("plain")
    backfilled(written(table, folder / "quotes.parquet"), folder / "out")
    return folder / "out"


def _as_text(table: Table) -> Table:
    dates = compute.strftime(table["as_of"], format="%Y-%m-%dT%H:%M:%SZ")
    return table.set_column(1, "as_of", dates)


def _in_dictionaries(table: Table) -> Table:
    for i in (0, 1):
        table = table.set_column(i, table.column_names[i], table.column(i).dictionary_encode())
    return table


OTHERWISE: dict[str, Callable[[Table], Table]] = {
    "days": lambda table: table.set_column(1, "as_of", table["as_of"].cast(pyarrow.date32())),
    "text": _as_text,
    "dictionaries": _in_dictionaries,
    "time zone": lambda table: table.set_column(1, "as_of", table["as_of"].cast(pyarrow.timestamp("ns", "UTC"))),
    "names of the CSV": lambda table: table.rename_columns(
        ["underlying", "as_of", "expiry_years", "strike", "forward", "mid_iv"]
    ),
    "single precision beside": lambda table: table.append_column("volume", table["iv"].cast(pyarrow.float32())),
    "shuffled": lambda table: table.take(np.random.default_rng(1).permutation(table.num_rows)),
}


@pytest.mark.parametrize("how", OTHERWISE)
def test_the_same_quotes_said_otherwise_have_the_same_answers(
    how: str, table: Table, plain: Path, tmp_path: Path
) -> None:
    rows = backfilled(written(OTHERWISE[how](table), tmp_path / "quotes.parquet"), tmp_path / "out")
    for row, known in zip(rows, rows_in(plain), strict=True):
        assert str(row.pop("as_of"))[:10] == str(known.pop("as_of"))[:10]
        assert row == known


def test_files_of_a_folder_are_one_table(table: Table, plain: Path, tmp_path: Path) -> None:
    folder = tmp_path / "quotes"
    (folder / "later").mkdir(parents=True)
    # In the middle of a panel.
    written(table.slice(0, 215), folder / "0.parquet", 40)
    written(table.slice(215), folder / "later" / "1.parquet", 1000)
    rows = backfilled(folder, tmp_path / "out")
    assert rows == rows_in(plain)


def test_a_key_tells_panels_of_one_moment_apart(tmp_path: Path) -> None:
    one = quotes_of(["A"], 2)
    both = pyarrow.concat_tables(
        [one.append_column("panel", pyarrow.array([key] * one.num_rows)) for key in ("pm", "am")]
    )
    rows = backfilled(written(both, tmp_path / "quotes.parquet"), tmp_path / "out")
    assert [row["panel"] for row in rows] == ["am", "pm", "am", "pm"]


def test_a_panel_starts_from_the_one_before_within_its_block(tmp_path: Path) -> None:
    # With a parameter held a network's start is no longer the answer's neighbour.
    quotes = written(quotes_of(["A"], 16), tmp_path / "quotes.parquet")
    rows = backfilled(quotes, tmp_path / "out", "--fixed", "kappa=2.5")
    release, options = release_in_reach(HESTON), CalibrationOptions(fixed={"kappa": 2.5})
    last = None
    for day, (row, vols) in enumerate(zip(rows, surfaces(16, 0), strict=True)):
        panel = OptionPanel.from_quotes(expiry=EXPIRY, log_moneyness=LOG_MONEYNESS, iv=vols)
        # 20 January and eleven days more are one month.
        last = None if day == 12 else last
        fit = assess(panel, HESTON, release, options, last).calibration
        last = fit.parameters
        assert row["start"] == fit.start
        assert [row[name] for name in HESTON.parameters] == pytest.approx(fit.parameters, rel=1e-6)
    assert {row["start"] for row in rows} == {"network", "given"}
    cold = backfilled(quotes, tmp_path / "cold", "--fixed", "kappa=2.5", "--cold")
    assert {row["start"] for row in cold} == {"network"}
    for row, known in zip(cold, rows, strict=True):
        assert row["rmse_bp"] == pytest.approx(known["rmse_bp"], rel=1e-6, abs=1e-6)


def test_a_part_says_what_it_was_made_with(plain: Path) -> None:
    (part, *_) = sorted(plain.glob("*.parquet"))
    schema = parquet.read_schema(part)
    assert schema.remove_metadata() == schema_of(HESTON, pyarrow.schema([("as_of", pyarrow.timestamp("us"))]))
    said = json.loads(schema.metadata[METADATA])
    release = release_in_reach(HESTON)
    assert release is not None
    assert said["model_version"] == release.version
    assert said["calibrant"] == calibrant.__version__
    assert said["unit"] == {"underlying": "A", "dates": "2024-01", "n_quotes": 12 * EXPIRY.size}
    assert {**json.loads((plain / "_backfill.json").read_text()), "unit": said["unit"]} == said


def test_the_page_names_every_column_in_its_order() -> None:
    page = (ROOT / "docs" / "backfill.md").read_text().split("## Parameters")[1].split("Under the key")[0]
    named = [name for row in re.findall(r"^\| (`.*?) \|", page, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)]
    columns = schema_of(HESTON, pyarrow.schema([("as_of", pyarrow.date32()), ("panel", pyarrow.int64())])).names
    others = {"theta", "xi", "rho", "v0"}
    assert named == [name for name in columns if name.removesuffix("_error") not in others]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--model", "bates"], "model was heston, now bates"),
        (["--refine", "lbfgs"], "refine was lm, now lbfgs"),
        (["--fixed", "kappa=2"], "fixed was None, now {'kappa': 2.0}"),
        (["--prior", "kappa=2:1"], "prior was None"),
        (["--bounds", "kappa=1:2"], "bounds was None"),
        (["--block", "day"], "block was month, now day"),
        (["--cold"], "warm was True, now False"),
        (["--network", str(ROOT / "networks" / "heston" / "1")], "now heston-1@sha256:"),
    ],
)
def test_other_settings_are_refused_in_a_folder_that_has_parts(
    arguments: list[str], told: str, table: Table, plain: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(plain)
    assert main(["backfill", str(plain.parent / "quotes.parquet"), "--out", str(plain), *arguments]) == 2
    assert told in capsys.readouterr().err
    assert contents(plain) == before


def test_other_quotes_are_refused_in_a_folder_that_has_parts(
    table: Table, plain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    changed = table.set_column(5, "iv", compute.multiply(table["iv"], 1.01))
    assert main(["backfill", str(written(changed, tmp_path / "quotes.parquet")), "--out", str(plain)]) == 2
    assert "quotes was" in capsys.readouterr().err


def test_a_folder_is_one_runs_at_a_time(plain: Path, capsys: pytest.CaptureFixture[str]) -> None:
    handle = os.open(plain, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        assert main(["backfill", str(plain.parent / "quotes.parquet"), "--out", str(plain)]) == 2
    finally:
        os.close(handle)
    assert "where another run is at work" in capsys.readouterr().err


FAULTS: dict[str, tuple[Callable[[Table], Table], str]] = {
    "no date": (lambda table: table.drop_columns(["as_of"]), "`as_of` is required, but the columns are underlying, "),
    "no vols": (lambda table: table.drop_columns(["iv"]), "`iv` is required"),
    "no strike": (lambda table: table.drop_columns(["strike"]), "`strike` is required"),
    "vols as text": (
        lambda table: table.set_column(5, "iv", table["iv"].cast(pyarrow.string())),
        "`iv` must hold numbers, but is of the type string",
    ),
    "dates as numbers": (
        lambda table: table.set_column(1, "as_of", table["as_of"].cast(pyarrow.int64())),
        "`as_of` must hold dates, timestamps or strings that say them, but is of the type int64",
    ),
    "no dates as text": (
        lambda table: table.set_column(1, "as_of", pyarrow.array(["yesterday"] * table.num_rows)),
        "`as_of` must hold dates such as 2025-11-28",
    ),
    "an underlying missing": (
        lambda table: table.set_column(0, "underlying", pyarrow.array([None, *table["underlying"].to_pylist()[1:]])),
        "`underlying` must say something in every row, but in 1 it says nothing",
    ),
    "vols twice": (lambda table: table.append_column("mid_iv", table["iv"]), "`iv` must be one column"),
    "nothing": (lambda table: table.slice(0, 0), "must hold at least one quote"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_table_without_panels_is_refused_by_column(
    fault: str, table: Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    change, told = FAULTS[fault]
    quotes = written(change(table), tmp_path / "quotes.parquet")
    assert main(["backfill", str(quotes), "--out", str(tmp_path / "out")]) == 2
    (line,) = (line for line in capsys.readouterr().err.splitlines() if "planning" not in line)
    assert told in line
    assert not (tmp_path / "out").exists() or not contents(tmp_path / "out")


def test_what_is_no_parquet_or_no_folder_is_refused(
    table: Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "quotes.csv"
    text.write_text("underlying,as_of\n")
    assert main(["backfill", str(text), "--out", str(tmp_path / "out")]) == 2
    assert "is no Parquet file" in capsys.readouterr().err
    quotes = written(table, tmp_path / "quotes.parquet")
    assert main(["backfill", str(quotes), "--out", str(text)]) == 2
    assert "must be a folder" in capsys.readouterr().err
    assert main(["backfill", str(quotes), "--out", str(tmp_path)]) == 2
    assert "holds other Parquet files" in capsys.readouterr().err
    assert main(["backfill", str(tmp_path / "absent.parquet"), "--out", str(tmp_path / "out")]) == 2
    assert "absent.parquet" in capsys.readouterr().err
    assert main(["backfill", str(quotes), "--out", str(tmp_path / "out"), "--ray", "local", "--workers", "0"]) == 2
    assert "`--workers` must be at least 1" in capsys.readouterr().err


def test_a_model_without_a_network_starts_from_the_one_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CALIBRANT_NETWORKS", str(tmp_path / "none"))
    (tmp_path / "none").mkdir()
    rows = backfilled(written(quotes_of(["A"], 3), tmp_path / "q.parquet"), tmp_path / "out", "--model", "bates")
    assert [row["start"] for row in rows] == ["fallback", "given", "given"]
    assert all(row["rmse_bp"] < 0.1 and row["model_version"] is None for row in rows)


def test_a_set_aside_panel_is_counted_by_kind_and_told(
    table: Table, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backfilled(written(table, tmp_path / "quotes.parquet"), tmp_path / "out")
    *_, summary, reason = capsys.readouterr().err.splitlines()
    assert summary.startswith("calibrant: 32 panels in ")
    assert summary.endswith("1 of them set aside")
    assert "1: `iv` must hold at least one usable quote, but all # are left out" in reason
