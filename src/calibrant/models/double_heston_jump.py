"""Double Heston (Christoffersen, Heston & Jacobs 2009) with Merton's jumps: the 13 parameters of the second paper."""

from .composition import compose
from .jump_factor import jump_factor
from .variance_factor import variance_factor

DOUBLE_HESTON_JUMP = compose(
    "double_heston_jump",
    [variance_factor(may_vanish=True), variance_factor(may_vanish=True), jump_factor()],
    cost=90.0,
    objective_ms=500.0,
)
