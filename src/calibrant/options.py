"""What a calibration may be asked, and what it may cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

from .arrays import Matrix, Vector

StartName = Literal["network", "fallback", "given"]
Refine = Literal["lm", "lbfgs", "none"]
Loss = Literal["squared", "huber"]

MAX_WORK = 300_000.0
"""About a second's worth."""


class Start(NamedTuple):
    """Parameters to start from, and who proposes them."""

    name: StartName
    params: Vector
    trusted: bool = True
    """False if it comes of a network that has seen no panels of this kind: then no fit from it is beyond doubt."""


@dataclass(frozen=True, kw_only=True)
class Prior:
    """A Gaussian prior; an infinite standard deviation says nothing of its parameter."""

    parameters: Vector
    standard_deviations: Vector
    noise_bp: float | None = None
    """Standard deviation of a quote of weight one, in basis points of vol; None: see the contract's default."""


class CalibrationOptions(NamedTuple):
    """What a request may ask for besides its quotes."""

    refine: Refine = "lm"
    bounds: Matrix | None = None
    """(n_params, 2), inside the admissible ones; None for those."""
    fixed: Mapping[str, float] | None = None
    """Parameters held at a value."""
    prior: Prior | None = None
    loss: Loss = "squared"


class Effort(NamedTuple):
    """What a calibration may cost; whoever runs it says so, and not the request."""

    max_work: float = MAX_WORK
    """Quote-evaluations after which a search ends with the best so far, of up to 1,000 quotes by a model of one factor;
    a larger panel and a model of more factors have proportionally more."""
    second_opinion: bool = True
    """Whether other starts may join the proposals where the first answer is in doubt; without proposals they always
    do."""
