"""From the body of a batch to its answer, on the lane of batches of the process that has it. Knows no HTTP.

What a worker knows of a batch by its headers is a request here: it can be sent to another process, and says by itself
how it is answered.
"""

import pickle
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from copy import copy
from functools import partial
from typing import Any, BinaryIO, NamedTuple, TypeAlias

from calibrant.steps import Progress

from ..body import mapped
from ..context import RequestContext, due
from ..core import Core
from ..engine import Engine
from ..errors import EngineFailed, NotReady, ServiceError, TooLarge
from ..jobs.progress import progressed
from ..lane import Priority
from ..memory import Hold, of_panel
from ..wire import arrow, oip
from ..wire.arrow import ArrowBatch, ArrowWriter
from ..wire.batch import Batch, BatchLimits, DocumentBatch, JsonWriter, LineWriter, MsgpackWriter, PanelAnswer, Writer
from ..wire.compression import deflate
from ..wire.formats import FORMATS
from .crew import Crew, crew_size
from .groups import AT_A_TIME, GROUP_BYTES, Done, Groups

Piece: TypeAlias = bytes | memoryview
Head: TypeAlias = dict[str, str]
"""Headers that the answer needs."""

_SECONDS_PER_BYTE = 2e-9
"""Time that cutting a body into panels takes."""
_BYTES_PER_ROW = 4096
"""Of memory, for a row of an answer in a table: as numbers of Python's and as written down."""
_PER_READ_BYTE = 40
"""Bytes of memory that a byte of a panel takes while it waits: a number may have no more than one."""
_PIECE = 1 << 18
"""Bytes handed on at a time, so that nobody keeps more than it can send."""


class BatchAnswer(NamedTuple):
    head: Head
    pieces: AsyncGenerator[Piece, None]
    """Of the body. To be closed by who does not read them all: the batch ends with that."""


class BatchContext(NamedTuple):
    """What is known of a batch, beside its panels, while it is answered."""

    request_id: str
    received: float
    """Clock of `time.perf_counter`, which all processes of a machine share."""
    deadline_ms: float | None
    """Of the whole batch."""

    @classmethod
    def of(cls, context: RequestContext) -> "BatchContext":
        return cls(context.request_id, context.received, context.deadline_ms)

    def deadline(self, budget_ms: float | None) -> float | None:
        return due(self.received, budget_ms, self.deadline_ms)


class PanelBatch(NamedTuple):
    """Documents or an Arrow stream, the body as it came."""

    asked: BatchContext
    media_type: str
    """Content type of the body."""
    wanted: str
    """Content type of the answer."""

    async def answer(self, at: "BatchAnswers", body: memoryview, hold: Hold) -> "BatchAnswer":
        return await at.documents(self, body, hold)


class TensorBatch(NamedTuple):
    """Tensors of several rows, the body an `Inference`, pickled."""

    asked: BatchContext
    version: str | None
    """Of the network, if the request names one."""
    encoding: str | None
    """Compression of the answer."""

    async def answer(self, at: "BatchAnswers", body: memoryview, hold: Hold) -> "BatchAnswer":
        hold.grow(len(body))
        return await at.tensors(self, pickle.loads(body), hold)


class AuditRequest(NamedTuple):
    """An answer to be audited, the body an `Answered`, pickled."""

    asked: BatchContext

    async def answer(self, at: "BatchAnswers", body: memoryview, hold: Hold) -> "BatchAnswer":
        await at.core.auditor.audit(pickle.loads(body))
        return BatchAnswer({}, cut(b""))


BatchRequest: TypeAlias = PanelBatch | TensorBatch | AuditRequest


