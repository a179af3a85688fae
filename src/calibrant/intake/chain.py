"""Prices of calls and puts to vols: which quotes are sound, what pairs say of the forward, and the vols of the rest."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..arrays import IntVector, Vector
from ..black import NoVolatility, call_price, implied_volatility, put_price
from ..caution import Caution
from ..errors import InvalidInput, Problem
from ..panel import Exclusion
from ..quote_cautions import SAME_FORWARD, tallied
from ..steps import Progress, Steps
from .american import American, american_forward_steps
from .built import Built, EarlyExercise, Expiry, ForwardFrom
from .contracts import EUROPEAN_ROOTS, PARENTS
from .parity import LEAST_PAIRS, Parity, by_parity
from .quotes import Quotes
from .settings import Settings, question

_IN_THE_MONEY = "in the money: the other option of its pair is used"
_PAIR_UNUSABLE = "in the money, and the other option of its pair cannot be used"
_STALE = "stale: its pair is off put-call parity"
_NO_FORWARD = "no pair of call and put at its expiry, and so no forward"
_LARGEST_CARRY = 0.5
"""Per year: a discount or a forward that implies a larger rate is of mistaken units, or of quotes of two moments."""
_LEAST_CARRY = 0.03
"""Of the level: what noise may do to a discount of a few days is no such thing."""
_WIDE_TAILS, _LEAST_STALE = 1.5, 5e-5
_LEAST_PRICE = 1e-12
"""What is smaller counts as zero."""
_SCALES = (0.01, 0.001, 0.1, 100.0, 1000.0)


class _Group(NamedTuple):
    """The quotes of one expiry of one root, by position among the sound ones."""

    at: IntVector
    expiry: float
    expiration: str
    root: str | None


class _Pairs(NamedTuple):
    """Calls and puts of one strike, by position."""

    call: IntVector
    put: IntVector
    strike: Vector
    difference: Vector
    noise: Vector
    """Half of both spreads together; one for all where there are none."""
    has_spreads: bool
    rounding: float
    """Of the differences."""


@dataclass
class _Work:
    """A panel on its way."""

    quotes: Quotes
    settings: Settings
    mid: Vector
    reasons: dict[int, str] = field(default_factory=dict)
    """Of the quotes left out, by position."""
    cautions: list[Caution] = field(default_factory=list)

    def drop(self, positions: IntVector, reason: str) -> None:
        for i in positions.tolist():
            self.reasons.setdefault(i, reason)

    def kept(self) -> IntVector:
        return np.array([i for i in range(self.quotes.index.size) if i not in self.reasons], np.int64)


def panel_of_prices_steps(quotes: Quotes, settings: Settings) -> Steps[Built]:
    """The panel of a chain of prices, in a step an expiry, or shorter ones where exercise is American.

    raises  InvalidInput, as a question where rate, spot or exercise must be known; ImportError without QuantLib where
            exercise is American
    """
    work = _Work(quotes, settings, _mids(quotes))
    work.cautions += quotes.cautions
    exercise = _exercise(work)
    _leave_out_unsound(work)
    groups = _groups(work)
    if not groups:
        raise _nothing_left(work)
    _scale_coins(work)
    columns = {name: np.full(quotes.index.size, np.nan) for name in ("forward", "iv", "bid_iv", "ask_iv")}
    pairs = [_pairs(work, group) for group in groups]
    rates = _Rates(work, groups, pairs, american=exercise == "american")
    made: list[Expiry] = []
    expiry: Expiry | None
    for group, of_group in zip(groups, pairs, strict=True):
        if exercise == "american":
            expiry = yield from _american_expiry(work, group, of_group, columns)
        else:
            expiry = _european_expiry(work, group, of_group, rates, columns)
        yield Progress(len(made), len(groups))
        if expiry is not None:
            made.append(expiry)
    kept = work.kept()
    if not kept.size:
        raise _nothing_left(work)
    _judge_levels(work, groups)
    _judge_forwards(work, made)
    table = {
        "expiry": quotes.expiry[kept],
        "strike": quotes.value("strike")[kept],
        "forward": columns["forward"][kept],
        **{name: columns[name][kept] for name in ("iv", "bid_iv", "ask_iv") if np.isfinite(columns[name][kept]).any()},
    }
    left_out = [Exclusion(int(quotes.index[i]), reason) for i, reason in sorted(work.reasons.items())]
    return Built(
        label=quotes.label,
        underlying=quotes.underlying,
        as_of=quotes.as_of,
        columns=table,
        index=quotes.index[kept],
        expiries=made,
        excluded=sorted((*quotes.excluded, *left_out), key=lambda exclusion: exclusion.index),
        cautions=work.cautions,
        exercise=exercise,
    )


def _mids(quotes: Quotes) -> Vector:
    """What a quote is worth: the mid given, else the middle of bid and ask."""
    mid, bid, ask = quotes.value("mid"), quotes.value("bid"), quotes.value("ask")
    found = np.where(np.isfinite(mid), mid, 0.5 * (bid + ask))
    if not quotes.has("mid") and not quotes.has("bid") and not quotes.has("ask"):
        return quotes.value("last")
    return np.asarray(found)


def _exercise(work: _Work) -> str:
    quotes, settings = work.quotes, work.settings
    if settings.exercise is not None:
        return settings.exercise
    if quotes.us_listed:
        root = next(root for root in quotes.root if root is not None)
        needed = (
            f"must be given: options on {root} of American exchanges may be exercised early, unless it is an index. "
            "`american` needs the spot and the rate"
        )
        raise question("exercise", f"{needed}.")
    known = {name.upper().lstrip("^") for name in (quotes.underlying or "",) if name}
    if known and not known & (EUROPEAN_ROOTS | set(PARENTS)):
        detail = f"The options on {quotes.underlying} were taken to be European: `exercise` says otherwise."
        work.cautions.append(Caution("exercise_assumed_european", detail))
    return "european"


def _leave_out_unsound(work: _Work) -> None:
    quotes = work.quotes
    bid, ask, mid = quotes.value("bid"), quotes.value("ask"), work.mid
    strike = quotes.value("strike")
    for i in np.flatnonzero(~(strike > _LEAST_PRICE)).tolist():
        raise InvalidInput(quotes.problem(i, "strike", f"must be > 0, but is {strike[i]:g}."))
    sided = quotes.has("bid") or quotes.has("ask")
    given = np.isfinite(quotes.value("mid"))
    for reason, bad in (
        ("expired", quotes.expiry <= 0.0),
        ("missing quote: neither call nor put", quotes.side == 0),
        ("missing quote: no price", ~np.isfinite(mid) & ~np.isfinite(bid) & ~np.isfinite(ask)),
        ("no bid", sided & (bid <= 0.0)),
        ("no ask", sided & (ask <= 0.0)),
        ("one-sided quote: a bid or an ask alone", ~np.isfinite(mid)),
        ("ask below bid", ask < bid),
        ("mid outside its bid and ask", given & ((mid < bid - (ask - bid)) | (mid > ask + (ask - bid)))),
        ("price is zero or negative", mid <= _LEAST_PRICE),
    ):
        work.drop(np.flatnonzero(bad), reason)
    if not sided and not quotes.has("mid"):
        detail = "The prices are those of the last trades, which are of many moments: bid and ask would be better."
        work.cautions.append(Caution("last_prices_used", detail))
    _leave_out_duplicates(work)


def _leave_out_duplicates(work: _Work) -> None:
    """Of several quotes of one option the narrowest stays, of equals the first."""
    quotes = work.quotes
    spread = quotes.value("ask") - quotes.value("bid")
    seen: dict[tuple[object, ...], int] = {}
    differ = 0
    for i in work.kept().tolist():
        key = (
            quotes.root[i],
            quotes.expiration[i],
            float(quotes.expiry[i]),
            float(quotes.value("strike")[i]),
            int(quotes.side[i]),
        )
        first = seen.setdefault(key, i)
        if first == i:
            continue
        differ += work.mid[i] != work.mid[first]
        worse = first if spread[i] < spread[first] else i
        seen[key] = i if worse == first else first
        work.drop(np.array([worse]), "duplicate")
    if differ:
        detail = (
            f"{differ} options are quoted more than once, at different prices: the narrowest quote of each was used."
        )
        work.cautions.append(Caution("duplicates_differ", detail))


def _groups(work: _Work) -> list[_Group]:
    quotes = work.quotes
    found: dict[tuple[float, str, str | None], list[int]] = {}
    for i in work.kept().tolist():
        found.setdefault((float(quotes.expiry[i]), quotes.expiration[i], quotes.root[i]), []).append(i)
    return [_Group(np.array(at, np.int64), *key) for key, at in sorted(found.items(), key=lambda item: item[0][:2])]


def _pairs(work: _Work, group: _Group) -> _Pairs:
    quotes = work.quotes
    strike, spread = quotes.value("strike"), quotes.value("ask") - quotes.value("bid")
    calls = {float(strike[i]): i for i in group.at.tolist() if quotes.side[i] > 0}
    puts = {float(strike[i]): i for i in group.at.tolist() if quotes.side[i] < 0}
    both = sorted(calls.keys() & puts.keys())
    call = np.array([calls[k] for k in both], np.int64)
    put = np.array([puts[k] for k in both], np.int64)
    width = 0.5 * (spread[call] + spread[put])
    difference = work.mid[call] - work.mid[put]
    has_spreads = bool(width.size) and bool(np.isfinite(width).all())
    noise = np.ones(call.size)
    if has_spreads:
        # A quote without width is not without error: prices have ticks.
        noise = np.maximum(width, 0.1 * float(np.median(width)) + 1e-9 * float(np.max(np.abs(difference)) + 1e-12))
    quoted = [quotes.value(name)[group.at] for name in ("bid", "ask") if quotes.has(name)] or [work.mid[group.at]]
    prices = np.concatenate(quoted)
    return _Pairs(call, put, np.array(both), difference, noise, has_spreads, _rounding(prices[np.isfinite(prices)]))


def _parity_of(pairs: _Pairs, *, discount: float | None = None, forward: float | None = None) -> Parity:
    held = {"discount": discount, "forward": forward}
    return by_parity(pairs.strike, pairs.difference, pairs.noise, rounding=pairs.rounding, **held)


def _rounding(prices: Vector) -> float:
    """Half of the last digit that prices are written to."""
    for digits in range(7):
        if np.allclose(prices, np.round(prices, digits), rtol=0.0, atol=1e-9):
            return 0.5 * 10.0**-digits
    return 0.0


def _scale_coins(work: _Work) -> None:
    """Prices in units of the underlying are made prices: with the forward stated, else by the pairs' own."""
    unit = work.settings.price_unit or ("underlying" if work.quotes.in_coin else None)
    if unit != "underlying":
        return
    quotes = work.quotes
    level = quotes.value("forward")
    if not np.isfinite(level).any():
        level = quotes.value("spot")
    for group in _groups(work):
        pairs = _pairs(work, group)
        of_group = float(np.nanmedian(level[group.at])) if np.isfinite(level[group.at]).any() else math.nan
        if not math.isfinite(of_group):
            if pairs.strike.size < LEAST_PAIRS:
                work.drop(group.at, _NO_FORWARD)
                continue
            of_group = _parity_of(pairs).forward
        if not of_group > _LEAST_PRICE:
            work.drop(group.at, _NO_FORWARD)
            continue
        for name in ("bid", "ask", "mid", "last"):
            if name in quotes.values:
                quotes.values[name][group.at] *= of_group
        work.mid[group.at] *= of_group


