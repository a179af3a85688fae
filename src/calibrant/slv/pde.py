"""Call prices under a local volatility by Dupire's forward equation: the proof that it reprices its surface.

    dc/dT = sigma^2(T, k) / 2 (c_kk - c_k),     c(0, k) = (1 - e^k)^+,     k = log(K / F(T)),

in units of the forward, all strikes and expiries in one pass. Crank-Nicolson with the local vol of the middle of each
step; the first steps are implicit ones of half the length (Rannacher 1984), which damp what the kink of the payoff
would leave ringing. Nodes are dense about the forward and steps short at first: there the short expiries' prices live.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from scipy.interpolate import make_interp_spline

from ..arrays import Matrix, Vector
from ..black import implied_volatility_from_time_value
from ..compiled import kernel
from .local_vol import LocalVolatility
from .surface import Surface, implied_vol

_DAMPED = 2
"""Steps that begin at the payoff and are taken as two implicit halves."""


@dataclass(frozen=True, kw_only=True)
class PdeGrid:
    n_nodes: int = 1201
    """Odd, so that one is at the kink."""
    n_steps: int = 400
    """Until the last expiry, uniform in the root of time but for what the expiries between ask for."""
    width: float = 9.0
    """Standard deviations of the last expiry that the nodes reach to either side."""
    density: float = 30.0
    """Of the nodes about the forward, over that at the ends."""

    def nodes(self, deviation: float) -> Vector:
        """(n_nodes,) log-moneyness, by the hyperbolic sine."""
        end = np.arccosh(self.density)
        nodes: Vector = self.width * deviation * np.sinh(np.linspace(-end, end, self.n_nodes)) / np.sinh(end)
        return nodes

    def times(self, expiry: Vector) -> list[Vector]:
        """For each expiry, ascending, the steps' ends from the one before it."""
        roots = np.sqrt(np.append(0.0, expiry))
        n = np.ceil(self.n_steps * np.diff(roots) / roots[-1]).astype(int)
        return [np.linspace(a, b, m + 1) ** 2 for a, b, m in zip(roots[:-1], roots[1:], n, strict=True)]


class Steps(NamedTuple):
    begin: Vector
    """(n_steps,) years."""
    length: Vector
    implicit: Vector
    """The share of a step that is implicit: 1, or 1 / 2 of Crank and Nicolson's."""

    @classmethod
    def between(cls, times: Vector, damped: int = _DAMPED) -> "Steps":
        """From each of the times to the next; from time 0 on the first ones are damped."""
        begin, length = times[:-1], np.diff(times)
        halves = min(damped, begin.size) if times[0] == 0.0 else 0
        begin = np.concatenate((np.repeat(begin[:halves], 2), begin[halves:]))
        begin[1 : 2 * halves : 2] += 0.5 * length[:halves]
        length = np.concatenate((np.repeat(0.5 * length[:halves], 2), length[halves:]))
        return cls(begin, length, np.where(np.arange(begin.size) < 2 * halves, 1.0, 0.5))


def call_prices(
    local_vol: LocalVolatility, expiry: Vector, log_moneyness: list[Vector], grid: PdeGrid = PdeGrid()
) -> list[Vector]:
    """Calls under the local volatility, undiscounted, in units of the forward.

    expiry         (n_expiries,) years > 0, ascending
    log_moneyness  of each expiry, (n,) within the grid
    returns        of each expiry, (n,)
    error          < 0.2 bp of vol from the 10-delta put to the 10-delta call (test_the_pde_reprices_every_reference_
                   surface)
    """
    deviation = float(np.sqrt(local_vol.surface.total_variance(0.0, expiry[-1]).w))
    nodes = grid.nodes(deviation)
    price = np.maximum(-np.expm1(nodes), 0.0)
    prices: list[Vector] = []
    for times, k in zip(grid.times(expiry), log_moneyness, strict=True):
        steps = Steps.between(times)
        # An implicit step takes the vol of its end, as it does the derivatives.
        at = steps.begin + steps.implicit * steps.length
        half_variance = 0.5 * local_vol.at(nodes, at[:, np.newaxis]).vol ** 2
        march(nodes, steps.length, steps.implicit, half_variance, price)
        prices.append(make_interp_spline(nodes, price)(k))
    return prices


def repricing_errors_bp(
    surface: Surface, expiry: Vector, log_moneyness: list[Vector], grid: PdeGrid = PdeGrid()
) -> list[Vector]:
    """Vols of `call_prices` under the surface's own local vol less the surface's, in basis points.

    Arguments as `call_prices`.
    """
    errors = []
    prices = call_prices(LocalVolatility(surface=surface), expiry, log_moneyness, grid)
    for t, k, call in zip(expiry.tolist(), log_moneyness, prices, strict=True):
        value = call - np.maximum(-np.expm1(k), 0.0)
        vol = implied_volatility_from_time_value(value, k, np.full(k.size, t)).volatility
        errors.append(1e4 * (vol - implied_vol(surface, k, t)))
    return errors


@kernel
def march(nodes: Vector, length: Vector, implicit: Vector, half_variance: Matrix, price: Vector) -> None:
    """Steps in time, in place; the ends keep their values: no time value is left out there.

    implicit       (n_steps,) the share of a step that is implicit
    half_variance  (n_steps, n_nodes)
    """
    n = nodes.size
    below, at, above = np.zeros(n), np.zeros(n), np.zeros(n)
    for j in range(1, n - 1):
        left, right = nodes[j] - nodes[j - 1], nodes[j + 1] - nodes[j]
        below[j] = (2.0 + right) / (left * (left + right))
        above[j] = (2.0 - left) / (right * (left + right))
        at[j] = -below[j] - above[j]
    slope, known = np.empty(n), np.empty(n)
    for step in range(length.size):
        slope[0], known[0] = 0.0, price[0]
        for j in range(1, n - 1):
            rate = length[step] * half_variance[step, j]
            explicit = (1.0 - implicit[step]) * rate
            right_side = price[j] + explicit * (below[j] * price[j - 1] + at[j] * price[j] + above[j] * price[j + 1])
            rate *= implicit[step]
            pivot = 1.0 / (1.0 - rate * at[j] + rate * below[j] * slope[j - 1])
            slope[j] = -rate * above[j] * pivot
            known[j] = (right_side + rate * below[j] * known[j - 1]) * pivot
            # Thomas: price[j] = known[j] - slope[j] price[j + 1].
            if j == n - 2:
                known[j] -= slope[j] * price[n - 1]
        for j in range(n - 2, 0, -1):
            price[j] = known[j] - slope[j] * price[j + 1] if j < n - 2 else known[j]
