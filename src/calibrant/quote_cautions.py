"""What is odd about the quotes of a panel although each can be used: columns exchanged, units mistaken, a broken feed.

A mistaken unit shows where strikes and vols no longer fit each other. Half the range of the strikes of an expiry is 0.5
to 10 standard deviations of the log forward in listed chains, and 0.17 at least in every market panel there is. Vols in
percent make the standard deviation a hundred times too large, days in place of years 19 times (the root of 365): the
same strikes then lie within a few hundredths of one, and a smile is as many times too steep for its expiry. No level of
vol alone will do: coins, funds of volatility and crises have vols of 100 to 400 %, for short expiries.
"""

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np

from .arrays import Vector
from .caution import Caution

SAME_FORWARD = 1e-4
"""Of the forward: a difference of as much moves an option at the money by a basis point of vol at a year's expiry."""
HIGH_VOL = 1.0
"""Vols in percent that are taken for decimals are above: nothing but a pegged currency has a vol of less than 1 %."""
YEAR = 1.0
LONG_EXPIRY = 5.0
"""Years. Some of the expiries of a panel in days are beyond the working week; listed options end within three years."""

_EXTREME_VOL = 2.5
"""Seen in days of panic, for expiries of weeks and strikes at a fraction and a multiple of the forward."""
_WIDE = 2.0
"""A standard deviation of the log forward at which a call at the money is worth 68 % of the forward."""
_NARROW_IN_PERCENT = 0.05
"""Standard deviations: strikes of five of them, a hundred times too small."""
_NARROW_IF_EXTREME = 0.2
_NARROW_IN_DAYS = 0.25
"""Strikes of five standard deviations, 19 times too small."""
_LARGE = 1.0
"""A standard deviation of the log forward: 32 % for ten years. The most seen at a year or more is 0.58."""
_ONE_STRIKE = 1e-3
"""Range of log-moneyness below which strikes count as one: noise of the vols is no smile."""
_STEEP = 0.5
_TOO_STEEP = 1.25
"""Root of the expiry times the change of the vol with log-moneyness: the most seen at a year or more is 0.30, at any
expiry 0.42, and 1.25 (the root of pi / 2) at the money is an arbitrage."""


class _Smile(NamedTuple):
    """The quotes of one expiry, as far as mistaken units show in them."""

    sd: float
    """Of the log forward, at the median vol."""
    half_range: float
    """Half the range of log-moneyness, in units of `sd`; NaN for a single strike."""
    steepness: float
    """Range of the vol over that of log-moneyness, times the root of the expiry; NaN for a single strike."""


def quote_cautions(
    *,
    expiry: Vector,
    log_moneyness: Vector,
    mid: Vector,
    forward: Vector | None,
    strike: Vector | None,
    unusable: Sequence[str],
    n_above: int,
) -> tuple[Caution, ...]:
    """Everything odd about the quotes of a panel.

    expiry    (n_quotes,), ascending, of the quotes used; log_moneyness, mid, forward and strike of the same
    unusable  why quotes that were there and wanted could not be used, a reason for each
    n_above   how many of these have a vol that is too large for any
    """
    offsets = [0, *(np.flatnonzero(np.diff(expiry)) + 1).tolist(), expiry.size]
    slices = [slice(a, b) for a, b in pairwise(offsets)]
    smiles = [_smile(float(expiry[s.start]), log_moneyness[s], mid[s]) for s in slices]
    found = [_many_excluded(unusable, mid.size)]
    if forward is not None:
        found.append(_forwards(expiry, forward, strike, slices))
    found += [_in_percent(mid, smiles, n_above), _in_days(expiry, smiles)]
    return tuple([caution for caution in found if caution is not None])


