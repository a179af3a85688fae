"""A real Prometheus that scrapes the real service under load, with the shipped configuration and rules.

    python -m deploy.tests.watched --seconds 180 --picture docs/figures/dashboard.png

runs it for so long and draws the dashboard from what Prometheus then holds.
"""

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep, time
from typing import Any

import httpx
import pytest
import yaml

from benchmarks.load.traffic import Traffic, settings
from deploy.grafana.picture import draw
from deploy.grafana.queries import Prometheus
from tests.service.process import Server, free_port
from tests.shared import ROOT

SHIPPED = ROOT / "deploy" / "prometheus"
PROXY = ROOT / "deploy" / "proxy" / "haproxy.cfg"
SCRAPE = 2.0
"""Seconds between two scrapes here, where the shipped configuration has five."""
LOAD = 16.0
"""Seconds of load: a handful of scrapes of everything."""


@dataclass(frozen=True)
class Watched:
    """What was watched, once the load has ended."""

    server: Server
    prometheus: Prometheus
    answered: int
    """Single calibrations answered 200, as their clients counted them."""
    began: float
    """Seconds since 1970, of the load."""
    ended: float
    """When all that the load did had been scraped and recorded."""


def shipped_configuration(folder: Path, targets: Mapping[str, int], key: str) -> Path:
    """The shipped configuration in a folder: only addresses, the place of the key, and intervals are others."""
    shutil.copytree(SHIPPED / "rules", folder / "rules")
    for rules in (folder / "rules").iterdir():
        rules.write_text(re.sub(r"^    interval: \w+$", f"    interval: {SCRAPE:g}s", rules.read_text(), flags=re.M))
    (folder / "metrics_key").write_text(key)
    configuration = yaml.safe_load((SHIPPED / "prometheus.yml").read_text())
    every = f"{SCRAPE:g}s"
    configuration["global"] |= {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every}
    for job in configuration["scrape_configs"]:
        port = targets.get(job["job_name"])
        if port is not None:
            job.pop("dns_sd_configs", None)
            job["static_configs"] = [{"targets": [f"127.0.0.1:{port}"]}]
        if "authorization" in job:
            job["authorization"]["credentials_file"] = str(folder / "metrics_key")
    path = folder / "prometheus.yml"
    path.write_text(yaml.safe_dump(configuration, sort_keys=False))
    return path


def proxy_configuration(folder: Path, replica: int, metrics: int, public: int | None = None) -> Path:
    """The shipped proxy without TLS and Docker's name server, before one replica; its ports, of which `public` is for
    clients."""
    text = PROXY.read_text()
    for pattern, replacement in (
        (r"^    bind :8443 .*$", f"    bind 127.0.0.1:{public or free_port()}"),
        (r"^    bind :8404.*$", f"    bind 127.0.0.1:{metrics}"),
        (r"^    server-template .*$", f"    server replica 127.0.0.1:{replica}"),
    ):
        text, n = re.subn(pattern, replacement, text, flags=re.M)
        assert n == 1, f"{PROXY} has no line like {pattern}"
    path = folder / "haproxy.cfg"
    path.write_text(text)
    return path


def made_keys(folder: Path) -> tuple[Path, dict[str, str]]:
    """A file of keys as the service's own command makes them, and the keys."""
    entries: dict[str, Any] = {}
    keys: dict[str, str] = {}
    scopes = {
        "desk": ["calibrate"],
        "greedy": ["price"],
        "odd": ["calibrate", "batch", "price"],
        "prometheus": ["metrics"],
    }
    for name, wanted in scopes.items():
        command = [sys.executable, "-m", "service.auth", name, *wanted]
        made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        entries |= json.loads(made.stdout)
        keys[name] = made.stderr.strip().removeprefix("key, shown only now: ")
    path = folder / "keys.json"
    path.write_text(json.dumps(entries))
    return path, keys


@contextmanager
def started(*command: str, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program that is ended with the block."""
    with log.open("wb") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
        try:
            yield process
        finally:
            process.terminate()
            process.wait(30)


def _until(condition: Any, what: str, seconds: float = 30.0) -> None:
    end = monotonic() + seconds
    while not condition():
        assert monotonic() < end, f"{what} did not come about in {seconds:g} s"
        sleep(0.1)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=2.0).status_code == 200
    except httpx.TransportError:
        return False


@contextmanager
def running(seconds: float = LOAD, odd_pause: float = 0.01) -> Iterator[Watched]:
    """Service, proxy and Prometheus; a worker is lost at first, then come so many seconds of traffic.

    odd_pause  seconds between two requests that are not of the usual kind
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        keys_file, keys = made_keys(folder)
        server = Server(log=folder / "service.log", **settings(keys_file))
        stack.callback(server.kill)
        ports = {"calibrant": server.port, "proxy": free_port(), "prometheus": free_port()}
        proxy = proxy_configuration(folder, server.port, ports["proxy"])
        stack.enter_context(started("haproxy", "-f", str(proxy), log=folder / "haproxy.log"))
        configuration = shipped_configuration(folder, ports, keys["prometheus"])
        address = f"127.0.0.1:{ports['prometheus']}"
        stack.enter_context(
            started(
                "prometheus",
                f"--config.file={configuration}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={address}",
                log=folder / "prometheus.log",
            )
        )
        _until(lambda: _answers(f"http://{address}/-/ready"), "Prometheus's readiness")
        prometheus = Prometheus(f"http://{address}")
        ready = "sum(calibrant_ready) or vector(0)"
        _until(lambda: prometheus.value(ready) == 2, "two workers", 300.0)
        os.kill(server.workers()[0], 9)
        _until(lambda: prometheus.value(ready) == 1, "the loss of a worker")
        _until(lambda: prometheus.value(ready) == 2, "a worker in its place", 60.0)
        began = time()
        traffic = Traffic(server.url, server.process.pid, keys, odd_pause)
        traffic.run(seconds)
        # A scrape of what came last, a rule that records it, and one that reads what that recorded.
        sleep(4.0 * SCRAPE)
        yield Watched(server, prometheus, traffic.answered, began, time())


@pytest.fixture(scope="session")
def watched() -> Iterator[Watched]:
    """One for all tests, its load behind it."""
    with running() as result:
        yield result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=180.0, help="of load, default %(default)g")
    parser.add_argument("--picture", type=Path, required=True)
    arguments = parser.parse_args()
    # As a day has them: now and then.
    with running(arguments.seconds, odd_pause=0.5) as result:
        # Two workers, their clients, Prometheus and the proxy on one machine: what it had to do beside is told.
        note = f"two workers on {os.cpu_count()} cores, load average {os.getloadavg()[0]:.1f}"
        draw(result.prometheus, result.began, result.ended, note, arguments.picture)
    return 0


if __name__ == "__main__":
    sys.exit(main())
