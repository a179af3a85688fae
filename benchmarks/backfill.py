"""What a backlog costs: processor time a panel by stage, with the answer before as a start and without; two Ray workers
beside one.

    python -m benchmarks.backfill [--panels N] [--ray-panels N] [--ray-repeats N] [--out PATH]
    python -m benchmarks.backfill --write QUOTES.parquet --underlyings 611

The second command writes a million panels, for `calibrant backfill` to be tried on.

Panels are the paper's grid, 80 quotes with noise of 0.5 bp and 5 % missing, of underlyings whose parameters wander by a
hundredth of a box every five minutes. All is in processor time, which a busy machine changes little: on free cores two
workers are as quick as the one of them that has more to do, and the driver's own work goes on beside theirs.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from time import monotonic, process_time
from typing import Any, NamedTuple

import numpy as np
import pyarrow
from pyarrow import parquet

from benchmarks import paper_box
from calibrant.arrays import Vector
from calibrant.backfill.driving import made_by_worker
from calibrant.backfill.parts import encoded
from calibrant.backfill.plan import Source, Unit, open_source, plan_of
from calibrant.backfill.reading import read_unit
from calibrant.backfill.settings import Settings
from calibrant.backfill.unit import calibrated
from calibrant.cluster import as_finished, connected
from calibrant.models import MODELS
from reporting.machine import RESULTS, describe_machine, table, write_report
from training.exact_panels import model_vols

SEED = 411
NOISE_BP, MASKED = 0.5, 0.05
STEP = 0.01
"""Standard deviation of a parameter's move in five minutes, in widths of the paper's box."""
A_DAY = 78
"""Panels: six hours and a half at five minutes."""
A_MONTH = 21 * A_DAY
SERIES = 4
"""That are priced; more underlyings are the same ones again."""
GROUP_ROWS = 1 << 20
_SAME = 1e-3
"""Share of an rmse."""
SHARES = {"heston": 1, "bates": 20, "double_heston": 20}
"""Models, and what part of the panels each is timed on."""
_JUMPS = np.array([[0.1, -0.2, 0.05], [1.0, 0.0, 0.25]])
_TWO_FACTORS = np.array(
    [
        [4.0, 0.01, 0.3, -0.9, 0.01, 0.3, 0.01, 0.1, -0.9, 0.01],
        [12.0, 0.1, 2.0, -0.3, 0.1, 1.5, 0.1, 0.8, -0.3, 0.1],
    ]
)
_HESTON = np.array([paper_box.LOWER, paper_box.UPPER])
BOXES = {"heston": _HESTON, "bates": np.hstack((_HESTON, _JUMPS)), "double_heston": _TWO_FACTORS}
"""(2, n_params): the least and the largest values in which each model's parameters wander."""


class Cost(NamedTuple):
    """Of a model, per panel."""

    model: str
    warm: bool
    planning: float
    """Seconds of processor time, as all."""
    reading: float
    calibration: float
    writing: float
    given: float
    """Share of the answers that came of the answer before."""
    evaluations: float
    """Mean of the refinements that led to the answers."""
    rmse_bp: Vector

    @property
    def whole(self) -> float:
        return self.planning + self.reading + self.calibration + self.writing


def series(model: str, n: int, seed: int) -> Iterator[Vector]:
    """Vols of n panels in a row."""
    random = np.random.default_rng((SEED, seed))
    lower, upper = BOXES[model]
    params = lower + (upper - lower) * random.random(lower.size)
    for _ in range(n):
        # Drawn back to the middle, or it would lie on the box's sides for long.
        params = params + 0.001 * (lower + upper - 2.0 * params)
        params = np.clip(params + STEP * (upper - lower) * random.standard_normal(lower.size), lower, upper)
        vols = model_vols(MODELS[model], paper_box.LOG_MONEYNESS, paper_box.EXPIRY, params)
        vols += 1e-4 * NOISE_BP * random.standard_normal(vols.size)
        vols[random.random(vols.size) < MASKED] = np.nan
        yield vols


