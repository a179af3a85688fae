"""Slices of the SSVI form with parameters of their own (eSSVI), fitted together so that no arbitrage is between them.

A slice has theta, the total variance at the money, and the slopes of its wings, A+ = psi (1 + rho) and
A- = psi (1 - rho), which are twice those of w; phi = psi / theta. No calendar arbitrage: A+ and A- do not fall with the
expiry and phi does not rise (Hendriks & Martini 2019, proposition 3.1). No butterfly: phi A <= 4 and A <= 4 for both
wings (Gatheral & Jacquier 2014, theorem 4.2). In the logarithms of the three all of these are linear, so that a fit is
a sequence of least-squares problems with linear constraints, and every step of it is free of arbitrage.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.interpolate import PchipInterpolator
from scipy.linalg import solve_triangular
from scipy.optimize import nnls

from ..arrays import IntVector, Matrix, Vector
from ..fx.smile import slice_through
from ..market import Market
from .surface import Moving, TotalVariance, ssvi

_STEPS = 60
_LEAST_GAIN = 1e-9
"""Relative gain in the sum of squares below which the fit ends."""
_LEAST_SLOPE = 1e-4
"""Of A, so that its logarithm is one; a wing flatter than this is flat to 1e-4 of w a unit of log-moneyness."""
_MOST = np.log(4.0 * (1.0 - 1e-9))


class Slice(NamedTuple):
    """The quotes of one expiry."""

    expiry: float
    log_moneyness: Vector
    """(n,)."""
    vol: Vector
    """(n,) > 0."""
    weight: Vector
    """(n,) of the squared residual."""
    row: IntVector
    """(n,) where the quote came from."""

    def without(self, out: IntVector) -> "Slice":
        """Less some of its quotes, by position."""
        kept = np.setdiff1d(np.arange(self.row.size), out)
        return Slice(self.expiry, self.log_moneyness[kept], self.vol[kept], self.weight[kept], self.row[kept])


@dataclass(frozen=True, kw_only=True)
class Essvi:
    """Between its expiries the logarithms of A+, A- and phi are monotone cubics of log t, so that the conditions hold
    there too and w has a continuous derivative by t. Before the first expiry the vol at the money stays, and phi goes
    on to rise half as fast as it does behind: between a smile that stays and one that steepens without end."""

    market: Market
    expiry: Vector
    """(n,) years, ascending."""
    theta: Vector
    up: Vector
    """(n,) A+, of the right wing."""
    down: Vector
    """(n,) A-."""

    @property
    def last_expiry(self) -> float:
        return float(self.expiry[-1])

    @cached_property
    def _curve(self) -> PchipInterpolator:
        """Of log A+, log A- and log phi by log t."""
        logs = np.log([self.up, self.down, 0.5 * (self.up + self.down) / self.theta])
        times = np.log(self.expiry)
        # Two pillars before the first, so that the curves turn within the second of them and are straight before.
        early = np.array([[-2.0, -1.0]])
        steepening = 0.5 * (logs[2, 1] - logs[2, 0]) / (times[1] - times[0]) if times.size > 1 else 0.0
        # Of less than -1/2, phi psi would grow without bound as t vanishes.
        slope = max(steepening, -0.5)
        slopes = np.array([[1.0 + slope], [1.0 + slope], [slope]])
        return PchipInterpolator(
            np.concatenate((times[0] + early[0], times)), np.hstack((logs[:, :1] + slopes * early, logs)).T
        )

    def _parameters(self, expiry: Vector) -> tuple[Vector, Vector]:
        """log A+, log A- and log phi, and their derivatives by log t, each (n, 3)."""
        curve = self._curve
        # The last derivative once more beyond the last expiry; before the pillars in front it is what it is there.
        x = np.log(expiry)
        inside = np.clip(x, curve.x[1], curve.x[-1])
        slope = curve(inside, 1)
        return curve(inside) + slope * (x - inside)[:, np.newaxis], slope

    def total_variance(self, log_moneyness: ArrayLike, expiry: ArrayLike) -> TotalVariance:
        k, t = np.broadcast_arrays(np.asarray(log_moneyness, np.float64), np.asarray(expiry, np.float64))
        # The parameters of each expiry once, however many strikes it has.
        years, place = np.unique(t, return_inverse=True)
        logs, slopes = self._parameters(years)
        (up, down, phi), (up_t, down_t, phi_t) = np.exp(logs).T, (np.exp(logs) * slopes).T / years
        psi, psi_t = 0.5 * (up + down), 0.5 * (up_t + down_t)
        theta, rho = psi / phi, (up - down) / (up + down)
        theta_t = (psi_t - theta * phi_t) / phi
        rho_t = (up_t * (1.0 - rho) - down_t * (1.0 + rho)) / (up + down)
        at = [values[place].reshape(t.shape) for values in (theta, theta_t, rho, rho_t, phi, phi_t)]
        return ssvi(k, Moving(at[0], at[1]), Moving(at[2], at[3]), Moving(at[4], at[5]))


def fit_essvi(market: Market, slices: Sequence[Slice]) -> Essvi:
    """The surface nearest to the quotes by the weighted squares of the vol residuals, among those without arbitrage.

    slices  ascending in expiry; those of fewer than three strikes take from their neighbours what they do not say
    """
    x = _feasible(_start(slices))
    limits, bound = _constraints(len(slices))
    residual, jacobian = _residuals(slices, x)
    damping = 1e-3
    scale = float(np.abs(np.einsum("ij,ij->j", jacobian, jacobian)).max())
    for _ in range(_STEPS):
        step = _constrained_step(jacobian, residual, damping * scale, limits, bound - limits @ x.ravel())
        trial = x + step.reshape(x.shape)
        new_residual, new_jacobian = _residuals(slices, trial)
        before, after = float(residual @ residual), float(new_residual @ new_residual)
        if after < before:
            x, residual, jacobian = trial, new_residual, new_jacobian
            damping = max(0.1 * damping, 1e-12)
            if before - after <= _LEAST_GAIN * before:
                break
        elif damping > 1e6:
            break
        else:
            damping *= 10.0
    up, down, log_phi = _feasible(x)
    theta = 0.5 * (np.exp(up) + np.exp(down)) / np.exp(log_phi)
    return Essvi(
        market=market,
        expiry=np.array([each.expiry for each in slices]),
        theta=theta,
        up=np.exp(up),
        down=np.exp(down),
    )


def _start(slices: Sequence[Slice]) -> Matrix:
    """(3, n) logarithms of A+, A- and phi of each slice by itself, or by its neighbours where it says too little."""
    n = len(slices)
    alone = np.full((3, n), np.nan)
    level = np.empty(n)
    for i, (expiry, k, vol, _, _) in enumerate(slices):
        a, b, c = slice_through(k, vol * vol * expiry)
        level[i] = a if a > 0.0 else float(np.mean(vol) ** 2 * expiry)
        if np.unique(k).size >= 3 and a > 0.0:
            psi = max(np.sqrt(b * b + c), 4.0 * _LEAST_SLOPE)
            rho = min(max(b / psi, -0.99), 0.99)
            alone[:, i] = np.log([psi * (1.0 + rho), psi * (1.0 - rho), psi / a])
    years = np.log([each.expiry for each in slices])
    known = np.flatnonzero(np.isfinite(alone[2]))
    if not known.size:
        # Nothing is said of any smile: none.
        psi = np.full(n, 2.0 * _LEAST_SLOPE)
        return np.log([psi, psi, psi / level])
    lean = np.interp(years, years[known], (alone[0] - alone[1])[known])
    # psi as a share of the root of theta moves little with the expiry.
    share = np.interp(years, years[known], (alone[2] + 0.5 * np.log(level))[known])
    phi = share - 0.5 * np.log(level)
    psi = np.exp(phi) * level
    rho = np.tanh(0.5 * lean)
    filled = np.stack([np.log(psi * (1.0 + rho)), np.log(psi * (1.0 - rho)), phi])
    return np.where(np.isfinite(alone), alone, filled)


def _feasible(x: Matrix) -> Matrix:
    """Parameters moved inside the constraints."""
    up, down = (np.maximum.accumulate(np.clip(row, np.log(_LEAST_SLOPE), _MOST)) for row in x[:2])
    phi = np.minimum.accumulate(np.minimum(x[2], _MOST - np.maximum(up, down)))
    return np.stack([up, down, phi])


def _constraints(n: int) -> tuple[Matrix, Vector]:
    """G and h of G x <= h, x being the rows of (3, n) one behind the other."""
    one, nothing = np.eye(n), np.zeros((n, n))
    falls = (one[:-1] - one[1:]) if n > 1 else np.zeros((0, n))
    none = np.zeros_like(falls)
    rows = [
        (np.hstack((falls, none, none)), 0.0),
        (np.hstack((none, falls, none)), 0.0),
        (np.hstack((none, none, -falls)), 0.0),
        (np.hstack((one, nothing, nothing)), _MOST),
        (np.hstack((nothing, one, nothing)), _MOST),
        (np.hstack((one, nothing, one)), _MOST),
        (np.hstack((nothing, one, one)), _MOST),
        (np.hstack((-one, nothing, nothing)), -np.log(_LEAST_SLOPE)),
        (np.hstack((nothing, -one, nothing)), -np.log(_LEAST_SLOPE)),
    ]
    return np.vstack([row for row, _ in rows]), np.concatenate([np.full(len(row), bound) for row, bound in rows])


def _residuals(slices: Sequence[Slice], x: Matrix) -> tuple[Vector, Matrix]:
    """Weighted residuals in basis points of vol, (n_quotes,), and their derivatives by x, (n_quotes, 3 n)."""
    n = len(slices)
    residuals, rows = [], []
    for i, (expiry, k, quoted, weight, _) in enumerate(slices):
        up, down, phi = np.exp(x[:, i])
        psi = 0.5 * (up + down)
        theta = psi / phi
        lean = 0.5 * (up - down)
        root = np.sqrt((psi * k) ** 2 + 2.0 * lean * theta * k + theta * theta)
        vol = np.sqrt(0.5 * (theta + lean * k + root) / expiry)
        by_theta = 0.5 * (1.0 + (lean * k + theta) / root)
        by_lean = 0.5 * k * (1.0 + theta / root)
        by_psi = 0.5 * psi * k * k / root
        scale = 1e4 * np.sqrt(weight)
        by_w = scale / (2.0 * vol * expiry)
        row = np.zeros((k.size, 3, n))
        by_half = by_theta / phi + by_psi
        row[:, 0, i] = by_w * 0.5 * up * (by_half + by_lean)
        row[:, 1, i] = by_w * 0.5 * down * (by_half - by_lean)
        row[:, 2, i] = -by_w * by_theta * theta
        rows.append(row.reshape(k.size, 3 * n))
        residuals.append(scale * (vol - quoted))
    return np.concatenate(residuals), np.vstack(rows)


def _constrained_step(jacobian: Matrix, residual: Vector, damping: float, limits: Matrix, room: Vector) -> Vector:
    """The step d of least |J d + r|^2 + damping |d|^2 with limits @ d <= room, as a least-distance problem (Lawson &
    Hanson 1974, chapter 23)."""
    n = jacobian.shape[1]
    q, r = np.linalg.qr(np.vstack((jacobian, np.sqrt(damping) * np.eye(n))))
    free = -q[: jacobian.shape[0]].T @ residual
    # With z = R d - free: least |z| where e z >= f.
    e = -solve_triangular(r, limits.T, trans="T").T
    f = -room - e @ free
    dual = nnls(np.vstack((e.T, f)), np.append(np.zeros(n), 1.0))[0]
    off = np.append(e.T @ dual, f @ dual - 1.0)
    step: Vector = solve_triangular(r, free - off[:-1] / off[-1])
    return step