class _Rates:
    """What is known of discounting: the rate given, else that of the expiries whose pairs tell it."""

    def __init__(self, work: _Work, groups: Sequence[_Group], pairs: Sequence[_Pairs], *, american: bool) -> None:
        self.work = work
        self._curve: list[tuple[float, float]] = []
        if american or work.quotes.has("rate"):
            return
        for group, of_group in zip(groups, pairs, strict=True):
            if of_group.strike.size >= LEAST_PAIRS:
                forward = _stated(work, group, "forward")
                found = _parity_of(of_group, forward=forward)
                _require_units(work, group, of_group, found)
                if found.discount > _LEAST_PRICE:
                    self._curve.append((group.expiry, -math.log(found.discount) / group.expiry))

    def given(self, group: _Group) -> float | None:
        """The discount that rates given say."""
        discount = _stated(self.work, group, "discount")
        if discount is not None:
            return discount
        rate = _stated(self.work, group, "rate")
        return None if rate is None else math.exp(-rate * group.expiry)

    def between(self, group: _Group) -> float | None:
        """By the rates of the other expiries; None if no expiry tells one."""
        if not self._curve:
            return None
        expiries, rates = zip(*self._curve, strict=True)
        return math.exp(-float(np.interp(group.expiry, expiries, rates)) * group.expiry)


