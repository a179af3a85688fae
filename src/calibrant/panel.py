"""Option quotes as a calibration wants them: checked, completed and in one canonical order.

A panel is irregular: every quote has its own expiry and strike, several may share both, and some are missing. All that
the models see of a strike is k = log(strike / forward), so the unit of strikes and forwards cancels at the door.

What a feed sends for want of a quote (a bid of zero, an ask below it, a vol of 2000 %) costs that quote and not the
panel: it is left out with its reason. What is no number, or a strike or forward that is no price, is refused: there the
request is at fault, and leaving it out would hide that.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from .arrays import BoolVector, IntVector, Matrix, Vector
from .black import otm_and_vega
from .caution import Caution
from .compiled import brief, careful
from .errors import InvalidInput, Path, Problem, name_of
from .quote_cautions import HIGH_VOL, LONG_EXPIRY, SAME_FORWARD, YEAR, quote_cautions, tallied

WeightsFrom = Literal["request", "spreads", "nothing"]

LARGEST_VOL = 5.0
LONGEST_EXPIRY = 100.0
LARGEST_LOG_MONEYNESS = 10.0
# Far beyond 1 / spread^2; what matters is that a sum of weighted squares stays finite.
LARGEST_WEIGHT = 1e30
LEAST_SPREAD = 1e-4
# Of vol: 0.26 - 0.25 and 0.27 - 0.26 are not the same number.
_ROUNDING = 1e-12
# Of the forward. Where an option gains less than this per unit of vol, a price step of 1e-5 of the forward (one tick of
# most listed options) is a vol point: such a quote says less about the surface than its neighbours' noise does.
LEAST_VEGA = 1e-3
MAX_PROBLEMS = 100

_NO_VALUES = np.empty(0)
_LOW_VEGA = f"vega below {LEAST_VEGA:g} of the forward"


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A quote left out."""

    index: int
    """Its position in the request."""
    reason: str


class QuoteScales(NamedTuple):
    """What a fit needs of the quotes besides themselves."""

    offsets: IntVector
    """(n_expiries + 1,): quotes offsets[i] to offsets[i + 1] are those of expiry i."""
    expiries: Vector
    """(n_expiries,), ascending."""
    root_expiry: Vector
    """(n_quotes,)"""
    root_weight: Vector
    """(n_quotes,) of the weights over their mean."""
    vega: Vector
    """(n_quotes,), Black's at the mid, in units of the forward."""
    least_vega: Vector
    """(n_expiries,), the smallest of each expiry."""
    lowest_vega: float
    """The smallest of all."""


