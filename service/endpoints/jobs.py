"""`/v1/jobs/{id}`: what became of work that is long, or was asked for with `Prefer: respond-async`."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ..batches.answers import BatchAnswer, BatchContext, Piece
from ..context import RequestContext, context_of
from ..errors import NotReady, problem_document
from ..jobs.requests import Question
from ..jobs.store import State, event
from ..routing import JSON
from ..service import Service, service_of

_PREFERENCE = "respond-async"


def is_preferred(context: RequestContext) -> bool:
    """Whether the client would rather ask for the answer later (RFC 7240)."""
    preferences = context.headers.get("prefer", "").lower().split(",")
    return any(each.partition(";")[0].strip() == _PREFERENCE for each in preferences)


def accepted(answer: BatchAnswer, preferred: bool = True) -> Response:
    """The answer to work that has become a job, as its client preferred or because it is long."""
    head = {"location": f"/v1/jobs/{answer.head['job-id']}", "retry-after": "1"}
    if preferred:
        head["preference-applied"] = _PREFERENCE
    return StreamingResponse(answer.pieces, 202, head, JSON)


async def state(request: Request) -> Response:
    """The state of a job: how far it has come, and how long it will take yet."""
    answer = await _asked(request, "state")
    return StreamingResponse(answer.pieces, media_type=JSON)


async def events(request: Request) -> Response:
    """The same as server-sent events, `progress` every second and the state's own name at the end.

    The stream ends early where the service is about to stop.
    """
    answer = await _asked(request, "events")
    pieces = _watched(answer.pieces, service_of(request), request.path_params["id"])
    return StreamingResponse(pieces, headers={"cache-control": "no-store"}, media_type="text/event-stream")


async def result(request: Request) -> Response:
    """The result of a job that is done, as it would have come at once; of one that failed its problem."""
    head, pieces = await _asked(request, "result")
    return StreamingResponse(pieces, headers=head)


async def cancel(request: Request) -> Response:
    """End a job; one that has ended is forgotten, with its result."""
    answer = await _asked(request, "cancel")
    return StreamingResponse(answer.pieces, media_type=JSON)


async def _asked(request: Request, what: Literal["state", "events", "result", "cancel"]) -> BatchAnswer:
    context = context_of(request.scope)
    question = Question(BatchContext.of(context), context.owner, request.path_params["id"], what)
    return await service_of(request).jobs.answer(question)


async def _watched(pieces: AsyncGenerator[Piece, None], service: Service, job_id: str) -> AsyncGenerator[Piece, None]:
    try:
        async with aclosing(pieces):
            async for piece in pieces:
                yield piece
                if service.draining:
                    return
    except NotReady as error:
        # The job has ended with its process.
        yield event("failed", {"id": job_id, "state": State.FAILED, "problem": problem_document(error)})
