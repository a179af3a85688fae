"""Connections: how long they may take, how many there may be, and how they end.

uvicorn bounds only the time between two requests: a client that sends a byte now and then, or reads none, holds its
connection for ever (tried; its issue 157). Here the parser's callbacks note by when the next part is due, and the
server's tick looks over all connections twice a second: no timer is armed per request.

Nor does it wait for a body before it hands a request on: those whose bodies never come would take the places of those
whose have. Here a request begins when it is whole, or when its body is large, which must be let in first.

Nor does it bound what is no body: endless trailers took two gigabytes, and of tiny chunks a quarter of a megabyte held
the event loop up for 0.3 s (tried). Here trailers are not kept, and what is not body is limited; a client that floods
within the limit is the proxy's to hold back.
"""

import asyncio
import logging
import math
import resource
from collections.abc import Callable, Mapping
from time import perf_counter
from typing import Any, NamedTuple, cast

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser, parse_url
from pydantic_core import to_json
from starlette.types import ASGIApp
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import HIGH_WATER_LIMIT, FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle
from uvicorn.server import ServerState

from .context import HUNG_UP, RECEIVED, hold_of
from .errors import Malformed, Overloaded, ServiceError, problem_document
from .headers import whole_number
from .memory import Hold, Memory
from .metrics import Metrics
from .settings import Settings

log = logging.getLogger("calibrant.service")

MAX_HEADER_BYTES = 65536
"""httptools keeps headers, and trailers, as long as they come."""
_SLICE = 4096
"""Bytes parsed between two looks at how many were no body: most requests are one or two."""
RESERVED = 32
"""Connections beyond the limit, for whoever asks how the service is: a full service is not one to be restarted."""
_RESERVED_S = 1.0
"""Seconds in which one of those asks."""
_OTHER_DESCRIPTORS = 256
"""Files that a worker has open beside its connections: its own, and some for every batch."""
_SILENCE = 60.0
"""Seconds between two lines in the log that say the same."""
_FULL = "There are too many connections."
_NO_HTTP = "The bytes received are not an HTTP request."


class ConnectionLimits(NamedTuple):
    """Seconds, and a number of connections."""

    header: float
    body: float
    write: float
    connections: int

    @classmethod
    def of(cls, settings: Settings) -> "ConnectionLimits":
        """Of connections no more than there are descriptors for: who accepts one too many can open nothing else."""
        descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        room = max(descriptors - RESERVED - _OTHER_DESCRIPTORS, 1)
        if room < settings.max_connections:
            log.warning(
                "%d connections instead of %d: the system lets this process open no more than %d files",
                *(room, settings.max_connections, descriptors),
            )
        return cls(
            settings.header_timeout_s,
            settings.body_timeout_s,
            settings.write_timeout_s,
            min(settings.max_connections, room),
        )


class Connections(ServerState):
    """The connections of one server."""

    def __init__(
        self, limits: ConnectionLimits, metrics: Metrics, memory: Memory, vital: Callable[[str], bool]
    ) -> None:
        """`vital`: whether a path is answered beyond the limit too."""
        super().__init__()
        self.vital = vital
        self.limits = limits
        self.metrics = metrics
        self.memory = memory
        self.handshakes: dict[Connection, asyncio.Task[None]] = {}
        """Connections that are not secured yet."""
        self.closing = False
        """Every response from now on is the last of its connection."""
        self._said = -math.inf
        """When the log was told that there are too many."""
        metrics.connections_limit.set(limits.connections)

    @property
    def n_open(self) -> int:
        return len(self.connections) + len(self.handshakes)

    def over(self, more: int = 0) -> int:
        """By how many connections the limit is exceeded, with so many more."""
        return max(self.n_open + more - self.limits.connections, 0)

    def patience(self, more: int = 0) -> float | None:
        """Seconds that the next part of what has just come is waited for, with so many more; None if it is too many."""
        over = self.over(more)
        if over:
            now = perf_counter()
            if now - self._said > _SILENCE:
                self._said = now
                log.warning("the limit of %d connections is reached", self.limits.connections)
        if over > RESERVED:
            return None
        return min(self.limits.header, _RESERVED_S) if over else self.limits.header

    def count(self, reason: str) -> None:
        """A connection that the server closes."""
        self.metrics.connections_closed.inc(reason)

    def sweep(self) -> None:
        """Close the connections whose client keeps the server waiting."""
        now = perf_counter()
        for connection in list(self.connections):
            if isinstance(connection, Connection):
                connection.check(now)
        self.metrics.connections.set(self.n_open)
        self.metrics.handshakes.set(len(self.handshakes))

    def close_idle(self) -> None:
        """Close those between two requests, and those before the first."""
        for handshake in self.handshakes.values():
            handshake.cancel()
        for connection in list(self.connections):
            if isinstance(connection, Connection) and connection.idle:
                connection.shutdown()


