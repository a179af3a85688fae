"""Who makes the shards: this process, several of this machine, or the machines of a Ray cluster.

Workers only compute. They send the content of a shard to the process that was started, which alone writes: workers that
outlive it after a kill cannot meet the files of the run that goes on, and machines need not share a folder.
"""

import io
import multiprocessing
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

import calibrant
from calibrant.cluster import as_finished, connected, digest_of

from .domain import DOMAINS, Domain
from .panels import make_fitted_panels, make_panels


class Job(NamedTuple):
    """One shard to make: panels start..stop-1 of a seed."""

    shard: int
    """Its number."""
    generator: str
    """Key in `GENERATORS`."""
    domain: str
    """Key in `DOMAINS`."""
    seed: int
    start: int
    stop: int


class Made(NamedTuple):
    """A shard that is finished."""

    job: Job
    content: bytes
    """Of its file: the records, as numpy saves them."""


def _simulated(domain: Domain, seed: int, start: int, stop: int, *, device: str) -> NDArray[np.void]:
    # Imported here: torch takes longer to import than a small shard of exact panels takes to make.
    from .simulated import simulate_panels

    return simulate_panels(domain, seed, start, stop, device=device)


GENERATORS: dict[str, Callable[[Domain, int, int, int], NDArray[np.void]]] = {
    "exact": make_panels,
    "fitted": make_fitted_panels,
    "simulated": partial(_simulated, device="cpu"),
    # An entry of its own, since its vols differ in their last digits: the description of a folder fixes its bytes.
    "simulated-cuda": partial(_simulated, device="cuda"),
}
"""Records start..stop-1 of a domain and seed; each panel depends on its own index alone."""


def make(job: Job) -> Made:
    """Make one shard."""
    file = io.BytesIO()
    np.save(file, GENERATORS[job.generator](DOMAINS[job.domain], job.seed, job.start, job.stop))
    return Made(job, file.getvalue())


def by_processes(jobs: list[Job], workers: int) -> Iterator[Made]:
    """The shards as they are finished, by processes of this machine; one worker is this process itself."""
    if workers == 1:
        yield from map(make, jobs)
        return
    # spawn, because numba and torch thread pools do not survive a fork.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap_unordered(make, jobs)


def by_ray(jobs: list[Job], address: str, workers: int) -> Iterator[Made]:
    """The shards as they are finished, as tasks of a Ray cluster.

    address  of a cluster that runs, or "local" to start one on this machine, reached from nowhere else
    workers  processors of the local cluster
    raises   RuntimeError if a machine has other code than this one
    """
    with connected(address, workers) as ray:
        code = code_digest()
        remote = ray.remote(_make_with)
        tasks = (remote.options(num_gpus=int(job.generator.endswith("-cuda"))).remote(job, code) for job in jobs)
        yield from map(ray.get, as_finished(ray, tasks))


def code_digest() -> str:
    """Of every source file that panels can depend on."""
    return digest_of(Path(__file__).parent, Path(calibrant.__file__).parent)


def _make_with(job: Job, code: str) -> Made:
    """Make one shard with this code or none: the panels of an older commit would pass every later check."""
    if code_digest() != code:
        raise RuntimeError(
            "this machine has other code in `training` or `calibrant` than the one that sends the shards"
        )
    return make(job)
