"""How work gets from a worker to the job process, and what comes of it back.

For each request a worker makes a pair of connected sockets and sends one of them, with the request and its body, by a
socket that all processes of the service were given. The supervisor holds both ends of that, so what waits there
outlives a job process that does not come to read it. The body is a file in memory: nothing is copied, and who gives up
before it was taken empties it, since it may wait there for long. The answer comes back over the pair as frames. Either
end closes it when it gives up, and so the other one hears of it.

Requests and refusals are pickled: both ends are this program, of one user and one version.
"""

import asyncio
import logging
import os
import pickle
import socket
import struct
from collections.abc import AsyncGenerator
from contextlib import aclosing
from time import perf_counter
from typing import BinaryIO, NamedTuple

from ..audit import Answered
from ..batches.answers import AuditRequest, BatchAnswer, BatchContext, Piece
from ..body import empty_unless_sealed, memory_file, seal
from ..errors import DeadlineExpired, EngineFailed, Interrupted, NotReady, Overloaded, refusal_of
from ..lane import GRACE
from .requests import Answering, Request

log = logging.getLogger("calibrant.service")

TAKEN_WITHIN = 10.0
"""Seconds in which the job process takes a request, unless it is being replaced."""
LATE = 5.0
"""Seconds past its deadline after which what was taken is not waited for: the job process heeds it by itself, but may
be given little of the processor to write down what it has."""
_MOST = 65536
"""Bytes of a request."""
_HEADER = struct.Struct("!cI")
_TAKEN, _HEAD, _PIECE, _END, _REFUSED = b"t", b"h", b"p", b"e", b"r"


class _Frame(NamedTuple):
    kind: bytes
    content: bytes


class Handover:
    """The worker's end."""

    def __init__(self, outbox: socket.socket) -> None:
        # Python 3.11 passes on none of the flags that `send_fds` and `recv_fds` are given.
        outbox.setblocking(False)
        self._outbox = outbox

    async def answer(self, request: Request, body: BinaryIO | None = None) -> BatchAnswer:
        """raises  NotReady if no job process takes it, Interrupted if it ends; Overloaded; what it is refused for"""
        with memory_file() as nothing:
            frames = self._frames(request, body or nothing)
            head = await anext(frames)
        return BatchAnswer(pickle.loads(head.content), _pieces(frames))

    async def audit(self, answer: Answered) -> None:
        """raises  as `answer`"""
        with memory_file() as body:
            pickle.dump(answer, body)
            told = await self.answer(AuditRequest(BatchContext(answer.request_id, perf_counter(), None)), body)
        # To its end, though nothing is in it: that closes the connection.
        async for _ in told.pieces:
            pass

    def close(self) -> None:
        self._outbox.close()

    async def _frames(self, request: Request, body: BinaryIO) -> AsyncGenerator[_Frame, None]:
        """The head, then the pieces. Whatever ends this closes the connection, and with it the work."""
        deadline = request.asked.deadline(None)
        body.flush()
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=ours)
        try:
            with theirs:
                await self._taken(reader, theirs, request, body, deadline)
            try:
                async with asyncio.timeout(_rest(deadline, LATE)):
                    frame = await _received(reader)
            except TimeoutError:
                raise DeadlineExpired("The job process did not answer by the deadline.") from None
            while frame.kind != _END:
                if frame.kind == _REFUSED:
                    raise pickle.loads(frame.content)
                yield frame
                frame = await _received(reader)
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Interrupted(
                "The job process has ended with this in its hands; another one is being started."
            ) from None
        finally:
            writer.close()

    async def _taken(
        self,
        reader: asyncio.StreamReader,
        theirs: socket.socket,
        request: Request,
        body: BinaryIO,
        deadline: float | None,
    ) -> None:
        rest = _rest(deadline, GRACE)
        expires = rest is not None and rest < TAKEN_WITHIN
        try:
            socket.send_fds(self._outbox, [pickle.dumps(request)], [theirs.fileno(), body.fileno()])
            theirs.close()
            async with asyncio.timeout(rest if expires else TAKEN_WITHIN):
                await _received(reader)
        except BaseException as error:
            empty_unless_sealed(body)
            if isinstance(error, BlockingIOError):
                raise Overloaded("Others are waiting to be taken already.") from None
            if isinstance(error, TimeoutError) and expires:
                raise DeadlineExpired("The deadline passed while the request waited to be taken.") from None
            if isinstance(error, TimeoutError | ConnectionError | asyncio.IncompleteReadError):
                raise NotReady("The job process does not answer.") from None
            raise


