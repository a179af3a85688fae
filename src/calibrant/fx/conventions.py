"""How a currency pair's options are quoted: which delta, which at-the-money, which butterfly.

The market's defaults follow Clark (2011, chapter 3) and Reiswich & Wystup (2010): a delta is premium-adjusted where the
premium is paid in the foreign currency; spot deltas are quoted to one year and forward deltas beyond.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import InvalidInput, Path, Problem, shown

DeltaKind = Literal["spot", "forward"]
AtTheMoney = Literal["delta_neutral", "forward", "spot"]
Butterfly = Literal["market_strangle", "smile"]

_PREMIUM = ("USD", "EUR", "GBP", "AUD", "NZD", "CAD", "CHF")
"""Of two currencies the one that comes first here is that of the premium; of two others it is the pair's first."""
_WEEK = 7.0 / 365.0


@dataclass(frozen=True, kw_only=True)
class Conventions:
    """What the numbers of a quote mean."""

    premium_adjusted: bool
    """Whether the premium, paid in foreign currency, counts against the delta."""
    delta: DeltaKind | None = None
    """None: spot up to `spot_delta_until`, forward beyond."""
    spot_delta_until: float = 1.0 + _WEEK
    """Years; one year, and the days by which holidays may move it."""
    atm: AtTheMoney = "delta_neutral"
    """The strike of the quote `atm`: of the straddle without a delta, the forward or the spot."""
    butterfly: Butterfly = "market_strangle"
    """`market_strangle`: one vol, atm + bf, at which the strangle of the stated delta has the smile's price; `smile`:
    the mean of the two wing vols less the one at the money."""

    def spot_delta_at(self, expiry: float) -> bool:
        return expiry <= self.spot_delta_until if self.delta is None else self.delta == "spot"


_CHOICES: dict[str, tuple[str, ...]] = {
    "delta": get_args(DeltaKind),
    "atm": get_args(AtTheMoney),
    "butterfly": get_args(Butterfly),
}


def currencies_of(pair: object, path: Path) -> tuple[str, str]:
    """Foreign and domestic currency of a pair as people write it: `EURUSD`, `eur/usd`, `EUR-USD`."""
    found = re.fullmatch(r"([A-Za-z]{3})[ /._-]?([A-Za-z]{3})", pair.strip()) if isinstance(pair, str) else None
    if found is None or found[1].upper() == found[2].upper():
        needed = f"must be two currencies, such as `EURUSD`, but is {shown(pair)!r}."
        raise InvalidInput(Problem.at(path, needed))
    return found[1].upper(), found[2].upper()


def premium_adjusted(foreign: str, domestic: str) -> bool:
    """Whether the market's delta of the pair is."""
    ranked = [currency for currency in _PREMIUM if currency in (foreign, domestic)]
    return not ranked or ranked[0] == foreign


def conventions_of(
    pair: object, given: object = None, *, pair_path: Path = ("pair",), path: Path = ("conventions",)
) -> Conventions:
    """The market's conventions of a pair, but for those that are given by name.

    pair    None where `given` says `premium_adjusted`, the only one that the pair decides
    given   a mapping of fields of `Conventions`, or None
    raises  InvalidInput naming the field
    """
    if given is not None and not isinstance(given, Mapping):
        raise InvalidInput(Problem.at(path, f"must be a mapping of conventions by name, but is {shown(given)!r}."))
    settings = dict(given or {})
    known = ("premium_adjusted", *_CHOICES, "spot_delta_until")
    problems = [
        Problem.at((*path, str(name)), f"is not a convention ({', '.join(known)}).")
        for name in settings
        if name not in known
    ]
    adjusted = settings.get("premium_adjusted", False)
    if not isinstance(adjusted, bool):
        problems.append(Problem.at((*path, "premium_adjusted"), f"must be true or false, but is {shown(adjusted)!r}."))
    if settings.get("delta", "") is None:
        del settings["delta"]
    for name, choices in _CHOICES.items():
        if name in settings and settings[name] not in choices:
            listed = ", ".join(f"`{choice}`" for choice in choices)
            problems.append(Problem.at((*path, name), f"must be one of {listed}, but is {shown(settings[name])!r}."))
    until = settings.get("spot_delta_until", 0.0)
    if isinstance(until, bool) or not isinstance(until, int | float) or not until >= 0.0:
        problems.append(Problem.at((*path, "spot_delta_until"), f"must be years >= 0, but is {shown(until)!r}."))
    if pair is None and "premium_adjusted" not in settings:
        needed = "is required, such as `EURUSD`, or else `conventions.premium_adjusted`: it decides what a delta is."
        problems.append(Problem.at(pair_path, needed))
    if problems:
        raise InvalidInput(*problems)
    if pair is not None:
        foreign, domestic = currencies_of(pair, pair_path)
        settings.setdefault("premium_adjusted", premium_adjusted(foreign, domestic))
    return Conventions(**settings)
