"""Array aliases and the axis names of the library.

n_quotes      quotes of a panel, in the panel's canonical order
n_expiries    distinct expiries, ascending
n_strikes     strikes of one expiry, or of a regular grid
n_params      parameters of a model, in the order the model declares
n_u           Fourier nodes

Grids are (n_expiries, n_strikes); gradients of prices are (n_params, n_quotes).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]
Matrix = NDArray[np.float64]
IntVector = NDArray[np.int64]
BoolVector = NDArray[np.bool_]
# numpy's types lose the precision of mixed expressions, so the aliases do not insist on it.
ComplexVector = NDArray[np.complexfloating[Any, Any]]
ComplexMatrix = NDArray[np.complexfloating[Any, Any]]


def column_of(values: Sequence[float | None]) -> Vector:
    """Floats as an array (n,), NaN for None; of anything else in `values` it is not said what becomes.

    `np.array` looks at every value first to find out what it is given.
    """
    try:
        return np.fromiter(values, np.float64, len(values))
    except TypeError:
        return np.array(values, dtype=np.float64)
