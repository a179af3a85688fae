"""A training domain: where the parameters are drawn, how the network scales them, and the grid that it reads."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from calibrant.arrays import BoolVector, Matrix, Vector
from calibrant.grid import Grid
from calibrant.layout import VARIANCE
from calibrant.models import BATES, DOUBLE_HESTON, DOUBLE_HESTON_JUMP, HESTON, Model

from .samplers import Box, Sampler, as_markets_show, told_apart, uniform

VISIBLE_DEVIATIONS = 4.0
"""Quotes further out than this many standard deviations, |log_moneyness| > 4 iv sqrt(expiry), count as missing.

Their time value is below about 3e-7 of the forward, where a vol says more about rounding than about the market; decided
inside the network, the rule is the same in training and in service.
"""


class Range(NamedTuple):
    """Closed interval of one parameter."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Domain:
    """What a network is trained on, stated in the manifest of the artefact."""

    name: str
    """Key in `DOMAINS`, written into every shard and manifest."""
    model: Model
    """Whose parameters the network answers, in the model's order."""
    sampled: tuple[Range, ...]
    """One range per parameter: where training panels come from."""
    sampler: Sampler
    """How they are drawn from there."""
    output: tuple[Range, ...]
    """What tanh = -1 and +1 stand for: wider than `sampled`, since tanh reaches its own ends only at infinity."""
    log_scaled: tuple[bool, ...]
    """Parameters that vary over orders of magnitude are scaled by their logarithm."""
    log_moneyness: tuple[float, ...]
    """Columns of the grid, ascending; in at-the-money standard deviations where `standardised`."""
    expiry: tuple[float, ...]
    """Rows of the grid in years, ascending."""
    standardised: bool
    """False: panels are quoted on the grid. True: irregular quotes projected onto it, vols judged relative to level."""
    least_coverage: float
    """Share of the grid's nodes that a panel must fill to be of this domain."""
    limits: tuple[str, ...]
    """What the card of a release tells people of its network's limits."""
    laddered: float = 0.0
    """Of irregular panels, the share with one ladder of strikes at evenly spaced expiries, as tables of vols have."""

    def __post_init__(self) -> None:
        for name in ("sampled", "output", "log_scaled"):
            if len(getattr(self, name)) != self.n_params:
                raise ValueError(f"`{name}` must have an entry for each of {', '.join(self.parameters)}")
        (low, high), (output_low, output_high) = self.sampled_box(), self.output_box()
        if not (
            (np.maximum(self.model.lower, output_low) <= low) & (high <= np.minimum(self.model.upper, output_high))
        ).all():
            raise ValueError(f"`sampled` of {self.name!r} must be inside `output` and the bounds of {self.model.name}")

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names, in the order of the network's output."""
        return self.model.parameters

    @property
    def shape(self) -> tuple[int, int]:
        """(n_expiries, n_strikes)."""
        return len(self.expiry), len(self.log_moneyness)

    @property
    def n_params(self) -> int:
        return len(self.parameters)

    def sampled_box(self) -> tuple[Vector, Vector]:
        """Lower and upper corner of the box that panels are drawn from, (n_params,) each."""
        low, high = np.array(self.sampled).T
        return low, high

    def output_box(self) -> tuple[Vector, Vector]:
        """Parameters at tanh = -1 and at tanh = +1, (n_params,) each."""
        low, high = np.array(self.output).T
        return low, high

    def logs(self) -> BoolVector:
        """(n_params,), True where `log_scaled`."""
        return np.array(self.log_scaled)

    def grid(self) -> tuple[Vector, Vector]:
        """Log-moneyness (n_strikes,), plain or standardised, and expiry (n_expiries,)."""
        return np.array(self.log_moneyness), np.array(self.expiry)

    def network_grid(self) -> Grid:
        """The grid as the library projects onto it."""
        log_moneyness, expiry = self.grid()
        return Grid(expiry=expiry, log_moneyness=log_moneyness, standardised=self.standardised)

    def draw(self, unit: Matrix) -> Matrix:
        """Parameters of training panels from points of the unit cube, (n, n_params) both."""
        return self.sampler(Box(*self.sampled_box(), self.logs()), unit)

    def output_slope(self, params: Matrix) -> Matrix:
        """Derivative of the parameters (n, n_params) by the network's own scale, on which -1 and +1 are `output`."""
        low, high = self.output_box()
        slope = np.broadcast_to(0.5 * (high - low), params.shape).copy()
        logs = self.logs()
        slope[:, logs] = params[:, logs] * 0.5 * np.log(high[logs] / low[logs])
        return slope


PAPER = Domain(
    name="paper",
    model=HESTON,
    sampler=uniform,
    # Section 4.4 of the paper.
    sampled=(Range(0.5, 8.0), Range(0.02, 0.5), Range(0.1, 1.5), Range(-0.95, -0.05), Range(0.01, 0.4)),
    # The paper scales to kappa 0.1-10, theta 0.01-0.5, xi 0.05-2, rho -1-0, v0 0.01-0.5 (section 4.1): its theta ends
    # and its v0 begins exactly on an edge of the sampled box, where tanh saturates and the gradient vanishes. These
    # ranges hold both boxes with 2 % of the sampled width or more to spare at every edge (rho cannot pass -1, the
    # variances cannot pass 0).
    output=(Range(0.1, 10.0), Range(0.005, 0.53), Range(0.03, 2.0), Range(-1.0, 0.0), Range(0.002, 0.5)),
    log_scaled=(False,) * 5,
    log_moneyness=tuple(float(k) for k in np.log(np.linspace(0.8, 1.2, 10))),
    expiry=tuple(float(t) for t in np.linspace(0.1, 2.0, 8)),
    standardised=False,
    # Training masks 5 % of the nodes at random: hardly any trained panel misses more than a fifth.
    least_coverage=0.8,
    limits=(
        "Asked only where every quote lies on a node of its grid; any other panel goes to the `market` network.",
        "Panels outside the box are answered, and said to be `out_of_domain`.",
        "Where xi is small or few quotes are left, rho and kappa are known only roughly: read the standard errors.",
    ),
)

