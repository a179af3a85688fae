"""uvicorn's server with an end that loses no request.

SIGTERM: at once the service says that it is not ready, and for `drain_s` goes on as before, so that whoever balances
the load can look elsewhere. Then nothing more is accepted, every answer is the last of its connection and says so, and
connections between two requests are closed only after a moment in which their client could have sent the next:
uvicorn's own end closes them at once, and a request on its way is lost.
"""

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from functools import partial
from time import perf_counter
from types import FrameType
from typing import cast

import uvicorn

from .app import Application
from .connections import Connection, ConnectionLimits, Connections
from .handshakes import SecureListener

log = logging.getLogger("calibrant.service")

LINGER = 1.0
"""Seconds in which a client that is not idle sends its next request."""
SETTLE = 0.3
"""Seconds between the supervisor's close of the socket that all share and that by the workers."""
_SWEEP = 5
"""Ticks of a tenth of a second between two looks at the connections."""


class Server(uvicorn.Server):
    server_state: Connections

    def __init__(self, config: uvicorn.Config, app: Application) -> None:
        super().__init__(config)
        service = self.service = app.service
        self.server_state = Connections(
            ConnectionLimits.of(service.settings), service.metrics, service.memory, app.table.vital
        )
        self.begun: Callable[[], None] = lambda: None
        """Called once, when connections could be accepted."""
        self._drained_at: float | None = None
        self._sockets: list[socket.socket] = []
        self._accepting = asyncio.Lock()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await self.service.start()
        # None of them is accepted from before `accept`.
        await super().startup([])
        self._sockets = sockets or []
        if self.started:
            self.begun()

    async def accept(self, accepting: bool) -> None:
        """Take connections, or leave them to the other workers: also those whose requests would come over what is open.

        The sockets are shared: what waits in them is for whoever accepts.
        """
        async with self._accepting:
            if self.should_exit:
                return
            self.server_state.closing = not accepting
            if accepting and not self.servers:
                for listener in self._sockets:
                    # A descriptor of its own, since it is closed with the server.
                    self.servers.append(await self._accepting_on(listener.dup()))
            elif not accepting:
                for server in self.servers:
                    server.close()
                self.servers.clear()
                self.server_state.close_idle()

    async def _accepting_on(self, listener: socket.socket) -> asyncio.Server:
        config = self.config
        connection = partial(Connection, config, self.server_state, self.lifespan.state)
        if config.ssl is None:
            loop = asyncio.get_running_loop()
            return await loop.create_server(connection, sock=listener, backlog=config.backlog)
        secure = SecureListener(listener, config.ssl, self.server_state, connection)
        secure.open(config.backlog)
        # All that is asked of one of those is to close.
        return cast(asyncio.Server, secure)

    def exit_soon(self) -> None:
        """Stop after the requests in flight."""
        self.should_exit = True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM drains; a second one, and SIGINT, stop after the requests in flight."""
        if sig == signal.SIGTERM and self.started and self._drained_at is None:
            self.drain()
        else:
            self.exit_soon()

    def drain(self) -> None:
        settings = self.service.settings
        log.info("draining: not ready any more, accepting for another %g s", settings.drain_s)
        self.service.draining = True
        self._drained_at = perf_counter() + settings.drain_s + SETTLE

    async def on_tick(self, counter: int) -> bool:
        if counter % _SWEEP == 0:
            self.server_state.sweep()
        if self._drained_at is not None and perf_counter() >= self._drained_at:
            self.should_exit = True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        connections = self.server_state
        self.service.draining = True
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        connections.closing = True
        for connection in list(connections.connections):
            if isinstance(connection, Connection) and not connection.idle and connection.cycle is not None:
                connection.cycle.keep_alive = False
        await self._until_none_is_open(LINGER)
        connections.close_idle()
        await self._until_none_is_open(self.service.settings.stop_s)
        for task in connections.tasks:
            task.cancel("The service is stopping.")
        if not self.force_exit:
            await self.service.stop()

    async def _until_none_is_open(self, seconds: float) -> None:
        state = self.server_state
        end = perf_counter() + seconds
        while (state.connections or state.tasks) and not self.force_exit and perf_counter() < end:
            state.sweep()
            await asyncio.sleep(0.02)
