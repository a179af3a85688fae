"""The calibrations of the second stage: realistic panels with noise, each fitted by L-BFGS.

    python -m training.paper_hybrid.targets --out runs/paper-hybrid/targets.jsonl [--count 500] [--workers 2]

A line a panel, in the order they are finished. The same command goes on after a kill; panels depend on the seed and
their index alone. The 500 calibrations of the authors' program are draws of parameters, no descent is run there:
`--drawn` makes such ones.
"""

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from calibrant.arrays import Matrix

from .lbfgs import AUTHORS, START, Fitted, PaperLbfgs, calibrate
from .scenarios import REALISTIC, call_prices, draw, noisy, panels, quotes

SEED = 2
_OPTIONS = PaperLbfgs(tolerance=AUTHORS.tolerance)
"""Without the penalty, which would leave the start as the answer."""
_KEYS = {"index", "seed", "drawn", "iv", "parameters", "loss", "iterations", "evaluations"}


class Targets(NamedTuple):
    """What the second stage is trained on."""

    iv: NDArray[np.float64]
    """(n, 3, 5) the noisy panels."""
    params: Matrix
    """(n, 13) where L-BFGS ended."""


def make(index: int, seed: int, drawn: bool = False) -> dict[str, Any]:
    """Calibrate one panel, or take the parameters it was drawn with for an answer."""
    # Each index has generators of its own, so that it does not matter how many there are.
    truth = draw(REALISTIC, _of(seed, index), 1)
    iv = noisy(panels(truth), _of(seed, index) + 1)
    k, t = quotes()
    fitted = Fitted(truth[0], 0.0, 0, 0) if drawn else calibrate(k, t, call_prices(iv)[0], START, _OPTIONS)
    return {
        "index": index,
        "seed": seed,
        "drawn": drawn,
        "iv": iv[0].tolist(),
        "parameters": fitted.params.tolist(),
        "loss": fitted.loss,
        "iterations": fitted.iterations,
        "evaluations": fitted.evaluations,
    }


def _of(seed: int, index: int) -> int:
    return 1_000_003 * seed + 2 * index


def make_all(
    path: Path,
    count: int,
    seed: int = SEED,
    workers: int = 1,
    say: Callable[[str], None] = print,
    *,
    drawn: bool = False,
) -> None:
    """Calibrate the panels that the file has not yet.

    raises  ValueError if it holds panels of another seed or kind
    """
    done = _read(path)
    if any((record["seed"], record["drawn"]) != (seed, drawn) for record in done):
        raise ValueError(f"{path} holds panels of another seed than {seed}, or another kind: choose another file")
    missing = sorted(set(range(count)) - {record["index"] for record in done})
    path.parent.mkdir(parents=True, exist_ok=True)
    # Without the torn last line of a run that was killed.
    path.write_text("".join(json.dumps(record) + "\n" for record in done))
    began = time.monotonic()
    with path.open("a") as file:
        for n, record in enumerate(_made(missing, partial(make, seed=seed, drawn=drawn), workers), start=1):
            file.write(json.dumps(record) + "\n")
            file.flush()
            if n % 20 == 0 or n == len(missing):
                left = (time.monotonic() - began) / n * (len(missing) - n)
                say(f"{len(done) + n}/{count} calibrated, {record['iterations']} iterations, {left:.0f} s left")


def _made(indices: list[int], work: Callable[[int], dict[str, Any]], workers: int) -> Iterator[dict[str, Any]]:
    if workers == 1:
        yield from map(work, indices)
        return
    # spawn, because numba's threads do not survive a fork.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from pool.imap_unordered(work, indices)


def load(path: Path) -> Targets:
    """The calibrations of a file, by index."""
    records = sorted(_read(path), key=lambda record: int(record["index"]))
    iv, params = ([record[name] for record in records] for name in ("iv", "parameters"))
    return Targets(np.array(iv), np.array(params))


def _read(path: Path) -> list[dict[str, Any]]:
    """The whole lines of the file."""
    records = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and record.keys() == _KEYS:
            records.append(record)
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--workers", type=int, default=multiprocessing.cpu_count())
    parser.add_argument("--drawn", action="store_true", help="not calibrated: the parameters that they were drawn with")
    given = parser.parse_args()
    make_all(given.out, given.count, given.seed, given.workers, drawn=given.drawn)


if __name__ == "__main__":
    main()