@dataclass(frozen=True, kw_only=True, eq=False)
class OptionPanel:
    """The usable quotes of a panel, (n_quotes,) each, sorted by expiry, log_moneyness, mid, weight, bid, ask.

    The order is the panel's own, so that no result depends on the order in which quotes were given. Build one with
    `from_quotes` or `from_grid`, which check everything; the arrays are trusted from then on.
    """

    expiry: Vector
    """Years."""
    log_moneyness: Vector
    """log(strike / forward)."""
    mid: Vector
    """Implied vol, decimals: the one given, else the mean of bid and ask."""
    bid: Vector
    """Implied vol, NaN where absent."""
    ask: Vector
    """Implied vol, NaN where absent."""
    weight: Vector
    """> 0, multiplies the squared residual of the quote."""
    forward: Vector | None
    """In the unit of the strikes; None where log_moneyness was given. Only for naming strikes in answers."""
    index: IntVector
    """Position in the request."""
    weights_from: WeightsFrom
    """What the weights say of the quotes' accuracy: as the request gave them, from bid and ask, or equal for want of
    both."""
    excluded: tuple[Exclusion, ...]
    """The quotes left out, by index."""
    cautions: tuple[Caution, ...] = ()
    """What is odd about the quotes."""

    @property
    def n_quotes(self) -> int:
        return self.mid.size

    @cached_property
    def scales(self) -> QuoteScales:
        n = self.n_quotes
        offsets, rows = np.empty(n + 1, np.int64), np.empty((5, n))
        m, lowest = _weigh_one(self.expiry, self.log_moneyness, self.mid, self.weight, offsets, rows)
        expiries, root_expiry, root_weight, vega, least_vega = rows
        return QuoteScales(offsets[: m + 1], expiries[:m], root_expiry, root_weight, vega, least_vega[:m], lowest)

    def keep_scales(self, scales: QuoteScales) -> None:
        """Take `scales` from where they were worked out for many panels together."""
        vars(self)["scales"] = scales

    def renumbered(self, positions: IntVector, excluded: Sequence[Exclusion] = ()) -> "OptionPanel":
        """The same panel as a part of a longer list of quotes, in which its quote i is at positions[i].

        excluded  what else of that list was left out
        """
        places = positions.tolist()
        moved = [Exclusion(places[exclusion.index], exclusion.reason) for exclusion in self.excluded]
        panel = object.__new__(OptionPanel)
        vars(panel).update(
            vars(self),
            index=positions[self.index],
            excluded=tuple(sorted((*moved, *excluded), key=lambda exclusion: exclusion.index)),
            cautions=tuple(
                [caution._replace(indices=tuple([places[i] for i in caution.indices])) for caution in self.cautions]
            ),
        )
        return panel

    @property
    def offsets(self) -> IntVector:
        """(n_expiries + 1,): quotes offsets[i] to offsets[i + 1] are those of expiry i."""
        return self.scales.offsets

    @property
    def expiries(self) -> Vector:
        """(n_expiries,), ascending."""
        return self.scales.expiries

    @classmethod
    def from_quotes(
        cls,
        *,
        expiry: ArrayLike | Sequence[float | None],
        strike: ArrayLike | Sequence[float | None] | None = None,
        forward: ArrayLike | Sequence[float | None] | None = None,
        log_moneyness: ArrayLike | Sequence[float | None] | None = None,
        iv: ArrayLike | Sequence[float | None] | None = None,
        bid_iv: ArrayLike | Sequence[float | None] | None = None,
        ask_iv: ArrayLike | Sequence[float | None] | None = None,
        weight: ArrayLike | Sequence[float | None] | None = None,
        exclude: ArrayLike | Sequence[int] | None = None,
        path: Path = ("quotes",),
    ) -> "OptionPanel":
        """A panel from irregular quotes, one value per quote in each array.

        expiry         (n,), years, at most 100; a quote that has expired (<= 0) is left out
        strike         (n,), > 0, with
        forward        one number or (n,), > 0, in the unit of the strikes; or instead of both
        log_moneyness  (n,), log(strike / forward), within +-10
        iv             (n,), the mid vols in decimals; None or NaN is a missing value
        bid_iv, ask_iv (n,), likewise. Where iv is missing, the mid is their mean, and one of them alone is a missing
                       quote. A quote is left out if a vol of it is not in (0, 5], its ask is below its bid, or its iv
                       is outside both by more than max(ask - bid, 1 bp). A bid of zero is no bid: beside an iv it is
                       passed over, without one the quote is left out
        weight         (n,), >= 0; zero leaves the quote out. By default 1 / max(ask - bid, 1 bp)^2 where both are
                       there. Quotes without a spread in a panel that has spreads get the median of those weights: equal
                       weights of one would drop them silently beside weights of a million. Without any spread, one
        exclude        (m,), positions of quotes to leave out unseen
        path           where the quotes lie in the request, for the problems; `exclude` lies beside them
        raises         InvalidInput with every problem found (100 at most): no number where one is needed, a value
                       outside the ranges above, unequal lengths, fields missing or too many, no usable quote
        """
        arrays = {}
        for name, values in (
            ("expiry", expiry),
            ("strike", strike),
            ("forward", forward),
            ("log_moneyness", log_moneyness),
            ("iv", iv),
            ("bid_iv", bid_iv),
            ("ask_iv", ask_iv),
            ("weight", weight),
        ):
            if values is not None:
                arrays[name] = _as_vector(values, path, name)
        one_forward = "forward" in arrays and arrays["forward"].ndim == 0
        if one_forward:
            arrays["forward"] = arrays["forward"].reshape(1)
        _require_fields(arrays, one_forward, path)
        years = arrays["expiry"]
        n = years.size
        columns = np.empty((7, n))
        index = np.empty(n, np.int64)
        state = np.zeros(n, np.int8)
        if exclude is not None:
            state[_positions(exclude, n, (*path[:-1], "exclude"))] = _BY_REQUEST
        sound, n_used, has_spreads, odd = _read(
            years,
            arrays.get("strike", _NO_VALUES),
            arrays.get("forward", _NO_VALUES),
            arrays.get("log_moneyness", _NO_VALUES),
            arrays.get("iv", _NO_VALUES),
            arrays.get("bid_iv", _NO_VALUES),
            arrays.get("ask_iv", _NO_VALUES),
            arrays.get("weight", _NO_VALUES),
            columns,
            index,
            state,
        )
        if not sound:
            raise InvalidInput(*_problems(arrays, one_forward, state != _BY_REQUEST, path))
        excluded: tuple[Exclusion, ...] = ()
        if n_used < n:
            excluded = tuple([Exclusion(i, _REASONS[code]) for i, code in enumerate(state.tolist()) if code])
            if n_used == 0:
                raise InvalidInput(_nothing_left(excluded, path))
            columns, index = columns[:, :n_used], index[:n_used]
        used_expiry, used_moneyness, mid, bid, ask, used_weight, used_forward = columns
        panel = object.__new__(cls)
        # As `__init__` does, which takes four times as long: a frozen dataclass sets every field by a call.
        vars(panel).update(
            expiry=used_expiry,
            log_moneyness=used_moneyness,
            mid=mid,
            bid=bid,
            ask=ask,
            weight=used_weight,
            forward=None if forward is None else used_forward,
            index=index,
            weights_from="request" if weight is not None else "spreads" if has_spreads else "nothing",
            excluded=excluded,
            cautions=(),
        )
        if odd:
            vars(panel)["cautions"] = quote_cautions(
                expiry=used_expiry,
                log_moneyness=used_moneyness,
                mid=mid,
                forward=panel.forward,
                strike=arrays["strike"][index] if "strike" in arrays else None,
                unusable=[_REASONS[code] for code in state[state >= _VOL_ABOVE].tolist()],
                n_above=int(np.count_nonzero(state == _VOL_ABOVE)),
            )
        return panel

    @classmethod
    def from_grid(
        cls,
        *,
        expiry: ArrayLike,
        log_moneyness: ArrayLike,
        iv: ArrayLike | None = None,
        bid_iv: ArrayLike | None = None,
        ask_iv: ArrayLike | None = None,
        weight: ArrayLike | None = None,
        path: Path = (),
    ) -> "OptionPanel":
        """A panel from a regular grid; `index` counts its nodes row by row.

        expiry          (n_expiries,), years
        log_moneyness   (n_strikes,), the same at every expiry
        iv, bid_iv, ask_iv, weight
                        (n_expiries, n_strikes), NaN where missing; meaning and ranges as in `from_quotes`
        raises          InvalidInput as `from_quotes`, pointing at expiry[i], log_moneyness[j] or iv[i][j]
        """
        rows = _as_vector(expiry, path, "expiry")
        columns = _as_vector(log_moneyness, path, "log_moneyness")
        shape = (rows.size, columns.size)
        given = {"iv": iv, "bid_iv": bid_iv, "ask_iv": ask_iv, "weight": weight}
        flat: dict[str, Vector] = {}
        for name, values in given.items():
            if values is None:
                continue
            grid = _as_array(values, path, name)
            if grid.shape != shape:
                needed = f"must have the shape (n_expiries, n_strikes) = {shape}, but has {grid.shape}."
                raise InvalidInput(Problem.at((*path, name), needed))
            flat[name] = grid.reshape(-1)
        try:
            return cls.from_quotes(
                expiry=np.repeat(rows, columns.size),
                log_moneyness=np.tile(columns, rows.size),
                iv=flat.get("iv"),
                bid_iv=flat.get("bid_iv"),
                ask_iv=flat.get("ask_iv"),
                weight=flat.get("weight"),
                path=path,
            )
        except InvalidInput as error:
            raise InvalidInput(*_on_grid(error.problems, columns.size)) from None