def _stated(work: _Work, group: _Group, name: str) -> float | None:
    values = work.quotes.value(name)[group.at]
    known = values[np.isfinite(values)]
    return float(np.median(known)) if known.size else None


def _require_units(work: _Work, group: _Group, pairs: _Pairs, found: Parity) -> None:
    """raises  InvalidInput, asking for the unit, if the slope of the pairs is that of strikes or prices in another"""
    settings, discount = work.settings, found.discount
    if settings.price_unit is None and discount > 0.0 and 0.5 < found.forward * discount < 2.0 and found.forward > 20.0:
        needed = "must be currency or underlying, since the prices look like fractions of the underlying"
        raise question("price_unit", f"{needed} (calls less puts fall by {discount:.3g} for one of strike).")
    for scale in _SCALES:
        if settings.strike_unit is None and 0.8 * scale < discount < 1.25 * scale:
            needed = f"must be given ({scale:g}, or 1), since calls less puts fall by {discount:.3g} for one of strike"
            raise question("strike_unit", f"{needed}: strikes look {1.0 / scale:g} times too large for the prices.")


def _european_expiry(
    work: _Work, group: _Group, pairs: _Pairs, rates: _Rates, columns: dict[str, Vector]
) -> Expiry | None:
    n = pairs.strike.size
    forward, discount = _stated(work, group, "forward"), rates.given(group)
    origin: ForwardFrom = "given" if forward is not None else "parity"
    parity: Parity | None = None
    if discount is None and n < LEAST_PAIRS:
        discount = rates.between(group)
        if discount is None and (forward is not None or n):
            raise question(
                "rate", f"must be given, since {_n_pairs(n)} of {group.expiration} are too few to tell the discount."
            )
        if discount is not None and n:
            detail = f"The discount of {group.expiration}, of {_n_pairs(n)}, is by the rates of other expiries."
            work.cautions.append(Caution("discount_interpolated", detail))
    if n and (forward is None or discount is None):
        parity = _parity_of(pairs, discount=discount, forward=forward)
        forward, discount = parity.forward, parity.discount
    elif n and forward is not None and discount is not None:
        parity = _parity_of(pairs, discount=discount)
        _compare(work, group, forward, parity)
        parity = _parity_of(pairs, discount=discount, forward=forward)
    if forward is None:
        forward, origin = _of_spot(work, group), "spot"
        if forward is None:
            work.drop(group.at, _NO_FORWARD)
            return None
        rate = _stated(work, group, "rate")
        assert rate is not None
        discount = math.exp(-rate * group.expiry)
    assert discount is not None
    if not (forward > _LEAST_PRICE and discount > _LEAST_PRICE):
        detail = f"Calls and puts of {group.expiration} agree on no forward: its quotes were left out."
        work.cautions.append(Caution("no_forward", detail))
        work.drop(group.at, "its expiry has no forward: calls and puts do not agree on one")
        return None
    values = {name: work.quotes.value(name)[group.at] for name in ("bid", "ask")}
    vols, reason = _black_vols(work, group, work.mid[group.at], forward, discount)
    sides = {name: _black_vols(work, group, prices, forward, discount)[0] for name, prices in values.items()}
    columns["forward"][group.at] = forward
    columns["iv"][group.at] = vols
    columns["bid_iv"][group.at], columns["ask_iv"][group.at] = sides["bid"], sides["ask"]
    rejected = _stale(work, group, pairs, parity, columns["iv"], forward, discount)
    _leave_out_priced(work, group, columns["iv"], reason, forward)
    return _expiry(work, group, forward, origin, discount, parity, rejected)


