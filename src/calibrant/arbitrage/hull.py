"""Static arbitrage among finitely many calls: what each could be sold for, against what it costs to hold a cover.

All prices are undiscounted and in units of the forward of their expiry, strikes too, so that one call price at a fixed
strike may not fall with expiry (Carr & Madan 2005). Sell the call of strike K and expiry T at its bid. It is covered by
any portfolio, bought at the asks, of

* the forward (a call of strike 0 and price 1) and calls of lower strikes,
* two calls of strikes around K, in the proportions that put their chord at K,
* the same of any later expiry, because a later call is worth the earlier one's payoff or more when that falls due.

The cheapest cover is therefore H_T(K): the lower convex hull of (0, 1) and of all asks at T and later, continued flat
beyond its minimum. H_T is convex, falls from 1, with slopes in [-1, 0] unless an ask is below the intrinsic value, and
rises with T. So the curves H_T are themselves free of arbitrage, and they run between bids and asks exactly if no bid
exceeds its H_T. The test is therefore not only sufficient: it finds every static arbitrage there is (Davis & Hobson
2007; Cousot 2007), needs no interpolation between strikes, and what it finds can be traded at the prices given.

The kinds are reported from the simplest cover to the richest, each only where it pays more than those before it:
`bounds` (against the forward and cash), `vertical` (one other strike; at an equal strike, the cheaper duplicate),
`butterfly` (the hull of the same expiry), `calendar` (the hull with the later ones).
"""

import numpy as np

from ..arrays import IntVector, Matrix, Vector
from ..compiled import kernel
from .violations import BOUNDS, BUTTERFLY, CALENDAR, VERTICAL

PRICE_ERROR = 1e-10
"""What a price is taken to be wrong by, relative to the larger of strike and forward: rounding and its consequences."""


@kernel
def _push(strike: float, price: float, n: int, hull: Matrix) -> int:
    """Add a point to the right of a lower convex hull; returns the new number of vertices.

    hull  (2, n or more), strikes ascending, and prices
    """
    if strike <= hull[0, n - 1]:
        # A duplicate: the cheaper one counts.
        if price >= hull[1, n - 1]:
            return n
        n -= 1
    while n >= 2:
        # The last vertex stays if it lies strictly below the chord from the one before to the new point.
        run = hull[0, n - 1] - hull[0, n - 2]
        if (hull[1, n - 1] - hull[1, n - 2]) * (strike - hull[0, n - 2]) < (price - hull[1, n - 2]) * run:
            break
        n -= 1
    hull[0, n] = strike
    hull[1, n] = price
    return n + 1


@kernel
def _drop_rise(n: int, hull: Matrix) -> int:
    """Cut a hull at its minimum, beyond which it continues flat."""
    while n >= 2 and hull[1, n - 1] >= hull[1, n - 2]:
        n -= 1
    return n


@kernel
def _cover(first: int, last: int, strike: Vector, n: int, hull: Matrix, out: Vector) -> None:
    """The hull's value at strikes first:last, ascending."""
    i = 1
    for j in range(first, last):
        while i < n and hull[0, i] < strike[j]:
            i += 1
        if i == n:
            out[j] = hull[1, n - 1]
        else:
            run = hull[0, i] - hull[0, i - 1]
            out[j] = hull[1, i - 1] + (hull[1, i] - hull[1, i - 1]) * ((strike[j] - hull[0, i - 1]) / run)


@kernel
def static_arbitrage(
    strike: Vector, offsets: IntVector, bid: Vector, ask: Vector, relative_error: float, excess: Matrix
) -> int:
    """What each call brings above its cheapest cover, by kind.

    strike          (n,), in units of the forward, > 0, ascending within each expiry
    offsets         (n_expiries + 1,), where each expiry begins, ascending expiries
    bid, ask        (n,), calls, undiscounted, in units of the forward, bid <= ask; prices without a spread are both
    relative_error  of the prices of the call and of the put, each relative to the larger of strike and forward
    excess          (n_kinds, n), filled; zero where there is nothing above the error
    returns         how many entries are above zero

    One sweep from the last expiry to the first; the time is that of the merges, n + the sum of the hulls' sizes.
    """
    n_expiries = offsets.size - 1
    n = strike.size
    excess[:] = 0.0
    cover = np.empty(n)
    own = np.empty((2, n + 1))
    # Two buffers: the hull of the later expiries, and the one it grows into.
    later = np.empty((2, n + 1))
    grown = np.empty((2, n + 1))
    later[0, 0], later[1, 0] = 0.0, 1.0
    n_later = 1
    count = 0
    for e in range(n_expiries - 1, -1, -1):
        first, last = offsets[e], offsets[e + 1]
        for j in range(first, last):
            error = relative_error * max(1.0, strike[j])
            size = max(bid[j] - 1.0, 1.0 - strike[j] - ask[j], -ask[j])
            if size > error:
                excess[BOUNDS, j] = size
        # Calls fall with the strike: the cheapest of lower strike covers.
        cheapest = ask[first]
        for j in range(first + 1, last):
            excess[VERTICAL, j] = bid[j] - cheapest
            cheapest = min(cheapest, ask[j])
        # Puts rise: the cheapest of higher strike covers. The call plus the strike is the put plus the forward.
        cheapest = ask[last - 1] + strike[last - 1]
        for j in range(last - 2, first - 1, -1):
            excess[VERTICAL, j] = max(excess[VERTICAL, j], bid[j] + strike[j] - cheapest)
            cheapest = min(cheapest, ask[j] + strike[j])
        own[0, 0], own[1, 0] = 0.0, 1.0
        n_own = 1
        for j in range(first, last):
            n_own = _push(strike[j], ask[j], n_own, own)
        n_own = _drop_rise(n_own, own)
        _cover(first, last, strike, n_own, own, cover)
        for j in range(first, last):
            error = relative_error * max(1.0, strike[j])
            if excess[VERTICAL, j] <= error:
                excess[VERTICAL, j] = 0.0
            if bid[j] - cover[j] > excess[VERTICAL, j] + error:
                excess[BUTTERFLY, j] = bid[j] - cover[j]
        # Merge the two hulls by strike; only their vertices can be vertices of the joint one.
        grown[0, 0], grown[1, 0] = 0.0, 1.0
        n_grown = 1
        a, b = 1, 1
        while a < n_own or b < n_later:
            if b == n_later or (a < n_own and own[0, a] <= later[0, b]):
                n_grown = _push(own[0, a], own[1, a], n_grown, grown)
                a += 1
            else:
                n_grown = _push(later[0, b], later[1, b], n_grown, grown)
                b += 1
        n_grown = _drop_rise(n_grown, grown)
        _cover(first, last, strike, n_grown, grown, cover)
        for j in range(first, last):
            error = relative_error * max(1.0, strike[j])
            if bid[j] - cover[j] > max(excess[VERTICAL, j], excess[BUTTERFLY, j]) + error:
                excess[CALENDAR, j] = bid[j] - cover[j]
            for kind in range(excess.shape[0]):
                if excess[kind, j] > 0.0:
                    count += 1
        later, grown = grown, later
        n_later = n_grown
    return count
