"""A Ray cluster as the long runs use it: started here or elsewhere, given a few tasks at a time. Ray is an extra."""

import hashlib
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

PRIVATE_CLUSTER = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Off, Ray listens on the loopback address alone: the way it is on macOS, on every system.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
}
"""Environment in which a cluster of this machine sends nothing out and lets nobody in."""


@contextmanager
def connected(address: str, workers: int) -> Iterator[Any]:
    """Ray, connected until the block ends.

    address  of a cluster that runs, or "local" to start one on this machine, reached from nowhere else
    workers  processors of the local cluster
    raises   ImportError naming the extra if Ray is not installed; ConnectionError if no cluster is there
    """
    if address == "local":
        os.environ.update(PRIVATE_CLUSTER)
    try:
        # It reads the environment above as it is imported.
        import ray
    except ImportError as error:
        raise ImportError("A cluster needs Ray: pip install 'calibrant[ray]'.") from error
    if address == "local":
        ray.init("local", num_cpus=workers, include_dashboard=False, log_to_driver=False)
    else:
        ray.init(address, log_to_driver=False)
    try:
        yield ray
    finally:
        ray.shutdown()


def as_finished(ray: Any, tasks: Iterator[Any]) -> Iterator[Any]:
    """The tasks in the order in which they end. They are begun as they are taken from the iterator: two a processor
    keep it busy, and bound what waits in memory."""
    processors: float = ray.cluster_resources()["CPU"]
    pending = list(islice(tasks, 2 * math.ceil(processors)))
    while pending:
        (finished,), pending = ray.wait(pending)
        pending += islice(tasks, 1)
        yield finished


def digest_of(*packages: Path) -> str:
    """Of every source file of packages: what a machine must have in common with the one that sends it work."""
    digest = hashlib.sha256()
    for package in packages:
        for path in sorted(package.rglob("*.py")):
            digest.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()
