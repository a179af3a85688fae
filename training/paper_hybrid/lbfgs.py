"""The second paper's calibration: L-BFGS-B on squared relative errors of call prices, by the COS method.

    L = mean over quotes of ((C_model - C_market) / C_market)^2

Two things the text leaves open decide how it goes, and both ways are here. Its authors' program takes differences of
prices for the gradient and charges a thousand times the excess of xi^2 over 2 kappa theta: its default start lies
exactly on the kink of that penalty, for the second factor, and no descent leaves it. The other way takes the gradient
that the COS method has, and as variable the share of the largest xi that Feller admits, which has no kink.
"""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from scipy.optimize import minimize

from calibrant.arrays import Matrix, Vector
from calibrant.models import DOUBLE_HESTON_JUMP
from calibrant.pricing.cos import CosOptions, cos_values

MODEL = DOUBLE_HESTON_JUMP
START = np.array([2.5, 0.04, 0.3, -0.7, 0.04, 0.5, 0.04, 0.2, -0.5, 0.04, 0.15, -0.04, 0.08])
"""Of the authors' program; the paper states none."""
_COS = CosOptions()
"""N = 128, as in the paper."""
_SIGNED = np.array([i for i, name in enumerate(MODEL.parameters) if name.startswith(("rho", "mu"))])
_XI = np.array([2, 7])
_LARGEST_RHO = 0.99
_MOST_SHARE = 12.0
"""Of the logit of xi's share."""
_PENALTY = 1000.0
_NO_PRICE = 1e10


@dataclass(frozen=True, kw_only=True)
class PaperLbfgs:
    """How L-BFGS-B is run."""

    gradient: Literal["exact", "differences"] = "exact"
    feller: Literal["share", "penalty"] = "share"
    """xi as a share of what Feller admits, or the authors' penalty."""
    max_iterations: int = 300
    tolerance: float = 1e-12
    """Of the loss, where it stops."""


AUTHORS = PaperLbfgs(gradient="differences", feller="penalty", tolerance=1e-9)
"""As the authors' program runs it, from each of `authors_starts`."""


class Fitted(NamedTuple):
    """Where a descent ended."""

    params: Vector
    """(13,) in the model's order, the faster factor first."""
    loss: float
    iterations: int
    evaluations: int
    """Of the prices of the panel, those for differences included."""


def calibrate(
    log_moneyness: Vector, expiry: Vector, call: Vector, start: Vector, options: PaperLbfgs | None = None
) -> Fitted:
    """Minimise from `start`.

    log_moneyness, expiry  (n_quotes,)
    call                   (n_quotes,) market prices in units of the forward, > 0
    start                  (13,); beyond Feller it is pulled inside where `feller` is "share"
    """
    options = options or PaperLbfgs()
    descent = _Descent(log_moneyness, expiry, call, options)
    x, bounds = descent.variables_of(start), descent.bounds
    exact: Any = options.gradient == "exact"
    stop: Any = {"maxiter": options.max_iterations, "maxfun": 100_000, "ftol": options.tolerance, "gtol": 1e-9}
    function: Any = descent.loss_and_gradient if exact else descent.loss
    found = minimize(function, x, jac=exact, method="L-BFGS-B", bounds=bounds, options=stop)
    params = descent.params_of(found.x)
    if params[5] > params[0]:
        params[:10] = np.roll(params[:10], 5)
    return Fitted(params, float(found.fun), int(found.nit), descent.evaluations)


def authors_starts(log_moneyness: Vector, expiry: Vector, call: Vector, seed: int) -> list[Vector]:
    """The three starts of the authors' program: its default, that changed by up to 30 %, and one whose variances are
    read off the prices near the money; arguments as `calibrate`."""
    low, high = 0.7 * START, 1.3 * START
    low[[3, 8, 10, 11, 12]], high[[3, 8, 10, 11, 12]] = (-0.9, -0.7, 0.08, -0.07, 0.05), (-0.5, -0.3, 0.25, -0.02, 0.12)
    near = np.abs(np.expm1(log_moneyness)) < 0.049
    level = float(np.clip(call[near].mean() / np.sqrt(expiry[near].mean()), 0.01, 0.1)) if near.any() else 0.04
    read_off = [2.0, level, 0.4, -0.6, level, 0.7, level, 0.25, -0.4, level, 0.12, -0.03, 0.07]
    return [START, np.random.default_rng(seed).uniform(low, high), np.array(read_off)]