def identifiable(panel: OptionPanel) -> OptionPanel:
    """The quotes whose Black vega at the mid is at least 1e-3 of the forward; the others join `excluded`.

    Below, the vol is a reading of the last tick of the price and no information: see `LEAST_VEGA`.

    raises  InvalidInput if no quote is left
    """
    if panel.scales.lowest_vega >= LEAST_VEGA:
        return panel
    vega = panel.scales.vega
    used = vega >= LEAST_VEGA
    if not used.any():
        reasons = tallied([*(exclusion.reason for exclusion in panel.excluded), *[_LOW_VEGA] * panel.n_quotes])
        needed = (
            f"must hold a quote whose vega is {LEAST_VEGA:g} of the forward or more, but {vega.max():.2g} is the most "
            f"({reasons})."
        )
        raise InvalidInput(Problem.at(("quotes",), needed))
    left_out = [Exclusion(i, _LOW_VEGA) for i in panel.index[~used].tolist()]
    kept = np.flatnonzero(used)
    return OptionPanel(
        expiry=panel.expiry.take(kept),
        log_moneyness=panel.log_moneyness.take(kept),
        mid=panel.mid.take(kept),
        bid=panel.bid.take(kept),
        ask=panel.ask.take(kept),
        weight=panel.weight.take(kept),
        forward=None if panel.forward is None else panel.forward.take(kept),
        index=panel.index.take(kept),
        weights_from=panel.weights_from,
        excluded=tuple(sorted((*panel.excluded, *left_out), key=lambda exclusion: exclusion.index)),
        cautions=panel.cautions,
    )


