"""What every table says first: the machine, the versions, the date; and where the tables lie."""

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "docs" / "results"
CACHE = ROOT / "build" / "benchmarks"
"""Exact values that take long to compute; never a timing."""

_PACKAGES = ("numpy", "scipy", "numba")


def describe_machine(*packages: str, use: str = "one thread used") -> str:
    """One line: processor, cores and what was used of them, load, versions of the numerical packages and of those
    named, date."""
    versions = ", ".join(f"{name} {installed_version(name)}" for name in (*_PACKAGES, *packages))
    load = f", load average {os.getloadavg()[0]:.1f} at the end of the run" if hasattr(os, "getloadavg") else ""
    return (
        f"Machine: {_processor()}, {os.cpu_count()} cores, {use}{load}. Python {platform.python_version()}, "
        f"{versions}. {datetime.now(UTC):%Y-%m-%d %H:%M} UTC."
    )


def installed_version(package: str) -> str:
    """The version of a distribution, or `absent`."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "absent"


def _processor() -> str:
    """The model name, which `platform` does not know on Linux, with its vector extensions where they are listed."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        fields = dict(line.split(":", 1) for line in info.read_text().splitlines() if ":" in line)
        fields = {key.strip(): value.strip() for key, value in fields.items()}
        flags = fields.get("flags", "").split()
        wide = "AVX-512" if "avx512f" in flags else "AVX2" if "avx2" in flags else "no AVX2"
        name = fields.get("model name", platform.machine())
        return f"{name} (family {fields.get('cpu family', '?')}, model {fields.get('model', '?')}, {wide})"
    return platform.processor() or platform.machine()


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A Markdown table, its first column to the left and the others to the right."""
    ruler = "|".join(["---"] + ["---:"] * (len(columns) - 1))
    return [f"| {' | '.join(columns)} |", f"|{ruler}|", *(f"| {' | '.join(row)} |" for row in rows)]


def write_report(path: Path, lines: Sequence[str]) -> None:
    """Write a Markdown file, and say so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines).rstrip() + "\n")
    print(f"wrote {path}", flush=True)
