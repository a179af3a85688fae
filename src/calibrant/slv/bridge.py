"""Brownian bridges: quasi-random points turned into the increments of paths, coarse features first.

The first coordinates of a low-discrepancy sequence are its best, and a path is mostly its end, its middle and its
quarters: so the first number of a path is its end, and each further one fills in the middle of the widest gap left
(Glasserman 2004, section 3.1).
"""

from typing import NamedTuple

import numpy as np

from ..arrays import IntVector, Matrix, Vector
from ..compiled import kernel
from .numbers import inverse_normal


class Bridge(NamedTuple):
    """In the order in which points are filled in: where, between which known points, and how."""

    point: IntVector
    """(n_steps,) index of the date, 1 to n_steps."""
    left: IntVector
    """(n_steps,) of the known date before, 0 for the origin."""
    right: IntVector
    """(n_steps,) of the known date after; 0 for none, that is the first point."""
    left_weight: Vector
    right_weight: Vector
    deviation: Vector
    root_dt: Vector
    """(n_steps,) of the steps."""


def bridge_over(dates: Vector) -> Bridge:
    """For paths over dates (n_steps + 1,) that begin with 0."""
    n = dates.size - 1
    entries = [(n, 0, 0, 0.0, 0.0, float(np.sqrt(dates[n])))]
    gaps = [(0, n)]
    while gaps:
        before, after = gaps.pop(0)
        if after - before < 2:
            continue
        middle = int(np.searchsorted(dates, 0.5 * (dates[before] + dates[after])))
        middle = min(max(middle, before + 1), after - 1)
        whole = dates[after] - dates[before]
        share = float((dates[middle] - dates[before]) / whole)
        entries.append((middle, before, after, 1.0 - share, share, float(np.sqrt(whole * share * (1.0 - share)))))
        gaps += [(before, middle), (middle, after)]
    columns = (np.array(column) for column in zip(*entries, strict=True))
    point, left, right, left_weight, right_weight, deviation = columns
    return Bridge(point, left, right, left_weight, right_weight, deviation, np.sqrt(np.diff(dates)))


@kernel
def bridged(uniforms: Matrix, offset: int, bridge: Bridge, path: Matrix, out: Matrix) -> None:
    """Independent normal numbers of every step of every path.

    uniforms  (2 n_steps, n_paths) in (0, 1); rows `offset`, `offset` + 2, ... are used
    path      (n_steps + 1, n_paths), scratch
    out       (n_steps, n_paths), filled
    """
    n_paths = uniforms.shape[1]
    for j in range(n_paths):
        path[0, j] = 0.0
    for i in range(bridge.point.size):
        numbers = uniforms[offset + 2 * i]
        here, left, right = path[bridge.point[i]], path[bridge.left[i]], path[bridge.right[i]]
        a, b, s = bridge.left_weight[i], bridge.right_weight[i], bridge.deviation[i]
        for j in range(n_paths):
            here[j] = a * left[j] + b * right[j] + s * inverse_normal(numbers[j])
    for i in range(bridge.root_dt.size):
        inverse = 1.0 / bridge.root_dt[i]
        before, after, row = path[i], path[i + 1], out[i]
        for j in range(n_paths):
            row[j] = (after[j] - before[j]) * inverse
