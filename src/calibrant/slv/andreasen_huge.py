"""A surface through quotes that no parametric slice has: prices of a diffusion whose local vol is fitted to them.

Andreasen & Huge (2011) solve Dupire's forward equation from one expiry to the next and choose the local vol of the
interval so that the prices at its end are those quoted: whatever the local vol, the prices are free of arbitrage. They
take one implicit step an interval, which leaves kinks in the density. Here an interval takes many steps and its local
vol is a smooth function of the log-moneyness (a spline of its logarithm, flat beyond the outermost quotes), so that
the implied vols are smooth as well and Dupire's formula gives that local vol back. The vols are kept as splines of the
root of time and of x = k / (sigma sqrt(t)), in which a smile changes little as time vanishes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import CubicSpline, RectBivariateSpline, make_interp_spline

from ..arrays import Matrix, Vector
from ..black import implied_volatility_from_time_value
from ..market import Market
from .essvi import Slice
from .pde import PdeGrid, Steps, march
from .surface import TotalVariance

_GRID = PdeGrid(n_nodes=601, n_steps=100, width=8.0, density=8.0)
_SPAN = 5.5
"""Deviations, at the vol of either wing, to which vols are kept; beyond, they stay as they are there."""
_N_TABLED = 241
_MOST_REACH = 4.0
"""Of the vol at the money: wings beyond are cut off, or the grid would be too coarse about the forward."""
_EVERY = 4
"""Of the steps' ends, the vols of one in so many are kept."""
_SKIPPED = 8
"""Steps after today before the prices of the grid carry a smile."""
_LEAST_VOL, _MOST_VOL = 0.01, 3.0
"""Of a local vol, as `LocalVolatility` clips it."""
_MOST_KNOTS = 9
_SMOOTHING_BP = 0.3
"""What a second difference of 1 in the log local vol counts in the sum of squares, as a misfit of that size."""
_ITERATIONS = 60
_DIFFERENCE = 1e-5


class _Interval(NamedTuple):
    vol: float
    """The sigma of x."""
    span: tuple[float, float]
    """The ends of x."""
    variance: RectBivariateSpline
    """Implied variance by (sqrt(t), x)."""


@dataclass(frozen=True, kw_only=True)
class AndreasenHuge:
    market: Market
    expiry: Vector
    """(n,) years, ascending."""
    intervals: tuple[_Interval, ...]
    """Up to each expiry."""

    @property
    def last_expiry(self) -> float:
        return float(self.expiry[-1])

    def total_variance(self, log_moneyness: ArrayLike, expiry: ArrayLike) -> TotalVariance:
        k, t = np.broadcast_arrays(np.asarray(log_moneyness, np.float64), np.asarray(expiry, np.float64))
        out = np.empty((4, *k.shape))
        which = np.minimum(np.searchsorted(self.expiry, t), self.expiry.size - 1)
        for i in np.unique(which).tolist():
            here = which == i
            out[:, here] = self._within(self.intervals[i], k[here], t[here])
        return TotalVariance(*out)

    def _within(self, interval: _Interval, k: Vector, t: Vector) -> Matrix:
        scale = 1.0 / (interval.vol * np.sqrt(t))
        x = np.clip(k * scale, *interval.span)
        root = np.sqrt(np.minimum(t, self.last_expiry))
        v, v_x, v_xx, v_root = (interval.variance.ev(root, x, *by) for by in ((0, 0), (0, 1), (0, 2), (1, 0)))
        inside = x == k * scale
        v_x, v_xx = v_x * inside, v_xx * inside
        v_t = np.where(t <= self.last_expiry, v_root / (2.0 * root), 0.0) - v_x * x / (2.0 * t)
        return np.stack([t * v, t * v_x * scale, t * v_xx * scale**2, v + t * v_t])


