"""A load run: what is to be sent, and what became of it."""

import ipaddress
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from calibrant.arrays import BoolVector, IntVector, Vector

LONGEST_RUN = 900.0
"""Seconds: no run is left behind for ever."""
AFTER = 3.0
"""Seconds that answers are waited for after the last request."""

ANSWERED, WRONG = "answered", "wrong"
LOST, UNCONNECTED, SILENT = "lost", "unconnected", "silent"
HELD, UNSENT = "held", "unsent"
"""Outcomes; the others are the codes of refusals. Lost: the connection closed without an answer. Silent: no answer by
the end. Held: no target was ready. Unsent: the generator did not come to it."""
FAILED = (WRONG, LOST, UNCONNECTED, SILENT)


@dataclass(frozen=True, kw_only=True)
class Stream:
    """Requests of one kind."""

    name: str
    rate: float
    """A second."""
    seconds: float
    requests: tuple[bytes, ...]
    """Whole HTTP/1.1 requests, sent in turn."""
    begin: float = 0.0
    """Seconds after the start of the run."""
    connections: int = 256
    """At most, to each target."""
    arrivals: str = "poisson"
    """`poisson`, or `even`."""
    expected: tuple[dict[str, float], ...] | None = None
    """The parameters that the answer to each request must hold."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run."""

    ports: tuple[int, ...]
    streams: tuple[Stream, ...]
    host: str = "127.0.0.1"
    seed: int = 1
    heed_readiness: bool = False
    """Send only to targets whose `/health/ready` says 200, as a load balancer does."""
    after: float = AFTER

    def __post_init__(self) -> None:
        if not ipaddress.ip_address(self.host).is_loopback:
            raise ValueError(f"`host` must be of this machine, but is {self.host}.")
        end = max(stream.begin + stream.seconds for stream in self.streams) + self.after
        if end > LONGEST_RUN:
            raise ValueError(f"A run must take at most {LONGEST_RUN:g} s, but takes {end:g} s.")


class Records(NamedTuple):
    """What became of every request: arrays of one length. Times in seconds after the start of the run."""

    stream: IntVector
    due: Vector
    sent: Vector
    """NaN if it was not."""
    done: Vector
    """NaN without an answer."""
    outcome: IntVector
    """Index into `outcomes`."""
    retry_after: BoolVector
    outcomes: tuple[str, ...]

    def of(self, stream: int, begin: float = 0.0, end: float = np.inf) -> "Records":
        """Those of a stream that were due in a span of time."""
        mine = (self.stream == stream) & (self.due >= begin) & (self.due < end)
        return self._replace(
            stream=self.stream[mine],
            due=self.due[mine],
            sent=self.sent[mine],
            done=self.done[mine],
            outcome=self.outcome[mine],
            retry_after=self.retry_after[mine],
        )

    @property
    def latency(self) -> Vector:
        return self.done - self.due

    def count(self, *outcomes: str) -> int:
        wanted = [i for i, outcome in enumerate(self.outcomes) if outcome in outcomes]
        return int(np.isin(self.outcome, wanted).sum())

    def where(self, outcome: str) -> BoolVector:
        if outcome not in self.outcomes:
            return np.zeros(self.due.size, dtype=bool)
        found: BoolVector = self.outcome == self.outcomes.index(outcome)
        return found


def post(path: str, body: bytes, content_type: str = "application/json", **headers: str) -> bytes:
    """A whole request; header names with underscores."""
    named = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
    head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {content_type}\r\n"
    return f"{head}content-length: {len(body)}\r\n{named}\r\n".encode() + body


def get(path: str, port: int = 0) -> bytes:
    return f"GET {path} HTTP/1.1\r\nhost: localhost:{port}\r\n\r\n".encode()
