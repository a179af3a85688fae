"""Faults injected while requests come: what was lost, what was wrong, how long until all was as before.

    python -m benchmarks.load.faults [--only NAME ...]

For each fault a service of its own, requests at a steady rate by the open-loop generator, and the fault in the middle.
The generator heeds `/health/ready`, as a load balancer does: with several instances it sends to those that are ready,
and where none is, a request is held and counted as such. It never tries a request again, so what a client with retries
would not notice is counted as lost. Every answer is compared with the one given before the fault: one that differs in
the ninth digit is wrong. Writes docs/results/faults.{json,md}.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter, sleep
from typing import Any

from reporting.machine import RESULTS, table

from ..quoted_panels import quoted_panels
from ..sections import record, recorded
from . import serving
from .plan import ANSWERED, WRONG, Plan, Records, Stream, post
from .running import Running, quantiles_ms, summary
from .serving import Serving

N_PANELS = 16
DRAIN_S = 2.0
RELOAD_MS = 20.0
REPLACED_S = 10.0
SECTION = "faults"
_BEFORE = 0.25
"""Share of a run before the fault."""
_LINES_LOST = "calibrant_log_lines_lost_total"


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What every fault is given."""

    rate: float
    seconds: float
    networks: Path
    cores: tuple[int, ...]
    bodies: tuple[bytes, ...]

    @property
    def at(self) -> float:
        """When the fault comes, seconds after the start of the run."""
        return _BEFORE * self.seconds


@dataclass(frozen=True)
class Outcome:
    """What a fault did, beside what the generator saw."""

    records: Records
    notes: dict[str, Any]
    """Figures by name; durations in seconds."""
    sound: bool = True
    """Whether what must happen beside the answers did."""


def service(setting: Setting, **settings: Any) -> Serving:
    given = {"networks": setting.networks, "drain_s": DRAIN_S, "log_level": "info", **settings}
    return serving.service(setting.cores, **given)


def load(setting: Setting, *servers: Serving, also: Sequence[Stream] = ()) -> Running:
    """Start the requests, each to be answered as the first server answers it now."""
    expected = serving.parameters_of(servers[0], setting.bodies)
    steady = Stream(
        name="requests",
        rate=setting.rate,
        seconds=setting.seconds,
        requests=tuple(post("/v1/calibrate", body) for body in setting.bodies),
        expected=tuple(expected),
    )
    ports = tuple(server.port for server in servers)
    return Running(Plan(ports=ports, streams=(steady, *also), heed_readiness=True, after=12.0))


def until(condition: Callable[[], bool], seconds: float = 120.0) -> float:
    """Seconds until it holds.

    raises  TimeoutError
    """
    began = perf_counter()
    while not condition():
        if perf_counter() > began + seconds:
            raise TimeoutError("The service did not come to where it should be.")
        sleep(0.05)
    return perf_counter() - began


def n_ready(server: Serving) -> float:
    try:
        return server.metric("calibrant_ready")
    except OSError:
        return 0.0


# Faults ---------------------------------------------------------------------------------------------------------------


def sigterm(setting: Setting) -> Outcome:
    """SIGTERM to the only instance."""
    with service(setting) as server:
        running = load(setting, server.wait_until_answering())
        sleep(running.at(setting.at))
        server.signal(signal.SIGTERM)
        began = perf_counter()
        status = server.process.wait(120.0)
        notes = {"exit status": status, "seconds to its end": perf_counter() - began}
        return Outcome(running.result(), notes, sound=status == 0)


def rolling(setting: Setting) -> Outcome:
    """Two instances ended by SIGTERM and started again, one after the other."""
    with ExitStack() as stack:
        servers = [stack.enter_context(service(setting)) for _ in range(2)]
        for server in servers:
            server.wait_until_answering()
        running = load(setting, *servers)
        sleep(running.at(setting.at))
        statuses = []
        for server in servers:
            server.signal(signal.SIGTERM)
            statuses.append(server.process.wait(120.0))
            again = stack.enter_context(service(setting, port=server.port))
            again.wait_until_answering()
            # A balancer must have seen it before the next one goes.
            sleep(0.5)
        notes = {"exit statuses": statuses, "seconds for both": setting.seconds - running.at(setting.seconds)}
        in_time = running.at(setting.seconds) > 0.0
        return Outcome(running.result(), notes, sound=statuses == [0, 0] and in_time)


