"""Radial basis functions and their partition of unity (PURBF), as Hakala (2019) uses them.

A unit j is a Gaussian exp(-(x - c_j)^2 / 2 h_j^2); in the partition of unity each is divided by the sum of all, a
softmax, taken in the log domain so that it holds far from every centre. Their weights w minimise

    sum_i (v_i - mean - sum_j a_ij w_j)^2 + ridge sum_j w_j^2,

the response centred first, so that the ridge pulls towards the mean variance and not to zero. `ridge` is in particles:
it weighs as much as so many responses equal to the mean would, seen by one unit alone, however many particles there
are. So it quiets the units of the wings, which see a few particles each, and leaves the others be.

Centres are the ends and evenly spread quantiles of the particles (the paper draws them at random, which is these with
noise); widths the mean distance to the nearest centres; and a centre nearer to one kept before than `pruning` times
its width is dropped. The particles are linearly binned first (`cells`), which costs no accuracy and takes N x units
exponentials to cells x units; `n_cells` None evaluates every unit at every particle.
"""

from dataclasses import dataclass

import numpy as np

from ...arrays import Matrix, Vector
from .cells import REACH, cells_of


@dataclass(frozen=True, kw_only=True)
class RadialBasis:
    """Options of the estimators `rbf` and `purbf`."""

    partition: bool = True
    """Whether the units are divided by their sum."""
    n_units: int = 40
    n_neighbours: int | None = 5
    """The width of a unit is `width` times its mean distance to so many nearest centres; None for one width of all, the
    mean distance between neighbours."""
    width: float = 1.0
    pruning: float = 0.5
    """Least distance between two centres, in widths."""
    ridge: float = 0.2
    """In particles."""
    n_cells: int | None = 2000

    def __call__(self, x: Vector, v: Vector, at: Vector) -> Vector:
        centres, widths = self.units(x)
        mean = float(v.mean())
        if self.n_cells is None:
            places, mass, response = x, np.ones(x.size), v - mean
        else:
            cells = cells_of(x, v, self.n_cells)
            held = cells.mass > 0.0
            places = np.linspace(-REACH, REACH, self.n_cells)[held]
            mass, response = cells.mass[held], (cells.response - mean * cells.mass)[held]
        a = self._activations(places, centres, widths)
        normal = (a * mass[:, None]).T @ a
        normal += self.ridge * np.eye(centres.size)
        # Least squares also of a singular matrix, as units that overlap much have without a ridge.
        weights = np.linalg.lstsq(normal, a.T @ response, rcond=1e-12)[0]
        return np.asarray(mean + self._activations(at, centres, widths) @ weights)

    def units(self, x: Vector) -> tuple[Vector, Vector]:
        """Centres, ascending, and widths of the units left after pruning."""
        centres = np.unique(np.quantile(x, np.linspace(0.0, 1.0, self.n_units)))
        widths = self._widths(centres)
        kept = [0]
        for j in range(1, centres.size):
            if centres[j] - centres[kept[-1]] >= self.pruning * widths[j]:
                kept.append(j)
        centres = centres[kept]
        return centres, self._widths(centres)

    def _widths(self, centres: Vector) -> Vector:
        if centres.size == 1:
            return np.ones(1)
        if self.n_neighbours is None:
            return np.full(centres.size, self.width * np.ptp(centres) / (centres.size - 1))
        distances = np.sort(np.abs(centres[:, None] - centres), axis=1)
        nearest: Vector = distances[:, 1 : 1 + self.n_neighbours].mean(axis=1)
        return self.width * nearest

    def _activations(self, x: Vector, centres: Vector, widths: Vector) -> Matrix:
        """(n, n_units) of every unit at every place."""
        exponent = -0.5 * ((x[:, None] - centres) / widths) ** 2
        if not self.partition:
            return np.exp(exponent)
        a = np.exp(exponent - exponent.max(axis=1, keepdims=True))
        return np.asarray(a / a.sum(axis=1, keepdims=True))
