"""The decorators that compile: numba's `njit` with each set of promises chosen once, and when to take it.

All keep what they compiled beside the source, and all divide as IEEE 754 does: numba's default tests every divisor for
zero, and that branch stops vectorisation.
"""

from numba import njit

FLAGS = {"contract", "nsz", "nnan", "ninf"}
"""What `kernel` promises LLVM: multiply-adds may be fused, the sign of zero is no matter, and no number is NaN or
infinite. Re-association is not among it: the argument reductions of `pricing.vector_math` depend on the order of their
operations."""

kernel = njit(cache=True, nogil=True, error_model="numpy", fastmath=FLAGS)
"""Take it for loops over finite numbers, the usual case: LLVM vectorises them. `np.isnan` is always false in them."""

reduction = njit(cache=True, nogil=True, error_model="numpy", fastmath=FLAGS | {"reassoc"})
"""Take it for sums over nodes or quotes: re-association lets a sum be taken on several lanes, in an order that differs
from one processor to the next."""

inlined = njit(cache=True, nogil=True, error_model="numpy", fastmath=FLAGS, forceinline=True)
"""Take it for the formula inside a `kernel`'s loop: a call that LLVM does not inline stops vectorisation as a branch
does."""

careful = njit(cache=True, nogil=True, error_model="numpy")
"""Take it where a NaN means something (missing, masked, failed), or where every processor must give the same digits."""

brief = njit(cache=True, error_model="numpy")
"""Take it for what is careful and too short to be worth giving the interpreter lock away, which another thread would
not give back as soon."""
