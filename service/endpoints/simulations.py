"""`POST /v1/leverage` and `POST /v1/one-touch`."""

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ..batches.answers import BatchContext
from ..body import Turns, body_file_of
from ..context import context_of
from ..jobs.simulations import Kind, Simulation
from ..service import service_of
from ..wire.formats import FORMATS, preferred, require_media_type, require_plain
from . import jobs


async def leverage(request: Request) -> Response:
    """Calibrate the leverage function of a stochastic local volatility model to a surface.

    Answered at once where it is expected to take less than a second. Else, or with `Prefer: respond-async`, the answer
    is a job, at the path of `Location`, and the leverage its result. `id` names it in requests for prices under it.
    """
    return await _answered(request, "leverage")


async def one_touch(request: Request) -> Response:
    """Price one-touches and no-touches under Black-Scholes, local, stochastic or stochastic local volatility.

    At once or later, as a leverage is calibrated.
    """
    return await _answered(request, "one_touch")


async def _answered(request: Request, kind: Kind) -> Response:
    service, context = service_of(request), context_of(request.scope)
    require_plain(context.headers)
    media_type = require_media_type(context.headers, FORMATS)
    wanted = preferred(context.headers.get("accept", ""), (media_type, *FORMATS))
    later = jobs.is_preferred(context)
    asked = Simulation(BatchContext.of(context), context.owner, kind, media_type, wanted, later)
    with await body_file_of(request, Turns(service.admission.give_way)) as body:
        answer = await service.jobs.answer(asked, body)
    if "job-id" in answer.head:
        return jobs.accepted(answer, later)
    return StreamingResponse(answer.pieces, headers=answer.head)