def tallied(reasons: Iterable[str]) -> str:
    """How often each came, the most frequent first: `20 missing quote, 3 ask below bid`."""
    counts = sorted(Counter(reasons).items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{count} {reason}" for reason, count in counts)


def _smile(expiry: float, log_moneyness: Vector, mid: Vector) -> _Smile:
    sd = float(np.median(mid)) * math.sqrt(expiry)
    width = float(np.ptp(log_moneyness))
    if width <= _ONE_STRIKE:
        return _Smile(sd, math.nan, math.nan)
    # The smallest vol there is has a standard deviation of nothing.
    half_range = 0.5 * width / sd if sd > 0.0 else math.inf
    return _Smile(sd, half_range, math.sqrt(expiry) * float(np.ptp(mid)) / width)


def _of_several_strikes(smiles: Sequence[_Smile]) -> list[_Smile]:
    return [smile for smile in smiles if not math.isnan(smile.half_range)]


def _most(verdicts: Sequence[bool]) -> bool:
    return 2 * sum(verdicts) > len(verdicts)


def _many_excluded(unusable: Sequence[str], n_used: int) -> Caution | None:
    if len(unusable) <= n_used:
        return None
    there = len(unusable) + n_used
    detail = f"{len(unusable)} of the {there} quotes that are there cannot be used ({tallied(unusable)}): see the feed."
    return Caution("many_quotes_excluded", detail)


def _forwards(expiry: Vector, forward: Vector, strike: Vector | None, slices: Sequence[slice]) -> Caution | None:
    spreads = [float(forward[s].max()) / float(forward[s].min()) - 1.0 for s in slices]
    worst = int(np.argmax(spreads))
    if spreads[worst] <= SAME_FORWARD:
        return None
    # One strike under many forwards, at every expiry of more than one quote.
    several = [i for i, s in enumerate(slices) if s.stop - s.start > 1]
    if strike is not None and all(spreads[i] > SAME_FORWARD and np.ptp(strike[slices[i]]) == 0.0 for i in several):
        detail = "Each expiry has a single strike and many forwards: strikes and forwards look exchanged."
        return Caution("strike_and_forward_look_exchanged", detail)
    at = forward[slices[worst]]
    detail = (
        f"The forward of the expiry {expiry[slices[worst].start]:g} runs from {at.min():g} to {at.max():g}: quotes of "
        "one expiry have one forward, if they are of one moment."
    )
    return Caution("forward_varies_within_expiry", detail)


def _in_percent(mid: Vector, smiles: Sequence[_Smile], n_above: int) -> Caution | None:
    typical = float(np.median(mid))
    if typical < HIGH_VOL:
        return None
    narrow = _NARROW_IF_EXTREME if typical >= _EXTREME_VOL else _NARROW_IN_PERCENT
    several = _of_several_strikes(smiles)
    doubtful = (
        n_above >= mid.size
        or _most([smile.sd >= _WIDE for smile in smiles])
        or _most([smile.half_range <= narrow for smile in several])
        or _most([smile.steepness >= _TOO_STEEP for smile in several])
    )
    if not doubtful:
        return None
    detail = (
        f"The vols used run from {mid.min():g} to {mid.max():g}, which is {100.0 * mid.min():.0f} % to "
        f"{100.0 * mid.max():.0f} %, and do not fit their strikes and expiries: they look like percent. Vols are "
        "decimals, 0.25 for 25 %."
    )
    return Caution("vols_look_like_percent", detail)


def _in_days(expiry: Vector, smiles: Sequence[_Smile]) -> Caution | None:
    if expiry[0] < YEAR or expiry[-1] < LONG_EXPIRY:
        return None
    several = _of_several_strikes(smiles)
    if several:
        # The slip is the same for all, and shows best in the longest.
        longest = several[-1]
        narrow = _most([smile.half_range <= _NARROW_IN_DAYS for smile in several])
        doubtful = (narrow and (longest.sd >= _LARGE or longest.steepness >= _STEEP)) or _most(
            [smile.steepness >= _TOO_STEEP for smile in several]
        )
    else:
        doubtful = _most([smile.sd >= _WIDE for smile in smiles])
    if not doubtful:
        return None
    detail = (
        f"The expiries run from {expiry[0]:g} to {expiry[-1]:g} years, too long for vols and strikes like these: they "
        "look like days. Expiries are years, 0.082 for 30 days."
    )
    return Caution("expiries_look_like_days", detail)
