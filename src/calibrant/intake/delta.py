"""Vols quoted by delta to a panel of strikes, by the conventions of `calibrant.fx`."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from ..caution import Caution
from ..errors import InvalidInput, Problem
from ..fx import Conventions, conventions_of, quotes_to_strikes
from ..market import Market
from ..quote_cautions import HIGH_VOL
from .built import Built, Expiry
from .quotes import Quotes
from .settings import Settings, question


def panel_of_deltas(quotes: Quotes, settings: Settings) -> Built:
    """The panel of vols by delta, in strikes where the spot is known, else in log-moneyness.

    raises  InvalidInput, asking for pair or convention, and for the rates where deltas depend on them
    """
    pair, conventions = _conventions(quotes, settings)
    alive = quotes.expiry > 0.0
    sound = quotes.taken(np.flatnonzero(alive))
    cautions = list(quotes.cautions)
    if not alive.all():
        detail = f"{np.count_nonzero(~alive)} of {alive.size} expiries have expired, and were left out."
        cautions.append(Caution("expired", detail))
    if not sound.index.size:
        raise InvalidInput(
            Problem((quotes.source,), f"{quotes.source} must hold an expiry that is to come, but holds none.")
        )
    market = _market(sound, settings, conventions)
    if settings.vol_unit is None and float(np.nanmedian(sound.value("atm"))) >= HIGH_VOL:
        needed = f"must be decimal or percent, since the vols at the money are {np.nanmedian(sound.value('atm')):g}"
        raise question("vol_unit", f"{needed}.")
    columns = {
        name: column for name, column in sound.values.items() if re.fullmatch(r"atm|(?:put|call|rr|bf)\d+", name)
    }
    pillars = quotes_to_strikes(market, sound.expiry, columns, conventions, ("quotes",))
    by_expiry = dict(zip(sound.expiry.tolist(), sound.expiration, strict=True))
    has_spot = _spot(sound, settings) is not None and _rates(sound, settings)[0] is not None
    table = {"expiry": pillars.expiry, "iv": pillars.vol}
    table |= (
        {"strike": pillars.strike, "forward": pillars.forward} if has_spot else {"log_moneyness": pillars.log_moneyness}
    )
    expiries = [
        Expiry(
            expiration=by_expiry[expiry],
            expiry=expiry,
            forward=float(market.forward(expiry)),
            forward_from="spot",
            discount=float(market.discount(expiry)),
            n_quotes=int(np.count_nonzero(pillars.expiry == expiry)),
        )
        for expiry in dict.fromkeys(pillars.expiry.tolist())
    ]
    underlying = quotes.underlying or pair
    return Built(
        label=quotes.label if quotes.underlying else " ".join(filter(None, (underlying, quotes.as_of))) or quotes.label,
        underlying=underlying,
        as_of=quotes.as_of,
        columns=table,
        index=np.arange(pillars.vol.size),
        expiries=expiries if has_spot else (),
        cautions=cautions,
    )


def _conventions(quotes: Quotes, settings: Settings) -> tuple[str | None, Conventions]:
    pair = settings.pair or (quotes.underlying if _is_pair(quotes.underlying) else None)
    given = settings.convention
    if pair is None and given is None:
        problems = [
            Problem.at(
                ("pair",),
                "must be given (the underlying, such as EURUSD), or `convention`: a delta is another strike by each.",
            ),
            Problem.at(
                ("convention",), "must be given where there is no pair: premium_adjusted, and delta, atm, butterfly."
            ),
        ]
        raise InvalidInput(*problems)
    if isinstance(given, str):
        # The market's own of a pair.
        pair, given = given, None
    chosen: Mapping[str, Any] | None = None if given is None else dict(given)
    return pair, conventions_of(pair, chosen, pair_path=("pair",), path=("convention",))


def _is_pair(name: str | None) -> bool:
    return name is not None and re.fullmatch(r"[A-Za-z]{3}[ /._-]?[A-Za-z]{3}", name) is not None


def _market(quotes: Quotes, settings: Settings, conventions: Conventions) -> Market:
    spot = _spot(quotes, settings)
    domestic, foreign = _rates(quotes, settings)
    problems = []
    by_spot = [t for t in quotes.expiry.tolist() if conventions.spot_delta_at(t)]
    if by_spot and foreign is None:
        needed = "must be given, since spot deltas are discounted by it (or `convention` with delta=forward)"
        problems.append(Problem.at(("foreign_rate",), f"{needed}."))
    if conventions.atm == "spot":
        known = {"domestic_rate": domestic, "foreign_rate": foreign}
        needed = "must be given, since the quote at the money is at the spot"
        problems += [Problem.at((name,), f"{needed}.") for name, rate in known.items() if rate is None]
    if problems:
        raise InvalidInput(*problems)
    return Market.flat(spot or 1.0, domestic or 0.0, foreign or 0.0)


def _spot(quotes: Quotes, settings: Settings) -> float | None:
    if settings.spot is not None:
        return settings.spot
    return float(np.nanmedian(quotes.value("spot"))) if quotes.has("spot") else None


def _rates(quotes: Quotes, settings: Settings) -> tuple[float | None, float | None]:
    """Domestic and foreign: the rate, and the yield of what is held."""
    given = (settings.domestic_rate, "rate"), (settings.foreign_rate, "dividend_yield")
    domestic, foreign = (
        rate if rate is not None else float(np.nanmedian(quotes.value(name))) if quotes.has(name) else None
        for rate, name in given
    )
    return domestic, foreign