def reload(setting: Setting) -> Outcome:
    """SIGHUP: the networks are loaded, verified, warmed and swapped."""
    with service(setting) as server:
        running = load(setting, server.wait_until_answering())
        sleep(running.at(setting.at))
        server.signal(signal.SIGHUP)
        # The worker, then the job process.
        seconds = until(lambda: server.metric('calibrant_reloads_total{outcome="done"}') == 2.0)
        records = running.result()
        during = records.of(0, setting.at, setting.at + seconds)
        p99 = quantiles_ms(during.latency[during.done > 0]).get("p99", float("nan"))
        notes = {"seconds to the new networks": seconds, "p99 meanwhile, ms": p99}
        return Outcome(records, notes, sound=p99 <= RELOAD_MS)


@contextmanager
def _copied(networks: Path) -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "networks"
        shutil.copytree(networks, copy)
        yield copy


def corrupted(setting: Setting) -> Outcome:
    """The network's file is damaged on disk, then SIGHUP: the old one must stay."""
    with _copied(setting.networks) as networks, service(setting, networks=networks) as server:
        running = load(setting, server.wait_until_answering())
        sleep(running.at(setting.at))
        for file in networks.rglob("*.onnx"):
            content = bytearray(file.read_bytes())
            content[len(content) // 2] ^= 0xFF
            file.write_bytes(content)
        server.signal(signal.SIGHUP)
        seconds = until(lambda: server.metric('calibrant_reloads_total{outcome="failed"}') == 2.0)
        return Outcome(running.result(), {"seconds to the refusal": seconds}, sound=server.answers("/health/ready"))


def killed(setting: Setting) -> Outcome:
    """SIGKILL to one of two workers."""
    return _bereaved(setting, signal.SIGKILL)


def stopped(setting: Setting) -> Outcome:
    """SIGSTOP to one of two workers: it hangs, and is replaced."""
    return _bereaved(setting, signal.SIGSTOP)


def _bereaved(setting: Setting, sent: signal.Signals) -> Outcome:
    with service(setting, workers=2) as server:
        server.wait_until_answering()
        until(lambda: n_ready(server) == 2.0)
        running = load(setting, server)
        sleep(running.at(setting.at))
        before = server.workers()
        os.kill(before[0], sent)
        began = perf_counter()
        until(lambda: before[0] not in server.workers())
        gone = perf_counter() - began
        until(lambda: n_ready(server) == 2.0)
        both = perf_counter() - began
        notes = {"seconds until it was gone": gone, "seconds until two served": both}
        return Outcome(running.result(), notes, sound=both <= REPLACED_S)


def raising(setting: Setting) -> Outcome:
    """An engine that raises on some requests, among good ones."""
    return _faulty(setting, n_quotes=8)


def not_a_number(setting: Setting) -> Outcome:
    """A network that answers NaN to some requests, among good ones."""
    return _faulty(setting, n_quotes=9)


def hanging(setting: Setting) -> Outcome:
    """An engine that never comes back from one request, among good ones, two workers."""
    return _faulty(setting, n_quotes=7, once=True, workers=2)


def _faulty(setting: Setting, n_quotes: int, once: bool = False, workers: int = 1) -> Outcome:
    """`tests.service.faulty` tells its faults by the number of quotes."""
    body = json.loads(setting.bodies[0])
    body["quotes"] = {name: column[:n_quotes] for name, column in body["quotes"].items()}
    bad = Stream(
        name="faulty",
        rate=1.0 if once else 0.1 * setting.rate,
        seconds=1.0 if once else setting.seconds - setting.at,
        begin=setting.at,
        requests=(post("/v1/calibrate", json.dumps(body).encode()),),
    )
    with service(setting, module="tests.service.faulty", workers=workers) as server:
        server.wait_until_answering()
        until(lambda: n_ready(server) == workers)
        records = load(setting, server, also=(bad,)).result()
        # All of the faulty ones must be refused, not one answered.
        of_faulty = summary(records.of(1), bad.seconds)
        refused = {code: each["count"] for code, each in of_faulty["refusals"].items()} | of_faulty["failed"]
        until(lambda: n_ready(server) == workers)
        return Outcome(records, {"faulty requests": refused}, sound=of_faulty["answered"] == 0)


@contextmanager
def _disk() -> Iterator[Path]:
    """A file system of a megabyte.

    raises  subprocess.CalledProcessError for anyone but root
    """
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", "--lazy", folder], check=True)


def log_full(setting: Setting) -> Outcome:
    """The disk of the log, a file system of its own, is full for a quarter of the run."""
    with _disk() as disk, service(setting, log=disk / "log", log_requests=True, log_format="json") as server:
        running = load(setting, server.wait_until_answering())
        sleep(running.at(setting.at))
        filler = disk / "filler"
        with filler.open("wb", 0) as file, suppress(OSError):
            while True:
                file.write(b"x" * 512)
        sleep(running.at(2.0 * setting.at))
        filler.unlink()
        lost, size = server.metric(_LINES_LOST), (disk / "log").stat().st_size
        records = running.result()
        lost_later = server.metric(_LINES_LOST) - lost
        later = (disk / "log").read_bytes()[size:].splitlines()
    # The first may be the rest of one that the disk cut in two; what is whole can be read.
    whole = [json.loads(line) for line in later[1:]]
    notes = {"lines lost": int(lost), "lost when there was room again": int(lost_later), "lines then": len(whole)}
    return Outcome(records, notes, sound=lost > 0.0 and lost_later == 0.0 and len(whole) > 0)


@contextmanager
def _collector() -> Iterator[tuple[Path, "subprocess.Popen[bytes]"]]:
    """A pipe, and the process that reads what is written to it."""
    with tempfile.TemporaryDirectory() as folder:
        pipe = Path(folder) / "log"
        os.mkfifo(pipe)
        collector = subprocess.Popen(["wc", "-l", str(pipe)], stdout=subprocess.PIPE)
        try:
            yield pipe, collector
        finally:
            collector.kill()
            collector.wait()


def log_blocked(setting: Setting) -> Outcome:
    """Whoever reads the log through a pipe is stopped for half of the run, and then goes on."""
    with _collector() as (pipe, collector):
        with service(setting, log=pipe, log_requests=True, log_format="json") as server:
            running = load(setting, server.wait_until_answering())
            sleep(running.at(setting.at))
            collector.send_signal(signal.SIGSTOP)
            sleep(running.at(3.0 * setting.at))
            collector.send_signal(signal.SIGCONT)
            records = running.result()
            lost = server.metric(_LINES_LOST)
        # It ends when the service, which alone writes, has ended.
        lines = int(collector.communicate(timeout=60.0)[0].split()[0])
    notes = {"lines lost": int(lost), "lines read": lines}
    return Outcome(records, notes, sound=lost == 0.0 and lines >= records.count(ANSWERED))


FAULTS: dict[str, Callable[[Setting], Outcome]] = {
    "sigterm": sigterm,
    "rolling": rolling,
    "reload": reload,
    "corrupted": corrupted,
    "killed": killed,
    "stopped": stopped,
    "raising": raising,
    "not_a_number": not_a_number,
    "hanging": hanging,
    "log_full": log_full,
    "log_blocked": log_blocked,
}
LOSSLESS = ("sigterm", "rolling", "reload", "corrupted", "raising", "not_a_number", "log_full", "log_blocked")
"""In the others a process ends with requests inside, and those are lost."""


def disturbance(records: Records) -> float:
    """Seconds from the first request that got no answer to the last."""
    due = records.due[~records.where(ANSWERED)]
    return float(due.max() - due.min()) if due.size else 0.0


def data_of(name: str, setting: Setting, outcome: Outcome) -> dict[str, Any]:
    found = summary(outcome.records.of(0), setting.seconds)
    lost = sum(count for fault, count in found["failed"].items() if fault != WRONG)
    good = outcome.sound and not found["void"] and not found["failed"].get(WRONG, 0)
    if name == "hanging":
        good = good and disturbance(outcome.records.of(0)) <= REPLACED_S
    if name in LOSSLESS:
        good = good and not lost and not found["refusals"]
    return {
        "does": (FAULTS[name].__doc__ or "").strip(),
        "rate": setting.rate,
        "seconds": setting.seconds,
        "requests": found,
        "lost": lost,
        "wrong": found["failed"].get(WRONG, 0),
        "disturbed_s": disturbance(outcome.records.of(0)),
        "notes": outcome.notes,
        "as_wanted": bool(good),
    }


def lines_of(data: dict[str, dict[str, Any]]) -> list[str]:
    rows, notes = [], []
    for name in (name for name in FAULTS if name in data):
        each = data[name]
        found = each["requests"]
        ms = found["latency_ms"]
        lost = {outcome: count for outcome, count in found["failed"].items() if outcome != WRONG}
        rows.append(
            [
                name + (" (VOID)" if found["void"] else ""),
                f"{each['rate']:g}",
                str(found["requests"]),
                str(found["answered"]),
                _listed({code: refused["count"] for code, refused in found["refusals"].items()}),
                _listed(lost),
                str(each["wrong"]),
                str(found["held"]),
                f"{each['disturbed_s']:.1f}",
                *(f"{ms[q]:.1f}" if ms else "none" for q in ("p50", "p99", "max")),
                "yes" if each["as_wanted"] else "NO",
            ]
        )
        told = "; ".join(f"{key} {_short(value)}" for key, value in each["notes"].items())
        notes.append(f"- {name}: {each['does']} {told[:1].upper()}{told[1:]}.")
    columns = ["fault", "a second", "due", "200", "refused", "lost", "wrong", "held", "disturbed, s"]
    return [
        "## Requests lost",
        "Latencies of the answers, from when they were due, in milliseconds; disturbed is the time from the first "
        "request without an answer to the last. Wanted: nothing wrong ever; nothing lost "
        f"and nothing refused in {', '.join(LOSSLESS)}; p99 at most {RELOAD_MS:g} ms during a reload; a worker that "
        f"ends or hangs replaced within {REPLACED_S:g} s.",
        "",
        *table([*columns, "p50", "p99", "max", "as wanted"], rows),
        "",
        *notes,
    ]


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {what}" for what, count in counts.items()) or "0"


def _short(value: Any) -> str:
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=tuple(FAULTS), default=list(FAULTS), metavar="NAME")
    parser.add_argument("--rate", type=float, default=100.0, help="requests a second, default 100")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each run, default 30; `rolling` takes 60")
    parser.add_argument("--networks", type=Path, default=Path("networks"))
    parser.add_argument("--out", type=Path, default=RESULTS / "faults", help="page, without its suffix")
    given = parser.parse_args()
    if os.geteuid() != 0 and "log_full" in given.only:
        print("log_full is left out: only root may make the file system that it fills", file=sys.stderr)
        given.only.remove("log_full")
    cores = tuple(sorted(os.sched_getaffinity(0)))
    bodies = tuple(quoted_panels(N_PANELS).bodies())
    bad = []
    for name in given.only:
        seconds = 2.0 * given.seconds if name == "rolling" else given.seconds
        setting = Setting(rate=given.rate, seconds=seconds, networks=given.networks, cores=cores, bodies=bodies)
        data = data_of(name, setting, FAULTS[name](setting))
        print(f"{name}: {data['lost']} lost, {data['wrong']} wrong, {data['notes']}", flush=True)
        if not data["as_wanted"]:
            bad.append(name)
        done = {**(recorded(given.out, SECTION) or {}), name: data}
        record(given.out, "# Faults under load", {SECTION: lines_of}, SECTION, done, "server and client on all of them")
    if bad:
        print(f"not as wanted: {', '.join(bad)}", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
