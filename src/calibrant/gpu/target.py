"""For which processor the functions of this package are compiled: the GPU where there is one, else this processor.

The functions are plain scalar Python that numba compiles for either, so that what runs on a GPU is tested where there
is none: by numba for the processor at full size, and by numba's CUDA simulator (`NUMBA_ENABLE_CUDASIM=1`), which runs
the very kernel with its threads and barriers, at small size. One target a process, chosen when it is imported.
"""

import math
from collections.abc import Callable
from types import FunctionType
from typing import Any, TypeVar, cast

from numba import cuda, njit

F = TypeVar("F", bound=Callable[..., Any])

ON_GPU: bool = cuda.is_available()
"""A GPU, or its simulator."""


def device(function: F) -> F:
    """Compile a function that kernels call."""
    # IEEE division on both: numba's default on the processor raises on a zero, a GPU cannot.
    compiled = cuda.jit(device=True)(function) if ON_GPU else njit(nogil=True, error_model="numpy")(function)
    return cast(F, compiled)


def from_cpu(kernel: Any, **helpers: Any) -> Any:
    """A compiled function of the CPU kernels for this target: the same source, with its helpers exchanged.

    The CPU kernels call elementary functions written so that LLVM vectorises them, with intrinsics of the processor.
    A GPU has no use for either, and its own are better.
    """
    source = kernel.py_func
    return device(FunctionType(source.__code__, {**source.__globals__, **helpers}, source.__name__))


@device
def cos_sin(x: float) -> tuple[float, float]:
    return math.cos(x), math.sin(x)


@device
def select(condition: bool, a: float, b: float) -> float:
    return a if condition else b
