"""Parameter errors of noisy panels against the least any unbiased estimator can have (Cramer 1946, Rao 1945).

The panels are quoted as the paper says: Gaussian noise of 0.5 bp on every mid, 5 % of them missing, and a half-width
U[0, 15] bp that sets bid and ask around the noisy mid. With equal weights, least squares is the maximum likelihood of
this noise, and its covariance is bounded by noise^2 (J'J)^-1 with J the exact derivative, at the truth, of the vols of
the quotes that the panel uses. An efficient estimator's error over that bound has a root mean square of one.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from calibrant.arrays import BoolVector, Matrix, Vector
from calibrant.models import Model
from training.augment import BASIS_POINT, AugmentOptions
from training.exact_panels import vols_and_gradient

from .answers import Answerer
from .inputs import grid_panel, quoted
from .refinement import refined
from .surfaces import Nodes

LARGEST_BOUND = 0.3
"""Of the parameter: where the bound is wider, least squares is no longer linear over it."""


class Noisy(NamedTuple):
    """Errors of noisy panels, one row a panel and one column a parameter."""

    model: Model
    before: Matrix
    """Error of the network's answer over the bound."""
    after: Matrix
    """Error of the refined parameters over the bound."""
    z: Matrix
    """Error of the refined parameters over the standard error reported, NaN where there is none."""
    relative_bound: Matrix
    """The bound over the parameter."""
    on_bound: BoolVector
    """(n_panels,): a parameter ended on an admissible bound."""
    converged: BoolVector
    """(n_panels,)."""

    @property
    def loose(self) -> BoolVector:
        """(n_panels,): a bound is wider than `LARGEST_BOUND`; panels that ended on a bound are not among them."""
        loose: BoolVector = ~self.on_bound & (self.relative_bound.max(axis=1) > LARGEST_BOUND)
        return loose

    @property
    def judged(self) -> BoolVector:
        """(n_panels,): all others."""
        return ~self.on_bound & ~self.loose


class Efficiency(NamedTuple):
    """Errors over bounds of some of the panels."""

    n_panels: int
    before: dict[str, float]
    """Root mean square of error / bound, the network alone."""
    after: dict[str, float]
    """The same after refinement."""
    mean_after: dict[str, float]
    """Mean of error / bound after refinement."""


class Criterion(NamedTuple):
    """The noisy panels, those judged and those counted apart."""

    n_panels: int
    judged: Efficiency
    on_bound: Efficiency
    loose: Efficiency
    n_unconverged: int


def study(network: Answerer, nodes: Nodes, truth: Matrix, seed: int, say: Callable[[str], None]) -> Noisy:
    """Quote the panels with noise, ask the network, refine.

    truth  (n, n_params), what `nodes` were made of
    seed   of the noise
    """
    options = AugmentOptions()
    mid, bid, ask = (part.numpy() for part in quoted(nodes.iv, seed, options))
    answers = network.parameters(mid)
    shape = truth.shape
    bound, after, z = np.empty(shape), np.empty(shape), np.empty(shape)
    on_bound, converged = np.zeros(len(truth), np.bool_), np.zeros(len(truth), np.bool_)
    for i in range(len(truth)):
        calibration = refined(nodes.model, grid_panel(nodes, i, mid[i], bid[i], ask[i]), mid[i], answers[i], network)
        used = calibration.panel
        bound[i] = least_errors(nodes.model, used.log_moneyness, used.expiry, truth[i], options.noise_bp * BASIS_POINT)
        error = calibration.parameters - truth[i]
        after[i], z[i] = error / bound[i], error / calibration.standard_errors
        on_bound[i] = bool(calibration.at_bounds)
        converged[i] = calibration.status == "converged"
        if (i + 1) % 1000 == 0:
            say(f"noisy {i + 1}/{len(truth)}")
    return Noisy(nodes.model, (answers - truth) / bound, after, z, bound / np.abs(truth), on_bound, converged)


def least_errors(model: Model, log_moneyness: Vector, expiry: Vector, params: Vector, noise: float) -> Vector:
    """The Cramer-Rao bound of each parameter, (n_params,): a standard deviation.

    log_moneyness, expiry  (n_quotes,), the quotes
    noise                  standard deviation of each vol, decimals
    """
    by_params = vols_and_gradient(model, log_moneyness, expiry, params).by_params
    bound: Vector = noise * np.sqrt(np.diag(np.linalg.inv(by_params @ by_params.T)))
    return bound


def efficiency(noisy: Noisy, chosen: BoolVector) -> Efficiency:
    """Over the panels chosen, (n_panels,); empty dictionaries where there is none."""
    if not chosen.any():
        return Efficiency(0, {}, {}, {})
    named = {
        "before": np.sqrt(np.mean(noisy.before[chosen] ** 2, axis=0)),
        "after": np.sqrt(np.mean(noisy.after[chosen] ** 2, axis=0)),
        "mean_after": noisy.after[chosen].mean(axis=0),
    }
    by_name = {key: dict(zip(noisy.model.parameters, values.tolist(), strict=True)) for key, values in named.items()}
    return Efficiency(int(chosen.sum()), by_name["before"], by_name["after"], by_name["mean_after"])


def criterion(noisy: Noisy) -> Criterion:
    """The figures that the noisy panels are judged by."""
    return Criterion(
        n_panels=len(noisy.after),
        judged=efficiency(noisy, noisy.judged),
        on_bound=efficiency(noisy, noisy.on_bound),
        loose=efficiency(noisy, noisy.loose),
        n_unconverged=int((~noisy.converged).sum()),
    )
