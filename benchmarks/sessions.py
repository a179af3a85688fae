"""One connection at a time, and which cores it is asked from."""

import os
import re
import socket
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import NamedTuple

import numpy as np

from calibrant.arrays import Vector

from .load.serving import pinned

N_PANELS = 64
"""Different ones, taken in turn: none is answered from a warm cache of its own."""


@dataclass(frozen=True, kw_only=True)
class Cores:
    server: tuple[int, ...]
    client: tuple[int, ...]

    @property
    def use(self) -> str:
        def named(cores: tuple[int, ...]) -> str:
            return f"core{'s' if len(cores) > 1 else ''} {', '.join(map(str, cores))}"

        return f"server on {named(self.server)}, client on {named(self.client)}"


def apart() -> Cores:
    """One core for the server and another for the client, where there are two."""
    cores = sorted(os.sched_getaffinity(0))
    return Cores(server=(cores[0],), client=(cores[-1],))


class Exchange(NamedTuple):
    """A request and its answer."""

    seconds: float
    head: bytes
    body: bytes


class Session:
    """A kept connection with one request at a time, by plain sockets: nothing between the clock and the wire."""

    def __init__(self, port: int, patience: float = 60.0) -> None:
        """`patience` is in seconds."""
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=patience)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> "Session":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def exchange(self, request: bytes) -> Exchange:
        began = perf_counter()
        self._socket.sendall(request)
        received = self._socket.recv(65536)
        while (split := received.find(b"\r\n\r\n")) < 0:
            received += self._more()
        head, length = received[:split], split + 4 + _content_length(received[:split])
        while len(received) < length:
            received += self._more()
        return Exchange(perf_counter() - began, head, received[split + 4 :])

    def _more(self) -> bytes:
        more = self._socket.recv(65536)
        if not more:
            raise ConnectionError("The server closed the connection within an answer.")
        return more


def _content_length(head: bytes) -> int:
    found = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
    if found is None:
        raise ValueError("The answer has no Content-Length.")
    return int(found[1])


def stage_ms(head: bytes) -> dict[str, float]:
    """Of `Server-Timing`."""
    found = re.search(rb"(?i)\r\nserver-timing: *([^\r]+)", head)
    if found is None or not head.startswith(b"HTTP/1.1 200"):
        raise ValueError(f"not an answer with timings: {head[:200]!r}")
    return {name.decode(): float(ms) for name, ms in re.findall(rb"(\w+);dur=([\d.]+)", found[1])}


def window(session: Session, requests: Sequence[bytes], seconds: float) -> Iterator[Exchange]:
    """One request after the other for so long."""
    end, i = perf_counter() + seconds, 0
    while perf_counter() < end:
        yield session.exchange(requests[i % len(requests)])
        i += 1


def pace(core: int, seconds: float) -> Vector:
    """Microseconds that a fixed piece of Python takes on a core, again and again for so long.

    In a virtual machine another machine's thread may run on the other half of the core: then everything that runs here
    takes half as long again or more, and no counter inside says so. The least of these is the core by itself.
    """
    taken = []
    with pinned([core]):
        end = perf_counter() + seconds
        while (began := perf_counter()) < end:
            for _ in range(2000):
                pass
            taken.append(1e6 * (perf_counter() - began))
    return np.array(taken)


def at(values: Vector, *quantiles: float) -> list[float]:
    return [round(float(x), 4) for x in np.percentile(values, quantiles)]