_N_ORDERING = 6
"""Columns by which the quotes of a panel are sorted: all but the forward."""
# What becomes of a quote. From `_VOL_ABOVE` on it is there, and wanted, and cannot be used.
_NO_NUMBER = -1
_USED, _BY_REQUEST, _MISSING, _ONE_SIDED, _ZERO_WEIGHT = range(5)
_VOL_ABOVE, _NO_BID, _VOL_BELOW, _CROSSED, _OUTSIDE, _EXPIRED = range(5, 11)
_REASONS = {
    _BY_REQUEST: "excluded by the request",
    _MISSING: "missing quote",
    _ONE_SIDED: "one-sided quote: a bid or an ask alone, and no iv",
    _ZERO_WEIGHT: "weight is zero",
    _VOL_ABOVE: f"vol above {LARGEST_VOL:g}",
    _NO_BID: "no bid: its vol is zero, and no iv",
    _VOL_BELOW: "vol is zero or negative",
    _CROSSED: "ask below bid",
    _OUTSIDE: "mid outside its bid and ask",
    _EXPIRED: "expired",
}


@careful
def _state_of(expiry: float, iv: float, bid: float, ask: float, mid: float, weight: float) -> int:
    """What becomes of a quote that is not sound at first sight."""
    if np.isinf(expiry) or np.isinf(iv) or np.isinf(bid) or np.isinf(ask):
        return _NO_NUMBER
    if np.isnan(mid):
        return _MISSING if np.isnan(bid) and np.isnan(ask) else _ONE_SIDED
    if weight == 0.0:
        return _ZERO_WEIGHT
    if iv > LARGEST_VOL or bid > LARGEST_VOL or ask > LARGEST_VOL:
        return _VOL_ABOVE
    if bid == 0.0:
        if np.isnan(iv):
            return _NO_BID
        bid = np.nan
    if iv <= 0.0 or bid < 0.0 or ask <= 0.0:
        return _VOL_BELOW
    if ask < bid:
        return _CROSSED
    if max(bid - mid, mid - ask) > max(ask - bid, LEAST_SPREAD) + _ROUNDING:
        return _OUTSIDE
    return _USED if expiry > 0.0 else _EXPIRED


