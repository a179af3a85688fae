"""Messages between the supervisor and a worker, over a pair of sockets.

Pickled tuples with their length before them: both ends are this program, of one user and one version.
"""

import asyncio
import pickle
import struct
from collections.abc import Callable
from typing import Any, TypeAlias, cast

Message: TypeAlias = tuple[Any, ...]
"""Its kind, then what belongs to it."""

_LENGTH = struct.Struct("!I")
_BACKLOG = 1 << 22
"""Bytes after which to an end that does not read nothing more is sent."""


class Channel(asyncio.Protocol):
    def __init__(self, received: Callable[[Message], None], lost: Callable[[], None]) -> None:
        self._received = received
        self._lost = lost
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclasses of asyncio's.
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._lost()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= _LENGTH.size:
            (length,) = _LENGTH.unpack_from(self._buffer)
            end = _LENGTH.size + length
            if len(self._buffer) < end:
                return
            message = pickle.loads(bytes(self._buffer[_LENGTH.size : end]))
            del self._buffer[:end]
            self._received(message)

    def send(self, *message: Any) -> None:
        """A message, unless the other end has gone or does not read."""
        if self._transport is None or self._transport.get_write_buffer_size() > _BACKLOG:
            return
        body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        self._transport.write(_LENGTH.pack(len(body)) + body)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
