"""Kernels that were compiled beforehand, in a folder that cannot be written, as in an image.

numba passes over every folder for compiled code that it cannot write to, and where all are such refuses to import the
kernels. `NUMBA_CACHE_LOCATOR_CLASSES=calibrant.shipped_kernels.ShippedKernels` has it read `NUMBA_CACHE_DIR` all the
same. A kernel is found there by the path and the content of its source, the version of numba, the name and the features
of the processor.
"""

from collections.abc import Callable
from typing import Any

from numba.core.caching import UserProvidedCacheLocator


class ShippedKernels(UserProvidedCacheLocator):
    """The folder `NUMBA_CACHE_DIR`: written where it can be, as by the build, and read in any case."""

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> "ShippedKernels":
        return cls(py_func, py_file)

    def ensure_cache_path(self) -> None:
        """Called before a kernel is saved, that is, for one that was not found.

        raises  RuntimeError if the folder cannot be written
        """
        try:
            super().ensure_cache_path()  # type: ignore[no-untyped-call]
        except OSError as error:
            raise RuntimeError(
                f"A kernel of {self._py_file}, line {self._lineno}, is not among those compiled beforehand: {error}"
            ) from error
