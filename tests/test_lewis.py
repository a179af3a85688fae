"""The judge judged: its nodes again in ball arithmetic, with derivatives by central differences in 60 digits."""

from typing import Any

import numpy as np
import pytest
from flint import acb, arb, ctx

from calibrant.arrays import Matrix, Vector
from calibrant.layout import VARIANCE
from calibrant.models import MODELS, Model
from tests import many_factors
from tests.lewis import lewis, n_nodes, step_of

_MOST_NODES = 700
_DIFFERENCE = "1e-20"


def _log_phi(model: Model, s: Any, expiry: Any, params: list[Any]) -> Any:
    """log E[(S_T/F)^s]: the "little trap" form (Albrecher et al. 2007), and Merton's jumps."""
    total = acb(0)
    for factor, own in zip(model.factors, model.slices, strict=True):
        if factor.kind == VARIANCE:
            kappa, theta, xi, rho, v0 = params[own]
            beta = kappa - rho * xi * s
            d = (beta * beta - xi * xi * (s * s - s)).sqrt()
            g = (beta - d) / (beta + d)
            e = (-d * expiry).exp()
            by_theta = (beta - d) * expiry - 2 * ((1 - g * e) / (1 - g)).log()
            total += (kappa * theta * by_theta + v0 * (beta - d) * (1 - e) / (1 - g * e)) / (xi * xi)
        else:
            lam, mean, sd = params[own]
            size = (s * mean + s * s * sd * sd / 2).exp()
            total += lam * expiry * (size - 1 - s * ((mean + sd * sd / 2).exp() - 1))
    return total


def _exact_gradient(model: Model, k: Vector, expiry: float, params: Vector) -> Matrix:
    """(n_params, n_strikes), at the nodes that `lewis` takes."""
    ctx.dps = 60
    step, t = arb(step_of(k)), arb(expiry)
    exact, strikes, small = [arb(p) for p in params.tolist()], [arb(x) for x in k.tolist()], arb(_DIFFERENCE)
    sums = [[arb(0)] * k.size for _ in exact]
    for j in range(n_nodes(model, k, expiry, params)):
        x = (arb(j) + arb("0.5")) * step
        s = acb(arb("0.5"), x)
        weight = step / (x * x + arb("0.25"))
        turned = [(acb(0, -1) * x * strike).exp() * weight for strike in strikes]
        phi = _log_phi(model, s, t, exact).exp()
        for i, value in enumerate(exact):
            above = _log_phi(model, s, t, [*exact[:i], value + small, *exact[i + 1 :]])
            below = _log_phi(model, s, t, [*exact[:i], value - small, *exact[i + 1 :]])
            slope = phi * (above - below) / (2 * small)
            sums[i] = [total + (slope * turn).real for total, turn in zip(sums[i], turned, strict=True)]
    scale = -np.exp(0.5 * k) / np.pi
    return np.array([[float(total.mid()) for total in row] for row in sums]) * scale


@pytest.mark.parametrize("model", MODELS.values(), ids=lambda model: model.name)
def test_gradients_of_the_judge_are_those_of_thirty_digit_derivatives(model: Model) -> None:
    generator = np.random.default_rng(91)
    n_judged = 0
    while n_judged < 2:
        params = many_factors.draw(model, generator)
        expiry = float(generator.choice(many_factors.EXPIRIES))
        k = many_factors.strikes(model, params, expiry)[::3]
        if n_nodes(model, k, expiry, params) > _MOST_NODES:
            continue
        exact = _exact_gradient(model, k, expiry, params)
        found = lewis(model, k, expiry, params, with_gradient=True).gradient
        away = np.abs(found - exact).max(axis=1) / np.abs(exact).max(axis=1)
        assert away.max() < 1e-10, (params, expiry, away)
        n_judged += 1
