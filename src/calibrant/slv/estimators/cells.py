"""Linear binning: particles replaced by the points of a fine grid, each with the mass and the response near it.

A particle between two points of the grid gives each a share in proportion to its nearness, so that mass, mean and
response are kept, and smooth functions to second order in the spacing (Fan & Marron 1994). What a regression costs no
longer depends on the number of particles, nor does it need them sorted.
"""

from typing import NamedTuple

import numpy as np

from ...arrays import Vector
from ...compiled import kernel

REACH = 6.0
"""Standard deviations that the grid extends to either side; what lies beyond counts at its end."""


class Cells(NamedTuple):
    """Points of an even grid over [-REACH, REACH]."""

    mass: Vector
    """(n_cells,) particles near each."""
    response: Vector
    """(n_cells,) sum of their responses."""

    @property
    def spacing(self) -> float:
        return 2.0 * REACH / (self.mass.size - 1)


def cells_of(x: Vector, v: Vector, n_cells: int) -> Cells:
    """Particles (n,) with standardised x shared among `n_cells` >= 2 points."""
    cells = Cells(np.zeros(n_cells), np.zeros(n_cells))
    share(x, v, cells.mass, cells.response)
    return cells


@kernel
def share(x: Vector, v: Vector, mass: Vector, response: Vector) -> None:
    """Add particles (n,) to `mass` and `response` (n_cells,)."""
    last = mass.size - 1
    scale = last / (2.0 * REACH)
    for i in range(x.size):
        place = min(max((x[i] + REACH) * scale, 0.0), last - 1e-9)
        j = int(place)
        right = place - j
        mass[j] += 1.0 - right
        mass[j + 1] += right
        response[j] += (1.0 - right) * v[i]
        response[j + 1] += right * v[i]
