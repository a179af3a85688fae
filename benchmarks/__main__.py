"""All tables from one command.

    python -m benchmarks [--quick] [--only NAME ...]

Each runs as a process of its own, one after the other, so that none inherits another's threads, caches or failure. With
`--quick` the samples are a twentieth or less, and the tables go to build/benchmarks/quick instead of docs/results;
`service`, `load.faults` and `load.sockets`, which say nothing in a short time, are left out.
What trains or judges networks is run by hand: `network_strides`, `ablations`, `baselines`, `releases`,
`training.evaluate`.
"""

import argparse
import subprocess
import sys
from time import perf_counter

from reporting.machine import CACHE, ROOT

QUICK: dict[str, tuple[str, ...] | None] = {
    "kernel": ("--panels", "50", "--draws", "300", "--admissible", "100", "--gradient-panels", "4"),
    "kernel_of_models": ("--panels", "10", "--pairs", "5"),
    "cos": ("--panels", "2"),
    "paper_hybrid": ("--panels", "2", "--authors", "1"),
    "peers": ("--panels", "40", "--subset", "4"),
    "recovery": ("--clean", "100", "--noisy", "200"),
    "market": ("--starts", "2", "--only", "dax"),
    "optima": ("--panels", "20"),
    "network_starts": ("--panels", "10", "--every", "25"),
    "arbitrage_tables": ("--surfaces", "50", "--admissible", "25"),
    "projection_error": None,
    "batch": ("--panels", "200", "--repeats", "1"),
    "slv": ("--seeds", "2", "--repeats", "1"),
    "simulation_bias": ("--panels", "20", "--subset", "10"),
    "service": None,
    "load.faults": None,
    "load.sockets": None,
}
"""The tables, and the options of a quick run (None: there is none); the defaults of each module are those of the
released tables."""
PARTS = {
    "service": ("latency", "throughput", "batch", "misfit", "mixed", "overload", "crowd", "slow", "wire", "echo"),
    "load.sockets": ("kept", "stalled", "floods"),
}
"""Commands of the modules that write one section at a time, each with the whole machine for itself."""
FILES = {"arbitrage_tables": "arbitrage", "simulation_bias": "simulation"}
"""Names of the tables that are not their module's."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small samples, to see that everything runs")
    parser.add_argument("--only", nargs="+", choices=sorted(QUICK), default=list(QUICK), help="these tables alone")
    given = parser.parse_args()
    failed = []
    for name in given.only:
        quick = QUICK[name]
        if given.quick and quick is None:
            continue
        for part in PARTS.get(name, ("",)):
            command = [sys.executable, "-m", f"benchmarks.{name}", *part.split()]
            if given.quick and quick is not None:
                command += [*quick, "--out", str(CACHE / "quick" / f"{FILES.get(name, name)}.md")]
            print(" ".join(command[1:]), flush=True)
            began = perf_counter()
            if subprocess.run(command, cwd=ROOT, check=False).returncode != 0:
                failed.append(f"{name} {part}".strip())
            print(f"{name} {part}: {perf_counter() - began:.0f} s", flush=True)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
