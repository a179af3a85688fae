"""Names of listed options, which say underlying, expiry, side and strike."""

import re
from datetime import date
from typing import NamedTuple

from .dates import moment_of
from .names import Side


class Contract(NamedTuple):
    root: str
    expiration: date
    side: Side
    strike: float
    listed_in_the_us: bool
    """By the Options Clearing Corporation: then all but index options are American."""
    in_coin: bool = False
    """Its price is in units of the underlying."""


_OCC = re.compile(r"(?:O:|[.\-])?([A-Z][A-Z0-9.]{0,6}?)\s*(\d{6})([CP])(\d{8})")
_SHORT = re.compile(r"\.([A-Z]{1,6})(\d{6})([CP])(\d+(?:\.\d+)?)")
_BAR = re.compile(r"([A-Z.$]{1,6})\|(\d{8})\|(\d+(?:\.\d+)?)([CP])")
_COIN = re.compile(r"([A-Z]+(?:_[A-Z]+)?)-(\d{1,2}[A-Z]{3}\d{2})-(\d+(?:[.d]\d+)?)-([CP])")
_TERMINAL = re.compile(r"(\w{1,6}) (?:[A-Z]{2} )?(\d{1,2}/\d{1,2}/\d{2,4}) ([CP])(\d+(?:\.\d+)?)(?: (?:INDEX|EQUITY))?")
_CODED = re.compile(r"(\d{2})(\d{2})(\d{2})")

EUROPEAN_ROOTS = frozenset(
    (
        *(
            "SPX",
            "SPXW",
            "XSP",
            "NDX",
            "NDXP",
            "XND",
            "RUT",
            "RUTW",
            "MRUT",
            "VIX",
            "VIXW",
            "DJX",
            "XEO",
            "NANOS",
            "CBTX",
        ),
        *(
            "DAX",
            "ODAX",
            "SX5E",
            "OESX",
            "STOXX50E",
            "ESTX50",
            "UKX",
            "FTSE",
            "SMI",
            "OSMI",
            "CAC",
            "PX1",
            "AEX",
            "MIB",
        ),
        *(
            "NKY",
            "N225",
            "NK225",
            "HSI",
            "HSCEI",
            "KOSPI",
            "KOSPI200",
            "NIFTY",
            "BANKNIFTY",
            "TWSE",
            "TXO",
            "TOPIX",
            "IBEX",
        ),
        *("BTC", "ETH", "SOL", "XRP", "XBT", "510050.SH", "510300.SH", "000300.SH", "IO", "HO", "MO", "BVSP", "IBOV"),
    )
)
"""Underlyings whose options are European."""
OPEN_SETTLED_ROOTS = frozenset({"SPX", "NDX", "RUT", "DJX", "VIX", "VIXW", "MRUT", "OSMI"})
"""Roots whose options are settled at the open; the weekly ones, of other roots, at the close."""
PARENTS = {"SPXW": "SPX", "NDXP": "NDX", "RUTW": "RUT", "VIXW": "VIX"}
"""Underlying of the roots whose name is not its."""


def contract_of(name: str) -> Contract | None:
    """What the name of an option says; None if it is none of a kind known here.

    `SPXW230616C04200000` (OCC), `.SPXW230616C4200`, `NVDA|20260116|190.00C`, `BTC-27MAR26-100000-C`,
    `SPX US 12/19/25 C6150 Index`
    """
    text = " ".join(name.upper().split())
    try:
        if found := _OCC.fullmatch(text):
            return _made(found[1], _coded(found[2]), found[3], int(found[4]) / 1000.0, us=True)
        if found := _SHORT.fullmatch(text):
            return _made(found[1], _coded(found[2]), found[3], float(found[4]), us=True)
        if found := _BAR.fullmatch(text):
            day = moment_of(found[2])
            return day and _made(found[1].strip("$."), day.day, found[4], float(found[3]), us=True)
        if found := _COIN.fullmatch(text):
            day = moment_of(found[2])
            # Those of a pair with a stablecoin are quoted in it.
            strike = float(found[3].replace("D", "."))
            return day and _made(found[1], day.day, found[4], strike, us=False, coin="_" not in found[1])
        if found := _TERMINAL.fullmatch(text):
            day = moment_of(found[2], "mdy")
            return day and _made(found[1], day.day, found[3], float(found[4]), us=" US " in text)
    except ValueError:
        return None
    return None


def _coded(text: str) -> date:
    found = _CODED.fullmatch(text)
    assert found is not None
    return date(2000 + int(found[1]), int(found[2]), int(found[3]))


def _made(root: str, day: date, side: str, strike: float, *, us: bool, coin: bool = False) -> Contract:
    return Contract(root, day, "call" if side == "C" else "put", strike, us, coin)