def _n_pairs(n: int) -> str:
    return f"{n} pair{'' if n == 1 else 's'}"


def _of_spot(work: _Work, group: _Group) -> float | None:
    """Spot carried at the rate less the dividends.

    raises  InvalidInput, asking for the rate, if spot is known and it is not
    """
    spot, rate = _stated(work, group, "spot"), _stated(work, group, "rate")
    if spot is None or rate is None:
        if work.settings.spot is None and work.settings.rate is None and work.kept().size > group.at.size:
            return None
        name = "rate" if rate is None else "spot"
        needed = f"must be given, since {group.expiration} has no pair of call and put that would tell its forward"
        raise question(name, f"{needed}.")
    q = _stated(work, group, "dividend_yield")
    if q is None:
        detail = "Forwards are the spot carried at the rate, without dividends: `dividend_yield` says otherwise."
        if detail not in [caution.detail for caution in work.cautions]:
            work.cautions.append(Caution("dividend_yield_assumed_zero", detail))
    return spot * math.exp((rate - (q or 0.0)) * group.expiry)


def _compare(work: _Work, group: _Group, forward: float, parity: Parity) -> None:
    error = parity.forward_error or 0.0
    gap = parity.forward - forward
    if abs(gap) > max(5.0 * error, 1e-3 * forward):
        detail = (
            f"The forward given for {group.expiration}, {forward:g}, is {1e4 * -gap / parity.forward:.0f} bp from that "
            f"of {_n_pairs(parity.n_pairs)}, {parity.forward:g}."
        )
        work.cautions.append(Caution("forward_off_parity", detail))