def _rest(deadline: float | None, more: float) -> float | None:
    """Seconds until so much after a deadline."""
    return None if deadline is None else max(deadline + more - perf_counter(), 0.0)


async def _received(reader: asyncio.StreamReader) -> _Frame:
    """raises  IncompleteReadError"""
    kind, length = _HEADER.unpack(await reader.readexactly(_HEADER.size))
    return _Frame(kind, await reader.readexactly(length))


async def _pieces(frames: AsyncGenerator[_Frame, None]) -> AsyncGenerator[Piece, None]:
    async with aclosing(frames):
        async for frame in frames:
            yield frame.content


class Inbox:
    """The other end: takes requests and has them answered."""

    def __init__(self, inbox: socket.socket, answer: Answering) -> None:
        inbox.setblocking(False)
        self._inbox = inbox
        self._answer_to = answer
        self._tasks: set[asyncio.Task[None]] = set()

    def open(self) -> None:
        asyncio.get_running_loop().add_reader(self._inbox, self._take)

    async def close(self, patience: float = 0.0) -> None:
        """Take no more; give up what is under way when it has had so many seconds."""
        asyncio.get_running_loop().remove_reader(self._inbox)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=patience)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._inbox.close()

    def _take(self) -> None:
        try:
            request, descriptors, _, _ = socket.recv_fds(self._inbox, _MOST, 2)
        except BlockingIOError:
            return
        if len(descriptors) < 2:
            # This process has too many open: the worker sees its connection closed.
            log.error("a request could not be taken: too many open files")
            for descriptor in descriptors:
                os.close(descriptor)
            return
        connection, body = socket.socket(fileno=descriptors[0]), os.fdopen(descriptors[1], "rb")
        seal(body)
        task = asyncio.get_running_loop().create_task(self._serve(pickle.loads(request), body, connection))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, request: Request, body: BinaryIO, connection: socket.socket) -> None:
        with body:
            reader, writer = await asyncio.open_connection(sock=connection)
            _send(writer, _TAKEN)
            answering = asyncio.create_task(self._answer(request, body, writer))
            # The worker sends nothing more: all that can come is the end.
            gone = asyncio.create_task(reader.read(1))
            try:
                await asyncio.wait((answering, gone), return_when=asyncio.FIRST_COMPLETED)
            finally:
                # It still sends what was written.
                writer.close()
                for task in (answering, gone):
                    task.cancel()
                await asyncio.gather(answering, gone, return_exceptions=True)

    async def _answer(self, request: Request, body: BinaryIO, writer: asyncio.StreamWriter) -> None:
        # An error that is kept holds by its traceback this frame, and so the body until the collector comes past: the
        # refusal, which may be the error, by a name here; a lost connection by the streams.
        refusal = None
        try:
            try:
                await self._told(request, body, writer)
            except ConnectionError:
                raise
            except Exception as error:
                refusal = refusal_of(error)
                if isinstance(refusal, EngineFailed):
                    log.error("request %s failed: %s", request.asked.request_id, error, exc_info=error)
                _send(writer, _REFUSED, pickle.dumps(refusal))
            await writer.drain()
        except ConnectionError as lost:
            lost.__traceback__ = None
        finally:
            del refusal

    async def _told(self, request: Request, body: BinaryIO, writer: asyncio.StreamWriter) -> None:
        head, pieces = await self._answer_to(request, body)
        async with aclosing(pieces):
            _send(writer, _HEAD, pickle.dumps(head))
            async for piece in pieces:
                _send(writer, _PIECE, piece)
                await writer.drain()
        _send(writer, _END)


def _send(writer: asyncio.StreamWriter, kind: bytes, content: Piece = b"") -> None:
    writer.write(_HEADER.pack(kind, len(content)))
    writer.write(content)
