"""Files of every kind that people have: each is the chain it was made of, or a question, or a warning."""

import io
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from calibrant.errors import InvalidInput
from calibrant.intake import Built, built_of_bytes, read_quotes, settings_of
from tests.intake.chains import AS_OF, EXPIRATIONS, SPOT, Option, chain, forward_at, rows_as, smile, truth, years

CHAIN = chain()
QUIET = {"columns_ignored"}


def read(content: bytes | str, **settings: Any) -> list[Built]:
    return built_of_bytes(content.encode() if isinstance(content, str) else content, "chain", settings_of(settings))


def one(content: bytes | str, **settings: Any) -> Built:
    (found,) = read(content, **settings)
    return found


def codes(found: Built) -> set[str]:
    return {caution.code for caution in found.panel().cautions} - QUIET


def asked(content: bytes | str, **settings: Any) -> set[str | int]:
    with pytest.raises(InvalidInput) as refused:
        read(content, **settings)
    return {problem.path[0] for problem in refused.value.problems}


def delimited(rows: Sequence[Mapping[str, Any]], separator: str = ",", decimal: str = ".") -> str:
    lines = [separator.join(rows[0])]
    for row in rows:
        cells = ["" if c is None else str(c) for c in row.values()]
        if decimal == ",":
            cells = [
                c.replace(".", ",") if isinstance(v, float) else c for c, v in zip(cells, row.values(), strict=True)
            ]
        lines.append(separator.join(f'"{c}"' if separator in c else c for c in cells))
    return "\n".join(lines) + "\n"


def assert_true(
    found: Built, expected: Mapping[tuple[float, float], float] | None = None, within_bp: float = 6.0
) -> None:
    """A quote at every strike and expiry with its vol. Prices to two digits leave a few basis points in the wings."""
    known = expected or truth(CHAIN)
    columns = found.used()
    strike = columns["strike"]
    assert len(columns["expiry"]) == len(known)
    for expiry, k, vol in zip(columns["expiry"].tolist(), strike.tolist(), columns["iv"].tolist(), strict=True):
        near = min(known, key=lambda key: abs(key[0] - expiry) + 1e-3 * abs(key[1] - k))
        assert abs(near[0] - expiry) < 1.5e-4
        assert abs(near[1] - k) < 1e-6
        assert abs(known[near] - vol) < 1e-4 * within_bp, near
    for expiry, forward in zip(columns["expiry"].tolist(), columns["forward"].tolist(), strict=True):
        assert forward == pytest.approx(forward_at(expiry), rel=1e-4)


PLAIN: dict[str, Any] = {
    "quote_date": AS_OF.isoformat(),
    "expiration": lambda o: o.expiration.isoformat(),
    "type": lambda o: o.side,
    "strike": lambda o: o.strike,
    "bid": lambda o: o.bid,
    "ask": lambda o: o.ask,
}


def table(**changed: Any) -> list[dict[str, Any]]:
    """The chain as rows: columns changed, added, or left out (None)."""
    columns = {name: of for name, of in {**PLAIN, **changed}.items() if of is not None}
    return rows_as(CHAIN, **columns)


def occ(option: Option, root: str = "SPXW") -> str:
    return f"{root}{option.expiration:%y%m%d}{option.side}{round(1000 * option.strike):08d}"


def german() -> str:
    rows = rows_as(
        CHAIN,
        Datum=f"{AS_OF:%d.%m.%Y}",
        Fälligkeit=lambda o: f"{o.expiration:%d.%m.%Y}",
        Typ=lambda o: "Call" if o.side == "C" else "Put",
        Basispreis=lambda o: o.strike,
        Geld=lambda o: o.bid,
        Brief=lambda o: o.ask,
    )
    return "sep=;\n" + delimited(rows, ";", ",")


def wide(heads: Sequence[str], above: str = "", put_first: bool = False) -> str:
    """Calls and puts of a strike in one row."""
    lines = [above] if above else []
    lines.append(",".join(heads))
    for expiration in EXPIRATIONS:
        for strike in sorted({o.strike for o in CHAIN}):
            pair = [
                next(o for o in CHAIN if (o.expiration, o.strike, o.side) == (expiration, strike, side))
                for side in "CP"
            ]
            first, second = pair[::-1] if put_first else pair
            lines.append(f"{expiration:%a %b %d %Y},{first.bid},{first.ask},{strike},{second.bid},{second.ask}")
    return "\n".join(lines)