class Flow(FlowControl):
    """uvicorn's, which reads on whenever an application asks for more: not while it is held."""

    held = False

    def resume_reading(self) -> None:
        if not self.held:
            super().resume_reading()


class JoiningTransport:
    """The transport of one answer: joins its first two writes, the head and the first piece of the body, into one.

    Each write is a system call and a packet, for which the client wakes: 30 us of the median round trip.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._head: bytes | memoryview | None = None
        self._begun = False
        self._write = transport.write
        self.close = transport.close
        self.is_closing = transport.is_closing

    def write(self, data: bytes | memoryview) -> None:
        if self._begun:
            self._write(data)
        elif self._head is None:
            self._head = data
        else:
            self._begun = True
            self._write(b"".join((self._head, data)))


class Connection(HttpToolsProtocol):
    """uvicorn's protocol with a time for each part of a request."""

    server_state: Connections
    flow: Flow

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
        """When the part must have been received."""
        self._write_due = math.inf
        self._idle_until = math.inf
        """When it is closed if no request comes."""
        self._header_bytes = 0
        """Received and no body: headers, trailers, what chunks say of themselves, as far as it exceeds the body."""
        self._received = 0.0
        self._reserved = False
        """Whether it is one beyond the limit."""
        self._kept = server_state.memory.hold()
        """Memory of what was received and nobody has begun on."""
        self._unsent: list[Hold] = []
        """Memory of answers that their client has not taken yet."""
        self._complaint: ServiceError = Malformed(_NO_HTTP)
        self._refusal: ServiceError | None = None
        """What could not be understood, to be said once the requests before it are answered."""
        self._incomplete: tuple[RequestResponseCycle, ASGIApp] | None = None
        """The next to be served, once it is whole."""
        self._serving: RequestResponseCycle | None = None
        self._task: asyncio.Task[None] | None = None
        self._expecting = False
        """Whether the client waited to be told to send the body of what is served."""

    @property
    def idle(self) -> bool:
        """Between two requests, with nothing of the next one received."""
        answered = self.cycle is None or self.cycle.response_complete
        return answered and self._due == math.inf

    def check(self, now: float) -> None:
        # Reading is paused while an answer is made: what is late then is not the client.
        if now > self._due and not self.flow.read_paused:
            if self._reserved and self._part == "header":
                self._refuse_over()
            else:
                self._end(self._part)
        elif now > self._write_due:
            self._end("write")
        elif now > self._idle_until:
            self.transport.close()

    def _end(self, reason: str) -> None:
        self.server_state.count(reason)
        # Not `close`, which waits until what is written has been read.
        self.transport.abort()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self.server_state.handshakes.pop(self, None)
        super().connection_made(transport)
        self.flow = Flow(transport)
        patience = self.server_state.patience()
        if patience is None:
            self._refuse_over()
            return
        self._reserved = self.server_state.over() > 0
        self._due = perf_counter() + patience

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._kept.close()
        self._release_sent()
        # Not always `self.cycle`, which is the last of those that came together.
        cycle, task = self._serving, self._task
        if cycle is not None and task is not None and not cycle.response_complete:
            # Nobody waits for what it does any more.
            cycle.disconnected = True
            _extended(cycle.scope)[HUNG_UP] = True
            task.cancel()

    def data_received(self, data: bytes) -> None:
        self._idle_until = math.inf
        view = memoryview(data)
        for begin in range(0, len(view), _SLICE):
            if self._deaf:
                return
            piece = view[begin : begin + _SLICE]
            self._header_bytes += len(piece)
            self._feed(piece)
            if self._header_bytes > MAX_HEADER_BYTES and not self._deaf:
                self._end("header_size")
        if self.pipeline:
            self._hold()
        self._weigh()

    def _weigh(self) -> None:
        """Count what waits here: thousands of connections with a body each that never ends would fill the memory."""
        cycles = [cycle for cycle, _ in self.pipeline]
        if self._incomplete is not None:
            cycles.append(self._incomplete[0])
        kept = sum(len(cycle.body) for cycle in cycles)
        if kept != self._kept.n_bytes and not self._deaf:
            try:
                self._kept.resize(kept)
            except ServiceError as error:
                self._refuse_next(error)

    def _hold(self) -> None:
        """Read on, or not: a client that sends faster than it is answered would fill the memory."""
        self.flow.held = bool(self.pipeline)
        cycle = self.cycle
        if self.flow.held:
            self.flow.pause_reading()
        elif cycle is None or cycle.response_complete or not cycle.more_body or len(cycle.body) <= HIGH_WATER_LIMIT:
            # Also when all has come: or nobody would hear that the client hangs up.
            self.flow.resume_reading()

    @property
    def _deaf(self) -> bool:
        """Whether nothing more is listened to."""
        return self.parser is None or self._refusal is not None or self.transport.is_closing()

    def _feed(self, data: bytes | memoryview) -> None:
        try:
            self.parser.feed_data(data)
        except HttpParserUpgrade as offer:
            # Told apart here from `HttpParserError`, of which it is a kind.
            self._decline()
            if not self._deaf:
                self._feed(data[offer.args[0] :])
        except HttpParserError:
            self._refuse_next(self._complaint)

    def _decline(self) -> None:
        """Serve a request that offers to go on in another protocol as if it had not offered.

        httptools ends it with its headers, so that its body would be taken for the next request: whoever speaks through
        a proxy could say in the name of others what he likes.
        """
        method, received = self.parser.get_method(), self._received
        if method == b"CONNECT":
            self._refuse_next(Malformed("This is no proxy."))
            return
        options = b",".join(value for name, value in self.headers if name == b"connection").lower()
        kept = [(name, value) for name, value in self.headers if name not in (b"connection", b"upgrade")]
        if b"close" in options:
            kept.append((b"connection", b"close"))
        version = self.parser.get_http_version().encode()
        lines = [b"%s %s HTTP/%s" % (method, self.url, version), *(b"%s: %s" % header for header in kept)]
        self.parser = HttpRequestParser(self)
        # As uvicorn sets its own: what comes after the last request is nothing.
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        self._feed(b"\r\n".join(lines) + b"\r\n\r\n")
        _extended(self.scope)[RECEIVED] = received

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._received = perf_counter()
        self._header_bytes = 0
        self._part, self._due = "header", self._received + self._limits.header

    def on_header(self, name: bytes, value: bytes) -> None:
        # What follows a body is not part of what was let in by its headers.
        if self._part == "header":
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        hosts = [name for name, _ in self.headers].count(b"host")
        if hosts > 1 or (hosts == 0 and self.parser.get_http_version() == "1.1"):
            # RFC 9112, 3.2.
            self._complaint = Malformed(f"A request must have one Host header, but has {hosts}.")
            raise ValueError
        if self._reserved and not self.server_state.vital((parse_url(self.url).path or b"").decode("latin-1")):
            self._complaint = Overloaded(_FULL)
            raise ValueError
        _extended(self.scope)[RECEIVED] = self._received
        super().on_headers_complete()
        if self._reserved and self.cycle is not None:
            self.cycle.keep_alive = False
        self._part, self._due = "body", perf_counter() + self._limits.body
        if self.server_state.closing and self.cycle is not None:
            self.cycle.keep_alive = False

    def on_body(self, body: bytes) -> None:
        self._header_bytes = max(self._header_bytes - 2 * len(body), 0)
        super().on_body(body)
        if self._incomplete is not None and len(self.cycle.body) > HIGH_WATER_LIMIT:
            # Of unknown length, and large.
            self._begin(*self._incomplete)

    def on_message_complete(self) -> None:
        if self.parser.should_upgrade():
            return
        self._due = math.inf
        super().on_message_complete()
        if self._incomplete is not None:
            self._begin(*self._incomplete)
        # Paused for a large body, it would not hear that the client hangs up.
        if not self.pipeline:
            self.flow.resume_reading()

    def on_response_complete(self) -> None:
        last = not self.pipeline
        unsent = self._expecting and self._serving is not None and self._serving.more_body
        self.server_state.total_requests += 1
        held = None if self._serving is None else hold_of(self._serving.scope)
        if held is not None and self._write_due < math.inf:
            # Its application has done with it, and would give back what still waits here to be sent.
            self._unsent.append(held.part(self.transport.get_write_buffer_size()))
        if self.transport.is_closing():
            return
        # Not uvicorn's, which arms a timer for the next request.
        if last:
            self._idle_until = perf_counter() + self.timeout_keep_alive
        else:
            self._start_asgi_task(*self.pipeline.pop())  # type: ignore[arg-type]
        if self._refusal is not None and last:
            self._refuse(self._refusal)
        elif unsent:
            # Its client may or may not send the body now (RFC 9110, 10.1.1): what comes next cannot be told.
            self.transport.close()
        if not self._deaf:
            self._hold()
            self._weigh()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGIApp) -> None:  # type: ignore[override]
        declared = next((value for name, value in cycle.scope["headers"] if name == b"content-length"), b"0")
        # What is no length the parser has refused.
        large = max(whole_number(declared.decode()) or 0, len(cycle.body)) > HIGH_WATER_LIMIT
        if cycle.more_body and not large and not cycle.waiting_for_100_continue:
            self._incomplete = cycle, app
        else:
            self._begin(cycle, app)

    def _begin(self, cycle: RequestResponseCycle, app: ASGIApp) -> None:
        self._incomplete = None
        if self.server_state.closing:
            cycle.keep_alive = False
        if not cycle.waiting_for_100_continue and cycle.scope["method"] != "HEAD":
            # Of those the head is not the first that is written, or the last.
            cycle.transport = cast(asyncio.Transport, JoiningTransport(self.transport))
        task = self.loop.create_task(cycle.run_asgi(app))  # type: ignore[arg-type]
        task.add_done_callback(self.tasks.discard)
        self.tasks.add(task)
        self._serving, self._task = cycle, task
        self._expecting = cycle.waiting_for_100_continue

    def pause_writing(self) -> None:
        super().pause_writing()
        self._write_due = perf_counter() + self._limits.write

    def resume_writing(self) -> None:
        super().resume_writing()
        self._write_due = math.inf
        self._release_sent()

    def _release_sent(self) -> None:
        for held in self._unsent:
            held.close()
        self._unsent.clear()

    def _refuse_next(self, error: ServiceError) -> None:
        """Refuse what cannot be understood, in its turn: the first answer is that to the first request."""
        self.server_state.count("malformed" if isinstance(error, Malformed) else "limit")
        in_body = self._part == "body" and self._due < math.inf
        self._due = math.inf
        if in_body and self.pipeline:
            # It is not whole, and would wait for its rest.
            self.pipeline.popleft()
        elif in_body and self.cycle.response_started:
            # Answered before it was whole. Half an answer ends with the connection.
            self.transport.close()
            return
        elif in_body:
            # Nor is it to be answered by whoever has begun on it.
            self._incomplete, self.cycle.disconnected = None, True
            self._refuse(error)
            return
        if self._serving is None or self._serving.response_complete:
            self._refuse(error)
        else:
            self._refusal = error

    def _refuse_over(self) -> None:
        self._due = math.inf
        self.server_state.count("limit")
        self._refuse(Overloaded(_FULL))

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
