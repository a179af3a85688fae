"""Local volatility by Dupire's formula in total variance, and as a grid that compiled loops read.

    sigma^2(t, k) = w_t / g,     g = (1 - k w_k / (2 w))^2 - w_k^2 / 4 (1 / w + 1 / 4) + w_kk / 2

at k = log(S / F(t)). Where a surface has arbitrage the quotient is no variance; there, and where it leaves what a
simulation can bear, it is clipped, and the clips are counted.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..arbitrage.surface_twin import durrleman
from ..arrays import Matrix, Vector
from ..compiled import inlined
from .surface import Surface

_EARLIEST = 2e-4
"""Years: at t = 0 the formula is 0 / 0, and its limit is reached before; ends of a row at t = 0 still have prices."""
_LEAST_SPAN = 1.0 / 365.0
"""Years: rows of a grid nearer to today are as wide as this one's, or a row at t = 0 would be a point."""


class LocalVol(NamedTuple):
    """Local vols and what was done to them."""

    vol: Vector
    below: int
    """How many were raised to the floor, among them those of a surface that falls with expiry (w_t <= 0)."""
    above: int
    """How many were lowered to the cap, among them those of a density that is not positive (g <= 0)."""


@dataclass(frozen=True, kw_only=True)
class LocalVolGrid:
    """Local vols over (t, ln S); each row is uniform in ln S, as wide as its expiry asks for."""

    expiry: Vector
    """(n_t,) years, ascending, from 0 on."""
    start: Vector
    """(n_t,) ln S of a row's first node."""
    step: Vector
    """(n_t,) between its nodes."""
    vol: Matrix
    """(n_t, n_x)."""
    n_clipped: int

    @property
    def log_spot(self) -> Matrix:
        """(n_t, n_x) where the vols are."""
        return self.start[:, np.newaxis] + self.step[:, np.newaxis] * np.arange(self.vol.shape[1])


@inlined
def row_at(row: Vector, start: float, inverse_step: float, log_spot: float) -> float:
    """A row of a grid at ln S: linear between its nodes and flat beyond its ends."""
    place = min(max((log_spot - start) * inverse_step, 0.0), row.size - 1.0)
    left = min(int(place), row.size - 2)
    share = place - left
    value: float = row[left] + share * (row[left + 1] - row[left])
    return value


@dataclass(frozen=True, kw_only=True)
class LocalVolatility:
    """The diffusion dS/S = (rd - rf) dt + sigma(t, S) dW that reprices a surface."""

    surface: Surface
    floor: float = 0.01
    """Least local vol."""
    cap: float = 3.0
    """Largest."""

    def at(self, log_moneyness: ArrayLike, expiry: ArrayLike) -> LocalVol:
        """At k = log(S / F(t)) and t >= 0 years, broadcast against each other; clips are counted."""
        k, t = np.broadcast_arrays(np.asarray(log_moneyness, np.float64), np.maximum(expiry, _EARLIEST))
        w, w_k, w_kk, w_t = self.surface.total_variance(k, t)
        g = durrleman(k, w, w_k, w_kk)
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = np.where(w_t > 0.0, np.where(g > 0.0, w_t / g, np.inf), 0.0)
        below, above = variance < self.floor**2, variance > self.cap**2
        return LocalVol(np.clip(np.sqrt(variance), self.floor, self.cap), int(below.sum()), int(above.sum()))

    def __call__(self, log_spot: ArrayLike, expiry: ArrayLike) -> Vector:
        """At ln S and t >= 0 years, broadcast against each other."""
        return self.at(np.asarray(log_spot) - self.surface.market.log_forward(expiry), expiry).vol

    def grid(self, expiry: ArrayLike, *, n_nodes: int = 401, width: float = 7.0) -> LocalVolGrid:
        """Rows at the expiries given.

        expiry   (n_t,) years >= 0, ascending
        n_nodes  of a row
        width    standard deviations, at the vol at the money, that a row reaches to either side of the forward
        """
        t = np.asarray(expiry, np.float64)
        deviation = np.sqrt(self.surface.total_variance(0.0, np.maximum(t, _LEAST_SPAN)).w)
        k = width * deviation[:, np.newaxis] * np.linspace(-1.0, 1.0, n_nodes)
        vol, below, above = self.at(k, t[:, np.newaxis])
        return LocalVolGrid(
            expiry=t,
            start=self.surface.market.log_forward(t) + k[:, 0],
            step=k[:, 1] - k[:, 0],
            vol=vol,
            n_clipped=below + above,
        )
