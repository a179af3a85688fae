"""Mutated inputs over all formats, as many as there is time for: none may get a 500, end a process, or take for ever.

    python -m benchmarks.mutations [--count 1000000] [--processes 2] [--minutes 60] [--seed 1]
    python -m benchmarks.mutations --seed 1 --only 4711

Each process has the whole application without a server, and the command line's reader, with a small budget of work, and
is asked by itself, a few inputs at a time (`benchmarks.load.mutated`: each a function of the seed and its number). A
process that ends, or computes for a minute at the same inputs, is replaced and these are named. What took long
together with others is asked again alone, by processor time.
Writes docs/results/mutations.{json,md}.
"""

import argparse
import asyncio
import multiprocessing
import os
import sys
from collections import Counter
from multiprocessing.connection import Connection, wait
from pathlib import Path
from time import perf_counter, process_time
from typing import Any, NamedTuple

from calibrant.models import HESTON
from reporting.machine import RESULTS, ROOT, table
from service import app
from service.settings import Settings

from .load.asked import ask, calibrated_file, fault_of
from .load.mutated import KINDS, mutated
from .sections import record

MAX_WORK = 2000.0
"""Quote-evaluations of a calibration: `CALIBRANT_MAX_WORK`."""
LONGEST = 1.0
"""Seconds of processor time of one input."""
SECTION = "mutations"
_TOGETHER = 4
_CHUNK = 200
_HANGS, _SLEEPS = 60.0, 900.0
"""Seconds of processor time, and of any, in which not one of the inputs in hand was finished."""
_SUSPICIOUS = 0.5
"""Seconds of one input among others, from which it is asked again alone."""
_NONE = -1


class Told(NamedTuple):
    """What became of a chunk."""

    counts: Counter[tuple[str, int]]
    """By kind and status."""
    faults: list[tuple[int, str]]
    slow: list[tuple[int, float]]


class InProcess:
    """The application in this process, asked without a server."""

    def __init__(self) -> None:
        # The machine may keep threads waiting; what an input asks for is heeded anyway.
        self._settings = Settings(networks=ROOT / "networks", max_work=MAX_WORK, default_deadline_ms=120_000.0)
        self._app = app.Application(self._settings)

    async def __aenter__(self) -> "InProcess":
        await self._app.service.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._app.service.stop()

    async def outcome(self, seed: int, number: int) -> tuple[str, int, str | None]:
        """Kind, status and fault of one input."""
        given = mutated(seed, number)
        try:
            if not given.path:
                release = self._app.service.engine.releases[HESTON.name]
                return given.kind, calibrated_file(given, release, MAX_WORK), None
            answer = await ask(self._app, given)
        except Exception as error:
            return given.kind, 500, f"{type(error).__name__}: {error}"
        return given.kind, answer.status, fault_of(answer)


def _work(pipe: Connection, seed: int, in_hand: Any) -> None:
    """A process: chunks of numbers in, what became of them out."""
    suspicious: list[int] = []

    async def answered() -> None:
        async with InProcess() as application:
            loop = asyncio.get_running_loop()
            while (numbers := await loop.run_in_executor(None, pipe.recv)) is not None:
                told = Told(Counter(), [], [])
                rest = iter(numbers)
                await asyncio.gather(*(one_after_the_other(application, rest, i, told) for i in range(_TOGETHER)))
                for number in suspicious:
                    began = process_time()
                    await application.outcome(seed, number)
                    told.slow.append((number, process_time() - began))
                suspicious.clear()
                pipe.send(told)

    async def one_after_the_other(application: InProcess, rest: Any, place: int, told: Told) -> None:
        for number in rest:
            in_hand[place] = number
            began = perf_counter()
            kind, status, fault = await application.outcome(seed, number)
            told.counts[kind, status] += 1
            if fault is not None:
                told.faults.append((number, fault))
            if perf_counter() - began > _SUSPICIOUS:
                suspicious.append(number)
        in_hand[place] = _NONE

    asyncio.run(answered())


class Worker:
    """A process at work, and what it has in hand."""

    def __init__(self, seed: int) -> None:
        context = multiprocessing.get_context("spawn")
        self.in_hand = context.Array("q", [_NONE] * _TOGETHER, lock=False)
        self.pipe, theirs = context.Pipe()
        self.process = context.Process(target=_work, args=(theirs, seed, self.in_hand), daemon=True)
        self.process.start()
        theirs.close()
        self.chunk: list[int] = []
        self._seen: list[int] = []
        self._since = 0.0, 0.0

    def give(self, chunk: list[int]) -> None:
        self.chunk = chunk
        self.pipe.send(chunk)

    def stands_still(self) -> bool:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        now = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"), perf_counter()
        if self._seen != (seen := list(self.in_hand)):
            self._seen, self._since = seen, now
        return now[0] > self._since[0] + _HANGS or now[1] > self._since[1] + _SLEEPS

    def told(self) -> Told:
        """raises  EOFError if it has ended"""
        told: Told = self.pipe.recv()
        self.chunk = []
        return told

    def lost(self) -> list[int]:
        """What it had in hand, once it is ended."""
        self.process.kill()
        self.process.join()
        return [number for number in self.in_hand if number != _NONE]