@careful
def _read(
    expiry: Vector,
    strike: Vector,
    forward: Vector,
    log_moneyness: Vector,
    iv: Vector,
    bid_iv: Vector,
    ask_iv: Vector,
    weight: Vector,
    columns: Matrix,
    index: IntVector,
    state: NDArray[np.int8],
) -> tuple[bool, int, bool, bool]:
    """Check every value, complete the quotes and sort them: one pass over a sound panel given in order.

    expiry         (n,); the other inputs (n,) or empty where not given, forward also (1,)
    columns        (7, n), filled in the panel's order: expiry, log_moneyness, mid, bid, ask, weight and, if it is
                   given, forward
    index          (n,), filled: position in the request
    state          (n,), by request position: what becomes of a quote. `_BY_REQUEST` where that is settled, else
                   `_USED`, which is what stays or is replaced
    returns        whether every value can be judged (if not, nothing else counts), the number of quotes used, whether
                   weights come from spreads, and whether anything is odd enough for `quote_cautions` to look at
    """
    n = expiry.size
    used = 0
    n_spreads = 0
    n_unusable = 0
    n_high = 0
    in_order = True
    for i in range(n):
        if state[i] != _USED:
            continue
        t = expiry[i]
        if not t <= LONGEST_EXPIRY:
            return False, 0, False, False
        if log_moneyness.size > 0:
            k = log_moneyness[i]
        else:
            x = strike[i]
            f = forward[i] if forward.size > 1 else forward[0]
            if not (0.0 < x < np.inf and 0.0 < f < np.inf):
                return False, 0, False, False
            k = np.log(x / f)
        if not abs(k) <= LARGEST_LOG_MONEYNESS:
            return False, 0, False, False
        mid = iv[i] if iv.size > 0 else np.nan
        bid = bid_iv[i] if bid_iv.size > 0 else np.nan
        ask = ask_iv[i] if ask_iv.size > 0 else np.nan
        w = weight[i] if weight.size > 0 else np.nan
        if weight.size > 0 and not 0.0 <= w <= LARGEST_WEIGHT:
            return False, 0, False, False
        if np.isnan(mid):
            mid = 0.5 * (bid + ask)
        # Sound at first sight: 0 < bid <= mid <= ask <= 5, as far as they are there.
        if (
            not 0.0 < mid <= LARGEST_VOL
            or bid <= 0.0
            or mid < bid
            or mid > ask
            or ask > LARGEST_VOL
            or t <= 0.0
            or w == 0.0
        ):
            code = _state_of(t, iv[i] if iv.size > 0 else np.nan, bid, ask, mid, w)
            if code == _NO_NUMBER:
                return False, 0, False, False
            if code != _USED:
                state[i] = code
                n_unusable += code >= _VOL_ABOVE
                continue
            if bid == 0.0:
                bid = np.nan
        if weight.size == 0 and bid <= ask:
            spread = max(ask - bid, LEAST_SPREAD)
            w = 1.0 / (spread * spread)
            n_spreads += 1
        n_high += mid >= HIGH_VOL
        columns[0, used] = t
        columns[1, used] = k
        columns[2, used] = mid
        columns[3, used] = bid
        columns[4, used] = ask
        columns[5, used] = w
        if forward.size > 0:
            columns[6, used] = forward[i] if forward.size > 1 else forward[0]
        index[used] = i
        if used > 0 and in_order and (weight.size > 0 or n_spreads == 0 or n_spreads == used + 1):
            in_order = not _before(columns, used, used - 1)
        used += 1
    if weight.size == 0 and n_spreads < used:
        filler = 1.0
        if n_spreads > 0:
            known = columns[5, :used]
            filler = np.median(known[~np.isnan(known)])
            in_order = False
        for j in range(used):
            if np.isnan(columns[5, j]):
                columns[5, j] = filler
    if not in_order:
        order = _sorted(columns, used)
        columns[:, :used] = columns[:, order]
        index[:used] = index[order]
    odd = n_unusable > used or 2 * n_high > used
    if used > 0:
        odd = odd or (columns[0, 0] >= YEAR and columns[0, used - 1] >= LONG_EXPIRY)
    if forward.size > 1:
        first = columns[6, 0]
        for j in range(1, used):
            if columns[0, j] != columns[0, j - 1]:
                first = columns[6, j]
            odd = odd or abs(columns[6, j] - first) > 0.5 * SAME_FORWARD * first
    return True, used, n_spreads > 0, odd


@brief
def weigh(
    expiry: Vector,
    log_moneyness: Vector,
    mid: Vector,
    weight: Vector,
    offsets: IntVector,
    expiries: Vector,
    root_expiry: Vector,
    root_weight: Vector,
    vega: Vector,
    least_vega: Vector,
) -> int:
    """Fill what `QuoteScales` holds, of arrays long enough for an expiry a quote; the number of expiries."""
    n = expiry.size
    sd = np.empty(n)
    # Weights are relative. Equal ones are one exactly, whatever their sum rounds to.
    lowest, highest, total = np.inf, 0.0, 0.0
    for i in range(n):
        lowest, highest, total = min(lowest, weight[i]), max(highest, weight[i]), total + weight[i]
    mean = lowest if lowest == highest else total / n
    for i in range(n):
        root_expiry[i] = np.sqrt(expiry[i])
        root_weight[i] = np.sqrt(weight[i] / mean)
        sd[i] = mid[i] * root_expiry[i]
    # By the kernel itself: the door of `black.vega` would check what `_read` has checked.
    otm_and_vega(log_moneyness, sd, np.empty(n), vega)
    offsets[0] = 0
    m = 0
    for i in range(n):
        vega[i] *= root_expiry[i]
        if i == 0 or expiry[i] != expiry[i - 1]:
            expiries[m] = expiry[i]
            least_vega[m] = vega[i]
            m += 1
        least_vega[m - 1] = min(least_vega[m - 1], vega[i])
        offsets[m] = i + 1
    return m


