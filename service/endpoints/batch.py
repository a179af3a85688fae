"""`POST /v1/calibrate/batch`."""

from collections.abc import AsyncGenerator
from contextlib import aclosing

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ..batches.answers import BatchContext, PanelBatch, Piece
from ..body import Turns, body_file_of
from ..context import context_of
from ..jobs.requests import Submission
from ..service import service_of
from ..wire import arrow
from ..wire.batch import LineWriter
from ..wire.formats import FORMATS, preferred, require_media_type, require_plain
from . import jobs

TAKEN = (*FORMATS, arrow.MEDIA_TYPE)
GIVEN = (*FORMATS, LineWriter.media_type, arrow.MEDIA_TYPE)


async def calibrate_batch(request: Request) -> Response:
    """Calibrate a model to each of many panels. A bad panel gets a problem in its place and fails no other.

    With `Prefer: respond-async` the answer is a job, at the path of `Location`, and the results are its result.

    With `Accept: application/x-ndjson` there is a line per panel as it finishes: its answer or problem as JSON, with
    `index`, its position in the request.

    An Arrow stream holds a row per quote, with the columns of `quotes` and `panel`, and is answered by one with a row
    per panel; its schema's metadata may name `calibrant.model` and `calibrant.refine`.
    """
    service, context = service_of(request), context_of(request.scope)
    require_plain(context.headers)
    media_type = require_media_type(context.headers, TAKEN)
    wanted = preferred(context.headers.get("accept", ""), (media_type, *GIVEN))
    batch = PanelBatch(BatchContext.of(context), media_type, wanted)
    turns = Turns(service.admission.give_way)
    with await body_file_of(request, turns) as body:
        if jobs.is_preferred(context):
            return jobs.accepted(await service.jobs.answer(Submission(context.owner, "batch", batch), body))
        head, pieces = await service.jobs.answer(batch, body)
    return StreamingResponse(_in_turn(pieces, turns), headers=head)


async def _in_turn(pieces: AsyncGenerator[Piece, None], turns: Turns) -> AsyncGenerator[Piece, None]:
    async with aclosing(pieces):
        async for piece in pieces:
            await turns.passed(len(piece))
            yield piece
