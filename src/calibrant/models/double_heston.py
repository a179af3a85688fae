"""Double Heston (Christoffersen, Heston & Jacobs 2009): a fast and a slow variance factor."""

from .composition import compose
from .variance_factor import variance_factor

DOUBLE_HESTON = compose(
    "double_heston", [variance_factor(may_vanish=True), variance_factor(may_vanish=True)], cost=30.0, objective_ms=150.0
)
