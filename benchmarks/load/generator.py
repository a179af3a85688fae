"""One process that sends a plan's requests when they are due.

Plain sockets around epoll: half the work per request of asyncio, and a clock to microseconds where event loops round to
milliseconds. Each connection has one request at a time; a request that finds all of them busy opens another one, up to
the limit, then waits, and its latency goes on counting.
"""

import gc
import os
import pickle
import re
import select
import socket
import sys
from collections import deque
from dataclasses import dataclass, field
from time import perf_counter

import httptools
import msgspec
import numpy as np

from calibrant.arrays import IntVector, Vector

from .plan import ANSWERED, HELD, LOST, SILENT, UNCONNECTED, UNSENT, WRONG, Plan, Records, get

READY = b"ready\n"
"""What a generator says when it could begin."""
_PROBE_EVERY = 0.05
_FIRST_PROBE = 1.0
_MOST_BACKLOG = 200_000
_CODE = re.compile(rb'"code":\s*"(\w+)"')


@dataclass(eq=False)
class _Target:
    port: int
    up: bool = True
    free: dict[int, list["_Connection"]] = field(default_factory=dict)
    n_open: dict[int, int] = field(default_factory=dict)


class _Connection:
    """One socket; the parser's callbacks are its methods."""

    def __init__(self, run: "Generator", target: _Target, stream: int) -> None:
        self.run = run
        self.target = target
        self.stream = stream
        self.request = _NONE
        self.out = b""
        self.retry_after = False
        self.body = b""
        self.connected = False
        self.events = select.EPOLLOUT
        self.parser = httptools.HttpResponseParser(self)
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.socket.setblocking(False)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.connect_ex((run.plan.host, target.port))

    def begin(self, request: int, content: bytes) -> None:
        self.request, self.out = request, content
        self.retry_after, self.body = False, b""
        if self.connected:
            self.write()

    def write(self) -> None:
        try:
            sent = self.socket.send(self.out)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close(LOST)
            return
        self.out = self.out[sent:]
        self.watch(select.EPOLLIN | (select.EPOLLOUT if self.out else 0))

    def watch(self, events: int) -> None:
        if events != self.events:
            self.events = events
            self.run.epoll.modify(self.socket, events)

    def on_event(self, events: int) -> None:
        if not self.connected:
            if self.socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self.close(UNCONNECTED)
                return
            self.connected = True
            if self.out:
                self.write()
            else:
                self.watch(select.EPOLLIN)
            return
        if events & select.EPOLLOUT:
            self.write()
        if events & ~select.EPOLLOUT:
            try:
                data = self.socket.recv(262144)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self.close(LOST)
                return
            try:
                self.parser.feed_data(data)
            except httptools.HttpParserError:
                self.close(LOST)

    def on_header(self, name: bytes, value: bytes) -> None:
        if name.lower() == b"retry-after":
            self.retry_after = True

    def on_body(self, body: bytes) -> None:
        self.body += body

    def on_message_complete(self) -> None:
        request, self.request = self.request, _NONE
        self.run.answered(request, self.parser.get_status_code(), self.body, self.retry_after, self.target)
        if self.parser.should_keep_alive():
            self.parser = httptools.HttpResponseParser(self)
            self.run.freed(self)
        else:
            self.close(LOST)

    def close(self, outcome: str) -> None:
        """Close it; a request that waits for an answer gets this outcome."""
        if self.socket.fileno() >= 0:
            self.run.epoll.unregister(self.socket)
            self.run.by_descriptor.pop(self.socket.fileno())
            self.socket.close()
            self.run.gone(self, outcome)


_OK = 200
_PROBES = -1
"""Of the streams: questions for readiness."""
_PROBE, _NONE = -1, -2
"""Of the requests: one of those, and that a connection has none."""


class _Parameters(msgspec.Struct):
    parameters: dict[str, float]


