"""The loops of the accurate pricer, compiled: what is done for each rung, option and node, once M is known there.

Each option's numbers come from its own loop, in an order that no other option has a part in.
"""

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from ..arrays import ComplexMatrix, ComplexVector, IntVector, Matrix, Vector

_careful = njit(cache=True, nogil=True, error_model="numpy")

EPSILON = 2.220446049250313e-16
# What a formula's rounding may be of a log-moment, relative to one plus its size, before it is no moment.
_MOMENT_ROUNDING = 1e-11
# Logarithm of a moment beyond all that prices need: that of a jump rises there like a wall, which no slope foretells.
_INFINITE = 1e6
# The scale of a path in units of the saddle's, and in distances from the end of the strip.
_WIDTH = 0.8
_CLEARANCE = 2.0
# The logarithm of what may be left at the end of a path, of the saddle's height.
_NEGLIGIBLE = -41.0
# What agreement of two rules counts, of the integrand's absolute integral.
_AGREEMENT = 1e-13
_GRADIENT_AGREEMENT = 1e-9
_STALLED = 1e-8
# Of the saddle: what the integrand's absolute integral may be, since its rounding is lost.
_GROWN = 1e6
# Radians from node to node; aliases turn by 2 pi. Looked at where the integrand is above e^-34 of its peak.
_RESOLVED = 2.5
_SEEN = -34.0


class Nodes(NamedTuple):
    """What the options on a path have in common there; several paths, one behind the other."""

    ahead: ComplexVector
    """s - a."""
    logarithm: ComplexVector
    """of the integrand without its dependence on the strike, less that of its absolute value at the saddle."""
    phase: Vector
    """of M."""
    by_parameter: ComplexMatrix
    """(n_params, n_nodes) derivatives of log M."""
    log_terms: ComplexMatrix
    """(n_terms, n_nodes) logarithms of terms of log M that may turn faster than that shows."""
    rise: Vector
    """By how much log |M| may rise again where they have turned."""


class Sums(NamedTuple):
    """The trapezoidal rule for options, each on its path, and how far it is to be trusted."""

    now: Matrix
    """(1 + n_params, n_quotes)"""
    before: Matrix
    """With twice the step."""
    earlier: Matrix
    """With four times the step."""
    size: Vector
    """(n_quotes,) the rule for the absolute value of the price's integrand."""
    tail: Vector
    """(n_quotes,) the integrand at the last node, for what lies beyond."""
    off: Vector
    """(n_quotes,) what the integral may be off by, infinite where nothing is known of that."""


# Rungs ----------------------------------------------------------------------------------------------------------------


@_careful
def inside(distance: Vector, log_moment: ComplexMatrix) -> IntVector:
    """How many tilts, going outward, lie inside the strip; (n_sides,).

    distance    (n,) from where the line begins, which is inside
    log_moment  (n_sides, n), less its value there

    Beyond the strip a formula gives numbers that are no moments: not real, or their logarithms not convex; and some
    moments are as good as infinite.
    """
    counts = np.zeros(log_moment.shape[0], np.int64)
    for side in range(counts.size):
        value, at, slope, slack = 0.0, 0.0, 0.0, 0.0
        for i in range(distance.size):
            moment, imaginary = log_moment[side, i].real, log_moment[side, i].imag
            rounding = _MOMENT_ROUNDING * (1.0 + abs(moment))
            if not (abs(moment) < _INFINITE and abs(imaginary) <= rounding):
                break
            step = distance[i] - at
            next_slope, next_slack = (moment - value) / step, 2.0 * rounding / step
            if i > 0 and not next_slope >= slope - next_slack - slack:
                break
            value, at, slope, slack = moment, distance[i], next_slope, next_slack
            counts[side] += 1
    return counts


@_careful
def saddle_scales(tilt: Vector, log_moment: Vector, below: float, above: float) -> tuple[Vector, Vector]:
    """Scale of each rung's paths, and what turns the logarithm of its height into that of the area of its saddle.

    below, above  the nearest tilts outside the strip

    From the curvature of the integrand's logarithm: M's by differences, the poles' exactly. The end of the strip, where
    M is singular, shows in no curvature before it is near: it may lie just beyond the last rung, and the scale stays
    within what is known to be clear.
    """
    n = tilt.size
    width, log_width = np.empty(n), np.empty(n)
    for i in range(n):
        m = min(max(i, 1), n - 2)
        bend = (log_moment[m + 1] - log_moment[m]) / (tilt[m + 1] - tilt[m])
        bend -= (log_moment[m] - log_moment[m - 1]) / (tilt[m] - tilt[m - 1])
        bend *= 2.0 / (tilt[m + 1] - tilt[m - 1])
        poles = tilt[i] * (tilt[i] - 1.0)
        # The poles' share is 1 / a^2 + 1 / (a - 1)^2.
        width[i] = _WIDTH / math.sqrt(max(bend, 0.0) + (1.0 / poles + 2.0) / poles)
        log_width[i] = math.log(width[i] / abs(poles))
        for last, end in ((0, below), (n - 1, above)):
            if math.isfinite(end):
                clear = 0.25 * abs(end - tilt[last]) if i == last else abs(tilt[i] - tilt[last])
                width[i] = min(width[i], _CLEARANCE * clear)
    return width, log_width


