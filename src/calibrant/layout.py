"""How compiled kernels know a model: the kinds of its factors, one after the other, as small integers.

numba does not cache what is compiled for a function, so a model cannot be handed to a kernel as functions.
"""

VARIANCE, JUMP = 0, 1
"""Heston's variance factor; Merton's jumps."""
SIZES = (5, 3)
"""Parameters of each kind."""