class Generator:
    """Sends what is due and notes what comes."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.epoll = select.epoll()
        self.by_descriptor: dict[int, _Connection] = {}
        self.targets = [_Target(port) for port in plan.ports]
        self.turn = 0
        self.due, self.stream = _schedule(plan)
        n = self.due.size
        self.sent, self.done = np.full(n, np.nan), np.full(n, np.nan)
        self.outcome = np.zeros(n, dtype=np.int64)
        self.retry_after = np.zeros(n, dtype=bool)
        self.outcomes = [UNSENT]
        self.outcome_numbers = {UNSENT: 0}
        self.backlog: dict[int, deque[int]] = {i: deque() for i in range(len(plan.streams))}
        self.counts = np.zeros(len(plan.streams), dtype=int)
        self.place = np.zeros(n, dtype=np.int64)
        """Which of its stream's requests each one is."""
        for i in range(len(plan.streams)):
            mine = np.flatnonzero(self.stream == i)
            self.place[mine] = np.arange(mine.size) % len(plan.streams[i].requests)
        self.parameters = msgspec.json.Decoder(_Parameters)
        self.start = 0.0
        self.outstanding = 0

    def run(self) -> Records:
        plan = self.plan
        # Nothing of a run is garbage before its end.
        gc.collect()
        gc.disable()
        if plan.heed_readiness:
            self.find_ready()
        self.start = perf_counter()
        due, streams = self.due.tolist(), self.stream.tolist()
        end = max(stream.begin + stream.seconds for stream in plan.streams)
        next_probe = 0.0 if plan.heed_readiness else np.inf
        i, n = 0, len(due)
        while True:
            now = perf_counter() - self.start
            while i < n and due[i] <= now:
                self.dispatch(i, streams[i])
                i += 1
            if now >= next_probe:
                self.probe()
                next_probe = now + _PROBE_EVERY
            if now > end + plan.after or (now > end and i == n and self.outstanding == 0):
                break
            wake = min(due[i] if i < n else end + plan.after, next_probe, now + 0.1)
            self.turn_once(wake - (perf_counter() - self.start))
        gc.enable()
        for connection in list(self.by_descriptor.values()):
            connection.close(SILENT)
        return Records(
            self.stream, self.due, self.sent, self.done, self.outcome, self.retry_after, tuple(self.outcomes)
        )

    def turn_once(self, seconds: float) -> None:
        """Wait so long for anything to happen, and see to it."""
        # epoll's own timeout is rounded to milliseconds, select's is not, and can watch an epoll.
        select.select([self.epoll], [], [], max(seconds, 0.0))
        for descriptor, events in self.epoll.poll(0):
            connection = self.by_descriptor.get(descriptor)
            if connection is not None:
                connection.on_event(events)

    def find_ready(self) -> None:
        """Ask every target before the first request is due."""
        for target in self.targets:
            target.up = False
        self.probe()
        end = perf_counter() + _FIRST_PROBE
        while perf_counter() < end and not all(target.free.get(_PROBES) for target in self.targets):
            self.turn_once(0.01)

    def dispatch(self, request: int, stream: int) -> None:
        up = [target for target in self.targets if target.up]
        if not up:
            self.note(request, HELD)
            return
        limit = self.plan.streams[stream].connections
        for _ in up:
            self.turn += 1
            target = up[self.turn % len(up)]
            free = target.free.setdefault(stream, [])
            if free:
                self.send(free.pop(), request)
                return
            if target.n_open.get(stream, 0) < limit:
                self.send(self.connect(target, stream), request)
                return
        if len(self.backlog[stream]) < _MOST_BACKLOG:
            self.backlog[stream].append(request)

    def connect(self, target: _Target, stream: int) -> _Connection:
        connection = _Connection(self, target, stream)
        target.n_open[stream] = target.n_open.get(stream, 0) + 1
        self.by_descriptor[connection.socket.fileno()] = connection
        self.epoll.register(connection.socket, connection.events)
        return connection

    def send(self, connection: _Connection, request: int) -> None:
        stream = connection.stream
        self.outstanding += 1
        self.sent[request] = perf_counter() - self.start
        connection.begin(request, self.plan.streams[stream].requests[self.place[request]])

    def probe(self) -> None:
        for target in self.targets:
            if not target.n_open.get(_PROBES):
                self.connect(target, _PROBES).begin(_PROBE, get("/health/ready", target.port))
            elif target.free.get(_PROBES):
                target.free[_PROBES].pop().begin(_PROBE, get("/health/ready", target.port))

    def answered(self, request: int, status: int, body: bytes, retry_after: bool, target: _Target) -> None:
        if request == _PROBE:
            target.up = status == _OK
        if request < 0:
            return
        self.outstanding -= 1
        self.done[request] = perf_counter() - self.start
        self.retry_after[request] = retry_after
        if status == _OK:
            self.note(request, ANSWERED if self.as_expected(request, body) else WRONG)
        else:
            code = _CODE.search(body)
            self.note(request, code[1].decode() if code else f"http_{status}")

    def as_expected(self, request: int, body: bytes) -> bool:
        expected = self.plan.streams[self.stream[request]].expected
        if expected is None:
            return True
        wanted = expected[self.place[request]]
        try:
            given = self.parameters.decode(body).parameters
        except msgspec.DecodeError:
            return False
        return wanted.keys() == given.keys() and all(
            abs(given[name] - value) <= 1e-9 * abs(value) for name, value in wanted.items()
        )

    def note(self, request: int, outcome: str) -> None:
        if outcome not in self.outcome_numbers:
            self.outcome_numbers[outcome] = len(self.outcomes)
            self.outcomes.append(outcome)
        self.outcome[request] = self.outcome_numbers[outcome]

    def freed(self, connection: _Connection) -> None:
        backlog = self.backlog.get(connection.stream)
        if backlog:
            self.send(connection, backlog.popleft())
        else:
            connection.target.free.setdefault(connection.stream, []).append(connection)

    def gone(self, connection: _Connection, outcome: str) -> None:
        target, stream = connection.target, connection.stream
        target.n_open[stream] -= 1
        free = target.free.get(stream, [])
        if connection in free:
            free.remove(connection)
        if stream == _PROBES:
            target.up = target.up and connection.request == _NONE
        elif connection.request >= 0:
            self.outstanding -= 1
            self.note(connection.request, outcome)
        backlog = self.backlog.get(stream)
        if backlog and outcome != SILENT:
            self.dispatch(backlog.popleft(), stream)


def _schedule(plan: Plan) -> tuple[Vector, IntVector]:
    """When each request is due and of which stream it is, in the order of time."""
    due: list[Vector] = []
    stream: list[IntVector] = []
    for i, each in enumerate(plan.streams):
        rng = np.random.default_rng((plan.seed, i))
        n = round(each.rate * each.seconds)
        # Poisson arrivals, given their count, are so many points in that time, uniform.
        poisson = each.arrivals == "poisson"
        places: Vector = np.sort(rng.uniform(0.0, 1.0, n)) if poisson else np.linspace(0.0, 1.0, n, endpoint=False)
        due.append(each.begin + each.seconds * places)
        stream.append(np.full(n, i))
    order = np.argsort(np.concatenate(due), kind="stable")
    return np.concatenate(due)[order], np.concatenate(stream)[order]


def work() -> None:
    """A generator process: a plan from its input, the word to start is the end of that, the records to its output."""
    plan, cores = pickle.load(sys.stdin.buffer)
    if cores:
        os.sched_setaffinity(0, cores)
    prepared = Generator(plan)
    sys.stdout.buffer.write(READY)
    sys.stdout.buffer.flush()
    sys.stdin.buffer.read()
    sys.stdout.buffer.write(pickle.dumps(prepared.run()))