def dates(n: int) -> list[datetime]:
    """Every five minutes of the trading hours of weekdays."""
    first = datetime(2024, 1, 1, 9, 30)
    days = [first + timedelta(days=day) for day in range(2 * n // A_DAY + 7)]
    opened = [day for day in days if day.weekday() < 5][: -(-n // A_DAY)]
    return [day + timedelta(minutes=5 * i) for day in opened for i in range(A_DAY)][:n]


def write_quotes(path: Path, model: str, n_underlyings: int, n_panels: int) -> None:
    """A row a quote, n_panels of each underlying."""
    n_quotes = paper_box.EXPIRY.size
    moments = pyarrow.array(np.repeat(np.array(dates(n_panels), "M8[us]"), n_quotes))
    vols = [np.concatenate(list(series(model, n_panels, seed))) for seed in range(min(n_underlyings, SERIES))]
    writer = None
    for i in range(n_underlyings):
        columns = {
            "underlying": pyarrow.array([f"U{i:04d}"] * len(moments)),
            "as_of": moments,
            "expiry": np.tile(paper_box.EXPIRY, n_panels),
            "log_moneyness": np.tile(paper_box.LOG_MONEYNESS, n_panels),
            "iv": vols[i % SERIES],
        }
        rows = pyarrow.table(columns)
        writer = writer or parquet.ParquetWriter(path, rows.schema)
        writer.write_table(rows, GROUP_ROWS)
    if writer is not None:
        writer.close()


def cost_of(model: str, warm: bool, quotes: Path) -> Cost:
    """Of all panels of a file, one after the other in this process."""
    settings = Settings(model=model, warm=warm)
    document, release = settings.document(), settings.release()
    began = process_time()
    source = open_source(quotes)
    units = plan_of(source, settings.block)
    planning = process_time() - began
    calibrated(source, units[0], settings, release)
    reading = calibration = writing = 0.0
    tables = []
    for unit in units:
        began = process_time()
        read_unit(source, unit, settings.block)
        read = process_time()
        answers = calibrated(source, unit, settings, release)
        done = process_time()
        encoded(answers.table, document, unit)
        reading += read - began
        calibration += (done - read) - (read - began)
        writing += process_time() - done
        tables.append(answers.table)
    rows = pyarrow.concat_tables(tables)
    n = rows.num_rows
    return Cost(
        model,
        warm,
        planning / n,
        reading / n,
        calibration / n,
        writing / n,
        np.mean(np.array(rows["start"].to_pylist()) == "given").item(),
        np.mean(rows["iterations"].to_numpy()).item(),
        rows["rmse_bp"].to_numpy(),
    )


class Spread(NamedTuple):
    """A run on a cluster of this machine, after the first units; processor time, seconds a panel."""

    worker: float
    busiest: float
    """Of the worker that used most."""
    driver: float
    """Of the process that was started; its writing left out."""
    per_second: float
    """Panels, by the wall's clock."""


class Timed(NamedTuple):
    """A unit by a worker."""

    n_panels: int
    pid: int
    seconds: float
    """Processor time."""


def timed(shared: tuple[Source, Settings, Mapping[str, Any]], unit: Unit) -> Timed:
    """What the command's own workers do."""
    began = process_time()
    made = made_by_worker(shared, unit)
    return Timed(made.n_panels, os.getpid(), process_time() - began)


def spread_over(workers: int, quotes: Path) -> Spread:
    """Every unit of a file by so many workers."""
    settings = Settings(block="day")
    source = open_source(quotes)
    units = plan_of(source, settings.block)
    done: list[Timed] = []
    with connected("local", workers) as ray:
        shared = ray.put((source, settings, {**settings.document(), "quotes": {}}))
        remote = ray.remote(timed)
        for task in as_finished(ray, (remote.remote(shared, unit) for unit in units)):
            done.append(ray.get(task))
            if len(done) == 4 * workers:
                # By now every worker has loaded what it needs.
                began, used = monotonic(), process_time()
        wall, driver = monotonic() - began, process_time() - used
    done = done[4 * workers :]
    n = sum(unit.n_panels for unit in done)
    of_worker = [sum(unit.seconds for unit in done if unit.pid == pid) for pid in {unit.pid for unit in done}]
    return Spread(sum(of_worker) / n, max(of_worker) / n, driver / n, n / wall)


def main() -> None:
    """Measure, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--panels", type=int, default=4 * A_MONTH)
    parser.add_argument("--ray-panels", type=int, default=8 * A_MONTH)
    parser.add_argument("--ray-repeats", type=int, default=3)
    parser.add_argument("--write", type=Path, metavar="QUOTES.parquet")
    parser.add_argument("--underlyings", type=int, default=611)
    parser.add_argument("--out", type=Path, default=RESULTS / "backfill.md")
    given = parser.parse_args()
    if given.write is not None:
        write_quotes(given.write, "heston", given.underlyings, A_MONTH)
        return
    costs: list[Cost] = []
    runs: dict[int, list[Spread]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as scratch:
        for model, share in SHARES.items():
            quotes = Path(scratch) / f"{model}.parquet"
            write_quotes(quotes, model, 2, given.panels // share // 2)
            costs += [cost_of(model, warm, quotes) for warm in (True, False)]
            print(model, *(f"{1e6 * cost.whole:.0f} us a panel" for cost in costs[-2:]), flush=True)
        quotes = Path(scratch) / "ray.parquet"
        write_quotes(quotes, "heston", 8, given.ray_panels // 8)
        for _ in range(given.ray_repeats):
            for workers, spreads in runs.items():
                spreads.append(spread_over(workers, quotes))
                print(workers, spreads[-1], flush=True)
    write_report(given.out, _report(costs, runs, given))


def _report(costs: list[Cost], runs: dict[int, list[Spread]], given: argparse.Namespace) -> list[str]:
    us = "us a panel"
    rows = [
        [
            f"{cost.model}, {'warm' if cost.warm else 'cold'}",
            *(f"{1e6 * each:.0f}" for each in (cost.planning, cost.reading, cost.calibration, cost.writing)),
            f"{1.0 / cost.whole:.0f}",
            f"{100.0 * cost.given:.0f} %",
            f"{cost.evaluations:.1f}",
            f"{np.median(cost.rmse_bp):.3f}",
        ]
        for cost in costs
    ]
    head = [
        "model, start",
        f"plan, {us}",
        f"read, {us}",
        f"calibrate, {us}",
        f"write, {us}",
        "panels/s of a core",
        "from the one before",
        "evaluations",
        "median rmse, bp",
    ]
    excesses = {
        warm.model: (warm.rmse_bp - cold.rmse_bp) / cold.rmse_bp
        for warm, cold in zip(costs[::2], costs[1::2], strict=True)
    }
    told = "; ".join(
        f"{model} {100.0 * np.mean(excess < -_SAME):.1f} and {100.0 * np.mean(excess > _SAME):.1f}"
        for model, excess in excesses.items()
    )
    ratios = [one.worker / two.busiest for one, two in zip(runs[1], runs[2], strict=True)]
    return [
        "# The backlog",
        "",
        f"`python -m benchmarks.backfill --panels {given.panels} --ray-panels {given.ray_panels} "
        f"--ray-repeats {given.ray_repeats}`",
        "",
        describe_machine("pyarrow", "ray", "onnxruntime", use="one thread, or as many Ray workers as said"),
        "",
        "## A core",
        "",
        "Processor time; *warm* has the answer before as a start where the network's leaves doubt or there is none.",
        "",
        *table(head, rows),
        "",
        f"Panels in 100 whose rmse is better by more than {_SAME:.1%} when warm, and worse: {told}.",
        "",
        "## Ray",
        "",
        "Heston, units of a day, after the first units; medians of the runs, one worker and two in turns.",
        "",
        *table(
            ["workers", "worker, us a panel", "busiest, us a panel", "driver, us a panel", "panels/s by the clock"],
            [
                [
                    str(n),
                    *(
                        f"{1e6 * median(getattr(s, name) for s in spreads):.0f}"
                        for name in ("worker", "busiest", "driver")
                    ),
                    f"{median(s.per_second for s in spreads):.0f}",
                ]
                for n, spreads in runs.items()
            ],
        ),
        "",
        f"Two workers over one, as their processor time has it: {median(ratios):.2f} (runs: "
        f"{', '.join(f'{ratio:.2f}' for ratio in ratios)}). The clock's says what else this machine did.",
    ]


if __name__ == "__main__":
    main()