def asked(given: argparse.Namespace) -> dict[str, Any]:
    counts: Counter[tuple[str, int]] = Counter()
    faults: list[tuple[int, str]] = []
    slow: list[tuple[int, float]] = []
    began, next_number = perf_counter(), given.first
    end, last = began + 60.0 * given.minutes, given.first + given.count
    workers = [Worker(given.seed) for _ in range(given.processes)]

    def more(worker: Worker) -> None:
        nonlocal next_number
        if next_number < last and perf_counter() < end:
            worker.give(list(range(next_number, min(next_number + _CHUNK, last))))
            next_number += _CHUNK

    for worker in workers:
        more(worker)
    while any(worker.chunk for worker in workers):
        ready = wait([worker.pipe for worker in workers if worker.chunk], timeout=1.0)
        for i, worker in enumerate(workers):
            if not worker.chunk:
                continue
            still = worker.pipe not in ready and worker.process.is_alive() and worker.stands_still()
            if worker.pipe not in ready and not still:
                continue
            try:
                told = None if still else worker.told()
            except (EOFError, ConnectionError):
                told = None
            if told is None:
                numbers = worker.lost()
                faults += [(number, "stands still" if still else "process ended") for number in numbers]
                workers[i] = worker = Worker(given.seed)
            else:
                counts += told.counts
                faults += told.faults
                slow += told.slow
                for number, fault in told.faults:
                    print(f"{number}: {fault}", flush=True)
            more(worker)
        done = sum(counts.values())
        print(f"{done} in {perf_counter() - began:.0f} s, {len(faults)} faults", end="\r", flush=True)
    for worker in workers:
        worker.pipe.send(None)
        worker.process.join(30.0)
    return {
        "seed": given.seed,
        "first": given.first,
        "count": sum(counts.values()),
        "minutes": (perf_counter() - began) / 60.0,
        "kinds": {kind: {str(s): n for (k, s), n in sorted(counts.items()) if k == kind} for kind in KINDS},
        "faults": faults,
        "slowest_s": sorted(((number, s) for number, s in slow), key=lambda each: -each[1])[:10],
        "as_wanted": not faults and not any(seconds > LONGEST for _, seconds in slow),
    }


def lines(data: dict[str, Any]) -> list[str]:
    statuses = sorted({status for each in data["kinds"].values() for status in each})
    rows = [
        [kind, str(sum(each.values())), *(str(each.get(status, 0)) for status in statuses)]
        for kind, each in data["kinds"].items()
    ]
    slowest = max((seconds for _, seconds in data["slowest_s"]), default=0.0)
    return [
        "## Mutated inputs over all formats",
        f"{data['count']:,} inputs of the seed {data['seed']} from number {data['first']} on, in {data['minutes']:.0f} "
        f"minutes, {MAX_WORK:g} quote-evaluations a calibration: half sound in form and extreme in their numbers, the "
        "others with parts replaced, removed, repeated, scaled, exchanged or nested, and bytes damaged or cut off. Of "
        f"the command line's files 200 is an answer, 422 a refusal. Wanted: no failure of the service, no process "
        f"ended, none above {LONGEST:g} s of processor time. Faults: {len(data['faults'])}. Slowest: "
        + (f"{slowest:.2f} s." if data["slowest_s"] else f"none above {_SUSPICIOUS:g} s."),
        "",
        *table(["kind", "inputs", *statuses], rows),
        *(f"\n- {number}: {fault}" for number, fault in data["faults"]),
    ]


async def _one(seed: int, number: int) -> None:
    given = mutated(seed, number)
    print(given.kind, given.path, given.headers)
    print(given.body)
    async with InProcess() as application:
        began = process_time()
        print(await application.outcome(seed, number), f"{process_time() - began:.3f} s")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=60.0, help="after which no more are begun")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, help="ask this one and show it")
    parser.add_argument("--out", type=Path, default=RESULTS / "mutations", help="page, without its suffix")
    given = parser.parse_args()
    if given.only is not None:
        asyncio.run(_one(given.seed, given.only))
        return 0
    data = asked(given)
    record(given.out, "# Mutations", {SECTION: lines}, SECTION, data, f"{given.processes} processes")
    return 0 if data["as_wanted"] else 1


if __name__ == "__main__":
    sys.exit(main())
