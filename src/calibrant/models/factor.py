"""A factor: one additive piece of the log characteristic function of a model."""

from collections.abc import Callable
from dataclasses import dataclass

from ..arrays import ComplexMatrix, ComplexVector, Vector

LogCharacteristic = Callable[[ComplexVector, float, Vector], ComplexVector]
LogCharacteristicGradient = Callable[[ComplexVector, float, Vector], tuple[ComplexVector, ComplexMatrix]]


@dataclass(frozen=True, kw_only=True)
class Factor:
    """An independent part of what moves the asset, in its readable form and by the number of its compiled one."""

    kind: int
    """Number of its kind, see `layout`."""
    parameters: tuple[str, ...]
    lower: Vector
    """(n,) smallest admissible values."""
    upper: Vector
    """(n,) largest admissible values."""
    sizes: tuple[str, ...]
    """The parameters that are zero where the factor is absent: the others then mean nothing."""
    noun: str
    """What to call it in a sentence."""
    merged: tuple[str, ...] = ()
    """Parameters that a single expiry does not tell apart."""
    log_characteristic: LogCharacteristic
    """(u, expiry, params) -> its part of log E[exp(iu ln(S_T/F))] for complex u inside the strip of finite moments."""
    log_characteristic_gradient: LogCharacteristicGradient
    """The same with its derivatives by each parameter, (n, n_u)."""
    expected_variance: Callable[[float, Vector], float]
    """(expiry, params) -> its part of the expected quadratic variation until expiry."""
    log_term: LogCharacteristic | None = None
    """(u, expiry, params) -> log of a term of `log_characteristic` that may turn faster than that as a whole shows."""
    feller_ratio: Callable[[Vector], float] | None = None
    """2 kappa theta / xi^2, of a variance factor."""