def fit_andreasen_huge(market: Market, slices: Sequence[Slice]) -> AndreasenHuge:
    """The surface nearest to the quotes by the weighted squares of the vol residuals, one expiry after the other.

    slices  ascending in expiry
    """
    today = 0.0
    nodes, price = np.empty(0), np.empty(0)
    intervals: list[_Interval] = []
    for each in slices:
        vol = float(np.interp(0.0, each.log_moneyness, each.vol))
        times = np.linspace(math.sqrt(today), math.sqrt(each.expiry), _GRID.n_steps + 1) ** 2
        steps = Steps.between(times, _GRID.n_steps // 5)
        # Away from the forward a local vol moves about twice as much as the implied one; if by more, once again.
        left, right = (max(v, 2.0 * v - vol) for v in (float(each.vol[0]), float(each.vol[-1])))
        for _ in range(2):
            end = _GRID.width * max(left, vol, right) * math.sqrt(each.expiry)
            onto = _GRID.nodes(max(end, 1.5 * float(np.abs(each.log_moneyness).max())) / _GRID.width)
            start = _regridded(nodes, price, onto)
            log_vol = _fitted(each, onto, start, steps)
            found = np.minimum(np.exp(log_vol[[0, -1]]), _MOST_REACH * vol)
            if found[0] < 1.2 * left and found[1] < 1.2 * right:
                break
            left, right = max(left, float(found[0])), max(right, float(found[1]))
        nodes, price = onto, start
        span = (-_SPAN * left / vol, _SPAN * right / vol)
        tabled = _tabled(each.expiry, vol, np.linspace(*span, _N_TABLED), nodes, price, steps, log_vol)
        intervals.append(_Interval(vol, span, tabled))
        march(nodes, steps.length, steps.implicit, _half_variance(log_vol, steps), price)
        today = each.expiry
    return AndreasenHuge(
        market=market,
        expiry=np.array([each.expiry for each in slices]),
        intervals=tuple(intervals),
    )


def _regridded(nodes: Vector, price: Vector, onto: Vector) -> Vector:
    """Call prices on other nodes; beyond the old ones an option is worth what it is when exercised."""
    new = np.maximum(-np.expm1(onto), 0.0)
    if nodes.size:
        inside = np.abs(onto) < nodes[-1]
        new[inside] = make_interp_spline(nodes, price)(onto[inside])
    return new


def _half_variance(log_vol: Vector, steps: Steps) -> Matrix:
    return np.tile(0.5 * np.exp(2.0 * log_vol), (steps.length.size, 1))


def _vols(k: Vector, expiry: float, nodes: Vector, price: Vector) -> Vector:
    """Implied vols of the prices on the nodes; NaN where there is none."""
    value = make_interp_spline(nodes, price)(k) - np.maximum(-np.expm1(k), 0.0)
    return implied_volatility_from_time_value(value, k, np.full(k.size, expiry)).volatility


def _fitted(quotes: Slice, nodes: Vector, start: Vector, steps: Steps) -> Vector:
    """(n_nodes,) logarithm of the local vol until this expiry."""
    expiry, k, quoted, weight, _ = quotes
    knots = np.unique(k)
    if knots.size > _MOST_KNOTS:
        knots = np.unique(np.quantile(knots, np.linspace(0.0, 1.0, _MOST_KNOTS)))
    if knots.size > 1:
        flat = CubicSpline(knots, np.eye(knots.size), bc_type="clamped")
        basis = flat(np.clip(nodes, knots[0], knots[-1]))
    else:
        basis = np.ones((nodes.size, 1))
    bend = _SMOOTHING_BP * np.diff(np.eye(knots.size), 2, axis=0)
    scale = 1e4 * np.sqrt(weight)

    def missed(p: Vector) -> Vector:
        price = start.copy()
        march(nodes, steps.length, steps.implicit, _half_variance(basis @ p, steps), price)
        vol = _vols(k, expiry, nodes, price)
        # A price without a vol has lost all of its time value, or more.
        return np.concatenate((scale * (np.nan_to_num(vol) - quoted), bend @ p))

    def slopes(p: Vector, off: Vector) -> Matrix:
        return np.column_stack([(missed(p + e) - off) / _DIFFERENCE for e in _DIFFERENCE * np.eye(p.size)])

    low, high = math.log(_LEAST_VOL), math.log(_MOST_VOL)
    p = np.log(np.interp(knots, *_by_strike(k, quoted)))
    off, damping = missed(p), 1e-3
    jacobian, fresh = slopes(p, off), True
    for _ in range(_ITERATIONS):
        normal = jacobian.T @ jacobian
        step = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-8), -jacobian.T @ off)
        step = np.clip(p + np.clip(step, -1.0, 1.0), low, high) - p
        new = missed(p + step)
        gain = off @ off - new @ new
        if gain > 0.0:
            # Broyden's update: a column of differences costs as much as a step.
            jacobian = jacobian + np.outer(new - off - jacobian @ step, step) / max(step @ step, 1e-300)
            done = gain < 1e-3 * (off @ off) and fresh
            p, off, damping, fresh = p + step, new, max(0.1 * damping, 1e-9), False
            if done or off @ off < 1e-6:
                break
            if gain < 0.5 * (gain + off @ off):
                jacobian, fresh = slopes(p, off), True
        elif not fresh:
            jacobian, fresh = slopes(p, off), True
        elif damping > 1e6:
            break
        else:
            damping *= 10.0
    return np.asarray(basis @ p)


def _by_strike(k: Vector, vol: Vector) -> tuple[Vector, Vector]:
    order = np.argsort(k, kind="stable")
    return k[order], vol[order]


def _tabled(
    expiry: float, vol: float, x: Vector, nodes: Vector, start: Vector, steps: Steps, log_vol: Vector
) -> RectBivariateSpline:
    """Implied variances of the interval at the ends of its steps and the places x."""
    price = start.copy()
    half_variance = _half_variance(log_vol, steps)
    today = float(steps.begin[0])
    # As time vanishes a smile is flat in x, at the local vol of the forward.
    at_once = np.full(x.size, float(np.exp(2.0 * np.interp(0.0, nodes, log_vol))))
    roots, rows = [math.sqrt(today)], [_variances(x, vol, today, nodes, price) if today > 0.0 else at_once]
    for i, end in enumerate((steps.begin + steps.length).tolist()):
        march(nodes, steps.length[i : i + 1], steps.implicit[i : i + 1], half_variance[i : i + 1], price)
        last = i == steps.begin.size - 1
        if last or (i % _EVERY == 0 and (today > 0.0 or end >= expiry * (_SKIPPED / _GRID.n_steps) ** 2)):
            roots.append(math.sqrt(end))
            rows.append(_variances(x, vol, end, nodes, price))
    return RectBivariateSpline(np.array(roots), x, np.array(rows))


def _variances(x: Vector, vol: float, expiry: float, nodes: Vector, price: Vector) -> Vector:
    """Implied variance at the places x; where a price is too small for one, that of the next nearer to the forward."""
    k = np.clip(x * vol * math.sqrt(expiry), nodes[0], nodes[-1])
    found = _vols(k, expiry, nodes, price)
    centre = int(np.argmin(np.abs(x)))
    for side in (range(centre + 1, x.size), range(centre - 1, -1, -1)):
        before = centre
        for j in side:
            if not found[j] > 0.0:
                found[j] = found[before]
            before = j
    return found**2
