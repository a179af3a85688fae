"""Domains of models with other parameters than Heston's, to be drawn from and answered for: nothing prices them yet."""

from dataclasses import replace

import numpy as np

from calibrant.models import HESTON, Model
from training.domain import MARKET, PAPER, Domain, Range
from training.samplers import as_markets_show, uniform

JUMP_LOWER, JUMP_UPPER = np.array([0.0, -1.0, 0.0]), np.array([10.0, 1.0, 1.0])


def declared(n_variances: int, jumps: bool) -> Model:
    """A model of that many variances, with a jump or without."""
    names = tuple(f"{name}{i + 1}" for i in range(n_variances) for name in HESTON.parameters)
    lower, upper = (np.tile(bound, n_variances) for bound in (HESTON.lower, HESTON.upper))
    if jumps:
        names += ("lam", "mu_j", "sigma_j")
        lower, upper = np.concatenate([lower, JUMP_LOWER]), np.concatenate([upper, JUMP_UPPER])
    return replace(HESTON, name="declared", parameters=names, lower=lower, upper=upper)


def domain_of(model: Model, like: Domain) -> Domain:
    """A domain of the model, its variances drawn as those of another domain, its jumps within a box."""
    n = len([name for name in model.parameters if name.startswith("kappa")])
    jumps = (Range(0.05, 3.0), Range(-0.3, 0.1), Range(0.02, 0.4))[: model.n_params - 5 * n]
    return replace(
        like,
        name="declared",
        model=model,
        sampler=uniform if like.sampler is uniform else as_markets_show(*range(0, 5 * n, 5)),
        sampled=like.sampled * n + jumps,
        output=like.output * n + tuple(Range(low - 0.04, high + 1.0) for low, high in jumps),
        log_scaled=like.log_scaled * n + (False,) * len(jumps),
    )


DECLARED = [
    domain_of(model, like)
    for model in (declared(1, True), declared(2, False), declared(2, True))
    for like in (PAPER, MARKET)
]
"""Of 8, 10 and 13 parameters, on a grid and irregular."""
