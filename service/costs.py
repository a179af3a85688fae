"""How long a job will take, by its size and by how long those before it took.

Two figures for each model and kind of work. The mean says how long a queue is. The low one, a quartile, says which jobs
are long whatever their numbers: of two panels of 80 quotes one takes a millisecond and another fifty, where the first
answer is in doubt, and no panel tells which it is before it is tried.
"""

from dataclasses import dataclass
from typing import get_args

from calibrant.models.model import Model
from calibrant.options import Refine
from calibrant.panel import OptionPanel

_EXPIRY = 10
"""Quotes that cost as much as what an expiry costs by itself: its nodes."""
_QUANTILE = 0.25
_STEP = 0.05
"""Share by which an observation moves the quartile: some fifty observations follow a change of load."""
_WEIGHT = 0.02
"""Of one observation in the mean."""
_OUTLIER = 20.0
"""Times the mean that one observation counts for at most: a machine that stops for a second is not a cost."""


@dataclass(slots=True)
class _Rate:
    """Seconds per unit of size."""

    low: float
    mean: float

    def observe(self, rate: float) -> None:
        self.low *= 1.0 + _STEP * _QUANTILE if rate > self.low else 1.0 - _STEP * (1.0 - _QUANTILE)
        self.mean += _WEIGHT * (min(rate, _OUTLIER * self.mean) - self.mean)


_OF_HESTON = {
    "lm": (1e-5, 2e-5),
    "lbfgs": (1.4e-5, 2.1e-5),
    "none": (4e-6, 6e-6),
    "price": (7e-6, 1e-5),
    "price_gradient": (7e-6, 1.3e-5),
}
"""Seconds per unit of size, low and mean, until some have been measured: on a 2.5 GHz core over the panels of
`shared/market`."""


def relative_cost(model: Model, work: str) -> float:
    """Of a job on a model, in those of Heston's: a price costs as much as it has factors, a fit far more."""
    return model.cost if work in get_args(Refine) else max(len(model.factors), 1)


class Costs:
    """Running measure of what jobs cost, by the model and by what is done with it. Used on the event loop only."""

    def __init__(self) -> None:
        self._rates: dict[tuple[str, str], _Rate] = {}

    def least(self, model: Model, work: str, size: int) -> float:
        """Seconds that all but the quickest quarter of such jobs take."""
        return size * self._rate(model, work).low

    def mean(self, model: Model, work: str, size: int) -> float:
        """Seconds that such jobs take on average."""
        return size * self._rate(model, work).mean

    def observe(self, model: Model, work: str, size: int, seconds: float) -> None:
        self._rate(model, work).observe(seconds / size)

    def _rate(self, model: Model, work: str) -> _Rate:
        rate = self._rates.get((model.name, work))
        if rate is None:
            low, mean = (relative_cost(model, work) * of_heston for of_heston in _OF_HESTON[work])
            rate = self._rates[model.name, work] = _Rate(low, mean)
        return rate


def panel_size(panel: OptionPanel) -> int:
    """In quotes."""
    return panel.n_quotes + _EXPIRY * panel.expiries.size
