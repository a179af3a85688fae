"""`POST /v1/calibrate/batch`."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ..batches.answers import BatchContext, PanelBatch, Piece
from ..body import Turns, body_file_of
from ..context import context_of
from ..openapi import documented
from ..service import service_of
from ..wire import arrow, schema
from ..wire.batch import LineWriter
from ..wire.formats import FORMATS, preferred, require_media_type, require_plain

TAKEN = (*FORMATS, arrow.MEDIA_TYPE)
GIVEN = (*FORMATS, LineWriter.media_type, arrow.MEDIA_TYPE)


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
    require_plain(context.headers)
    media_type = require_media_type(context.headers, TAKEN)
    wanted = preferred(context.headers.get("accept", ""), (media_type, *GIVEN))
    batch = PanelBatch(BatchContext.of(context), media_type, wanted)
    turns = Turns(service.admission.give_way)
    with await body_file_of(request, turns) as body:
        head, pieces = await service.batches.answer(batch, body)
    return StreamingResponse(_in_turn(pieces, turns), media_type=wanted, headers=head)


async def _in_turn(pieces: AsyncGenerator[Piece, None], turns: Turns) -> AsyncGenerator[Piece, None]:
    async with aclosing(pieces):
        async for piece in pieces:
            await turns.passed(len(piece))
            yield piece