def _black_vols(
    work: _Work, group: _Group, price: Vector, forward: float, discount: float
) -> tuple[Vector, dict[int, NoVolatility]]:
    """Vols of European prices, and why there is none, by position."""
    side, strike = work.quotes.side[group.at], work.quotes.value("strike")[group.at]
    k = np.log(strike / forward)
    found = np.full(price.size, np.nan)
    reasons: dict[int, NoVolatility] = {}
    for sign, kind in ((1, "call"), (-1, "put")):
        at = np.flatnonzero((side == sign) & np.isfinite(price))
        inverted = implied_volatility(price[at] / (discount * forward), k[at], group.expiry, kind)  # type: ignore[arg-type]
        found[at] = inverted.volatility
        codes = inverted.reason.tolist()
        reasons.update(
            {int(group.at[i]): NoVolatility(code) for i, code in zip(at.tolist(), codes, strict=True) if code}
        )
    return found, reasons


_WHY = {
    NoVolatility.BELOW_INTRINSIC: "below intrinsic value",
    NoVolatility.NO_TIME_VALUE: "no time value",
    NoVolatility.ABOVE_BOUND: "above its upper bound",
    NoVolatility.ROUNDED_AWAY: "no time value",
}


def _stale(
    work: _Work, group: _Group, pairs: _Pairs, parity: Parity | None, iv: Vector, forward: float, discount: float
) -> IntVector:
    """Leave out what is off parity by more than its spread and than noise: of the two the one off the smile.

    returns  (n_rejected,) which pairs
    """
    if parity is None or pairs.strike.size < LEAST_PAIRS:
        return np.empty(0, np.int64)
    off = np.abs(parity.residual) > _apart(pairs, parity)
    # The smile of the others, by the option out of the money of each.
    out = np.where(pairs.strike >= forward, pairs.call, pairs.put)
    sound = ~off & np.isfinite(iv[out])
    if off.any() and not sound.any():
        work.drop(np.concatenate((pairs.call[off], pairs.put[off])), _STALE)
    elif off.any():
        strike = pairs.strike[off]
        vol = np.interp(strike, pairs.strike[sound], iv[out[sound]])
        k, level = np.log(strike / forward), discount * forward
        gap_of_call = np.abs(work.mid[pairs.call[off]] - level * call_price(k, group.expiry, vol))
        gap_of_put = np.abs(work.mid[pairs.put[off]] - level * put_price(k, group.expiry, vol))
        work.drop(np.where(gap_of_call > gap_of_put, pairs.call[off], pairs.put[off]), _STALE)
    return np.flatnonzero(off)


