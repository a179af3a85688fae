"""One step of a Newton-like method with bounds: an active set, at each step anew.

A parameter on a bound whose gradient points outward is held for the step, and a step that would cross a bound ends on
it while the others are solved again.
"""

import numpy as np

from ..arrays import Matrix, Vector
from ..compiled import kernel


@kernel
def bounded_step(
    point: Vector,
    lower: Vector,
    upper: Vector,
    hessian: Matrix,
    slope: Vector,
    damping: float,
    scale: Vector,
    step: Vector,
) -> None:
    """Solve (hessian + damping diag(scale)) step = -slope with every bound respected."""
    n = point.size
    free = np.empty(n, np.bool_)
    for i in range(n):
        step[i] = 0.0
        at_lower = point[i] <= lower[i]
        at_upper = point[i] >= upper[i]
        free[i] = not ((at_lower and at_upper) or (at_lower and slope[i] > 0.0) or (at_upper and slope[i] < 0.0))
    matrix = np.empty((n, n))
    right = np.empty(n)
    for _ in range(n):
        # Held parameters keep their step (to their bound); the rows of the free ones move it to the right-hand side.
        for i in range(n):
            right[i] = -slope[i]
            for j in range(n):
                matrix[i, j] = hessian[i, j] if free[i] and free[j] else 0.0
                if not free[j]:
                    right[i] -= hessian[i, j] * step[j]
            matrix[i, i] = hessian[i, i] + damping * scale[i] if free[i] else 1.0
            if not free[i]:
                right[i] = step[i]
        _solve(matrix, right)
        worst = 0.0
        which = -1
        for i in range(n):
            if free[i]:
                low = lower[i] - point[i]
                high = upper[i] - point[i]
                over = max(low - right[i], right[i] - high)
                if over > worst * (high - low):
                    worst = over / (high - low)
                    which = i
        if which < 0:
            for i in range(n):
                step[i] = right[i]
            return
        free[which] = False
        low = lower[which] - point[which]
        step[which] = low if right[which] < low else upper[which] - point[which]
    return


@kernel
def _solve(matrix: Matrix, right: Vector) -> None:
    """Solve the symmetric positive system in place (LDL', no pivoting: the damping keeps the pivots positive)."""
    n = right.size
    for i in range(n):
        for j in range(i):
            factor = matrix[i, j] / matrix[j, j]
            for m in range(j, n):
                matrix[i, m] -= factor * matrix[j, m]
            right[i] -= factor * right[j]
    for i in range(n - 1, -1, -1):
        for m in range(i + 1, n):
            right[i] -= matrix[i, m] * right[m]
        right[i] /= matrix[i, i]