@_careful
def chosen_rungs(
    tilt: Vector, log_moment: Vector, log_width: Vector, rank: Vector, k: Vector
) -> tuple[IntVector, IntVector, Vector]:
    """Each option's rung; whether its integrand still falls by an e-fold at the last rung below (-1) or above (1), so
    that its minimum is worth a closer look; and the logarithm of an upper bound of its time value, from moments alone.

    The height is the logarithm of what the integral's terms add up to: its rounding is that times 1e-16. The call is
    below M(a) e^{(1-a)k} (a-1)^{a-1} / a^a for every a > 1; the put likewise with 1 - a for a.
    """
    n = tilt.size
    rung, edge, bound = np.empty(k.size, np.int64), np.zeros(k.size, np.int64), np.empty(k.size)
    largest = np.empty(n)
    for i in range(n):
        longer = max(abs(tilt[i]), abs(tilt[i] - 1.0))
        shorter = min(abs(tilt[i]), abs(tilt[i] - 1.0))
        largest[i] = log_moment[i] - math.log(longer) + shorter * math.log1p(-1.0 / longer) if longer > 1.0 else np.inf
    for q in range(k.size):
        bound[q] = min(k[q], 0.0)
        lowest, least, lowest_at = np.inf, np.inf, 0
        rung[q] = 0
        for i in range(n):
            turned = k[q] * (1.0 - tilt[i])
            height = log_moment[i] + log_width[i] + turned
            if height < lowest:
                lowest, lowest_at = height, i
            if height + rank[i] < least:
                least, rung[q] = height + rank[i], i
            if tilt[i] > 1.0 if k[q] >= 0.0 else tilt[i] < 0.0:
                bound[q] = min(bound[q], largest[i] + turned)
        for last, inner, side in ((0, 1, -1), (n - 1, n - 2, 1)):
            outside = tilt[last] < 0.0 if side < 0 else tilt[last] > 1.0
            fall = log_moment[inner] + log_width[inner] - log_moment[last] - log_width[last]
            if lowest_at == last and outside and fall + k[q] * (tilt[last] - tilt[inner]) > 1.0:
                edge[q] = side
    return rung, edge, bound


# Paths ----------------------------------------------------------------------------------------------------------------


