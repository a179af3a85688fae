"""`POST /v1/calibrate/batch`."""

from collections.abc import AsyncIterator, Mapping
from functools import partial
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ..batch import Done
from ..body import large_body_of
from ..context import context_of
from ..openapi import documented
from ..scheduler import Priority
from ..service import Service, service_of
from ..wire import arrow, schema
from ..wire.arrow import ArrowBatch, ArrowWriter
from ..wire.batch import Batch, DocumentBatch, JsonWriter, Limits, LineWriter, MsgpackWriter, Writer
from ..wire.formats import FORMATS, preferred, require_media_type, require_plain

TAKEN = (*FORMATS, arrow.MEDIA_TYPE)
GIVEN = (*FORMATS, LineWriter.media_type, arrow.MEDIA_TYPE)
_SECONDS_PER_BYTE = 2e-9
"""Of cutting a body into panels."""
_PIECE = 1 << 20
"""Bytes handed to the connection at a time, so that it keeps no more than it can send."""


def add_routes(app: FastAPI) -> None:
    app.add_api_route(
        "/v1/calibrate/batch",
        calibrate_batch,
        methods=["POST"],
        response_class=Response,
        **documented(schema.BatchRequest, schema.BatchResponse, TAKEN, GIVEN),
    )


async def calibrate_batch(request: Request) -> Response:
    """Calibrate a model to each of many panels. A bad panel gets a problem in its place and fails no other.

    With `Accept: application/x-ndjson` there is a line per panel as it finishes, with `index`. An Arrow stream holds a
    row per quote, with the columns of `quotes` and `panel`, and is answered by one with a row per panel; its schema's
    metadata may name `calibrant.model` and `calibrant.refine`.
    """
    service, context = service_of(request), context_of(request.scope)
    engine = service.engine
    require_plain(context.headers)
    media_type = require_media_type(context.headers, TAKEN)
    wanted = preferred(context.headers.get("accept", ""), (media_type, *GIVEN))
    body = await large_body_of(request, service.settings.max_batch_body_bytes)
    batch = await service.scheduler.run(
        partial(_opened, body, media_type, Limits(service.settings.max_batch_panels, service.settings.max_body_bytes)),
        priority=Priority.BULK,
        deadline=context.deadline(None),
        cost=_SECONDS_PER_BYTE * len(body),
    )
    service.metrics.batch_size.observe(batch.n_panels)
    writer = _writer(wanted, batch)
    groups = service.batches.run(engine, batch, context.deadline, writer.part)
    first = await anext(groups)
    counted = _counted(service, context.request_id, first, groups)
    if wanted == LineWriter.media_type:
        return StreamingResponse(_joined(counted), media_type=wanted)
    parts = [part async for group in counted for part in group]
    content = await service.scheduler.run(partial(writer.whole, parts), priority=Priority.BULK)
    headers = {"content-length": str(len(content))}
    return StreamingResponse(_pieces(content), media_type=writer.media_type, headers=headers)


def _opened(body: memoryview, media_type: str, limits: Limits) -> Batch:
    if media_type == arrow.MEDIA_TYPE:
        return ArrowBatch(body, limits)
    return DocumentBatch(body, FORMATS[media_type], limits)


def _writer(media_type: str, batch: Batch) -> Writer[Any]:
    if media_type == arrow.MEDIA_TYPE:
        return ArrowWriter(batch.keys if isinstance(batch, ArrowBatch) else None)
    writers: Mapping[str, Writer[Any]] = {
        writer.media_type: writer for writer in (JsonWriter(), MsgpackWriter(), LineWriter())
    }
    return writers[media_type]


async def _counted(
    service: Service, request_id: str, first: list[Done[Any]], groups: AsyncIterator[list[Done[Any]]]
) -> AsyncIterator[list[Any]]:
    """What is kept of each group, its panels counted in the metrics."""
    group: list[Done[Any]] | None = first
    while group is not None:
        service.counted(group, request_id)
        yield [done.part for done in group]
        group = await anext(groups, None)


async def _joined(groups: AsyncIterator[list[bytes]]) -> AsyncIterator[bytes]:
    async for group in groups:
        yield b"".join(group)


async def _pieces(content: bytes) -> AsyncIterator[memoryview]:
    view = memoryview(content)
    for begin in range(0, len(view), _PIECE):
        yield view[begin : begin + _PIECE]
