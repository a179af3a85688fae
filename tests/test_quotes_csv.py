import csv
from pathlib import Path

import numpy as np
import pytest

from calibrant.errors import InvalidInput
from calibrant.quotes_csv import read_csv
from tests.shared import SHARED, market_files, needs_shared

HEADER = "underlying,as_of,expiry_years,forward,strike,bid_iv,ask_iv,mid_iv,notes\n"


def _file(folder: Path, text: str) -> Path:
    path = folder / "quotes.csv"
    path.write_text(text)
    return path


def test_panels_are_told_apart_by_underlying_and_date(tmp_path: Path) -> None:
    rows = [
        "DAX,2002-07-05,0.1,100,90,,,0.25,x",
        "SPX,2002-07-05,0.1,100,90,,,0.35,x",
        "DAX,2002-07-08,0.2,100,90,,,0.45,x",
        "DAX,2002-07-05,0.1,100,110,,,0.22,x",
    ]
    panels = read_csv(_file(tmp_path, HEADER + "\n".join(rows) + "\n"))
    assert [label for label, _ in panels] == ["DAX 2002-07-05", "SPX 2002-07-05", "DAX 2002-07-08"]
    assert [panel.n_quotes for _, panel in panels] == [2, 1, 1]
    np.testing.assert_array_equal(panels[0][1].mid, [0.25, 0.22])


def test_a_file_without_names_is_one_panel_called_like_the_file(tmp_path: Path) -> None:
    ((label, panel),) = read_csv(_file(tmp_path, "strike,forward,expiry_years,bid_iv,ask_iv\n90,100,0.5,0.2,0.22\n"))
    assert label == "quotes"
    np.testing.assert_allclose(panel.mid, [0.21], rtol=1e-15)
    np.testing.assert_allclose(panel.weight, [2500.0], rtol=1e-10)


def test_empty_cells_are_missing_quotes_that_keep_their_row_numbers(tmp_path: Path) -> None:
    rows = [
        "A,d,0.1,100,,,,0.25,no strike",
        "A,d,0.1,100,90,,,,no vol",
        "A,d,0.1,100,90,0.2,,,one side",
        "A,d,0.1,100,110,,,0.2,sound",
        "A,d,0.1,100,100,,,nan,no vol",
        "A,d,,100,100,,,0.2,no expiry",
        "A,d,0.1,100,90,,,0.3,sound",
    ]
    ((_, panel),) = read_csv(_file(tmp_path, HEADER + "\n".join(rows) + "\n"))
    np.testing.assert_array_equal(panel.mid, [0.3, 0.2])
    np.testing.assert_array_equal(panel.index, [6, 3])
    assert [e.index for e in panel.excluded] == [0, 1, 2, 4, 5]
    assert panel.excluded[0].reason == "missing quote: no expiry, strike or forward"


def test_a_byte_order_mark_and_quoted_cells_are_read(tmp_path: Path) -> None:
    path = tmp_path / "quotes.csv"
    path.write_bytes(b'\xef\xbb\xbfexpiry_years,strike,forward,mid_iv,notes\r\n0.5,90,100,0.2,"a, b"\r\n')
    assert read_csv(path)[0][1].n_quotes == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            HEADER + "A,d,180,100,90,,,0.2,\n",
            r"`expiry_unit` must be years or days, since the expiries in `expiry_years` of quotes.csv run from 180",
        ),
        (
            HEADER + "A,d,0.1,100,90,,,2500,\nA,d,0.1,100,90,,,2700,\n",
            r"Panel A d of quotes.csv must hold at least one usable quote.* \(2 vol above 5\)",
        ),
        (HEADER + "A,d,0.1,100,x,,,0.2,\n", r"`strike` in line 2 of quotes.csv must be a number, but is 'x'."),
        (HEADER + "A,d,0.1,100,,,,0.2,\nA,d,0.1,100,-9,,,0.2,\n", r"`strike` in line 3 .* > 0, but is -9.0."),
        (
            HEADER + "A,d,0.1,100,90,0.3,0.2,,\nA,d,-0.1,100,90,,,0.2,\n",
            r"Panel A d of quotes.csv must hold at least one usable quote.* \(1 ask below bid, 1 expired\).",
        ),
        (
            HEADER + "A,d,0.1,100,,,,0.2,\n",
            r"quotes.csv must have columns for strike; it has .*, and without a value `strike`, `bid_iv`",
        ),
        (
            HEADER + "A,d,0.1,100,,,,0.2,\nA,d,0.1,,90,,,0.2,\n",
            r"Panel A d of quotes.csv must hold a quote with expiry, strike and forward",
        ),
        (HEADER, r"quotes.csv must hold at least one quote, but has only a header."),
        ("", r"quotes.csv must have a line that names its columns .*, but is empty."),
        (
            "expiry_years,forward,mid_iv\n0.1,100,0.2\n",
            r"must have columns for strike; it has `expiry_years`, `forward`, `mid_iv`\.",
        ),
        (
            "expiry_years,strike,forward,bid_iv\n",
            r"must have columns for vols or prices \(`mid_iv`, or `bid_iv` and `ask_iv`, or ",
        ),
    ],
)
def test_bad_files_are_refused_with_line_and_column(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read_csv(_file(tmp_path, text))


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "quotes.csv"
    path.write_bytes(b"\x80\xff\x00\x01")
    with pytest.raises(InvalidInput, match=r"quotes.csv must be text .*, an Excel workbook, Parquet or JSON"):
        read_csv(path)


def has_strikes(path: Path) -> bool:
    """Whether a market file says strikes and forwards, and not deltas."""
    rows = path.read_text().splitlines()
    cells = dict(zip(rows[0].split(","), rows[1].split(","), strict=False))
    return bool(cells["strike"] and cells["forward"])


@needs_shared
def test_every_market_panel_with_strikes_and_forwards_is_read_whole() -> None:
    n_panels = 0
    for path in market_files():
        if path.name.startswith("usdrub"):
            # By delta, with spot and both rates.
            assert [panel.n_quotes for _, panel in read_csv(path)] == [5]
            continue
        if not has_strikes(path):
            with pytest.raises(InvalidInput, match="`foreign_rate` must be given"):
                read_csv(path)
            continue
        panels = read_csv(path)
        assert sum(panel.n_quotes for _, panel in panels) == len(path.read_text().splitlines()) - 1, path.name
        n_panels += len(panels)
    # The table of ../shared/market/INDEX.md: 15 files of one date each, and one of 64 dates.
    assert n_panels == 15 + 64


@needs_shared
def test_what_is_wrong_with_a_real_chain_is_left_out_row_by_row() -> None:
    path = SHARED / "market" / "spx_20260731_quantflow_rejected.csv"
    ((_, panel),) = read_csv(path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert panel.n_quotes + len(panel.excluded) == len(rows)
    crossed = [
        i
        for i, row in enumerate(rows)
        if row["bid_iv"] and row["ask_iv"] and float(row["bid_iv"]) > float(row["ask_iv"])
    ]
    assert [e.index for e in panel.excluded if e.reason == "ask below bid"] == crossed
    assert crossed
