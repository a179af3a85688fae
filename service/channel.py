"""Messages between the supervisor and one of its processes, over a pair of sockets; either end may ask the other.

Pickled tuples with their length before them: both ends are this program, of one user and one version.
"""

import asyncio
import pickle
import struct
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any, TypeAlias, cast

Message: TypeAlias = tuple[Any, ...]
"""A message: its kind, then what belongs to it."""

_LENGTH = struct.Struct("!I")
_BACKLOG = 1 << 22
"""Bytes after which to an end that does not read nothing more is sent."""


class Channel(asyncio.Protocol):
    def __init__(
        self,
        told: Callable[[Message], None],
        lost: Callable[[], None],
        asked: Callable[[str], Awaitable[Any]],
    ) -> None:
        """
        told   takes what the other end says
        lost   is called when it has gone
        asked  answers what it asks
        """
        self._told = told
        self._lost = lost
        self._asked = asked
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._questions = count()
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._tasks: set[asyncio.Task[None]] = set()

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

    def _received(self, message: Message) -> None:
        match message:
            case ("ask", question, what):
                task = asyncio.get_running_loop().create_task(self._answer(question, what))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case ("answer", question, answer):
                waiting = self._answers.get(question)
                if waiting is not None and not waiting.done():
                    waiting.set_result(answer)
            case _:
                self._told(message)

    async def _answer(self, question: int, what: str) -> None:
        self.tell("answer", question, await self._asked(what))

    def tell(self, *message: Any) -> None:
        """A message, unless the other end has gone or does not read."""
        if self._transport is None or self._transport.get_write_buffer_size() > _BACKLOG:
            return
        body = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
        self._transport.write(_LENGTH.pack(len(body)) + body)

    async def ask(self, what: str, seconds: float) -> Any:
        """raises  TimeoutError if the other end does not answer within so many seconds"""
        question = next(self._questions)
        answer = self._answers[question] = asyncio.get_running_loop().create_future()
        self.tell("ask", question, what)
        try:
            return await asyncio.wait_for(answer, seconds)
        finally:
            del self._answers[question]

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
