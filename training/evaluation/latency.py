"""Wall-clock time of one panel at a time: the network alone, and with all that comes after it."""

from time import perf_counter
from typing import NamedTuple

import numpy as np

from calibrant.arrays import Vector
from calibrant.calibration import calibrate
from calibrant.grid import project
from calibrant.models import MODELS
from calibrant.network import Network
from calibrant.panel import OptionPanel
from calibrant.pipeline import starting_from
from calibrant.release import Release

_WARM_UP = 20


class Latency(NamedTuple):
    """Microseconds over the passes, each on a panel of its own."""

    n_passes: int
    network_median_us: float
    """ONNX Runtime, one thread, a panel already on the grid: what the paper times."""
    network_p95_us: float
    refined_median_us: float
    """The whole release: projection, the network that answers, refinement, standard errors included."""
    refined_p95_us: float


class Times(NamedTuple):
    """Seconds, (n_panels,) each."""

    network: Vector
    refined: Vector


def time_panels(network: Network, release: Release, panels: list[OptionPanel]) -> Times:
    """Each panel once, after a warm-up on the first ones.

    network  asked alone
    release  asked and refined as the service does
    """
    for panel in panels[:_WARM_UP]:
        _time_one(network, release, panel)
    times = np.array([_time_one(network, release, panel) for panel in panels])
    return Times(times[:, 0], times[:, 1])


def refined_params(release: Release, panel: OptionPanel) -> Vector:
    """The parameters that the service would answer with."""
    return calibrate(panel, MODELS[release.model], starting_from(release.propose(panel))).parameters


def _time_one(network: Network, release: Release, panel: OptionPanel) -> tuple[float, float]:
    iv = project(panel, network.grid).iv
    began = perf_counter()
    network.parameters(iv[np.newaxis])
    alone = perf_counter() - began
    began = perf_counter()
    refined_params(release, panel)
    return alone, perf_counter() - began


def latency(times: Times) -> Latency:
    """Medians and 95th percentiles."""
    (network_median, network_p95), (refined_median, refined_p95) = (
        map(float, 1e6 * np.quantile(part, (0.5, 0.95))) for part in times
    )
    return Latency(times.network.size, network_median, network_p95, refined_median, refined_p95)
