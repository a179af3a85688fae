"""What a pricing model is to the rest of the library: names, bounds and a characteristic function."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..arrays import IntVector, Vector
from .factor import Factor, LogCharacteristic, LogCharacteristicGradient


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
    log_terms: tuple[LogCharacteristic, ...] = ()
    """(u, expiry, params) -> log of a term of `log_characteristic` that may turn faster than that as a whole shows: a
    pricer that samples it would otherwise take a trough for the end, or one turn for none."""
    factors: tuple[Factor, ...] = ()
    """What it is composed of, see `composition.compose`; a model without them is priced but not fitted."""
    cost: float = 1.0
    """Processor time of a calibration relative to Heston's, until a service has measured its own."""
    objective_ms: float = 2.0
    """Compute within which its refined answer is expected: alerts and dashboards hold answers against it."""

    @property
    def n_params(self) -> int:
        return len(self.parameters)

    @cached_property
    def layout(self) -> IntVector:
        """(n_factors,) the kinds of its factors, by which the compiled kernels know the model."""
        return np.array([factor.kind for factor in self.factors], np.int64)

    def names_of(self, place: int) -> tuple[str, ...]:
        """The parameters of a factor."""
        return self.parameters[self.slices[place]]

    def sizes_of(self, place: int) -> tuple[str, ...]:
        """Of a factor's parameters, those that are zero where it is absent."""
        factor = self.factors[place]
        return tuple(self.names_of(place)[factor.parameters.index(name)] for name in factor.sizes)

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """Each factor's part of a parameter vector."""
        ends = np.cumsum([0, *(len(factor.parameters) for factor in self.factors)]).tolist()
        return tuple(slice(first, last) for first, last in itertools.pairwise(ends))
