"""Columns by their names: which field of a quote each holds, in which unit, and of which side of a pair.

A name is compared without case, accents, brackets and punctuation, with words told apart: `Bid Price`, `bidPrice` and
`[BID_PRICE]` are one. The order of the names of a field is their rank, where a table has several of them.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Side = Literal["call", "put"]

SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "underlying": (
        *(
            "underlying",
            "underlying_symbol",
            "underlying_ticker",
            "und_symbol",
            "undly",
            "ticker",
            "root",
            "root_symbol",
        ),
        *("option_root", "act_symbol", "base_symbol", "underlier", "asset", "basiswert", "stock", "index_name"),
    ),
    "contract": (
        *("contract_symbol", "option_symbol", "occ_symbol", "osi_symbol", "opra_symbol", "opra", "osi", "contract"),
        *("contract_id", "contract_name", "instrument_name", "instrument", "option_ticker", "option", "options"),
        *("symbol", "optionid", "option_name", "series"),
    ),
    "as_of": (
        *("as_of", "asof", "as_of_date", "quote_datetime", "quote_date", "quotedate", "quote_readtime", "quote_time"),
        *("valuation_date", "val_date", "pricing_date", "snapshot_time", "snapshot_date", "snapshot", "data_date"),
        *("datadate", "trade_date", "tradedate", "observation_date", "datetime", "timestamp", "date", "datum"),
        *("stichtag", "handelstag", "fecha"),
    ),
    "last_trade": ("last_trade_date", "last_trade_time", "last_trade", "last_trade_datetime", "trade_time"),
    "expiry": (
        *(
            "expiry_years",
            "years_to_expiry",
            "years_to_maturity",
            "time_to_expiry",
            "time_to_maturity",
            "year_fraction",
        ),
        *("ttm", "tte", "tau", "t_years", "t_expiry_years"),
        *("expiration", "expiration_date", "expirationdate", "expiry_date", "expirydate", "expire_date", "expiredate"),
        *("expiry", "exp_date", "expdate", "exdate", "exp", "expires", "maturity_date", "maturity", "contract_expiry"),
        *("option_expiration", "option_expiry", "expiration_datetime", "expiry_datetime", "verfallstag", "verfall"),
        *("verfallsdatum", "falligkeit", "echeance", "vencimiento", "scadenza", "restlaufzeit", "laufzeit", "t"),
        *(
            "dte",
            "days_to_expiration",
            "days_to_expiry",
            "days_to_maturity",
            "expiry_days",
            "days",
            "restlaufzeit_tage",
        ),
        *("expiration_timestamp", "expire_unix", "expiry_timestamp", "expiration_unix"),
    ),
    "tenor": ("tenor", "tenors", "term", "pillar"),
    "type": (
        *("type", "option_type", "optiontype", "opt_type", "call_put", "put_call", "callput", "putcall", "cp", "pc"),
        *("cp_flag", "c_p", "p_c", "put_call_flag", "right", "option_right", "kind", "option_kind", "typ"),
        *("optionsart", "optionstyp", "contract_type", "call_or_put", "put_or_call", "is_call", "side"),
    ),
    "strike": (
        *("strike", "strike_price", "strikeprice", "strikes", "exercise_price", "strike_rate", "basispreis", "k"),
        *("ausubungspreis", "prix_exercice", "prezzo_esercizio", "x"),
    ),
    "log_moneyness": ("log_moneyness", "logmoneyness", "log_strike", "log_k_f", "log_forward_moneyness"),
    "bid": (
        *("bid", "bid_price", "bidprice", "best_bid", "best_bid_price", "bid_px", "px_bid", "bid_1545", "bid_eod"),
        *("close_bid", "bid_close", "price_bid", "geld", "geldkurs"),
    ),
    "ask": (
        *("ask", "ask_price", "askprice", "best_ask", "best_ask_price", "offer", "best_offer", "offer_price", "ask_px"),
        *("px_ask", "ask_1545", "ask_eod", "close_ask", "ask_close", "price_ask", "brief", "briefkurs"),
    ),
    "mid": (
        *("mid", "mid_price", "midprice", "mid_px", "px_mid", "price_mid", "mark", "mark_price", "price", "premium"),
        *("option_price", "market_price", "preis", "kurs", "settle", "settlement", "settlement_price", "settle_price"),
        *("prix", "precio"),
    ),
    "last": ("last", "last_price", "last_sale", "latest", "px_last", "close", "close_price", "letzter", "last_traded"),
    "iv": (
        *("iv", "mid_iv", "iv_mid", "midiv", "implied_volatility", "implied_vol", "impliedvol", "imp_vol", "impvol"),
        *("impl_volatility", "impl_vol", "mark_iv", "mid_vol", "vol_mid", "vol", "vols", "volatility", "sigma"),
        *("market_iv", "mkt_iv", "implied_volatility_1545", "smv_vol", "mid_implied_volatility", "black_vol"),
        *("implizite_volatilitat", "volatilitat", "volatilite", "impliedvolatility", "vola"),
    ),
    "bid_iv": (
        *(
            "bid_iv",
            "iv_bid",
            "bidiv",
            "bid_vol",
            "vol_bid",
            "bid_implied_volatility",
            "bid_implied_vol",
            "bid_imp_vol",
        ),
        *("bid_volatility", "implied_volatility_bid", "implied_vol_bid", "b_iv"),
    ),
    "ask_iv": (
        *(
            "ask_iv",
            "iv_ask",
            "askiv",
            "ask_vol",
            "vol_ask",
            "ask_implied_volatility",
            "ask_implied_vol",
            "ask_imp_vol",
        ),
        *("ask_volatility", "implied_volatility_ask", "implied_vol_ask", "offer_vol", "offer_iv", "iv_offer", "a_iv"),
    ),
    "forward": (
        *("forward", "forward_price", "fwd", "fwd_price", "forwards", "f", "future", "future_price", "futures_price"),
        *("implied_forward", "forward_level", "underlying_future", "terminkurs"),
    ),
    "spot": (
        *(
            "spot",
            "spot_price",
            "underlying_price",
            "underlying_last",
            "underlying_close",
            "underlying_spot",
            "und_price",
        ),
        *(
            "stock_price",
            "index_price",
            "index_level",
            "active_underlying_price_1545",
            "underlying_mid",
            "current_price",
        ),
        *("underlying_value", "s", "s0", "kassakurs", "spot_level", "stock_last"),
    ),
    "rate": ("rate", "r", "interest_rate", "risk_free_rate", "riskfree_rate", "risk_free", "rf", "zins", "zinssatz"),
    "dividend_yield": ("dividend_yield", "div_yield", "dividendyield", "q", "dividendenrendite", "div"),
    "discount": ("discount", "discount_factor", "df", "discountfactor"),
    "weight": ("weight", "weights", "gewicht"),
    "atm": ("atm", "atm_vol", "atmf", "atm_iv", "atm_mid", "dns", "50d", "50_delta", "d50"),
}
"""Names of each field of a quote."""

YEARS = frozenset(
    (
        *("expiry_years", "years_to_expiry", "years_to_maturity", "year_fraction", "ttm", "tte", "tau", "t_years"),
        *("t_expiry_years", "time_to_expiry", "time_to_maturity", "t"),
    )
)
DAYS = frozenset(
    ("dte", "days_to_expiration", "days_to_expiry", "days_to_maturity", "expiry_days", "days", "restlaufzeit_tage")
)
SIDED = ("bid", "ask", "mid", "last", "iv", "bid_iv", "ask_iv", "contract", "last_trade")
"""Fields that a row may have of a call and of a put."""

_RANKS = {name: (field, rank) for field, names in SYNONYMS.items() for rank, name in enumerate(names)}
_SIDES: Mapping[str, Side] = {"call": "call", "calls": "call", "c": "call", "put": "put", "puts": "put", "p": "put"}
_PERCENT = frozenset({"pct", "percent", "prozent"})
_CENTS = frozenset({"cents", "cent", "pence"})
_DELTA = re.compile(
    r"(?P<delta>\d{1,2})_?(?:delta|d)?_?(?P<what>put|call|p|c|rr|bf|fly|ms|risk_reversal|butterfly|strangle)"
    r"|(?P<what2>put|call|p|c|rr|bf|fly|ms|risk_reversal|butterfly|strangle)_?(?:delta|d)?_?(?P<delta2>\d{1,2})_?(?:delta|d)?"
)
_STRATEGIES = {
    "put": "put",
    "p": "put",
    "call": "call",
    "c": "call",
    "rr": "rr",
    "risk_reversal": "rr",
    "bf": "bf",
    "fly": "bf",
    "butterfly": "bf",
    "ms": "bf",
    "strangle": "bf",
}


@dataclass(frozen=True, kw_only=True)
class Column:
    """What one column holds."""

    index: int
    name: str
    """As written."""
    field: str
    rank: int
    scale: float = 1.0
    """That the name states: 0.01 for percent and cents."""
    said: str = ""
    """The name as it was compared."""
    side: Side | None = None


def normalised(name: str) -> str:
    """A name as it is compared."""
    plain = unicodedata.normalize("NFKD", name.replace("%", " pct ").replace("ß", "ss"))
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", "".join(c for c in plain if not unicodedata.combining(c)))
    return re.sub(r"[^a-z0-9]+", "_", words.lower()).strip("_")


def known(name: str) -> bool:
    """Whether a name is one of a column: what tells a header from other lines."""
    return column_named(name, 0) is not None


def column_named(name: str, index: int) -> Column | None:
    """What a column of this name holds; None if the name says nothing."""
    said = normalised(name)
    words = said.split("_")
    scale = 1.0
    for marks in (_PERCENT, _CENTS):
        if len(words) > 1 and marks & set(words):
            scale = 0.01
            words = [word for word in words if word not in marks]
    # `T (years)`, `strike_usd`: a unit that changes nothing.
    plain = "_".join(words)
    for tried in (plain, plain.removesuffix("_usd").removesuffix("_eur"), _unit_first(words)):
        if tried in _RANKS:
            field, rank = _RANKS[tried]
            return Column(index=index, name=name, field=field, rank=rank, scale=scale, said=tried)
    delta = _DELTA.fullmatch(plain.removesuffix("_vol").removesuffix("_iv"))
    if delta:
        what = _STRATEGIES[delta["what"] or delta["what2"]]
        number = int(delta["delta"] or delta["delta2"])
        return Column(index=index, name=name, field=f"{what}{number}", rank=0, scale=scale, said=plain)
    return _sided(words, name, index, scale)


def _unit_first(words: Sequence[str]) -> str:
    """`t_days` and `expiry_in_days` as `days`, `expiration_years` as `expiry_years`."""
    if (
        len(words) > 1
        and words[-1] in ("days", "tage")
        and words[0] in ("t", "expiry", "expiration", "maturity", "ttm")
    ):
        return "days"
    if (
        len(words) > 1
        and words[-1] in ("years", "yrs", "y")
        and words[0] in ("t", "expiration", "maturity", "expiry", "ttm")
    ):
        return "expiry_years"
    return ""


def _sided(words: Sequence[str], name: str, index: int, scale: float) -> Column | None:
    if not words:
        return None
    for mark, rest in ((words[0], words[1:]), (words[-1], words[:-1])):
        if mark not in _SIDES:
            continue
        if not rest:
            # Calls: their prices, or their names.
            if mark in ("c", "p"):
                return None
            return Column(index=index, name=name, field="mid", rank=99, side=_SIDES[mark], said=mark)
        field, rank = _RANKS.get("_".join(rest), ("", 0))
        if field in SIDED:
            return Column(
                index=index, name=name, field=field, rank=rank, scale=scale, side=_SIDES[mark], said="_".join(rest)
            )
    return None
