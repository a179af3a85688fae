"""How a batch gets from the worker that received it to the batch worker, and its answer back.

A worker makes a pair of connected sockets for each batch and sends one of them, with the request and the file of its
body, through a socket that all processes of the service were given: nothing is copied, and the supervisor holds both
ends of it, so what waits there outlives the batch worker that does not come to read it. The answer comes back over the
pair as frames. Whichever end closes it early has the other know: a client that hangs up ends its batch, and a batch
worker that ends the answers of its own.

Requests and refusals are pickled: both ends are this program, of one user and one version.
"""

import asyncio
import logging
import os
import pickle
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import BinaryIO, NamedTuple

from ..errors import NotReady, Overloaded, refusal_of
from .answers import BatchAnswer, BatchRequest, Piece

log = logging.getLogger("calibrant.service")

TAKEN_WITHIN = 10.0
"""Seconds in which the batch worker begins with a batch, unless it is being replaced."""
_MOST = 65536
"""Bytes of a request."""
_HEADER = struct.Struct("!cI")
_TAKEN, _HEAD, _PIECE, _END, _REFUSED = b"t", b"h", b"p", b"e", b"r"


class _Frame(NamedTuple):
    kind: bytes
    content: bytes


class BatchesElsewhere:
    """The worker's end."""

    def __init__(self, outbox: socket.socket) -> None:
        # Python 3.11 passes on none of the flags that `send_fds` and `recv_fds` are given.
        outbox.setblocking(False)
        self._outbox = outbox

    async def answer(self, request: BatchRequest, body: BinaryIO) -> BatchAnswer:
        """raises  NotReady if no batch worker takes it, or it ends; Overloaded; what the batch is refused for"""
        frames = self._frames(request, body)
        head = await anext(frames)
        return BatchAnswer(pickle.loads(head.content), _pieces(frames))

    def stop(self) -> None:
        self._outbox.close()

    async def _frames(self, request: BatchRequest, body: BinaryIO) -> AsyncIterator[_Frame]:
        """The head, then the pieces. Whatever ends this closes the connection, and with it the batch."""
        reader, writer = await self._sent(request, body)
        try:
            try:
                async with asyncio.timeout(TAKEN_WITHIN):
                    frame = await _received(reader)
            except TimeoutError:
                raise NotReady("The batch worker does not answer.") from None
            while frame.kind != _END:
                if frame.kind == _REFUSED:
                    raise pickle.loads(frame.content)
                if frame.kind != _TAKEN:
                    yield frame
                frame = await _received(reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise NotReady("The batch worker has ended; another one is being started.") from None
        finally:
            writer.close()

    async def _sent(self, request: BatchRequest, body: BinaryIO) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                descriptors = [theirs.fileno(), body.fileno()]
                socket.send_fds(self._outbox, [pickle.dumps(request)], descriptors)
            return await asyncio.open_connection(sock=ours)
        except BlockingIOError:
            ours.close()
            raise Overloaded("Other batches are waiting to be taken already.") from None
        except BaseException:
            ours.close()
            raise


async def _received(reader: asyncio.StreamReader) -> _Frame:
    """raises  IncompleteReadError"""
    kind, length = _HEADER.unpack(await reader.readexactly(_HEADER.size))
    return _Frame(kind, await reader.readexactly(length))


async def _pieces(frames: AsyncIterator[_Frame]) -> AsyncIterator[Piece]:
    async for frame in frames:
        yield frame.content


class Inbox:
    """The other end: takes batches and has them answered."""

    def __init__(
        self, inbox: socket.socket, answer: Callable[[BatchRequest, BinaryIO], Awaitable[BatchAnswer]]
    ) -> None:
        inbox.setblocking(False)
        self._inbox = inbox
        self._answer_to = answer
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        asyncio.get_running_loop().add_reader(self._inbox, self._take)

    async def close(self) -> None:
        """Give up what is under way."""
        asyncio.get_running_loop().remove_reader(self._inbox)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _take(self) -> None:
        try:
            request, descriptors, _, _ = socket.recv_fds(self._inbox, _MOST, 2)
        except BlockingIOError:
            return
        connection, body = socket.socket(fileno=descriptors[0]), os.fdopen(descriptors[1], "rb")
        task = asyncio.get_running_loop().create_task(self._serve(pickle.loads(request), connection, body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, request: BatchRequest, connection: socket.socket, body: BinaryIO) -> None:
        with body:
            reader, writer = await asyncio.open_connection(sock=connection)
            answering = asyncio.create_task(self._answer(request, body, writer))
            # The worker sends nothing more: all that can come is the end.
            gone = asyncio.create_task(reader.read(1))
            gone.add_done_callback(lambda _: answering.cancel())
            try:
                await answering
            except (asyncio.CancelledError, ConnectionError):
                answering.cancel()
            finally:
                gone.cancel()
                writer.close()

    async def _answer(self, request: BatchRequest, body: BinaryIO, writer: asyncio.StreamWriter) -> None:
        _send(writer, _TAKEN)
        try:
            head, pieces = await self._answer_to(request, body)
            _send(writer, _HEAD, pickle.dumps(head))
            async for piece in pieces:
                _send(writer, _PIECE, piece)
                await writer.drain()
            _send(writer, _END)
        except Exception as error:
            if isinstance(error, ConnectionError):
                raise
            refusal = refusal_of(error)
            if refusal is not error:
                log.error("request %s failed", request.asked.request_id, exc_info=error)
            _send(writer, _REFUSED, pickle.dumps(refusal))
        await writer.drain()


def _send(writer: asyncio.StreamWriter, kind: bytes, content: Piece = b"") -> None:
    writer.write(_HEADER.pack(kind, len(content)))
    writer.write(content)
