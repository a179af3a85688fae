"""One expiry of the fit kernel on a bent contour: where equally spaced nodes on the real line would be too many.

Lewis's integrand f = e^{-ixk} phi(x - i/2) / (x^2 + 1/4), here without a control variate, is analytic in the right
half-plane, and across the imaginary axis between the critical moments but for the poles at +-i/2. On the hyperbola

    x(t) = ic + b sinh(t + iw)

(Boyarchenko & Levendorskii 2019) what would oscillate dies out exponentially instead, and the midpoint rule in t
converges exponentially. Everything about it is chosen beforehand, from a survey of |phi| on a fan of such hyperbolas:

* On the hyperbola w between two others, w2 < w < w1, the rule with step h errs by at most
  M1 e^{-2 pi (w1 - w) / h} + M2 e^{-2 pi (w - w2) / h}, M the integrals of |f| on those two. That is a bound; no
  agreement of two results is trusted. Of all pairs the one is taken that needs the fewest nodes.
* The poles need neither a control variate nor a distance: a pole at t = i eta adds its residue over
  1 + e^{2 pi eta / h} to the midpoint rule, whichever side it is on.
* Far out log phi of a variance factor falls like -(sqrt(1 - rho^2) x + i rho x) m with m = (v0 + kappa theta T) / xi,
  so that strikes on different sides of k = -rho m want opposite bends; they are taken apart where that pays.
* Jumps fall off within 45 degrees of the real line only, so with them the hyperbolas bend less.
"""

import math
from typing import NamedTuple

import numpy as np

from ..arrays import IntVector, Matrix, Vector
from ..compiled import kernel
from .composed_block import (
    add_up,
    balanced_strike,
    bent_sizes,
    fill_bent,
    jumps_matter,
    log_moment,
    rounding_of,
)
from .nodes import EPSILON, IMAG, MAX_NODES, REAL, X, Y, turn_bent
from .vector_math import exp, select

_LOG_EPSILON = math.log(2.220446049250313e-16)
_BLOCK = 8
_N_BENDS = 9
_BENDS = np.linspace(-1.45, 1.45, _N_BENDS)
_NARROW_BENDS = np.linspace(-0.7, 0.7, _N_BENDS)
"""With jumps."""
_T_STEP = 0.5
_N_T = 5 * _BLOCK
_PEAK_WIDTH = 3.0
"""int |f| dt along a hyperbola over pi times the largest |f| that the survey meets, from above."""
_GROWING = 1e300
_NODES_PER_DIGIT = 10.0
"""What a digit lost to rounding may cost, in nodes."""
_STRIKES_PER_NODE = 12
"""Strikes that cost as much to add up as the node itself."""


class Contour(NamedTuple):
    """A hyperbola of the fan, and the midpoint rule on it."""

    bend: float
    step: float
    nodes: float
    """How many it takes."""
    lowest: float
    """Bend of the lower of the two hyperbolas that bound the error."""
    highest: float
    """Of the upper."""


@kernel
def _reach(layout: IntVector, side: float, limit: float, variance: float, expiry: float, params: Vector) -> float:
    """The largest s with log E[S^(1/2 + side s)] below `limit`, or of Black's where that is smaller."""
    low = 0.5
    high = math.sqrt(2.0 * limit / variance + 0.25)
    for _ in range(8):
        middle = math.sqrt(low * high)
        if log_moment(layout, 0.5 + side * middle, expiry, params) < limit:
            low = middle
        else:
            high = middle
    return low


@kernel
def _survey(
    layout: IntVector,
    bends: Vector,
    centre: float,
    width: float,
    turn: float,
    digits: float,
    expiry: float,
    params: Vector,
    work: Vector,
    sizes: Matrix,
    heights: Matrix,
    counts: IntVector,
) -> None:
    """Fill log |f e^{ixk}| and Im x along every hyperbola, (_N_BENDS, _N_T), until negligible for the strike `turn`.

    counts  (_N_BENDS,), filled: how far
    """
    for i in range(_N_BENDS):
        counts[i] = _N_T
        last = 0
        while last < _N_T:
            # Two blocks at first: one is hardly ever enough.
            first, last = last, max(last + _BLOCK, 2 * _BLOCK)
            bent_sizes(
                layout, first, last, _T_STEP, centre, width, bends[i], expiry, params, work, sizes[i], heights[i]
            )
            if sizes[i, last - 1] + turn * heights[i, last - 1] < -digits - 3.0:
                counts[i] = last
                break


