"""What a pricing model is to the rest of the library: names, bounds and a characteristic function."""

from collections.abc import Callable
from dataclasses import dataclass

from ..arrays import ComplexMatrix, ComplexVector, Vector

LogCharacteristic = Callable[[ComplexVector, float, Vector], ComplexVector]
LogCharacteristicGradient = Callable[[ComplexVector, float, Vector], tuple[ComplexVector, ComplexMatrix]]


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model, declared once: everything that prices, fits or reports it reads it from here."""

    name: str
    """The name in requests and artefact folders."""
    parameters: tuple[str, ...]
    """Parameter names, in the order of every parameter vector and of the network's output."""
    lower: Vector
    """(n_params,) smallest admissible values."""
    upper: Vector
    """(n_params,) largest admissible values."""
    log_characteristic: LogCharacteristic
    """(u, expiry, params) -> log E[exp(iu ln(S_T/F))] for complex u inside the strip of finite moments."""
    log_characteristic_gradient: LogCharacteristicGradient
    """The same with its derivatives by each parameter, (n_params, n_u)."""
    expected_variance: Callable[[float, Vector], float]
    """(expiry, params) -> expected quadratic variation of the log-price until expiry, in units of total variance."""
    feller_ratio: Callable[[Vector], float]
    """2 kappa theta / xi^2 (of the tightest factor): above 1 the variance stays positive."""

    @property
    def n_params(self) -> int:
        return len(self.parameters)
