"""Synthetic panels, sharded on disk.

    python -m training.generate --out data/train --seed 1 --count 1000000
    python -m training.generate --out data/simulated --seed 1 --count 1000000 --generator simulated-cuda --workers 1
    python -m training.generate --out data/train --seed 1 --count 1000000 --ray 10.0.0.1:6379

A shard is complete once its checksum file exists, and that is written last: after a kill the same command goes on, and
only the shards in progress are made again. Panels depend on (generator, domain, seed, index) alone, so one worker or
many, one machine or several, one run or a killed and repeated one, give the same bytes.

`--ray ADDRESS` spreads the shards over a running Ray cluster, `--ray local` over one started for the run. Every machine
needs the repository at the same path and commit (the commit is checked, by the code itself) and the packages it needs;
the folder need not be shared, since shards are written where the command was given.
"""

import argparse
import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .domain import DOMAINS
from .panels import panel_dtype
from .workers import GENERATORS, Job, by_processes, by_ray

_DESCRIPTION = "panels.json"


class DamagedShard(RuntimeError):
    """A shard whose bytes are not those that were written."""


@dataclass(frozen=True, kw_only=True)
class PanelSet:
    """What a folder of shards holds."""

    domain: str
    """Key in `DOMAINS`."""
    seed: int
    """Key of the counter-based generator."""
    count: int
    """Panels in all."""
    shard_size: int = 10_000
    """Panels a shard; the last may be shorter."""
    generator: str = "exact"
    """Key in `GENERATORS`."""

    @property
    def n_shards(self) -> int:
        return -(-self.count // self.shard_size)

    def span(self, shard: int) -> tuple[int, int]:
        """First panel of the shard and the one after its last."""
        return shard * self.shard_size, min(self.count, (shard + 1) * self.shard_size)


def generate(
    folder: Path,
    panels: PanelSet,
    *,
    workers: int = 1,
    ray_address: str | None = None,
    say: Callable[[str], None] = print,
) -> None:
    """Make every shard that is missing.

    workers      processes; with Ray, those of a local cluster
    ray_address  of a Ray cluster, or "local" to start one; None for none
    raises       ValueError if the folder already holds another set
    """
    folder.mkdir(parents=True, exist_ok=True)
    description = folder / _DESCRIPTION
    if description.exists() and read_description(folder) != panels:
        raise ValueError(f"{folder} holds {read_description(folder)}, not {panels}: choose another folder")
    _write_atomically(description, (json.dumps(asdict(panels), indent=2) + "\n").encode())
    missing = [shard for shard in range(panels.n_shards) if not _is_complete(folder, shard)]
    if not missing:
        say(f"{folder}: all {panels.n_shards} shards are there")
        return
    jobs = [Job(shard, panels.generator, panels.domain, panels.seed, *panels.span(shard)) for shard in missing]
    made = by_processes(jobs, workers) if ray_address is None else by_ray(jobs, ray_address, workers)
    started = time.monotonic()
    n_panels = 0
    for n_shards, (job, content) in enumerate(made, start=1):
        _write_atomically(_shard_path(folder, job.shard), content)
        _write_atomically(_checksum_path(folder, job.shard), (hashlib.sha256(content).hexdigest() + "\n").encode())
        n_panels += job.stop - job.start
        elapsed = time.monotonic() - started
        left = elapsed / n_shards * (len(jobs) - n_shards)
        say(
            f"shard {n_shards}/{len(jobs)} of {panels.generator} {panels.domain} seed {panels.seed}: "
            f"{n_panels} panels, {n_panels / elapsed:.1f} a second, {left:.0f} s left"
        )


def read_description(folder: Path) -> PanelSet:
    """What the folder says it holds."""
    return PanelSet(**json.loads((folder / _DESCRIPTION).read_text()))


def load(folder: Path, count: int | None = None) -> NDArray[np.void]:
    """The first `count` panels of a folder (all of them by default), every shard checked against its checksum.

    returns  (count,) records of `panel_dtype`
    raises   DamagedShard, FileNotFoundError for a shard that was never finished
    """
    panels = read_description(folder)
    count = panels.count if count is None else count
    if count > panels.count:
        raise ValueError(f"{folder} holds {panels.count} panels, but {count} were asked for")
    out = np.empty(count, panel_dtype(DOMAINS[panels.domain]))
    for shard in range(-(-count // panels.shard_size)):
        start, stop = panels.span(shard)
        stop = min(stop, count)
        out[start:stop] = load_shard(folder, shard)[: stop - start]
    return out


def load_shard(folder: Path, shard: int) -> NDArray[np.void]:
    """One shard, checked."""
    path = _shard_path(folder, shard)
    if _sha256(path) != _checksum_path(folder, shard).read_text().strip():
        raise DamagedShard(f"{path} does not match its checksum: delete it and run training.generate again")
    records: NDArray[np.void] = np.load(path)
    return records


def _is_complete(folder: Path, shard: int) -> bool:
    checksum, path = _checksum_path(folder, shard), _shard_path(folder, shard)
    return checksum.exists() and path.exists() and _sha256(path) == checksum.read_text().strip()


def _shard_path(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:05d}.npy"


def _checksum_path(folder: Path, shard: int) -> Path:
    return folder / f"shard-{shard:05d}.sha256"


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write_atomically(path: Path, content: bytes) -> None:
    unfinished = path.with_suffix(path.suffix + ".part")
    unfinished.write_bytes(content)
    os.replace(unfinished, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the shards")
    parser.add_argument("--count", type=int, required=True, help="panels in all")
    parser.add_argument("--seed", type=int, required=True, help="training, validation and test sets differ in this")
    parser.add_argument("--domain", choices=sorted(DOMAINS), default="paper")
    parser.add_argument("--generator", choices=sorted(GENERATORS), default="exact")
    parser.add_argument("--shard-size", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes; not with --ray ADDRESS")
    parser.add_argument("--ray", metavar="ADDRESS|local", help="make the shards on a Ray cluster")
    given = parser.parse_args()
    panels = PanelSet(
        domain=given.domain,
        seed=given.seed,
        count=given.count,
        shard_size=given.shard_size,
        generator=given.generator,
    )
    generate(given.out, panels, workers=given.workers, ray_address=given.ray)


if __name__ == "__main__":
    main()
