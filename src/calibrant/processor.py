"""The processor that the kernels are compiled for, and the one at hand.

numba compiles for the processor it runs on, unless `NUMBA_CPU_NAME` and `NUMBA_CPU_FEATURES` fix another. An image has
to: its kernels are compiled where it is built, and on a processor that lacks what they use they end the process by an
illegal instruction. The features are what counts, and have to name all that is used: those that a name brings along
LLVM does not tell.

    python -m calibrant.processor

prints the build arguments of an image for this processor alone.
"""

import os
from collections.abc import Mapping

from llvmlite.binding import get_host_cpu_features, get_host_cpu_name  # type: ignore[import-untyped]

VARIABLE = "NUMBA_CPU_FEATURES"


def unsuited(compiled_for: str | None = None, at_hand: Mapping[str, bool] | None = None) -> str | None:
    """Why kernels must not run here, in a sentence; None if they may.

    compiled_for  as in `NUMBA_CPU_FEATURES`, which it is by default: "+avx2,+fma,-avx512f"
    at_hand       which of LLVM's features the processor has, by default this one
    """
    asked = os.environ.get(VARIABLE, "") if compiled_for is None else compiled_for
    has = get_host_cpu_features() if at_hand is None else at_hand
    missing = [name[1:] for name in asked.split(",") if name.startswith("+") and not has.get(name[1:], False)]
    if not missing:
        return None
    return (
        f"The kernels are compiled for processors with {', '.join(missing)}, which this one ({get_host_cpu_name()}) "
        f"has not: build the image with `--build-arg {VARIABLE}=` and features that it has (docker/README.md)."
    )


def build_arguments() -> str:
    return (
        f"--build-arg NUMBA_CPU_NAME={get_host_cpu_name()} --build-arg {VARIABLE}={get_host_cpu_features().flatten()}"
    )


if __name__ == "__main__":
    print(build_arguments())
