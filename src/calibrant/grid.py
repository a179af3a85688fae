"""Irregular quotes seen on a regular grid: what a network reads.

A panel whose quotes all lie on nodes of the grid is copied: node by node the very numbers quoted, and a missing quote
stays missing. Any other panel is interpolated in total variance w = vol^2 * expiry, in two steps.

1. Along each expiry, a local quadratic in log-moneyness: at each point a weighted least-squares parabola over the
   quotes nearby, tricube weights times the square root of the quotes' own (so 1 / spread by default: with 1 / spread^2
   the tight quotes at the money would extrapolate into the wings). The window reaches to the sixth-nearest strike, or
   half an at-the-money standard deviation if that is wider, so that it follows sparse quotes and averages dense ones.
   Quotes at one strike count as their mean. Beyond the outermost quotes the smile goes on as a straight line in w,
   whose slope is at most 2 (Lee's bound).
2. Across expiries, linear in total variance at fixed k / sqrt(at-the-money total variance), with the at-the-money
   level itself from a monotone cubic through w(0) = 0 and all expiries (Fritsch & Carlson 1980). The standardised
   moneyness is the variable in which neighbouring smiles look alike and their quoted ranges match; the cubic is there
   because a chord between distant expiries was the largest error of all: Heston's level bends.

A node is masked where this would be a guess: more than half an at-the-money standard deviation outside the strikes
quoted for an expiry it needs, or an expiry less than half the shortest or more than twice the longest quoted.
`benchmarks/projection_error.py` measures the error; its table is docs/results/projection.md.
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from .arrays import BoolVector, IntVector, Matrix, Vector
from .compiled import brief, careful
from .group import PanelGroup
from .panel import OptionPanel

STRIKE_REACH = 0.5
"""At-the-money standard deviations beyond the outermost quotes of an expiry that a node may lie."""
EXPIRY_REACH = 2.0
"""Factor beyond the shortest and the longest expiry that a node may lie."""
N_NEAREST = 5
"""Strikes inside a window at least, where there are as many."""
LEAST_WINDOW = 0.5
"""At-the-money standard deviations that a window reaches to either side at least."""

_SAME_NODE = 1e-9
_STEEPEST = 2.0
# Of the largest in an expiry, so that no window is left to a single quote.
_LEAST_WEIGHT = 1e-3


@dataclass(frozen=True, kw_only=True, eq=False)
class Grid:
    """The nodes of a regular surface; arrays on it are (n_expiries, n_strikes)."""

    expiry: Vector
    """(n_expiries,), years, ascending."""
    log_moneyness: Vector
    """(n_strikes,), ascending, the same at every expiry; in at-the-money standard deviations where `standardised`."""
    standardised: bool = False
    """Whether `log_moneyness` is divided by vol * sqrt(expiry), the vol at the money: a grid that fits any panel."""

    def __post_init__(self) -> None:
        for name in ("expiry", "log_moneyness"):
            nodes = np.ascontiguousarray(getattr(self, name), np.float64)
            if nodes.ndim != 1 or nodes.size == 0 or not np.isfinite(nodes).all() or not (np.diff(nodes) > 0.0).all():
                raise ValueError(f"`{name}` must be a vector of ascending finite numbers, but is {nodes}.")
            object.__setattr__(self, name, nodes)
        if not self.expiry[0] > 0.0:
            raise ValueError(f"`expiry` must be > 0 years, but begins with {self.expiry[0]}.")

    @cached_property
    def shape(self) -> tuple[int, int]:
        """(n_expiries, n_strikes)."""
        return self.expiry.size, self.log_moneyness.size


class Projection(NamedTuple):
    """A panel on a grid."""

    iv: Matrix
    """(n_expiries, n_strikes), implied vols in decimals, NaN where masked."""
    n_filled: int
    """Nodes where there is a vol."""
    on_grid: bool
    """Every quote lay on a node: `iv` holds the quotes themselves."""

    @property
    def mask(self) -> BoolVector:
        """(n_expiries, n_strikes), True where there is a vol."""
        return ~np.isnan(self.iv)


class Projections(NamedTuple):
    """Many panels on a grid."""

    iv: Matrix
    """(n_panels, n_expiries, n_strikes), implied vols in decimals, NaN where masked."""
    n_filled: IntVector
    """(n_panels,), nodes where there is a vol; 0 also for a panel left out, whose `iv` says nothing."""
    on_grid: BoolVector
    """(n_panels,), whether every quote of the panel lay on a node: `iv` then holds the quotes themselves."""


def project(panel: OptionPanel, grid: Grid) -> Projection:
    """The vols of a panel at the nodes of a grid, as the module's first paragraphs say.

    panel    quotes; at a node with several, their mean by weight
    grid     the nodes
    returns  vols and mask; every node may be masked, if no quote is near any
    error    docs/results/projection.md, by panel
    """
    copied = project_on_nodes(panel, grid)
    if copied is not None:
        return copied
    iv = np.empty(grid.shape)
    n_filled = interpolate(
        panel.expiries,
        panel.offsets,
        panel.log_moneyness,
        panel.mid,
        panel.weight,
        grid.expiry,
        grid.log_moneyness,
        grid.standardised,
        iv,
    )
    return Projection(iv, n_filled, False)


def project_on_nodes(panel: OptionPanel, grid: Grid) -> Projection | None:
    """`project` for a panel whose quotes all lie on nodes; None, at the cost of a look, for any other."""
    if grid.standardised:
        return None
    iv = np.empty(grid.shape)
    n_filled = _copied(panel.expiry, panel.log_moneyness, panel.mid, panel.weight, grid.expiry, grid.log_moneyness, iv)
    return Projection(iv, n_filled, True) if n_filled else None


def project_all(group: PanelGroup, grid: Grid, only_on_nodes: bool = False) -> Projections:
    """`project` for each panel of a group, in one compiled call.

    only_on_nodes  leave out the panels that have a quote off the nodes, as `project_on_nodes`
    """
    n = len(group)
    iv = np.empty((n, *grid.shape))
    n_filled, on_grid = np.zeros(n, np.int64), np.zeros(n, np.bool_)
    if not (grid.standardised and only_on_nodes):
        _project_all(
            group.first,
            group.n_expiries,
            group.expiry,
            group.log_moneyness,
            group.mid,
            group.weight,
            group.scales.expiries,
            group.scales.offsets,
            grid.expiry,
            grid.log_moneyness,
            grid.standardised,
            only_on_nodes,
            iv,
            n_filled,
            on_grid,
        )
    return Projections(iv, n_filled, on_grid)


@careful
def _nearest(nodes: Vector, x: float) -> int:
    j = np.searchsorted(nodes, x)
    if j == nodes.size or (j > 0 and x - nodes[j - 1] < nodes[j] - x):
        j -= 1
    return int(j)


@careful
def _project_all(
    first: IntVector,
    n_expiries: IntVector,
    expiry: Vector,
    log_moneyness: Vector,
    mid: Vector,
    weight: Vector,
    expiries: Vector,
    offsets: IntVector,
    rows: Vector,
    columns: Vector,
    standardised: bool,
    only_on_nodes: bool,
    iv: Matrix,
    n_filled: IntVector,
    on_grid: BoolVector,
) -> None:
    """Fill the last three; the first six and `expiries`, `offsets` as a `PanelGroup` has them."""
    for i in range(n_expiries.size):
        a, b, m = first[i], first[i + 1], n_expiries[i]
        if not standardised:
            n_filled[i] = _copied(expiry[a:b], log_moneyness[a:b], mid[a:b], weight[a:b], rows, columns, iv[i])
            on_grid[i] = n_filled[i] > 0
        if on_grid[i] or only_on_nodes:
            continue
        n_filled[i] = interpolate(
            expiries[a : a + m],
            offsets[a + i : a + i + m + 1],
            log_moneyness[a:b],
            mid[a:b],
            weight[a:b],
            rows,
            columns,
            standardised,
            iv[i],
        )


@brief
def _nearest_from(nodes: Vector, j: int, x: float) -> int:
    """The node nearest to x, of node j and those after it."""
    while j + 1 < nodes.size and not x - nodes[j] < nodes[j + 1] - x:
        j += 1
    return j


@brief
def _copied(
    expiry: Vector, log_moneyness: Vector, mid: Vector, weight: Vector, rows: Vector, columns: Vector, out: Matrix
) -> int:
    """Fill `out` with the quotes if all of them lie on nodes, and say how many nodes that are; else say zero.

    The quotes are sorted by expiry, then log-moneyness.
    """
    n_filled = 0
    out[:] = np.nan
    total = np.zeros(out.shape)
    i = j = 0
    for q in range(mid.size):
        if q == 0 or expiry[q] != expiry[q - 1]:
            i = _nearest_from(rows, i, expiry[q])
            if abs(rows[i] - expiry[q]) > _SAME_NODE * rows[i]:
                return 0
            j = 0
        j = _nearest_from(columns, j, log_moneyness[q])
        if abs(columns[j] - log_moneyness[q]) > _SAME_NODE:
            return 0
        before = total[i, j]
        total[i, j] += weight[q]
        if before == 0.0:
            n_filled += 1
            out[i, j] = mid[q]
        else:
            out[i, j] += (mid[q] - out[i, j]) * (weight[q] / total[i, j])
    return n_filled


@careful
def _merged(
    expiries: Vector,
    offsets: IntVector,
    log_moneyness: Vector,
    mid: Vector,
    weight: Vector,
    k: Vector,
    w: Vector,
    u: Vector,
) -> IntVector:
    """Total variances `w` and weights `u` (at most one) at the distinct strikes `k` of every expiry; their offsets."""
    starts = np.empty(offsets.size, np.int64)
    starts[0] = 0
    n = 0
    for e in range(expiries.size):
        first = n
        largest = 0.0
        for q in range(offsets[e], offsets[e + 1]):
            largest = max(largest, weight[q])
        for q in range(offsets[e], offsets[e + 1]):
            part = max(math.sqrt(weight[q] / largest), _LEAST_WEIGHT)
            value = mid[q] * mid[q] * expiries[e]
            if n > first and log_moneyness[q] - k[n - 1] < _SAME_NODE:
                u[n - 1] += part
                w[n - 1] += (value - w[n - 1]) * (part / u[n - 1])
            else:
                k[n] = log_moneyness[q]
                w[n] = value
                u[n] = part
                n += 1
        starts[e + 1] = n
    return starts


@careful
def _parabola(k: Vector, w: Vector, u: Vector, x: float, least_reach: float) -> float:
    """The local quadratic's value at x, from one expiry's distinct strikes, between its outermost ones."""
    n = k.size
    if n == 1:
        return float(w[0])
    place = np.searchsorted(k, x)
    left = place
    right = place
    reach = 0.0
    # One more than N_NEAREST: the tricube weight is zero at the end of the reach.
    for _ in range(min(n, N_NEAREST + 1)):
        to_left = x - k[left - 1] if left > 0 else np.inf
        to_right = k[right] - x if right < n else np.inf
        if to_left <= to_right:
            left -= 1
            reach = to_left
        else:
            right += 1
            reach = to_right
    reach = max(reach, least_reach) if n > N_NEAREST else 2.0 * reach
    while left > 0 and x - k[left - 1] < reach:
        left -= 1
    while right < n and k[right] - x < reach:
        right += 1
    s0 = s1 = s2 = s3 = s4 = t0 = t1 = t2 = 0.0
    low = np.inf
    high = 0.0
    scale = 1.0 / reach
    for i in range(left, right):
        z = (k[i] - x) * scale
        cube = 1.0 - abs(z * z * z)
        if cube > 0.0:
            p = cube * cube * cube * u[i]
            v = w[i]
            low = min(low, v)
            high = max(high, v)
            s0 += p
            t0 += p * v
            p *= z
            s1 += p
            t1 += p * v
            p *= z
            s2 += p
            t2 += p * v
            p *= z
            s3 += p
            s4 += p * z
    # Normal equations of the parabola, the constant eliminated first; on few strikes fall back to a line, then a mean.
    one = s1 / s0
    two = s2 / s0
    a11 = s2 - s1 * one
    a12 = s3 - s2 * one
    a22 = s4 - s2 * two
    b1 = t1 - t0 * one
    b2 = t2 - t0 * two
    determinant = a11 * a22 - a12 * a12
    slope = 0.0
    curvature = 0.0
    if determinant > 1e-9 * a11 * a22 and a22 > 1e-9 * s4:
        slope = (b1 * a22 - b2 * a12) / determinant
        curvature = (b2 * a11 - b1 * a12) / determinant
    elif a11 > 1e-9 * s2:
        slope = b1 / a11
    value = t0 / s0 - slope * one - curvature * two
    # No parabola through noise leaves the neighbourhood of the quotes it was drawn through.
    return min(max(value, 0.5 * low), 2.0 * high)


@careful
def _smile(k: Vector, w: Vector, u: Vector, x: float, atm_sd: float) -> float:
    """Total variance of one expiry at x; NaN further outside the quotes than `STRIKE_REACH`."""
    edge = min(max(x, k[0]), k[-1])
    beyond = x - edge
    if not abs(beyond) <= STRIKE_REACH * atm_sd:
        return np.nan
    reach = LEAST_WINDOW * atm_sd
    value = _parabola(k, w, u, edge, reach)
    if beyond != 0.0 and k.size > 1:
        inside = edge - math.copysign(min(0.5 * reach, k[-1] - k[0]), beyond)
        slope = (value - _parabola(k, w, u, inside, reach)) / (edge - inside)
        value = max(value + min(max(slope, -_STEEPEST), _STEEPEST) * beyond, 0.5 * value)
    return value


@careful
def _slopes(x: Vector, y: Vector) -> Vector:
    """Slopes at the nodes of a monotone cubic: of the parabola through three, cut to what keeps it monotone."""
    n = x.size
    out = np.empty(n)
    if n == 2:
        out[:] = max((y[1] - y[0]) / (x[1] - x[0]), 0.0)
        return out
    for i in range(n):
        j = min(max(i, 1), n - 2)
        h0 = x[j] - x[j - 1]
        h1 = x[j + 1] - x[j]
        d0 = (y[j] - y[j - 1]) / h0
        d1 = (y[j + 1] - y[j]) / h1
        curvature = (d1 - d0) / (h0 + h1)
        slope = d0 + curvature * h0 + 2.0 * curvature * (x[i] - x[j])
        flattest = d0 if i == 0 else d1 if i == n - 1 else min(d0, d1)
        out[i] = min(max(slope, 0.0), 3.0 * max(flattest, 0.0))
    return out


@careful
def _cubic(x: Vector, y: Vector, slopes: Vector, at: float) -> float:
    """The monotone cubic, going on as a straight line beyond the last node; at > x[0]."""
    i = np.searchsorted(x, at) - 1
    if i == x.size - 1:
        return float(y[i] + slopes[i] * (at - x[i]))
    h = x[i + 1] - x[i]
    t = (at - x[i]) / h
    r = 1.0 - t
    return float(
        y[i] * (1.0 + 2.0 * t) * r * r
        + slopes[i] * h * t * r * r
        + y[i + 1] * t * t * (3.0 - 2.0 * t)
        - slopes[i + 1] * h * t * t * r
    )


@careful
def interpolate(
    expiries: Vector,
    offsets: IntVector,
    log_moneyness: Vector,
    mid: Vector,
    weight: Vector,
    rows: Vector,
    columns: Vector,
    standardised: bool,
    out: Matrix,
) -> int:
    """Fill `out` (rows, columns) from quotes sorted by expiry, then log-moneyness; `offsets` (n_expiries + 1,).

    returns  the nodes that have a vol
    """
    n_quotes = mid.size
    n_expiries = expiries.size
    k = np.empty(n_quotes)
    w = np.empty(n_quotes)
    u = np.empty(n_quotes)
    starts = _merged(expiries, offsets, log_moneyness, mid, weight, k, w, u)
    # At-the-money total variances; where the money is not quoted, that of the outermost strike on its side.
    time = np.zeros(n_expiries + 1)
    level = np.zeros(n_expiries + 1)
    for e in range(n_expiries):
        a, b = starts[e], starts[e + 1]
        x = min(max(0.0, k[a]), k[b - 1])
        near = math.sqrt(w[a + _nearest(k[a:b], x)])
        time[e + 1] = expiries[e]
        level[e + 1] = _parabola(k[a:b], w[a:b], u[a:b], x, LEAST_WINDOW * near)
    slopes = _slopes(time, level)
    # Standardised nodes lie at the same strikes of an expiry whatever the row: its smile is worked out once.
    smiles = np.empty((n_expiries, columns.size))
    known = np.zeros(n_expiries, np.bool_)
    n_filled = 0
    out[:] = np.nan
    for i in range(rows.size):
        t = rows[i]
        if not expiries[0] / EXPIRY_REACH <= t <= expiries[-1] * EXPIRY_REACH:
            continue
        atm = _cubic(time, level, slopes, t)
        after = min(np.searchsorted(expiries, t), n_expiries - 1)
        before = after
        if after > 0 and t < expiries[after]:
            before = after - 1
        share = 0.0 if before == after else (t - expiries[before]) / (expiries[after] - expiries[before])
        linear = (1.0 - share) * level[before + 1] + share * level[after + 1]
        if not (atm > 0.0 and linear > 0.0):
            continue
        out[i] = 0.0
        for side in range(2):
            part = share if side == 1 else 1.0 - share
            if part > 0.0:
                e = after if side == 1 else before
                smile = smiles[e]
                if not known[e]:
                    a, b = starts[e], starts[e + 1]
                    sd = math.sqrt(level[e + 1])
                    for j in range(columns.size):
                        x = columns[j] if standardised else columns[j] / math.sqrt(atm)
                        smile[j] = _smile(k[a:b], w[a:b], u[a:b], x * sd, sd)
                    known[e] = standardised
                for j in range(columns.size):
                    out[i, j] += part * smile[j]
        for j in range(columns.size):
            out[i, j] = math.sqrt(out[i, j] * (atm / linear) / t)
            n_filled += not np.isnan(out[i, j])
    return n_filled
