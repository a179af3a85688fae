"""The kernels of kernel regression, as Hakala (2019) lists them, and Silverman's bandwidth for each.

gaussian       exp(-u^2 / 2) / sqrt(2 pi)
quartic        15/16 (1 - u^2)^2 for |u| < 1
epanechnikov   3/4 (1 - u^2) for |u| < 1
sigmoid        (2 / pi) / (e^u + e^-u)

Their constants cancel in a regression. Silverman's rule, 1.06 n^(-1/5) for data of standard deviation one, is made
for the Gaussian; the others take it times the ratio of canonical bandwidths (Marron & Nolan 1988), so that all smooth
alike.
"""

from typing import Literal

from ...compiled import inlined
from ...pricing.vector_math import exp

KernelName = Literal["gaussian", "quartic", "epanechnikov", "sigmoid"]
KERNELS: tuple[KernelName, ...] = ("gaussian", "quartic", "epanechnikov", "sigmoid")
GAUSSIAN, QUARTIC, EPANECHNIKOV, SIGMOID = range(4)
CODES: dict[KernelName, int] = {name: code for code, name in enumerate(KERNELS)}
RANGE: dict[KernelName, float] = {"gaussian": 6.5, "quartic": 1.0, "epanechnikov": 1.0, "sigmoid": 21.0}
"""Bandwidths beyond which a kernel is zero or below 1e-9 of its height."""
_CANONICAL: dict[KernelName, float] = {"gaussian": 0.7764, "quartic": 2.0362, "epanechnikov": 1.7188, "sigmoid": 0.5063}
"""(integral of K^2 / (integral of u^2 K)^2)^(1/5)."""


def silverman(kernel: KernelName, n: int) -> float:
    """Bandwidth for n data of standard deviation one (Silverman 1986, eq. 3.28)."""
    return float(1.06 * n**-0.2 * _CANONICAL[kernel] / _CANONICAL["gaussian"])


@inlined
def weight(code: int, u: float) -> float:
    """The kernel at u, without its constant."""
    square = u * u
    inside = max(1.0 - square, 0.0)
    if code == QUARTIC:
        return inside * inside
    if code == EPANECHNIKOV:
        return inside
    if code == GAUSSIAN:
        return exp(-0.5 * square)
    decay = exp(-abs(u))
    return decay / (1.0 + decay * decay)