class BatchAnswers:
    """Answers batches in this process."""

    def __init__(self, core: Core) -> None:
        settings = core.settings
        self.core = core
        self.crew = Crew(crew_size(settings))
        self.groups = Groups(core.scheduler, self.crew)
        self._panels, self._panel_bytes = settings.max_batch_panels, settings.max_body_bytes

    async def answer(self, request: BatchRequest, body: BinaryIO) -> BatchAnswer:
        deadline = request.asked.deadline(None)
        if deadline is not None:
            self.core.scheduler.require_reachable(Priority.BULK, deadline)
        hold = self.core.memory.hold()
        try:
            head, pieces = await request.answer(self, mapped(body), hold)
        except BaseException:
            hold.close()
            raise
        return BatchAnswer(head, _holding(pieces, hold))

    def stop(self) -> None:
        self.crew.stop()

    async def documents(self, request: PanelBatch, body: memoryview, hold: Hold) -> BatchAnswer:
        core, asked = self.core, request.asked
        engine = core.engine
        batch = await core.scheduler.run(
            partial(_opened, body, request.media_type, BatchLimits(self._panels, self._panel_bytes, hold.grow)),
            priority=Priority.BULK,
            deadline=asked.deadline(None),
            cost=_SECONDS_PER_BYTE * len(body),
        )
        hold.grow(self._working_bytes(batch))
        writer = _writer(request.wanted, batch)
        groups = self._calibrated(engine, batch, asked, writer.part)
        if request.wanted == LineWriter.media_type:
            return BatchAnswer({"content-type": request.wanted}, _joined(await anext(groups), groups))
        parts = []
        async with aclosing(groups):
            async for group in groups:
                hold.grow(sum(map(_part_bytes, group)))
                parts += [done.part for done in group]
        content = await core.scheduler.run(partial(writer.whole, parts), priority=Priority.BULK)
        return _whole(content, {"content-type": request.wanted})

    async def tensors(self, request: TensorBatch, inference: oip.Inference, hold: Hold) -> BatchAnswer:
        """raises  the problem of the first row, if none has a result"""
        core, model = self.core, inference.model
        engine = core.engine
        n, most = inference.n_panels, self._panels
        if n > most:
            raise TooLarge(f"The tensors must have at most {most} rows, but have {n}.")
        served = engine.network_version(model.name)
        if request.version not in (None, served):
            # The worker that was asked has it: one of the two is being reloaded.
            raise NotReady(f"Batches are answered by version {served} of {model.name} at the moment.")
        hold.grow(n * (inference.largest_panel + _BYTES_PER_ROW) + self._working_bytes(inference))
        rows: list[oip.Row] = []
        refusals: list[ServiceError] = []
        async for group in self._calibrated(engine, inference, request.asked, partial(_row, inference)):
            rows += [done.part for done in group]
            refusals += [done.outcome for done in group if isinstance(done.outcome, ServiceError)]
        if len(refusals) == len(rows):
            # Not the one in the list: by its traceback it would hold this frame, and so itself.
            raise copy(refusals[0])
        encoded = partial(encoded_rows, inference, served, rows, request.encoding)
        return _whole(*await core.scheduler.run(encoded, priority=Priority.BULK))

    def _working_bytes(self, batch: Batch) -> int:
        """Of the panels that are calibrated at a time: read they wait in two groups, finished is one by each thread."""
        read = AT_A_TIME * _PER_READ_BYTE * (GROUP_BYTES * self.crew.size + batch.largest_panel)
        return read + of_panel(batch.largest_panel) * self.crew.size

    async def _calibrated(
        self, engine: Engine, batch: Batch, asked: BatchContext, finish: Callable[[PanelAnswer], Any]
    ) -> AsyncGenerator[list[Done[Any]], None]:
        """The panels in groups, counted in the metrics as they are done."""
        self.core.metrics.batch_size.observe(batch.n_panels)
        n_done = 0
        async with aclosing(self.groups.run(engine, batch, asked.deadline, finish)) as groups:
            async for group in groups:
                for done in group:
                    self._count(done, asked.request_id)
                n_done += len(group)
                progressed(Progress(n_done, batch.n_panels))
                yield group

    def _count(self, done: Done[Any], request_id: str) -> None:
        metrics = self.core.metrics
        if isinstance(done.outcome, ServiceError):
            metrics.problems.inc(done.outcome.code)
            if isinstance(done.outcome, EngineFailed):
                metrics.engine_failures.inc()
        elif done.job is not None:
            self.core.answered(done.job, done.outcome, request_id)


def encoded_rows(
    inference: oip.Inference, version: str, rows: Sequence[oip.Row], encoding: str | None
) -> tuple[bytes, Head]:
    """The body of an answer in tensors and the headers that describe it."""
    content, length = oip.encode_answer(inference, version, rows)
    head = {} if length is None else {oip.HEADER_LENGTH: str(length)}
    if encoding is not None:
        content = deflate(content, encoding)
        head |= {"content-encoding": encoding, "vary": "accept-encoding"}
    return content, head


def _part_bytes(done: Done[Any]) -> int:
    """Of a part of an answer until it has been sent: by itself, then in the whole."""
    part = done.part
    return 2 * len(part) if isinstance(part, bytes) else _BYTES_PER_ROW


async def _holding(pieces: AsyncGenerator[Piece, None], hold: Hold) -> AsyncGenerator[Piece, None]:
    """Give the memory back when they have been sent, or nobody wants them."""
    with hold:
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece


def _whole(content: bytes, head: Head) -> BatchAnswer:
    return BatchAnswer({**head, "content-length": str(len(content))}, cut(content))


async def cut(content: Piece) -> AsyncGenerator[Piece, None]:
    view = memoryview(content)
    for begin in range(0, len(view), _PIECE):
        yield view[begin : begin + _PIECE]


async def _joined(
    first: list[Done[bytes]], others: AsyncGenerator[list[Done[bytes]], None]
) -> AsyncGenerator[Piece, None]:
    async with aclosing(others):
        yield b"".join(done.part for done in first)
        async for group in others:
            yield b"".join(done.part for done in group)


def _opened(body: memoryview, media_type: str, limits: BatchLimits) -> Batch:
    if media_type == arrow.MEDIA_TYPE:
        return ArrowBatch(body, limits)
    return DocumentBatch(body, FORMATS[media_type], limits)


_WRITERS: Mapping[str, Writer[Any]] = {each.media_type: each for each in (JsonWriter(), MsgpackWriter(), LineWriter())}


def _writer(media_type: str, batch: Batch) -> Writer[Any]:
    if media_type == arrow.MEDIA_TYPE:
        return ArrowWriter(batch if isinstance(batch, ArrowBatch) else None)
    return _WRITERS[media_type]


def _row(inference: oip.Inference, answer: PanelAnswer) -> oip.Row:
    return oip.row_of(answer.outcome, inference)