def _apart(pairs: _Pairs, parity: Parity) -> Vector:
    """(n_pairs,) What calls and puts may be off parity by: noise, and half of both spreads. Where nobody says how wide
    quotes are, noise is all there is to go by, and its tails are wide."""
    if pairs.has_spreads:
        return np.maximum(parity.tolerance, np.maximum(pairs.noise, 1e-6 * parity.forward))
    return np.maximum(_WIDE_TAILS * parity.tolerance, _LEAST_STALE * parity.forward)


def _leave_out_priced(work: _Work, group: _Group, iv: Vector, reasons: dict[int, NoVolatility], forward: float) -> None:
    """Quotes without a vol, and those in the money unless the other of the pair is stale, or not in the file at all."""
    for i in group.at[~np.isfinite(iv[group.at])].tolist():
        work.drop(np.array([i]), _WHY[reasons[i]] if i in reasons else "below intrinsic value")
    _leave_out_in_the_money(work, group, forward)


def _leave_out_in_the_money(work: _Work, group: _Group, forward: float) -> None:
    quotes = work.quotes
    strike, root = quotes.value("strike"), group.root
    of_expiry = np.array([i for i in np.flatnonzero(quotes.expiry == group.expiry).tolist() if quotes.root[i] == root])
    out = np.where(strike[of_expiry] >= forward, quotes.side[of_expiry] > 0, quotes.side[of_expiry] < 0)
    other: dict[float, str] = {}
    for i in of_expiry[out].tolist():
        reason = work.reasons.get(i)
        if reason != _STALE:
            # What makes the option out of the money unusable says nothing for the other.
            other[float(strike[i])] = _IN_THE_MONEY if reason is None else _PAIR_UNUSABLE
    inside = np.where(strike[group.at] >= forward, quotes.side[group.at] < 0, quotes.side[group.at] > 0)
    for i in group.at[inside].tolist():
        if float(strike[i]) in other:
            work.drop(np.array([i]), other[float(strike[i])])


def _expiry(
    work: _Work,
    group: _Group,
    forward: float,
    origin: ForwardFrom,
    discount: float,
    parity: Parity | None,
    rejected: IntVector,
    early: EarlyExercise | None = None,
) -> Expiry:
    return Expiry(
        expiration=group.expiration,
        expiry=group.expiry,
        forward=forward,
        forward_from=origin,
        forward_error=None if parity is None else parity.forward_error,
        discount=discount,
        discount_error=None if parity is None else parity.discount_error,
        n_pairs=0 if parity is None else int(np.count_nonzero(np.isfinite(parity.residual))) - rejected.size,
        n_pairs_rejected=int(rejected.size),
        n_quotes=sum(i not in work.reasons for i in group.at.tolist()),
        early_exercise=early,
    )


