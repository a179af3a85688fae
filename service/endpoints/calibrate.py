"""`POST /v1/calibrate`."""

from functools import partial
from time import perf_counter

from starlette.requests import Request
from starlette.responses import Response

from ..body import body_of
from ..context import RequestContext, context_of
from ..engine import CalibrationJob
from ..memory import of_quotes
from ..service import service_of
from ..wire import schema
from ..wire.documents import calibration_document
from ..wire.formats import Format, answer_format, request_format
from ..wire.jobs import calibration_job


async def calibrate(request: Request) -> Response:
    """Calibrate a model to one panel of quotes."""
    service, context = service_of(request), context_of(request.scope)
    engine = service.engine
    body_format = request_format(context.headers)
    body = await body_of(request)
    decoding = partial(_decoded, body, body_format, context)
    asked, job, decode_seconds = await service.decoded(decoding, len(body))
    context.model = job.model.name
    context.reserve(of_quotes(len(asked.quotes.expiry)))
    outcome, queue_seconds = await service.dispatch.calibrate(engine, job)
    stages = context.stages
    stages["decode"] = decode_seconds
    stages["queue"] = queue_seconds
    stages.update(outcome.seconds._asdict())
    encoding = perf_counter()
    answer = answer_format(context.headers, body_format)
    content = answer.encode(calibration_document(asked, outcome, stages))
    stages["encode"] = perf_counter() - encoding
    context.after.append(partial(service.answered_alone, job, outcome, context))
    return Response(content, media_type=answer.media_type)


def _decoded(
    body: bytes, body_format: Format, context: RequestContext
) -> tuple[schema.CalibrateRequest, CalibrationJob, float]:
    """The request, the job it asks for, and the seconds that took."""
    began = perf_counter()
    asked = body_format.decode(body, schema.CalibrateRequest)
    job = calibration_job(asked, context.deadline(asked.budget_ms))
    return asked, job, perf_counter() - began
