"""Wall-clock time of one panel at a time: the network alone, and with all that comes after it."""

from time import perf_counter
from typing import NamedTuple

import numpy as np

from calibrant.arrays import Vector
from calibrant.grid import project
from calibrant.network import Network
from calibrant.panel import OptionPanel

from .refinement import refined

_WARM_UP = 20


class Latency(NamedTuple):
    """Microseconds over the passes, each on a panel of its own."""

    n_passes: int
    network_median_us: float
    """ONNX Runtime, one thread, a panel already on the grid: what the paper times."""
    network_p95_us: float
    refined_median_us: float
    """Projection onto the grid, network and refinement, standard errors included."""
    refined_p95_us: float


class Times(NamedTuple):
    """Seconds, (n_panels,) each."""

    network: Vector
    refined: Vector


def time_panels(network: Network, panels: list[OptionPanel]) -> Times:
    """Each panel once, after a warm-up on the first ones."""
    for panel in panels[:_WARM_UP]:
        _time_one(network, panel)
    times = np.array([_time_one(network, panel) for panel in panels])
    return Times(times[:, 0], times[:, 1])


def _time_one(network: Network, panel: OptionPanel) -> tuple[float, float]:
    iv = project(panel, network.grid).iv
    began = perf_counter()
    network.parameters(iv[np.newaxis])
    alone = perf_counter() - began
    began = perf_counter()
    iv = project(panel, network.grid).iv
    start = network.parameters(iv[np.newaxis])[0]
    refined(panel, iv, start, network)
    return alone, perf_counter() - began


def latency(times: Times) -> Latency:
    """Medians and 95th percentiles."""
    (network_median, network_p95), (refined_median, refined_p95) = (
        map(float, 1e6 * np.quantile(part, (0.5, 0.95))) for part in times
    )
    return Latency(times.network.size, network_median, network_p95, refined_median, refined_p95)
