"""A release whose networks run on one thread, for all to ask: what CUDA graphs need, and what batches come from.

To its callers it is a release like any other, so lanes, batches and audits ask it as they would on the processor; what
they ask for at the same time goes to the GPU together.
"""

import weakref
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibrant.arrays import Matrix
from calibrant.network import Network
from calibrant.release import Release

from .microbatch import MicroBatcher


class _Asked(NamedTuple):
    network: int
    """Its place in the release."""
    iv: NDArray[np.floating[Any]]


class _Forwarding:
    """A session that leaves the work to the owner."""

    def __init__(self, batcher: MicroBatcher[_Asked, Matrix], place: int, network: Network) -> None:
        self.provider = network.provider
        self.tolerance = network.tolerance
        self._batcher = batcher
        self._place = place

    def run(self, iv: NDArray[np.floating[Any]]) -> Matrix:
        return self._batcher.ask(_Asked(self._place, iv)).result()


def owned(load: Callable[[], Release], delay: float = 0.0) -> Release:
    """Load a release on a thread of its own, which then answers for it; the thread ends with the release returned.

    delay   seconds that a question waits for others
    raises  what `load` raises
    """
    loaded: list[Release] = []

    def make() -> Callable[[Sequence[_Asked]], Sequence[Matrix]]:
        release = load()
        loaded.append(release)
        return lambda asked: _answers(release, asked)

    batcher: MicroBatcher[_Asked, Matrix] = MicroBatcher(make, delay=delay)
    try:
        batcher.ready.result()
    except BaseException:
        batcher.stop()
        raise
    networks = loaded.pop().networks
    release = Release([Network(n.manifest, _Forwarding(batcher, i, n)) for i, n in enumerate(networks)])
    # Without waiting for the thread: whoever drops the last reference is not to be held up.
    weakref.finalize(release, batcher.stop, 0.0)
    return release


def _answers(release: Release, asked: Sequence[_Asked]) -> list[Matrix]:
    """Each network is run once, for all who asked it."""
    answers: list[Matrix] = [np.empty((0, 0))] * len(asked)
    for place in sorted({one.network for one in asked}):
        members = [i for i, one in enumerate(asked) if one.network == place]
        params = release.networks[place].parameters(np.concatenate([asked[i].iv for i in members]))
        ends = np.cumsum([len(asked[i].iv) for i in members])
        for i, part in zip(members, np.split(params, ends[:-1]), strict=True):
            answers[i] = part
    return answers
