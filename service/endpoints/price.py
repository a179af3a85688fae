"""`POST /v1/price`."""

from functools import partial

from starlette.requests import Request
from starlette.responses import Response

from ..body import body_of
from ..context import context_of
from ..engine import PriceJob
from ..memory import of_options
from ..service import service_of
from ..wire import schema
from ..wire.documents import price_document
from ..wire.formats import Format, answer_format, request_format
from ..wire.jobs import price_job


async def price(request: Request) -> Response:
    """Prices, implied volatilities and, if asked, gradients of a model with the parameters given."""
    service, context = service_of(request), context_of(request.scope)
    engine = service.engine
    body_format = request_format(context.headers)
    body = await body_of(request)
    decoding = partial(_decoded, body, body_format)
    job = await service.decoded(decoding, len(body), context.deadline(None))
    context.reserve(of_options(job.expiry.size))
    outcome = await service.dispatch.price(engine, job, context.deadline(None))
    answer = answer_format(context.headers, body_format)
    return Response(answer.encode(price_document(job, outcome)), media_type=answer.media_type)


def _decoded(body: bytes, body_format: Format) -> PriceJob:
    return price_job(body_format.decode(body, schema.PriceRequest))