@kernel
def _profile(
    low: float,
    high: float,
    digits: float,
    sizes: Matrix,
    heights: Matrix,
    counts: IntVector,
    peaks: Vector,
    ends: Vector,
) -> None:
    """Of every hyperbola what the value of any strike between `low` and `high` may owe to it.

    peaks  (_N_BENDS,), filled: log of the largest integrand, `_GROWING` where it grows to the last
    ends   (_N_BENDS,), filled: the t at which the integrand is negligible
    """
    for i in range(_N_BENDS):
        peak = -1e300
        where = 0
        value = 0.0
        before = 0.0
        end = -1.0
        for j in range(counts[i]):
            before = value
            height = heights[i, j] + 0.5
            value = sizes[i, j] + max(low * height, high * height)
            if value > peak:
                peak = value
                where = j
                end = -1.0
            if end < 0.0 and value < -digits:
                end = _T_STEP * (j - (value + digits) / min(value - before, -0.1)) if j > 0 else 0.0
        if end < 0.0:
            end = _T_STEP * (counts[i] - 1 + (value + digits) / max(before - value, 0.1))
        peaks[i] = peak if where < counts[i] - 1 else _GROWING
        ends[i] = end


@kernel
def _choose(bends: Vector, digits: float, peaks: Vector, ends: Vector) -> Contour:
    """The contour between the pair of hyperbolas that needs the fewest nodes.

    digits  log of one over what either error may be
    """
    fewest = 1e300
    chosen = Contour(0.0, 1.0, 1e300, 0.0, 0.0)
    spacing = bends[1] - bends[0]
    for i in range(_N_BENDS):
        for j in range(i + 1, _N_BENDS):
            if peaks[i] < _GROWING and peaks[j] < _GROWING:
                above = max(peaks[j] + digits, 1.0)
                below = max(peaks[i] + digits, 1.0)
                step = 2.0 * math.pi * (bends[j] - bends[i]) / (above + below)
                bend = bends[i] + step * below / (2.0 * math.pi)
                place = (bend - bends[0]) / spacing
                at = min(int(place), _N_BENDS - 2)
                part = place - at
                # The largest integrand is log-convex in the bend (the three lines theorem): a chord lies above it.
                peak = (1.0 - part) * peaks[at] + part * peaks[at + 1]
                nodes = ((1.0 - part) * ends[at] + part * ends[at + 1]) / step
                lost = max(peak + digits + _LOG_EPSILON, 0.0)
                if nodes + _NODES_PER_DIGIT * lost < fewest:
                    fewest = nodes + _NODES_PER_DIGIT * lost
                    chosen = Contour(bend, step, nodes, bends[i], bends[j])
    return chosen


@kernel
def _passed(place: float, centre: float, width: float, contour: Contour) -> float:
    """The share of its residue by which the pole at x = i place counts as below the contour.

    Outside the two hyperbolas that bound the error it is all or nothing; between them the midpoint rule, where the pole
    is at t = i eta, leaves 1 / (1 + e^{2 pi eta / h}).
    """
    bend = math.asin(min(max((place - centre) / width, -1.0), 1.0))
    if bend >= contour.highest:
        return 0.0
    if bend <= contour.lowest:
        return 1.0
    return 1.0 / (1.0 + math.exp(min(max(2.0 * math.pi * (bend - contour.bend) / contour.step, -700.0), 700.0)))


@kernel
def _bounds(
    layout: IntVector, first: int, last: int, low: float, high: float, expiry: float, params: Vector, work: Vector,
    bounds: Vector, losses: Vector,
) -> None:  # fmt: skip
    """What nodes of `fill_bent` add at most to the value of a strike between `low` and `high`, and rounding's share.

    bounds, losses  (MAX_NODES,), first:last filled
    """
    far = max(high, -low)
    of_turn, of_square = rounding_of(layout, expiry, params)
    for j in range(np.uint64(first), np.uint64(last)):
        x = work[X + j]
        y = work[Y + j]
        fr = work[REAL + j]
        fi = work[IMAG + j]
        bound = (1.0 / math.pi) * exp(0.5 * select(y > -0.5, high, low)) * math.sqrt(fr * fr + fi * fi)
        square = x * x + y * y + 0.25
        bounds[j] = bound
        losses[j] = EPSILON * bound * (4.0 + far * (abs(x) + abs(y)) + of_turn + of_square * square)


@kernel
def _tail(count: int, bounds: Vector) -> float:
    """What the nodes from `count` on add, from the decay over the last block."""
    half = _BLOCK // 2
    early = 0.0
    late = 0.0
    for j in range(count - _BLOCK, count - half):
        early = max(early, bounds[j])
        late = max(late, bounds[j + half])
    if late == 0.0:
        return 0.0
    ratio = late / early
    return half * late * ratio / (1.0 - ratio) if ratio < 0.9 else 1e300


