"""The Heston (1993) model: one variance factor."""

from .composition import compose
from .variance_factor import variance_factor

HESTON = compose("heston", [variance_factor()], cost=1.0, objective_ms=2.0)