MARKET = Domain(
    name="market",
    model=HESTON,
    sampler=as_markets_show(0),
    # Equity, FX and stressed panels: vols from 3 to 150 %, skews of both signs, and the fast, violent variance that
    # short expiries ask for.
    sampled=(Range(0.05, 50.0), Range(9e-4, 2.25), Range(0.02, 12.0), Range(-0.98, 0.98), Range(4e-4, 3.0)),
    output=(Range(0.03, 80.0), Range(5e-4, 3.5), Range(0.012, 20.0), Range(-1.0, 1.0), Range(2e-4, 5.0)),
    log_scaled=(True, True, True, False, True),
    log_moneyness=(-4.0, -3.0, -2.25, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.25, 3.0),
    expiry=tuple(float(t) for t in np.geomspace(7.0 / 365.0, 5.0, 12)),
    standardised=True,
    # One expiry with a handful of strikes is a panel here: it fills the rows from half to twice its time.
    least_coverage=0.05,
    limits=(
        "It gives a start, not an answer: the refinement is what counts. The second row counts every node of its grid, "
        "whether or not a panel had quotes near it.",
        "Quotes are read through the projection onto the grid: what lies beyond its strikes and expiries is not seen.",
        "No panel of its training had jumps or a term structure of vol of vol: on real panels the least squares "
        "optimum may lie far from the start, and the starts read off the surface give a second opinion. What it saves "
        "there, and what no network would: `docs/results/releases.md`.",
    ),
)

_GRID_LIMITS = (
    "Asked only where every quote lies on a node of its grid; any other panel goes to the network for the market.",
    "It gives a start: parameters that the quotes hardly tell apart are anywhere along their valley.",
)
_MARKET_LIMITS = (
    "It gives a start, not an answer: the refinement is what counts. The second row counts every node of its grid, "
    "whether or not a panel had quotes near it.",
    "Quotes are read through the projection onto the grid: what lies beyond its strikes and expiries is not seen.",
    "Every panel of its training is a surface of the model with noise: on real panels, which none fits, the best "
    "optimum may lie far from the start, and other starts give a second opinion.",
)


def _of_factors(model: Model, *, market: bool) -> Domain:
    """A domain of a model of several factors, drawn so that a surface tells them apart.

    market  irregular panels of any vols, or panels on the paper's grid with vols that it shows
    """
    variances = [own.start for own, factor in zip(model.slices, model.factors, strict=True) if factor.kind == VARIANCE]
    jumps = [own.start for own, factor in zip(model.slices, model.factors, strict=True) if factor.kind != VARIANCE]
    # From the least part of a long-run variance of 5 or 6 % vol to all of one of 120 or 90 %.
    least = 1.0 if len(variances) == 1 else 0.1
    theta = Range(2.5e-3 * least, 1.5) if market else Range(4e-3 * least, 0.8)
    rest = (
        theta,
        Range(0.02, 10.0 if market else 6.0),
        Range(-0.98, 0.98 if market else 0.7),
        Range(5e-4 * least, 2.0),
    )
    fastest = 40.0 if market else 20.0
    speeds = [Range(0.1, fastest)] if len(variances) == 1 else [Range(0.5, fastest), Range(0.05, 0.25 * fastest)]
    of_jumps = (Range(0.05, 8.0), Range(-0.45, 0.15), Range(0.015, 0.35))
    sampled = tuple(part for speed in speeds for part in (speed, *rest)) + of_jumps * len(jumps)
    logs = (True, True, True, False, True) * len(variances) + (True, False, True) * len(jumps)
    return Domain(
        name=f"{model.name}_{'market' if market else 'grid'}",
        model=model,
        sampler=told_apart(variances, jumps),
        sampled=sampled,
        output=tuple(
            Range(low / 1.4, high * 1.4) if log else Range(max(low - 0.05, -1.0), min(high + 0.05, 1.0))
            for (low, high), log in zip(sampled, logs, strict=True)
        ),
        log_scaled=logs,
        log_moneyness=MARKET.log_moneyness if market else PAPER.log_moneyness,
        expiry=MARKET.expiry if market else PAPER.expiry,
        standardised=market,
        least_coverage=MARKET.least_coverage if market else PAPER.least_coverage,
        limits=_MARKET_LIMITS if market else _GRID_LIMITS,
        laddered=0.5 if market else 0.0,
    )


_OF_FACTORS = [
    _of_factors(model, market=market)
    for model in (BATES, DOUBLE_HESTON, DOUBLE_HESTON_JUMP)
    for market in (False, True)
]

DOMAINS = {domain.name: domain for domain in (PAPER, MARKET, *_OF_FACTORS)}
