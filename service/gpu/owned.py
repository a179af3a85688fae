"""A release whose networks run on one thread, for all to ask: CUDA graphs belong to the thread that captured them.

To its callers it is a release like any other, so lanes, batches and audits ask it as they would on the processor. Those
are few threads, and a batch asks for dozens of panels at once, so nothing is gained by putting questions together.
"""

import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from calibrant.arrays import Matrix
from calibrant.network import Network
from calibrant.release import Release


class _Forwarding:
    """A session that leaves the work to the owner."""

    def __init__(self, owner: ThreadPoolExecutor, networks: list[Network], place: int) -> None:
        self.provider = networks[place].provider
        self.tolerance = networks[place].tolerance
        self._owner, self._networks, self._place = owner, networks, place

    def run(self, iv: NDArray[np.floating[Any]]) -> Matrix:
        return self._owner.submit(self._run, iv).result()

    def _run(self, iv: NDArray[np.floating[Any]]) -> Matrix:
        return self._networks[self._place].parameters(iv)


def owned(load: Callable[[], Release]) -> Release:
    """Load a release on a thread of its own, which then answers for it; the thread ends with the release returned.

    raises  what `load` raises
    """
    owner = ThreadPoolExecutor(1, "gpu")
    try:
        networks = owner.submit(lambda: list(load().networks)).result()
    except BaseException:
        owner.shutdown()
        raise
    release = Release([Network(n.manifest, _Forwarding(owner, networks, i)) for i, n in enumerate(networks)])
    weakref.finalize(release, _end, owner, networks)
    return release


def _end(owner: ThreadPoolExecutor, networks: list[Network]) -> None:
    # On their own thread they are given back too. Without waiting for it: whoever drops the last reference is not to be
    # held up.
    owner.submit(networks.clear)
    owner.shutdown(wait=False)