@kernel
def _group(
    layout: IntVector,
    expiry: float,
    params: Vector,
    centre: float,
    width: float,
    contour: Contour,
    k: Vector,
    tolerance: float,
    work: Vector,
    base: Vector,
    sums: Matrix,
) -> tuple[int, float]:
    """Base values and sums of strikes that share a contour.

    returns (nodes, negative where MAX_NODES leave a tail above a quarter of `tolerance`; tail and rounding)
    """
    low, high = k[0], k[-1]
    bend, step = contour.bend, contour.step
    bounds = np.empty(MAX_NODES)
    losses = np.empty(MAX_NODES)
    done = 0
    tail = 1e300
    count = min(max(int(contour.nodes) // _BLOCK + 1, 1) * _BLOCK, MAX_NODES)
    while True:
        with_gradient = sums.shape[1] > 1
        fill_bent(layout, done, count, step, centre, width, bend, low, high, expiry, params, with_gradient, work)
        _bounds(layout, done, count, low, high, expiry, params, work, bounds, losses)
        done = count
        tail = _tail(count, bounds)
        if tail < 0.25 * tolerance or count == MAX_NODES:
            break
        count = min(count + _BLOCK, MAX_NODES)
    lost = 0.0
    for j in range(done):
        lost += losses[j]
    call = _passed(-0.5, centre, width, contour)
    put = _passed(0.5, centre, width, contour)
    for q in range(k.size):
        # The integral over all of the line is minus the call on a contour below both poles, minus the put above both.
        strike = math.exp(k[q])
        base[q] = strike * (1.0 - put) - (1.0 - call) if k[q] < 0.0 else call - strike * put
        turn_bent(k[q], low, high, done, work)
        add_up(layout, done, work, sums, q)
    taken = done if tail < 0.25 * tolerance else -done
    return taken, tail + lost + EPSILON * max(1.0, math.exp(high))


@kernel
def bent_values(
    layout: IntVector,
    expiry: float,
    params: Vector,
    variance: float,
    k: Vector,
    tolerance: float,
    work: Vector,
    base: Vector,
    sums: Matrix,
) -> tuple[int, float]:
    """The out-of-the-money values of one expiry are base - e^{k/2} / pi times the first of these sums.

    k        (n_strikes,), ascending
    base     (n_strikes,), filled: the residues
    sums     (n_strikes, 1 or 1 + n_params), filled
    returns  (nodes taken, negative where MAX_NODES do not reach the tolerance; error of the values)
    """
    digits = math.log(4.0 * _PEAK_WIDTH / tolerance)
    bends = _NARROW_BENDS if jumps_matter(layout, expiry, params) else _BENDS
    above = _reach(layout, -1.0, 0.5 * digits, variance, expiry, params)
    below = _reach(layout, 1.0, 0.5 * digits, variance, expiry, params)
    centre = 0.5 * (above - below)
    width = 0.5 * (above + below) / math.sin(bends[-1])
    turn = min(max(balanced_strike(layout, expiry, params), k[0]), k[-1])
    sizes = np.empty((_N_BENDS, _N_T))
    heights = np.empty((_N_BENDS, _N_T))
    counts = np.empty(_N_BENDS, np.int64)
    _survey(layout, bends, centre, width, turn, digits, expiry, params, work, sizes, heights, counts)
    cut = np.searchsorted(k, turn)
    peaks = np.empty((3, _N_BENDS))
    ends = np.empty((3, _N_BENDS))
    for side in range(3):
        low = k[cut] if side == 1 and cut < k.size else k[0]
        high = k[cut - 1] if side == 0 and cut > 0 else k[-1]
        _profile(low, high, digits, sizes, heights, counts, peaks[side], ends[side])
    reached = True
    nodes = 0.0
    while True:
        left = _choose(bends, digits, peaks[0], ends[0])
        right = _choose(bends, digits, peaks[1], ends[1])
        both = _choose(bends, digits, peaks[2], ends[2])
        n_left, n_right = min(left.nodes, 1e6), min(right.nodes, 1e6)
        apart = (
            cut > 0
            and cut < k.size
            and (
                n_left * (cut + _STRIKES_PER_NODE) + n_right * (k.size - cut + _STRIKES_PER_NODE)
                < min(both.nodes, 1e6) * (k.size + _STRIKES_PER_NODE)
            )
        )
        nodes = max(n_left, n_right) if apart else both.nodes
        if nodes < MAX_NODES - _BLOCK or digits < 2.0:
            break
        digits *= 0.8
        reached = False
    if nodes > MAX_NODES:
        # No contour at all: an out-of-the-money option is worth something between nothing and the forward.
        base[:] = 0.0
        sums[:] = 0.0
        return -1, 1.0
    error = 2.0 * _PEAK_WIDTH * math.exp(-digits)
    goal = 2.0 * error
    if not apart:
        taken, more = _group(layout, expiry, params, centre, width, both, k, goal, work, base, sums)
    else:
        taken, more = _group(layout, expiry, params, centre, width, left, k[:cut], goal, work, base[:cut], sums[:cut])
        n, other = _group(layout, expiry, params, centre, width, right, k[cut:], goal, work, base[cut:], sums[cut:])
        reached = reached and taken > 0 and n > 0
        taken = abs(taken) + abs(n)
        more = max(more, other)
    reached = reached and taken > 0
    return abs(taken) if reached else -abs(taken), error + more
