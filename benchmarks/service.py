"""The service measured from outside: what a desk sees of it, and what it does when asked for too much.

    python -m benchmarks.service latency        one connection, five windows of 20 s, a bare echo beside it
    python -m benchmarks.service throughput     network + refinement in process, on one core and on two
    python -m benchmarks.service batch          panels a second through /v1/calibrate/batch on one core
    python -m benchmarks.service misfit         panels that Heston fits and SVI-like ones, as fast as they are answered
    python -m benchmarks.service mixed          interactive requests alone, and beside batches of 5,000 panels
    python -m benchmarks.service jobs           interactive requests before, beside and after a long leverage
    python -m benchmarks.service overload       the sustainable rate, then five times as much for a minute
    python -m benchmarks.service crowd          64 clients at once without deadlines, ordinary panels and smiles
    python -m benchmarks.service slow           ten of the slowest requests together beside 100 small ones a second
    python -m benchmarks.service wire           JSON, MessagePack and v2 tensors beside each other
    python -m benchmarks.service echo           the bare echo alone

Each takes the whole machine and writes its own section of docs/results/service.{json,md}. With two cores the server
has the first and its client the second, except where it says otherwise. `--seconds` shortens every part.
"""

import argparse
import sys
from pathlib import Path

from reporting.machine import RESULTS

from .quoted_panels import NOISE_BP
from .sections import record
from .service_crowd import crowd, crowd_lines, slow, slow_lines
from .service_jobs import jobs, jobs_lines
from .service_latency import echo, echo_lines, latency, latency_lines, wire, wire_lines
from .service_overload import mixed, mixed_lines, overload, overload_lines
from .service_throughput import batch, batch_lines, misfit, misfit_lines, throughput, throughput_lines

LINES = {
    "latency": latency_lines,
    "throughput": throughput_lines,
    "batch": batch_lines,
    "misfit": misfit_lines,
    "mixed": mixed_lines,
    "jobs": jobs_lines,
    "overload": overload_lines,
    "crowd": crowd_lines,
    "slow": slow_lines,
    "wire": wire_lines,
    "echo": echo_lines,
}
TITLE = "# The service: latency, throughput, overload"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, work, seconds in (
        ("latency", latency, 20.0),
        ("throughput", throughput, 30.0),
        ("batch", batch, 30.0),
        ("misfit", misfit, 30.0),
        ("mixed", mixed, 30.0),
        ("jobs", jobs, 10.0),
        ("overload", overload, 60.0),
        ("crowd", crowd, 0.0),
        ("slow", slow, 60.0),
        ("wire", wire, 10.0),
        ("echo", echo, 5.0),
    ):
        command = commands.add_parser(name)
        command.set_defaults(work=work)
        command.add_argument("--seconds", type=float, default=seconds, help=f"default {seconds:g}")
        command.add_argument("--noise-bp", type=float, default=NOISE_BP, help=f"default {NOISE_BP:g}")
        command.add_argument("--networks", type=Path, default=Path("networks"))
        command.add_argument("--out", type=Path, default=RESULTS / "service", help="page, without its suffix")
        if name in ("batch", "mixed"):
            command.add_argument("--panels", type=int, default=5000 if name == "mixed" else 1000)
        if name in ("crowd", "slow"):
            command.add_argument("--quotes", type=Path, default=Path("../shared/market"))
        if name == "crowd":
            command.add_argument("--requests", type=int, default=2000)
        if name == "slow":
            command.add_argument("--cases", type=Path, default=Path("../shared/cases"))
            command.add_argument("--rate", type=float, default=100.0, help="small requests a second")
            command.add_argument("--workers", type=int, default=1)
        if name == "jobs":
            command.add_argument("--rate", type=float, default=100.0, help="interactive requests a second")
        if name == "mixed":
            command.add_argument("--rate", type=float, default=100.0, help="interactive requests a second")
            command.add_argument("--audit-share", type=float, default=0.01)
        if name == "overload":
            command.add_argument("--rate", type=float, default=200.0, help="a second, that the search begins with")
            command.add_argument("--probe-seconds", type=float, default=10.0)
            command.add_argument("--sustainable", type=float, help="a second; known, so not searched for")
    given = parser.parse_args()
    data, use = given.work(given)
    record(given.out, TITLE, LINES, given.command, data, use)
    return 0


if __name__ == "__main__":
    sys.exit(main())
