"""TLS connections before they are any: clients that connect and say nothing, or speak plainly.

The event loop's own server tells nobody of a connection before its handshake is over, and gives that a minute: three
thousand sockets that never began one were not counted, held for as long, and took every descriptor there was, of which
nothing was logged (tried). Here a connection counts from when it is accepted, and has as long for its handshake as for
the headers.
"""

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import Callable

from .connections import Connection, Connections

log = logging.getLogger("calibrant.service")

_AT_ONCE = 64
"""Connections accepted before others have their turn."""
_PAUSE = 1.0
"""Seconds until the next try where none can be accepted."""
_GONE = (ConnectionResetError, BrokenPipeError)


class SecureListener:
    """Accepts connections on a socket, and hands them on once they are secured."""

    def __init__(
        self,
        listener: socket.socket,
        context: ssl.SSLContext,
        connections: Connections,
        connection: Callable[[], Connection],
    ) -> None:
        """`connection` makes what goes on with one; the listener is closed with this."""
        self._listener = listener
        self._context = context
        self._connections = connections
        self._connection = connection
        self._loop = asyncio.get_running_loop()
        self._open = False

    def open(self, backlog: int) -> None:
        self._listener.setblocking(False)
        self._listener.listen(backlog)
        self._open = True
        self._listen()

    def close(self) -> None:
        """Accept no more."""
        if self._open:
            self._open = False
            self._loop.remove_reader(self._listener)
            self._listener.close()

    def _listen(self) -> None:
        if self._open:
            self._loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        for _ in range(_AT_ONCE):
            try:
                accepted, _ = self._listener.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    # It would be tried again at once, and in vain.
                    log.error("no connection can be accepted: %s", error)
                    self._loop.remove_reader(self._listener)
                    self._loop.call_later(_PAUSE, self._listen)
                # Another worker has taken it, or its client has gone.
                return
            self._take(accepted)

    def _take(self, accepted: socket.socket) -> None:
        patience = self._connections.patience(1)
        if patience is None:
            # Nobody can be told in a language not yet agreed upon.
            self._connections.count("limit")
            accepted.close()
            return
        accepted.setblocking(False)
        connection = self._connection()
        handshake = self._loop.create_task(self._secure(accepted, connection, patience))
        self._connections.handshakes[connection] = handshake

    async def _secure(self, accepted: socket.socket, connection: Connection, seconds: float) -> None:
        try:
            await self._loop.connect_accepted_socket(
                lambda: connection,
                accepted,
                ssl=self._context,
                ssl_handshake_timeout=seconds,
                ssl_shutdown_timeout=seconds,
            )
        except _GONE:
            pass
        except OSError:
            # Too slow, or no TLS.
            self._connections.count("handshake")
        finally:
            self._connections.handshakes.pop(connection, None)