def relative_errors(log_moneyness: Vector, expiry: Vector, call: Vector, params: Vector) -> Vector:
    """(C_model - C_market) / C_market of each quote, by the COS method."""
    found = cos_values(MODEL, log_moneyness, expiry, params, _COS, with_error=False)
    errors: Vector = (found.time_value + np.maximum(-np.expm1(log_moneyness), 0.0)) / call - 1.0
    return errors


class _Descent:
    """The loss in the variables of the descent: logarithms of what is positive."""

    def __init__(self, log_moneyness: Vector, expiry: Vector, call: Vector, options: PaperLbfgs) -> None:
        self.evaluations = 0
        self._k, self._t, self._call = log_moneyness, expiry, call
        self._intrinsic: Vector = np.maximum(-np.expm1(log_moneyness), 0.0)
        self._share = options.feller == "share"
        low, high = self._box()
        self.bounds = list(zip(low.tolist(), high.tolist(), strict=True))

    def _box(self) -> tuple[Vector, Vector]:
        low, high = np.maximum(MODEL.lower, 1e-4), MODEL.upper.copy()
        low, high = np.log(low), np.log(high)
        low[_SIGNED], high[_SIGNED] = MODEL.lower[_SIGNED], MODEL.upper[_SIGNED]
        rho = _SIGNED[:2]
        low[rho], high[rho] = -_LARGEST_RHO, _LARGEST_RHO
        if self._share:
            low[_XI], high[_XI] = -_MOST_SHARE, _MOST_SHARE
        return low, high

    def variables_of(self, params: Vector) -> Vector:
        """(13,)"""
        x = params.copy()
        positive = np.delete(np.arange(x.size), _SIGNED)
        x[positive] = np.log(np.maximum(params[positive], 1e-12))
        if self._share:
            share = np.minimum(params[_XI] / np.sqrt(2.0 * params[_XI - 2] * params[_XI - 1]), 0.98)
            x[_XI] = np.log(share / (1.0 - share))
        low, high = np.array(self.bounds).T
        inside: Vector = np.clip(x, low, high)
        return inside

    def params_of(self, x: Vector) -> Vector:
        """(13,)"""
        params = np.exp(x)
        params[_SIGNED] = x[_SIGNED]
        if self._share:
            params[_XI] = np.sqrt(2.0 * params[_XI - 2] * params[_XI - 1]) / (1.0 + np.exp(-x[_XI]))
        return params

    def loss(self, x: Vector) -> float:
        """The paper's loss, and the penalty where there is one."""
        return self._evaluated(x, with_gradient=False)[0]

    def loss_and_gradient(self, x: Vector) -> tuple[float, Vector]:
        """The loss and its derivative by the variables."""
        loss, params, by_params = self._evaluated(x, with_gradient=True)
        by_x = by_params * params
        by_x[_SIGNED] = by_params[_SIGNED]
        if self._share:
            # xi = sqrt(2 kappa theta) s(x): half of its relative change is each of theirs.
            by_x[_XI - 2] += 0.5 * by_x[_XI]
            by_x[_XI - 1] += 0.5 * by_x[_XI]
            by_x[_XI] /= 1.0 + np.exp(x[_XI])
        return loss, by_x

    def _evaluated(self, x: Vector, *, with_gradient: bool) -> tuple[float, Vector, Vector]:
        """The loss, the parameters, and the loss's derivative by these."""
        self.evaluations += 1
        params = self.params_of(x)
        found = cos_values(MODEL, self._k, self._t, params, _COS, with_gradient=with_gradient, with_error=False)
        relative = (found.time_value + self._intrinsic) / self._call - 1.0
        gradient: Matrix = found.gradient if with_gradient else np.zeros((params.size, 1))
        if not (np.isfinite(relative).all() and np.isfinite(gradient).all()):
            return _NO_PRICE, params, np.zeros(params.size)
        by_params: Vector = np.zeros(params.size)
        if with_gradient:
            by_params = gradient @ (2.0 / relative.size * relative / self._call)
        loss = float(np.mean(relative * relative))
        if not self._share:
            excess = np.maximum(params[_XI] ** 2 - 2.0 * params[_XI - 2] * params[_XI - 1], 0.0)
            loss += _PENALTY * float(excess.sum())
            over = _PENALTY * (excess > 0.0)
            by_params[_XI] += 2.0 * over * params[_XI]
            by_params[_XI - 2] -= 2.0 * over * params[_XI - 1]
            by_params[_XI - 1] -= 2.0 * over * params[_XI - 2]
        return loss, params, by_params