def cboe() -> str:
    lines = [
        "S&P 500 INDEX,Last: 500.00",
        f'"Date: {AS_OF:%B} {AS_OF.day}, {AS_OF.year} at 4:00 PM EST",Bid: 499.9,Ask: 500.1',
        "",
    ]
    lines.append("Expiration Date,Calls,Last Sale,Net,Bid,Ask,Volume,IV,Strike,Puts,Last Sale,Net,Bid,Ask,Volume,IV")
    for expiration in EXPIRATIONS:
        for strike in sorted({o.strike for o in CHAIN}):
            c, p = (
                next(o for o in CHAIN if (o.expiration, o.strike, o.side) == (expiration, strike, side))
                for side in "CP"
            )
            cells: list[Any] = [f"{expiration:%a %b %d %Y}"]
            cells += [occ(c), c.bid, 0.0, c.bid, c.ask, 10, 0.2, strike, occ(p), p.bid, 0.0, p.bid, p.ask, 10, 0.2]
            lines.append(",".join(map(str, cells)))
    return "\n".join(lines)


def barchart() -> str:
    rows = table(
        **dict.fromkeys(PLAIN),
        Type=lambda o: "Call" if o.side == "C" else "Put",
        Strike=lambda o: f"{o.strike:,.2f}",
        Bid=lambda o: o.bid,
        Mid=lambda o: round(0.5 * (o.bid + o.ask), 3),
        Ask=lambda o: o.ask,
        Latest=lambda o: o.bid,
        Volume="1,234",
        **{"Open Int": "N/A", "IV": "22.10%", "Exp Date": lambda o: o.expiration.isoformat(), "%Change": "unch"},
    )
    return delimited(rows) + '"Downloaded from Barchart.com as of 03-02-2026 04:00pm CST"\n'


def optionsdx() -> str:
    lines = [
        "[QUOTE_READTIME], [QUOTE_DATE], [UNDERLYING_LAST], [EXPIRE_DATE], [EXPIRE_UNIX], [DTE], [C_BID], [C_ASK], "
        "[STRIKE], [P_BID], [P_ASK]"
    ]
    for expiration in EXPIRATIONS:
        for strike in sorted({o.strike for o in CHAIN}):
            c, p = (
                next(o for o in CHAIN if (o.expiration, o.strike, o.side) == (expiration, strike, side))
                for side in "CP"
            )
            unix = int(datetime.combine(expiration, time(20), UTC).timestamp())
            cells = [
                f"{AS_OF} 16:00",
                AS_OF,
                SPOT,
                expiration,
                unix,
                (expiration - AS_OF).days,
                c.bid,
                c.ask,
                strike,
                p.bid,
                p.ask,
            ]
            lines.append(", ".join(map(str, cells)))
    return "\n".join(lines)


def workbook() -> bytes:
    openpyxl = pytest.importorskip("openpyxl")
    book = openpyxl.Workbook()
    sheet = book.active
    sheet.append(["Options on an index"])
    sheet.append([None, "as at", datetime.combine(AS_OF, time())])
    sheet.append([])
    sheet.append(["Quote Date", "Expiry", "C/P", "Strike Price", "Best Bid", "Best Offer"])
    for o in CHAIN:
        sheet.append(
            [datetime.combine(AS_OF, time()), datetime.combine(o.expiration, time()), o.side, o.strike, o.bid, o.ask]
        )
    book.create_sheet("notes").append(["nothing here"])
    content = io.BytesIO()
    book.save(content)
    return content.getvalue()


def parquet() -> bytes:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as files

    rows = rows_as(
        CHAIN,
        quote_datetime=datetime.combine(AS_OF, time()),
        expiration=lambda o: datetime.combine(o.expiration, time()),
        right=lambda o: o.side,
        strike=lambda o: o.strike,
        bid=lambda o: o.bid,
        ask=lambda o: o.ask,
    )
    content = io.BytesIO()
    files.write_table(pyarrow.Table.from_pylist(rows), content)
    return content.getvalue()


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