@brief
def _weigh_one(
    expiry: Vector, log_moneyness: Vector, mid: Vector, weight: Vector, offsets: IntVector, rows: Matrix
) -> tuple[int, float]:
    """`weigh`, filling rows (5, n): expiries, root_expiry, root_weight, vega, least_vega; also the smallest vega."""
    m = weigh(expiry, log_moneyness, mid, weight, offsets, rows[0], rows[1], rows[2], rows[3], rows[4])
    return m, rows[4, :m].min()


@careful
def _before(columns: NDArray[np.float64], i: int, j: int) -> bool:
    """Whether quote i comes before quote j; an absent bid or ask before any."""
    for row in range(_N_ORDERING):
        a = columns[row, i]
        b = columns[row, j]
        if np.isnan(a):
            a = -1.0
        if np.isnan(b):
            b = -1.0
        if a != b:
            return bool(a < b)
    return False


@careful
def _sorted(columns: NDArray[np.float64], n: int) -> IntVector:
    """The order of the first n quotes, by merging runs from below."""
    order = np.arange(n)
    other = np.empty(n, np.int64)
    width = 1
    while width < n:
        for start in range(0, n, 2 * width):
            middle = min(start + width, n)
            end = min(start + 2 * width, n)
            i = start
            j = middle
            for place in range(start, end):
                if i < middle and (j >= end or not _before(columns, order[j], order[i])):
                    other[place] = order[i]
                    i += 1
                else:
                    other[place] = order[j]
                    j += 1
        order, other = other, order
        width *= 2
    return order


def _as_array(values: ArrayLike | Sequence[float | None], path: Path, name: str) -> NDArray[np.float64]:
    """As contiguous float64, None turned into NaN."""
    try:
        return np.asarray(values, dtype=np.float64, order="C")
    except (TypeError, ValueError):
        raise InvalidInput(_not_numbers(values, (*path, name))) from None


def _not_numbers(values: object, path: Path) -> Problem:
    """The first value that is no number, or that the whole is no array of numbers."""
    if isinstance(values, Sequence) and not isinstance(values, str):
        for i, value in enumerate(values):
            if not isinstance(value, int | float | None):
                return Problem.at((*path, i), f"must be a number, but is {str(value)[:80]!r}.")
    return Problem.at(path, f"must be an array of numbers, but is {str(values)[:80]!r}.")


def _as_vector(values: ArrayLike | Sequence[float | None], path: Path, name: str) -> Vector:
    array = _as_array(values, path, name)
    if array.ndim != 1 and (array.ndim > 1 or name != "forward"):
        raise InvalidInput(
            Problem.at((*path, name), f"must be a one-dimensional array, but has the shape {array.shape}.")
        )
    return array


def _require_fields(arrays: dict[str, Vector], one_forward: bool, path: Path) -> None:
    """Enough fields, none that contradict each other, all of one length, at least one quote."""
    problems: list[Problem] = []
    has_strike, has_forward, has_moneyness = "strike" in arrays, "forward" in arrays, "log_moneyness" in arrays
    if has_moneyness and (has_strike or has_forward):
        problems.append(
            Problem.at((*path, "log_moneyness"), "must be given alone, or left out beside `strike` and `forward`.")
        )
    elif not has_moneyness and not has_strike:
        problems.append(
            Problem.at((*path, "strike"), "must be given with `forward`, or `log_moneyness` instead of both.")
        )
    elif has_strike and not has_forward:
        problems.append(Problem.at((*path, "forward"), "must be given with `strike`."))
    if not ("iv" in arrays or "bid_iv" in arrays or "ask_iv" in arrays):
        problems.append(Problem.at((*path, "iv"), "must be given, or `bid_iv` and `ask_iv`."))
    n = arrays["expiry"].size
    if n == 0:
        problems.append(Problem.at((*path, "expiry"), "must hold at least one quote, but is empty."))
    for name, array in arrays.items():
        if array.size != n and not (name == "forward" and one_forward):
            needed = f"must have as many values as `{name_of((*path, 'expiry'))}` ({n}), but has {array.size}."
            problems.append(Problem.at((*path, name), needed))
    if problems:
        raise InvalidInput(*problems)


