"""Estimators of E[v | S] from particles, by the names that requests use.

    estimator = ESTIMATORS["purbf"]
    curve = conditional_variance(estimator, log_spot, variance)

Each is the estimator with its default options; `replace(estimator, ...)` or its class gives others. `DEFAULT` is the
one that measured best (docs/results/slv.md).
"""

from .binned_local_linear import BinnedLocalLinear
from .bins import Bins
from .interface import ConditionalVariance, Estimator, conditional_variance, floored
from .kernel_regression import KernelRegression
from .kernels import KERNELS
from .radial import RadialBasis

ESTIMATORS: dict[str, Bins | BinnedLocalLinear | KernelRegression | RadialBasis] = {
    "bins": Bins(),
    **{f"nw_{kernel}": KernelRegression(kernel=kernel) for kernel in KERNELS},
    **{f"local_linear_{kernel}": KernelRegression(kernel=kernel, local_linear=True) for kernel in KERNELS},
    "binned_local_linear": BinnedLocalLinear(),
    "rbf": RadialBasis(partition=False),
    "purbf": RadialBasis(),
}
DEFAULT = "binned_local_linear"

__all__ = [
    "DEFAULT",
    "ESTIMATORS",
    "BinnedLocalLinear",
    "Bins",
    "ConditionalVariance",
    "Estimator",
    "KernelRegression",
    "RadialBasis",
    "conditional_variance",
    "floored",
]