def _american_expiry(work: _Work, group: _Group, pairs: _Pairs, columns: dict[str, Vector]) -> Steps[Expiry]:
    quotes = work.quotes
    spot, rate, q = (_stated(work, group, name) for name in ("spot", "rate", "dividend_yield"))
    missing = [name for name, value in (("spot", spot), ("rate", rate)) if value is None]
    if missing or spot is None or rate is None:
        needed = "must be given, since American options are valued by spot, rate and dividends"
        raise InvalidInput(*(Problem.at((name,), f"{needed}.") for name in missing))
    n = pairs.strike.size
    found = None
    if n:
        found = yield from american_forward_steps(
            work.mid[pairs.call],
            work.mid[pairs.put],
            pairs.strike,
            pairs.noise,
            spot=spot,
            rate=rate,
            expiry=group.expiry,
            start=q,
        )
    if found is not None:
        parity, origin = found.parity, "parity"
        if not found.settled:
            detail = f"The forward of {group.expiration} did not settle as early exercise was taken off."
            work.cautions.append(Caution("forward_not_settled", detail))
        implied = found.dividend_yield
    elif q is not None:
        parity, origin, implied = None, "spot", q
    else:
        needed = f"must be given, since {group.expiration} has no pair of call and put that would tell its forward"
        raise question("dividend_yield", f"{needed}.")
    american = American(spot, rate, implied, group.expiry)
    strike, side = quotes.value("strike")[group.at], quotes.side[group.at]
    forward, discount = american.forward, american.discount
    # The options out of the money alone are used, and only they cost a search.
    rejected = _american_stale(work, pairs, parity)
    _leave_out_in_the_money(work, group, forward)
    wanted = np.array([i not in work.reasons for i in group.at.tolist()])
    at = group.at[wanted]
    columns["forward"][at] = forward
    for name, prices in (("iv", work.mid), ("bid_iv", quotes.value("bid")), ("ask_iv", quotes.value("ask"))):
        columns[name][at] = yield from american.vol_steps(prices[at], strike[wanted], side[wanted])
    raw, _ = _black_vols(work, group, work.mid[group.at], forward, discount)
    change = 1e4 * np.abs(raw[wanted] - columns["iv"][at])
    change = change[np.isfinite(change)]
    plain = _parity_of(pairs, discount=discount).forward if n else forward
    early = EarlyExercise(
        median_bp=float(np.median(change)) if change.size else 0.0,
        max_bp=float(change.max()) if change.size else 0.0,
        forward_bp=1e4 * (plain / forward - 1.0),
        dividend_yield=implied,
    )
    lost = at[~np.isfinite(columns["iv"][at])]
    work.drop(lost, "at or below the value of exercising at once")
    return _expiry(work, group, forward, origin, discount, parity, rejected, early)  # type: ignore[arg-type]


def _american_stale(work: _Work, pairs: _Pairs, parity: Parity | None) -> IntVector:
    """Pairs whose European prices are off parity by more than their spread and than noise."""
    if parity is None or pairs.strike.size < LEAST_PAIRS:
        return np.empty(0, np.int64)
    with np.errstate(invalid="ignore"):
        off = np.abs(parity.residual) > _apart(pairs, parity)
    for i in np.flatnonzero(off).tolist():
        work.drop(np.array([pairs.call[i], pairs.put[i]]), _STALE)
    return np.flatnonzero(off)


def _judge_levels(work: _Work, groups: Sequence[_Group]) -> None:
    """Cautions about forwards and spots that are not one."""
    for name in ("forward", "spot"):
        for group in groups:
            values = work.quotes.value(name)[group.at]
            known = values[np.isfinite(values)]
            if known.size and float(known.max()) > (1.0 + SAME_FORWARD) * float(known.min()):
                detail = (
                    f"The {name} of {group.expiration} runs from {known.min():g} to {known.max():g}: the median was "
                    "taken, as if its quotes were of one moment."
                )
                work.cautions.append(Caution(f"{name}_varies_within_expiry", detail))
                break


def _judge_forwards(work: _Work, made: Sequence[Expiry]) -> None:
    """Cautions about forwards and discounts that no market has."""
    for expiry in made:
        if expiry.discount is not None and expiry.forward_from == "parity":
            rate = -math.log(expiry.discount) / expiry.expiry
            if abs(rate) > _LARGEST_CARRY and abs(math.log(expiry.discount)) > _LEAST_CARRY:
                detail = (
                    f"Pairs of {expiry.expiration} imply a rate of {100.0 * rate:.0f} %: its calls and puts look like "
                    "quotes of two moments, or of two units."
                )
                work.cautions.append(Caution("discount_looks_wrong", detail))
        if work.quotes.has("spot"):
            spot = float(np.nanmedian(work.quotes.value("spot")))
            carry = math.log(expiry.forward / spot)
            if abs(carry) > max(_LARGEST_CARRY * expiry.expiry, _LEAST_CARRY):
                detail = f"The forward of {expiry.expiration}, {expiry.forward:g}, is far from the spot, {spot:g}."
                work.cautions.append(Caution("forward_far_from_spot", detail))


def _nothing_left(work: _Work) -> InvalidInput:
    reasons = tallied([*work.reasons.values(), *(exclusion.reason for exclusion in work.quotes.excluded)])
    source, label = work.quotes.source, work.quotes.label
    detail = f"Panel {label} of {source} must hold at least one usable quote, but holds none ({reasons})."
    return InvalidInput(Problem((source, label), detail))
