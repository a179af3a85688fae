"""Array aliases and the axis names of the library.

n_quotes      quotes of a panel, in the panel's canonical order
n_expiries    distinct expiries, ascending
n_strikes     strikes of one expiry, or of a regular grid
n_params      parameters of a model, in the order the model declares
n_u           Fourier nodes

Grids are (n_expiries, n_strikes); gradients of prices are (n_params, n_quotes).
"""

import struct
from collections.abc import Callable, Sequence
from functools import lru_cache
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

    Numpy looks at every value to find out what it is given, which takes twice as long as writing them down.
    """
    n = len(values)
    column = np.empty(n)
    try:
        _writer(n)(column, 0, *values)
    except struct.error:
        return np.array(values, dtype=np.float64)
    return column


@lru_cache(maxsize=256)
def _writer(n: int) -> Callable[..., None]:
    return struct.Struct(f"{n}d").pack_into