@_careful
def ordered_bends(size: Matrix, ahead: Matrix, on: IntVector, k: Vector, ends: Vector, dearer: Vector) -> IntVector:
    """How each option's path may bend, (n_quotes, n_angles), the best first: the angle's index times the number of
    `ends`, plus the index of the one where its integrand has become negligible.

    size, ahead  (n_used, n_angles * n_ends) of the integrand without the strike, and the real part of s - a
    on           (n_quotes,) the row of each option
    dearer       (n_angles,) what an angle costs besides

    What counts is the length, and the growth before the decay, for that is lost in rounding.
    """
    n, n_angles = ends.size, dearer.size
    codes = np.empty((k.size, n_angles), np.int64)
    cost = np.empty(n_angles)
    for q in range(k.size):
        for angle in range(n_angles):
            last, peak, was_small = n - 1, -np.inf, False
            for i in range(n):
                j = angle * n + i
                here = size[on[q], j] - k[q] * ahead[on[q], j]
                # What is no number may be anything.
                here = np.inf if math.isnan(here) else here
                small = here < _NEGLIGIBLE
                # Twice in a row: a zero that the path happens to pass is not the end.
                if small and was_small:
                    last = i - 1
                    break
                peak, was_small = max(peak, here), small
            cost[angle] = ends[last] + dearer[angle] + 3.0 * max(peak, 0.0)
            # Sorted in: those before are no dearer.
            place = angle
            while place > 0 and cost[codes[q, place - 1] // n] > cost[angle]:
                codes[q, place] = codes[q, place - 1]
                place -= 1
            codes[q, place] = angle * n + last
    return codes


@_careful
def add_nodes(
    nodes: Nodes, begin: int, end: int, k: Vector, chosen: IntVector, step: float, halved: bool, sums: Sums
) -> IntVector:
    """Add the nodes of a path to the sums of the options `chosen`; those that need more, and are not beyond hope.

    begin, end  of the path's nodes
    halved      whether they lie between those there were, so that the step is halved by them
    """
    n_rows, n_terms = sums.now.shape[0], nodes.log_terms.shape[0]
    left = np.empty(chosen.size, np.int64)
    n_left = 0
    odd, even, fourth = np.empty(n_rows), np.empty(n_rows), np.empty(n_rows)
    for q in chosen:
        peak = -np.inf
        for i in range(begin, end):
            peak = max(peak, nodes.logarithm[i].real - k[q] * nodes.ahead[i].real)
        odd[:], even[:], fourth[:] = 0.0, 0.0, 0.0
        size, turn, last_phase, last_seen, real, rest = 0.0, 0.0, 0.0, False, 0.0, 0.0
        for i in range(begin, end):
            exponent = nodes.logarithm[i] - k[q] * nodes.ahead[i]
            height = math.exp(exponent.real)
            real, imag = height * math.cos(exponent.imag), height * math.sin(exponent.imag)
            weight = 0.5 if i == begin and not halved else 1.0
            place = i - begin
            rows = odd if place % 2 == 1 else even if place % 4 == 2 else fourth
            rows[0] += weight * real
            for j in range(1, n_rows):
                by = nodes.by_parameter[j - 1, i]
                rows[j] += weight * (real * by.real - imag * by.imag)
            size += abs(real)
            phase = nodes.phase[i] - k[q] * nodes.ahead[i].imag
            seen = exponent.real + nodes.rise[i] > peak + _SEEN
            if seen and last_seen:
                turned = abs(phase - last_phase)
                for j in range(n_terms):
                    now, last = nodes.log_terms[j, i], nodes.log_terms[j, i - 1]
                    if exponent.real + nodes.rise[i] + now.real > peak + _SEEN:
                        turned += abs(now.imag - last.imag)
                # What is no number is never resolved.
                if not (turned <= turn or math.isnan(turn)):
                    turn = turned
            last_phase, last_seen = phase, seen
            rest = abs(real) + height * math.expm1(nodes.rise[i])
        if halved:
            sums.size[q] = 0.5 * sums.size[q] + step * size
        else:
            sums.size[q], sums.tail[q] = step * size, rest
        for j in range(n_rows):
            if halved:
                sums.earlier[j, q], sums.before[j, q] = sums.before[j, q], sums.now[j, q]
                sums.now[j, q] = 0.5 * sums.now[j, q] + step * (odd[j] + even[j] + fourth[j])
            else:
                sums.now[j, q] = step * (odd[j] + even[j] + fourth[j])
                sums.before[j, q] = 2.0 * step * (even[j] + fourth[j])
                sums.earlier[j, q] = 4.0 * step * fourth[j]
        if not _ended(sums, q, turn, nodes.by_parameter[:, begin]):
            left[n_left] = q
            n_left += 1
    return left[:n_left]


@_careful
def _ended(sums: Sums, q: int, turn: float, by_parameter: ComplexVector) -> bool:
    """Whether the integral of an option is good enough, or beyond hope; what it may be off by is written down.

    turn          radians, the most that the integrand turns between two nodes where it is not negligible
    by_parameter  (n_params,) derivatives of log M at the first node
    """
    size = sums.size[q]
    grown = not size < _GROWN
    all_settled = True
    sums.off[q] = np.inf
    for j in range(sums.now.shape[0]):
        change = abs(sums.now[j, q] - sums.before[j, q])
        previous = abs(sums.before[j, q] - sums.earlier[j, q])
        # Halving the step squares the error, once it has begun to: by as much again as the last time is certain.
        expected = min(change, change * (change / (previous + 1e-300)))
        allowed = _AGREEMENT * size
        if j > 0:
            allowed = _GRADIENT_AGREEMENT * (abs(sums.now[j, q]) + abs(by_parameter[j - 1].real) * size)
        # What no longer falls is rounding, and no more nodes will help.
        stalled = change > 0.5 * previous and (j > 0 or change <= _STALLED * size)
        settled = expected <= allowed
        all_settled = all_settled and (settled or stalled)
        if j == 0 and turn < _RESOLVED and (settled or stalled) and not grown:
            sums.off[q] = (expected if settled and change > allowed else change) + sums.tail[q]
    return grown or (turn < _RESOLVED and all_settled)


# Values ---------------------------------------------------------------------------------------------------------------


@_careful
def settle(
    integral: Vector,
    off: Vector,
    tilt: Vector,
    k: Vector,
    bound: Vector,
    chosen: IntVector,
    value: Vector,
    error: Vector,
) -> None:
    """Fill values and errors of the options `chosen` of all, from their integrals and what these may be off by.

    tilt   (n_quotes,) on which side of the poles the integral is
    bound  (n_quotes,) logarithm of an upper bound
    """
    for q in range(k.size):
        ceiling = math.exp(bound[q])
        residue = _residue(tilt[q], k[q])
        found, known = integral[q] + residue, off[q] + EPSILON * abs(residue)
        found = found if math.isfinite(found) else 0.0
        # A value outside its bounds by more than its error is none, and the bounds are what is certain.
        clipped = min(max(found, 0.0), ceiling)
        value[chosen[q]] = clipped
        error[chosen[q]] = min(known, ceiling) if abs(found - clipped) <= known else ceiling


@_careful
def _residue(tilt: float, k: float) -> float:
    """What the out-of-the-money option is more than the integral at its tilt: the poles between its side and there."""
    if 0.0 <= tilt <= 1.0:
        return 1.0 if k >= 0.0 else math.exp(k)
    if (tilt > 1.0) == (k >= 0.0):
        return 0.0
    return math.expm1(k) if k < 0.0 else -math.expm1(k)