def _positions(exclude: ArrayLike | Sequence[int], n: int, path: Path) -> IntVector:
    """As positions of quotes of a panel of n.

    raises  InvalidInput if one is none
    """
    try:
        positions = np.asarray(exclude)
    except (TypeError, ValueError):
        positions = np.empty((0, 0))
    if positions.ndim == 1 and positions.size == 0:
        return np.empty(0, np.int64)
    if positions.ndim != 1 or positions.dtype.kind not in "iu":
        raise InvalidInput(Problem.at(path, "must be a list of positions, whole numbers that count from 0."))
    beyond = np.flatnonzero((positions < 0) | (positions >= n))[:MAX_PROBLEMS]
    if beyond.size:
        needed = f"must be the position of a quote, 0 to {n - 1}, but is"
        raise InvalidInput(*(Problem.at((*path, i), f"{needed} {positions[i]}.") for i in beyond.tolist()))
    return positions.astype(np.int64)


def _nothing_left(excluded: Sequence[Exclusion], path: Path) -> Problem:
    reasons = [exclusion.reason for exclusion in excluded]
    hint = " Vols are decimals: 0.25 for 25 %." if _REASONS[_VOL_ABOVE] in reasons else ""
    needed = f"must hold at least one usable quote, but all {len(reasons)} are left out ({tallied(reasons)}).{hint}"
    return Problem.at(path or ("iv",), needed)


def _problems(arrays: dict[str, Vector], one_forward: bool, seen: BoolVector, path: Path) -> list[Problem]:
    """Every value that `_read` refuses, by field and index. Not fast: nobody waits for a refusal.

    seen  (n,), False for what was left out unseen
    """
    problems: list[Problem] = []

    def report(name: str, good: BoolVector, needed: str) -> None:
        values = arrays[name]
        bad = ~good if name == "forward" and one_forward else seen & ~good
        for i in np.flatnonzero(bad)[: MAX_PROBLEMS - len(problems)]:
            place = (*path, name) if name == "forward" and one_forward else (*path, name, int(i))
            value = float(values[i])
            came = "missing or not a number" if np.isnan(value) else repr(value)
            problems.append(Problem.at(place, f"{needed}, but is {came}."))

    t = arrays["expiry"]
    report("expiry", np.isfinite(t), "must be a finite number of years")
    too_long = np.isfinite(t) & (t > LONGEST_EXPIRY)
    report("expiry", ~too_long, f"must be at most {LONGEST_EXPIRY:g} years (30 days are 0.082)")
    for name in ("strike", "forward"):
        if name in arrays:
            report(name, (arrays[name] > 0.0) & (arrays[name] < np.inf), "must be a finite number > 0")
    limit = LARGEST_LOG_MONEYNESS
    if "log_moneyness" in arrays:
        report("log_moneyness", np.abs(arrays["log_moneyness"]) <= limit, f"must lie within +-{limit:g}")
    else:
        with np.errstate(all="ignore"):
            k = np.log(arrays["strike"] / arrays["forward"])
        # Where either is no number > 0, that is the problem and has been reported. The quotient of two that are may be
        # beyond the range of numbers.
        both = [(arrays[name] > 0.0) & (arrays[name] < np.inf) for name in ("strike", "forward")]
        far = both[0] & both[1] & ~(np.abs(k) <= limit)
        report("strike", ~far, f"must be within a factor of e^{limit:g} of the forward")
    for name in ("iv", "bid_iv", "ask_iv"):
        if name in arrays:
            report(name, ~np.isinf(arrays[name]), "must be a finite number")
    if "weight" in arrays:
        w = arrays["weight"]
        report("weight", w >= 0.0, "must be >= 0")
        report("weight", ~(w > LARGEST_WEIGHT), f"must be at most {LARGEST_WEIGHT:g}")
    return problems


def _on_grid(problems: Sequence[Problem], n_strikes: int) -> list[Problem]:
    """Problems of the flattened grid, each said once and where it lies on the grid."""
    moved: dict[Path, Problem] = {}
    for problem in problems:
        path = problem.path
        if path and isinstance(path[-1], int):
            i, j = divmod(path[-1], n_strikes)
            name = path[-2]
            place = (
                (*path[:-1], i)
                if name == "expiry"
                else (*path[:-1], j)
                if name == "log_moneyness"
                else (*path[:-1], i, j)
            )
            problem = Problem.at(place, problem.detail.split("` ", 1)[1])
        moved.setdefault(problem.path, problem)
    return list(moved.values())
