"""The Bates (1996) model: Heston's with Merton's jumps."""

from .composition import compose
from .jump_factor import jump_factor
from .variance_factor import variance_factor

BATES = compose("bates", [variance_factor(), jump_factor()], cost=25.0, objective_ms=100.0)
