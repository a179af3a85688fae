"""Connections: how long they may take, how many there may be, and how they end.

uvicorn bounds only the time between two requests: a client that sends a byte now and then, or reads none, holds its
connection for ever (tried; its issue 157). Here the parser's callbacks note by when the next part is due, and the
server's tick looks over all connections twice a second: no timer is armed per request.
"""

import asyncio
import math
from collections.abc import Mapping
from time import perf_counter
from typing import Any, NamedTuple, cast

from pydantic_core import to_json
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from .context import HUNG_UP, RECEIVED
from .errors import Malformed, Overloaded, ServiceError, problem_document
from .metrics import Metrics
from .settings import Settings

MAX_HEADER_BYTES = 65536
"""httptools keeps headers as long as they come."""


class Limits(NamedTuple):
    """Seconds, and a number of connections."""

    header: float
    body: float
    write: float
    connections: int

    @classmethod
    def of(cls, settings: Settings) -> "Limits":
        return cls(
            settings.header_timeout_s,
            settings.body_timeout_s,
            settings.write_timeout_s,
            settings.max_connections,
        )


class Connections(ServerState):
    """The connections of one server."""

    def __init__(self, limits: Limits, metrics: Metrics) -> None:
        super().__init__()
        self.limits = limits
        self.metrics = metrics
        self.closing = False
        """Every response from now on is the last of its connection."""

    def sweep(self) -> None:
        """Close the connections whose client keeps the server waiting."""
        now = perf_counter()
        for connection in list(self.connections):
            if isinstance(connection, Connection):
                connection.check(now)
        self.metrics.connections.set(len(self.connections))

    def close_idle(self) -> None:
        """Close those between two requests."""
        for connection in list(self.connections):
            if isinstance(connection, Connection) and connection.idle:
                connection.shutdown()


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with a time for each part of a request."""

    server_state: Connections

    def __init__(
        self,
        config: Config,
        server_state: Connections,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._limits = server_state.limits
        self._part = "header"
        self._due = math.inf
        """By when the part is to be received."""
        self._write_due = math.inf
        self._header_bytes = 0
        self._received = 0.0
        self._serving: RequestResponseCycle | None = None
        self._task: asyncio.Task[None] | None = None

    @property
    def idle(self) -> bool:
        """Between two requests, with nothing of the next one received."""
        return (self.cycle is None or self.cycle.response_complete) and self._due == math.inf

    def check(self, now: float) -> None:
        # Reading is paused while an answer is made: what is late then is not the client.
        if now > self._due and not self.flow.read_paused:
            self._end(self._part)
        elif now > self._write_due:
            self._end("write")

    def _end(self, reason: str) -> None:
        self.server_state.metrics.connections_closed.inc(reason)
        # Not `close`, which waits until what is written has been read.
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > self._limits.connections:
            self.server_state.metrics.connections_closed.inc("limit")
            self._refuse(Overloaded("There are too many connections.", headers={"retry-after": "1"}))
            return
        self._due = perf_counter() + self._limits.header

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # Not always `self.cycle`, which is the last of those that came together.
        cycle, task = self._serving, self._task
        if cycle is not None and task is not None and not cycle.response_complete:
            # Nobody waits for what it does any more.
            cycle.disconnected = True
            _extended(cycle.scope)[HUNG_UP] = True
            task.cancel()

    def data_received(self, data: bytes) -> None:
        if self.parser is None or self.transport.is_closing():
            return
        self._header_bytes += len(data)
        super().data_received(data)
        if self._part == "header" and self._header_bytes > MAX_HEADER_BYTES:
            self._end("header_size")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._received = perf_counter()
        # Those in the same piece, a request before or some of this one, are not counted.
        self._header_bytes = 0
        self._part, self._due = "header", self._received + self._limits.header

    def on_headers_complete(self) -> None:
        _extended(self.scope)[RECEIVED] = self._received
        self._part, self._due = "body", perf_counter() + self._limits.body
        super().on_headers_complete()
        if self.server_state.closing and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        self._due = math.inf
        super().on_message_complete()
        # Paused for a large body, it would not hear that the client hangs up.
        if not self.pipeline:
            self.flow.resume_reading()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        # uvicorn reads on after each answer: a client that sends faster than it is answered would fill the memory.
        if self.pipeline:
            self.flow.pause_reading()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGIApp) -> None:  # type: ignore[override]
        if self.server_state.closing:
            cycle.keep_alive = False
        task = self.loop.create_task(cycle.run_asgi(app))  # type: ignore[arg-type]
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)
        self._serving, self._task = cycle, task

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_due = perf_counter() + self._limits.write

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write_due = math.inf

    def send_400_response(self, msg: str) -> None:
        self._refuse(Malformed("The bytes received are not an HTTP request."))

    def _refuse(self, error: ServiceError) -> None:
        """Answer before there is a request, and close."""
        body = to_json(problem_document(error))
        headers = {
            "content-type": "application/problem+json",
            "content-length": str(len(body)),
            "connection": "close",
            **error.headers,
        }
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self.transport.write(STATUS_LINE[error.status] + f"{head}\r\n".encode() + body)
        self.transport.close()


def _extended(scope: Mapping[str, Any]) -> dict[str, Any]:
    """A scope that takes keys of ours."""
    return cast(dict[str, Any], scope)