KINDS: dict[str, Callable[[], bytes | str]] = {
    "plain": lambda: delimited(table()),
    "tabs": lambda: delimited(table(), "\t"),
    "bars": lambda: delimited(table(), "|"),
    "spaces": lambda: delimited(table(), " "),
    "German, with decimal commas, in the encoding of spreadsheets": lambda: german().encode("cp1252"),
    "German, in UTF-16": lambda: german().encode("utf-16"),
    "dates of the United States": lambda: delimited(
        table(quote_date=f"{AS_OF:%m/%d/%Y}", expiration=lambda o: f"{o.expiration:%m/%d/%Y}"),
    ).replace("quote_date", "QuoteDate"),
    "dates of Britain": lambda: delimited(table(expiration=lambda o: f"{o.expiration:%d/%m/%Y}")),
    "dates in words": lambda: delimited(table(expiration=lambda o: f"{o.expiration:%d-%b-%Y}")),
    "dates without dashes": lambda: delimited(
        table(quote_date=f"{AS_OF:%Y%m%d}", expiration=lambda o: f"{o.expiration:%Y%m%d}")
    ),
    "serial dates of spreadsheets": lambda: delimited(
        table(expiration=lambda o: (o.expiration - datetime(1899, 12, 30).date()).days)
    ),
    "milliseconds": lambda: delimited(
        table(expiration=lambda o: int(1000 * datetime.combine(o.expiration, time(), UTC).timestamp()))
    ),
    "instants with their zone": lambda: delimited(
        table(quote_date=f"{AS_OF}T16:00:00-05:00", expiration=lambda o: f"{o.expiration}T17:00:00-04:00")
    ),
    "thousands and currency": lambda: delimited(table(strike=lambda o: f"${o.strike:,.2f}", open_interest="12,345")),
    "two blocks, named": lambda: wide(["expiry", "Call Bid", "Call Ask", "Strike", "Put Bid", "Put Ask"]),
    "two blocks, as pandas names them": lambda: wide(["expiry", "Bid", "Ask", "Strike", "Bid.1", "Ask.1"]),
    "two blocks, puts first": lambda: wide(["expiry", "Bid", "Ask", "Strike", "Bid", "Ask"], put_first=True),
    "two blocks under headings": lambda: wide(["expiry", "Bid", "Ask", "Strike", "Bid", "Ask"], ",CALLS,,,PUTS,"),
    "Cboe's quote table": cboe,
    "Barchart": barchart,
    "optionsDX": optionsdx,
    "options by their names alone": lambda: delimited(
        rows_as(CHAIN, contractSymbol=occ, bid=lambda o: o.bid, ask=lambda o: o.ask, date=AS_OF.isoformat())
    ),
    "names with blanks": lambda: delimited(
        rows_as(
            CHAIN,
            option=lambda o: f"SPXW  {occ(o)[4:]}",
            bid=lambda o: o.bid,
            ask=lambda o: o.ask,
            date=AS_OF.isoformat(),
        )
    ),
    "a workbook with titles": workbook,
    "Parquet with times": parquet,
    "records": lambda: json.dumps(table()),
    "records, one a line": lambda: "\n".join(map(json.dumps, table())),
    "columns": lambda: json.dumps(columns_of(table())),
    "a body of the service": lambda: json.dumps({"as_of": str(AS_OF), "quotes": columns_of(table(quote_date=None))}),
    "calls and puts as lists": lambda: json.dumps(
        {
            "data": {
                "quote_date": str(AS_OF),
                "calls": [
                    row for row in table(type=None, quote_date=None, side=lambda o: o.side) if row.pop("side") == "C"
                ],
                "puts": [
                    row for row in table(type=None, quote_date=None, side=lambda o: o.side) if row.pop("side") == "P"
                ],
            }
        }
    ),
    "days by their name": lambda: delimited(table(expiration=None, dte=lambda o: (o.expiration - AS_OF).days)),
    "middles alone": lambda: delimited(table(bid=None, ask=None, mid=lambda o: 0.5 * (o.bid + o.ask))),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_is_the_chain_that_it_was_made_of(kind: str) -> None:
    settings = {"as_of": AS_OF.isoformat()} if "block" in kind or kind == "Barchart" else {}
    found = one(KINDS[kind](), **settings)
    assert_true(found)
    assert codes(found) <= {"as_of_inferred", "lines_ignored"}
    assert len(found.index) + len(found.excluded) == len(CHAIN)


def test_no_way_of_writing_changes_what_is_read() -> None:
    rng = np.random.default_rng(7)
    names = {
        "quote_date": ["QUOTE_DATE", "as of", "Trade Date", "[QuoteDate]", "dataDate"],
        "expiration": ["Expiry", "EXPIRATION DATE", "expirationDate", "exdate", "Maturity"],
        "type": ["cp_flag", "Option Type", "Call/Put", "PUT_CALL", "right"],
        "strike": ["Strike Price", "strikePrice", "K", "EXERCISE PRICE", "[STRIKE]"],
        "bid": ["Bid Price", "best_bid", "BidPrice", "Bid (USD)", "px_bid"],
        "ask": ["Offer", "best_offer", "askPrice", "ASK_PX", "Ask"],
    }
    dates = ["%Y-%m-%d", "%d.%m.%Y", "%d-%b-%y", "%Y/%m/%d", "%d %B %Y", "%Y%m%d"]
    sides = [("C", "P"), ("call", "put"), ("CALL", "PUT"), ("Calls", "Puts"), ("CE", "PE")]
    for _ in range(60):
        form, pair = str(rng.choice(dates)), sides[int(rng.integers(len(sides)))]
        separator = str(rng.choice([";", "\t", "|"]))
        columns = {
            "quote_date": AS_OF.strftime(form),
            "expiration": lambda o, form=form: o.expiration.strftime(form),
            "type": lambda o, pair=pair: pair[o.side == "P"],
            "strike": lambda o: o.strike,
            "bid": lambda o: o.bid,
            "ask": lambda o: o.ask,
            "remark": "x",
        }
        order = [list(columns)[i] for i in rng.permutation(len(columns))]
        rows = rows_as([CHAIN[i] for i in rng.permutation(len(CHAIN))], **{name: columns[name] for name in order})
        called = [{str(rng.choice(names[name])) if name in names else name: None for name in order}]
        heads = list(called[0])
        if len(heads) < len(order):
            continue
        text = delimited(
            [dict(zip(heads, row.values(), strict=True)) for row in rows], separator, str(rng.choice([",", "."]))
        )
        assert_true(one(text))


# Questions ----------------------------------------------------------------------------------------------------------


def test_a_date_that_may_be_two_days_is_asked_about_and_answered() -> None:
    early = [o for o in chain((AS_OF + timedelta(days=70),)) if o.strike % 20 == 0]
    assert early[0].expiration.day <= 12
    text = delimited(rows_as(early, **{**PLAIN, "expiration": lambda o: f"{o.expiration:%m/%d/%Y}"}))
    assert asked(text) == {"date_order"}
    assert_true(one(text, date_order="mdy"), truth(early))


def test_strikes_in_cents_are_asked_about_unless_their_name_says_so() -> None:
    text = delimited(table(strike=lambda o: 100.0 * o.strike))
    assert asked(text) == {"strike_unit"}
    assert_true(one(text, strike_unit=0.01))
    assert_true(one(text.replace("strike", "strike (cents)", 1)))
    thousandths = delimited(table(strike=None, strike_price=lambda o: 1000.0 * o.strike))
    assert asked(thousandths) == {"strike_unit"}
    assert_true(one(thousandths, strike_unit=0.001))


def test_strikes_of_quoted_vols_in_cents_are_asked_about() -> None:
    text = delimited(vols_table(strike=lambda o: 100.0 * o.strike))
    assert asked(text) == {"strike_unit"}
    assert one(text, strike_unit=0.01).panel().n_quotes == len(CHAIN) // 2


def test_whole_numbers_that_may_be_days_are_asked_about() -> None:
    text = delimited(table(expiration=lambda o: (o.expiration - AS_OF).days))
    assert asked(text) == {"expiry_unit"}
    assert_true(one(text, expiry_unit="days"))


def test_a_comma_that_may_be_of_thousands_or_of_decimals_is_asked_about() -> None:
    rows = rows_as(
        CHAIN[:60],
        expiry=1,
        type=lambda o: o.side,
        strike=lambda o: f"{int(o.strike / 100)},{int(o.strike) % 100:03d}",
        bid="1",
        ask="2",
    )
    assert asked(delimited(rows, ";")) == {"decimal"}


def test_a_day_is_asked_for_where_nothing_tells_it() -> None:
    text = delimited(table(quote_date=None))
    assert asked(text) == {"as_of"}
    assert_true(one(text, as_of="2 March 2026"))


def test_a_rate_is_asked_for_where_pairs_are_too_few() -> None:
    calls = [row for row in table() if row["type"] == "C"]
    assert asked(delimited(calls)) == {"rate"}
    found = one(delimited(calls), rate=0.04, spot=SPOT, dividend_yield=0.015)
    assert_true(found, within_bp=10.0)
    assert {expiry.forward_from for expiry in found.expiries} == {"spot"}
    assert "dividend_yield_assumed_zero" in codes(one(delimited(calls), rate=0.04, spot=SPOT))


def test_quotes_that_are_vols_under_the_names_of_prices_are_not_taken_for_prices() -> None:
    text = delimited(vols_table(mid_iv=None, bid=lambda o: o.vol - 0.01, ask=lambda o: o.vol + 0.01))
    assert asked(text) == {"columns"}
    found = one(text, columns={"bid_iv": "bid", "ask_iv": "ask"})
    np.testing.assert_allclose(found.columns["ask_iv"] - found.columns["bid_iv"], 0.02, rtol=1e-9)


def test_everything_missing_is_named_at_once_with_what_was_found() -> None:
    with pytest.raises(InvalidInput) as refused:
        read("price,volume,colour\n1,2,red\n")
    assert {problem.path for problem in refused.value.problems} == {
        *(("columns", "expiry"), ("columns", "strike"), ("columns", "type")),
    }
    for word in ("expiry", "strike", "type", "`price`", "`colour`"):
        assert word in str(refused.value)


def test_prices_in_coin_are_known_by_the_names_and_asked_about_without() -> None:
    coins = chain(digits=9)
    level = {years(e): forward_at(years(e)) for e in EXPIRATIONS}
    rows = rows_as(
        coins,
        instrument_name=lambda o: f"BTC-{o.expiration.day}{o.expiration:%b%y}-{o.strike:.0f}-{o.side}".upper(),
        underlying_price=lambda o: level[years(o.expiration)],
        best_bid_price=lambda o: round(o.bid / level[years(o.expiration)], 8),
        best_ask_price=lambda o: round(o.ask / level[years(o.expiration)], 8),
        timestamp=AS_OF.isoformat(),
    )
    assert_true(one(delimited(rows)), truth(coins))
    bare = [
        {**dict(zip(PLAIN, plain.values(), strict=True)), "bid": row["best_bid_price"], "ask": row["best_ask_price"]}
        for plain, row in zip(rows_as(coins, **PLAIN), rows, strict=True)
    ]
    assert asked(delimited(bare)) == {"price_unit"}
    assert_true(one(delimited(bare), price_unit="underlying"), truth(coins))


def test_options_of_american_exchanges_on_a_stock_ask_whether_they_are_american() -> None:
    rows = rows_as(
        CHAIN, symbol=lambda o: occ(o, "ACME"), bid=lambda o: o.bid, ask=lambda o: o.ask, date=AS_OF.isoformat()
    )
    assert asked(delimited(rows)) == {"exercise"}
    assert_true(one(delimited(rows), exercise="european"))


# Warnings -----------------------------------------------------------------------------------------------------------


def vols_table(**changed: Any) -> list[dict[str, Any]]:
    calls = [o for o in CHAIN if o.side == "C"]
    columns: dict[str, Any] = {
        "expiry_years": lambda o: years(o.expiration),
        "strike": lambda o: o.strike,
        "forward": lambda o: forward_at(years(o.expiration)),
        "mid_iv": lambda o: o.vol,
        **changed,
    }
    return rows_as(calls, **{name: of for name, of in columns.items() if of is not None})


@pytest.mark.parametrize("percent", [("mid_iv",), ("bid_iv", "ask_iv"), ("ask_iv",), ("mid_iv", "bid_iv", "ask_iv")])
def test_columns_in_percent_beside_others_are_read_with_a_warning(percent: Sequence[str]) -> None:
    shift = {"mid_iv": 0.0, "bid_iv": -0.005, "ask_iv": 0.005}
    scale = {name: 100.0 if name in percent else 1.0 for name in shift}
    columns = {name: lambda o, name=name: scale[name] * (o.vol + shift[name]) for name in shift}
    found = one(delimited(vols_table(**columns)))
    for name, column in (("mid_iv", "iv"), ("bid_iv", "bid_iv"), ("ask_iv", "ask_iv")):
        expected = [o.vol + shift[name] for o in CHAIN if o.side == "C"]
        np.testing.assert_allclose(found.columns[column], expected, rtol=1e-12)
    assert codes(found) == {"vols_look_like_percent"}
    named = delimited(vols_table(**columns))
    for name in percent:
        named = named.replace(name, f"{name} (%)", 1)
    assert codes(one(named)) == set()


def test_low_vols_that_may_be_percent_are_asked_about() -> None:
    # A pegged currency: strikes within a few standard deviations of vols of a few per cent.
    near = {"strike": lambda o: forward_at(years(o.expiration)) * (o.strike / SPOT) ** 0.1}
    text = delimited(vols_table(**near, mid_iv=lambda o: 10.0 * o.vol))
    assert asked(text) == {"vol_unit"}
    assert one(text, vol_unit="percent").columns["iv"][0] == pytest.approx(0.1 * CHAIN[0].vol)


def test_forwards_that_differ_within_an_expiry_are_warned_of() -> None:
    rows = vols_table()
    rows[3]["forward"] *= 1.01
    assert codes(one(delimited(rows))) == {"forward_varies_within_expiry"}


def test_columns_passed_over_are_named() -> None:
    (caution,) = one(delimited(table(colour="red", volume=3))).cautions
    assert (caution.code, "`colour`" in caution.detail, "volume" in caution.detail) == ("columns_ignored", True, False)


def test_panels_are_told_apart_by_underlying_and_day() -> None:
    both = [*delimited(table(ticker="SPX")).splitlines(), *delimited(table(ticker="DAX")).splitlines()[1:]]
    found = read("\n".join(both))
    assert [built.label for built in found] == [f"SPX {AS_OF}", f"DAX {AS_OF}"]
    for built in found:
        assert_true(built)
    assert [built.underlying for built in read("\n".join(both), underlying="DAX")] == ["DAX"]
    assert asked("\n".join(both), underlying="NDX") == {"underlying"}


def test_snapshots_of_one_day_are_panels_and_stamps_of_single_quotes_are_not() -> None:
    morning, noon = (table(quote_date=f"{AS_OF} {hour}:00") for hour in ("10", "12"))
    assert len(read(delimited([*morning, *noon]))) == 2
    stamped = [{**row, "quote_date": f"{AS_OF} 15:{i % 60:02d}"} for i, row in enumerate(table())]
    assert len(read(delimited(stamped))) == 1


def test_a_time_of_day_counts() -> None:
    found = one(delimited(table(quote_date=f"{AS_OF}T10:00:00", expiration=lambda o: f"{o.expiration}T16:00:00")))
    first = (EXPIRATIONS[0] - AS_OF).days + 0.25
    assert found.columns["expiry"].min() == pytest.approx(
        (first - 1.0 / 24.0) / 365.0, rel=1e-12
    )  # the clocks went forward
    assert "settlement_time_assumed" in codes(one(delimited(table(quote_date=f"{AS_OF}T10:00:00"))))


def test_days_of_business_are_counted_without_weekends_and_holidays() -> None:
    found = one(delimited(table()), day_count="business/252", holidays=["2026-04-03"])
    n = np.busday_count(AS_OF, EXPIRATIONS[0], holidays=["2026-04-03"])
    assert found.columns["expiry"].min() == n / 252.0


# What is left out ---------------------------------------------------------------------------------------------------


def test_each_bad_quote_is_left_out_with_its_reason_and_the_others_keep_their_vols() -> None:
    rng = np.random.default_rng(11)
    for _ in range(10):
        rows = table()
        # Of the options out of the money, which are the ones used.
        out = [
            i
            for i, o in enumerate(CHAIN)
            if (o.strike >= forward_at(years(o.expiration))) == (o.side == "C") and o.bid > 0.5
        ]
        chosen = rng.choice(out, 5, replace=False).tolist()
        zero, crossed, alone, stale, late = (int(i) for i in chosen)
        rows[zero]["bid"] = 0.0
        rows[crossed]["bid"], rows[crossed]["ask"] = rows[crossed]["ask"], rows[crossed]["bid"]
        rows[alone]["ask"] = None
        rows[stale]["bid"], rows[stale]["ask"] = rows[stale]["bid"] + 15.0, rows[stale]["ask"] + 15.0
        rows[late]["expiration"] = AS_OF.isoformat()
        rows.append({**rows[0]})
        found = one(delimited(rows))
        reasons = {exclusion.index: exclusion.reason for exclusion in found.excluded}
        assert reasons[zero] == "no bid"
        assert reasons[crossed] == "ask below bid"
        assert reasons[alone].startswith("one-sided quote")
        assert reasons[stale] == "stale: its pair is off put-call parity"
        assert reasons[late] == "expired"
        assert reasons[len(rows) - 1] == "duplicate"
        known = truth(CHAIN)
        columns = found.used()
        # Of five bad quotes one has a pair that can stand in for it: the stale one.
        assert len(columns["iv"]) >= len(known) - 4
        for t, k, vol in zip(
            columns["expiry"].tolist(), columns["strike"].tolist(), columns["iv"].tolist(), strict=True
        ):
            # In the money where the other of the pair is the bad one: there two digits are a few tenths of a point.
            assert abs(known[t, k] - vol) < 0.004
        assert sum(reason == "below intrinsic value" for reason in reasons.values()) <= 5


def test_a_price_below_intrinsic_value_is_left_out_with_that_reason() -> None:
    rows = [row for row in table() if not (row["type"] == "P" and row["strike"] == 400.0)]
    at = next(i for i, row in enumerate(rows) if row["type"] == "C" and row["strike"] == 400.0)
    rows[at]["bid"], rows[at]["ask"] = 90.0, 90.5
    found = one(delimited(rows))
    assert {e.reason for e in found.excluded if e.index == at} == {"below intrinsic value"}


# Files --------------------------------------------------------------------------------------------------------------


def test_several_files_are_several_panels_and_standard_input_is_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "a.csv", tmp_path / "b.json"
    first.write_text(delimited(table()))
    second.write_text(json.dumps({"id": "X", "as_of": str(AS_OF), "quotes": columns_of(table(quote_date=None))}))
    labels = [built.label for built in read_quotes(first, second)]
    assert labels == [AS_OF.isoformat(), f"X {AS_OF}"]

    class Input:
        buffer = io.BytesIO(first.read_bytes())

    monkeypatch.setattr("sys.stdin", Input())
    (piped,) = read_quotes("-")
    assert_true(piped)


def test_a_body_of_calibrate_is_its_panel() -> None:
    panel = {"expiry": [0.5] * 3, "strike": [90, 100, 110], "forward": 100.5, "iv": [0.25, None, 0.21], "bid_iv": None}
    found = one(json.dumps({"model": "heston", "quotes": panel, "refine": "lm"})).panel()
    assert (found.n_quotes, [e.index for e in found.excluded]) == (2, [1])


@pytest.mark.parametrize(
    "content",
    [b"PK\x03\x04nothing", b"PAR1nothing", b"\xd0\xcf\x11\xe0", b'{"a": ', b"{}", b"\x00\x01", b"", b"a,b\n1,2\n"],
)
def test_what_is_no_file_of_quotes_is_refused(content: bytes) -> None:
    with pytest.raises(InvalidInput, match="chain"):
        read(content)


def test_an_index_of_two_settlements_is_told_apart_or_warned_of() -> None:
    both = [
        {"symbol": occ(o, root), "bid": o.bid, "ask": o.ask, "date": AS_OF.isoformat()}
        for root in ("SPX", "SPXW")
        for o in CHAIN
    ]
    assert "settlement_mixed" in codes(one(delimited(both)))
    apart = one(delimited(both), settlement="exchange")
    assert len({expiry.expiry for expiry in apart.expiries}) == 6
    assert codes(apart) == set()


def test_the_smile_of_these_tests_has_a_skew() -> None:
    assert smile(np.array([-0.1]), 0.3)[0] > smile(np.array([0.1]), 0.3)[0] + 0.01


# Slips --------------------------------------------------------------------------------------------------------------


def test_days_of_one_week_are_asked_about_and_years_are_not() -> None:
    near = {"strike": lambda o: forward_at(years(o.expiration)) * (o.strike / SPOT) ** 0.15}
    days = {date: float(i + 1) for i, date in enumerate(EXPIRATIONS)}
    text = delimited(vols_table(**near, expiry_years=lambda o: days[o.expiration]))
    assert asked(text) == {"expiry_unit"}
    assert one(text, expiry_unit="days").columns["expiry"].min() == 1 / 365
    assert one(delimited(vols_table(expiry_years=lambda o: days[o.expiration]))).columns["expiry"].max() == 3.0


def test_rates_in_percent_are_refused_and_asked_about() -> None:
    calls = [row for row in table(rate=4.0, spot=SPOT) if row["type"] == "C"]
    assert asked(delimited(calls)) == {"rate"}
    assert asked(delimited(calls), rate=4.0) == {"rate"}
    assert_true(one(delimited(calls), rate=0.04, dividend_yield=0.015), within_bp=10.0)


def test_one_forward_for_several_expiries_is_no_answer() -> None:
    assert asked(delimited(table()), forward=500.0) == {"forward"}


def test_strikes_and_spots_exchanged_are_asked_about() -> None:
    text = delimited(table(strike=SPOT, spot=lambda o: o.strike))
    assert asked(text) == {"columns"}
    assert_true(one(text, columns={"strike": "spot", "spot": "strike"}))


def test_forwards_and_spots_that_vary_are_warned_of() -> None:
    rows = table(spot=SPOT, forward=lambda o: forward_at(years(o.expiration)))
    rows[3]["spot"], rows[5]["forward"] = 501.0, 510.0
    assert codes(one(delimited(rows))) == {"spot_varies_within_expiry", "forward_varies_within_expiry"}


def test_a_price_that_is_no_quote_does_not_stand_in_for_bid_and_ask() -> None:
    assert_true(one(delimited(table(price=SPOT))))


def test_a_date_given_that_may_be_two_days_is_asked_about() -> None:
    text = delimited(table(quote_date=None))
    assert asked(text, as_of="03/02/2026") == {"date_order"}
    assert_true(one(text, as_of="03/02/2026", date_order="mdy"))


def test_vols_by_delta_below_each_other_are_those_side_by_side() -> None:
    wide_text = "tenor,atm,rr25,bf25,put10,call10\n1M,0.10,-0.01,0.002,0.12,0.11\n1Y,0.11,-0.015,0.003,0.13,0.12\n"
    given: dict[str, Any] = {"pair": "EURUSD", "spot": 1.1, "domestic_rate": 0.04, "foreign_rate": 0.02}
    expected = one(wide_text, **given)
    rows = ["tenor,type,delta,vol"]
    for line in wide_text.splitlines()[1:]:
        tenor, *vols = line.split(",")
        kinds = (("ATM", ""), ("RR", "0.25"), ("BF", "25"), ("Put", "-0.10"), ("Call", "0.1"))
        rows += [f"{tenor},{kind},{delta},{vol}" for (kind, delta), vol in zip(kinds, vols, strict=True)]
    found = one("\n".join(rows), **given)
    for name, column in expected.columns.items():
        np.testing.assert_array_equal(found.columns[name], column)


def test_a_vol_by_delta_above_one_is_asked_about() -> None:
    text = "tenor,atm,rr25,bf25\n1M,2.1,-0.2,0.05\n"
    assert asked(text, pair="USDHKD", foreign_rate=0.0) == {"vol_unit"}
    found = one(text, pair="USDHKD", foreign_rate=0.0, vol_unit="percent")
    np.testing.assert_allclose(found.columns["iv"].min(), 0.021, atol=0.002)
