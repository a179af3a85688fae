"""The Open Inference Protocol: `/v2`."""

import math
import pickle
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version as version_of
from time import perf_counter

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from calibrant.errors import InvalidInput, shown
from calibrant.models import MODELS
from calibrant.models.model import Model

from ..batches.answers import BatchContext, TensorBatch, encoded_rows
from ..body import body_of, memory_file
from ..context import RequestContext, context_of
from ..engine import Engine
from ..errors import NotFound
from ..memory import of_body, of_quotes
from ..routing import JSON
from ..service import service_of
from ..wire import oip
from ..wire.batch import PanelRequest
from ..wire.compression import answer_encoding, content_encoding, inflate
from ..wire.formats import require_media_type


async def server(request: Request) -> Response:
    """What answers here, and which extensions of the protocol it knows."""
    about = {"name": "calibrant", "version": version_of("calibrant"), "extensions": oip.EXTENSIONS}
    return Response(to_json(about), media_type=JSON)


async def live(request: Request) -> Response:
    """200 as long as the process answers."""
    return Response(to_json({"live": True}), media_type=JSON)


async def ready(request: Request) -> Response:
    """200 when calibrations are answered, else 503 with the reason."""
    service_of(request).require_ready()
    return Response(to_json({"ready": True}), media_type=JSON)


async def model_metadata(request: Request) -> Response:
    """The tensors that a model takes and gives, and the version that is served."""
    model, version = model_of(service_of(request).engine, request)
    return Response(to_json(oip.model_metadata(model, version)), media_type=JSON)


async def model_ready(request: Request) -> Response:
    """200 when the model answers calibrations."""
    model, _ = model_of(service_of(request).require_ready(), request)
    return Response(to_json({"name": model.name, "ready": True}), media_type=JSON)


async def infer(request: Request) -> Response:
    """Calibrate a model to one panel, tensors of shape [n], or to a panel a row, [b, n].

    A row that is refused fails no other: its numbers are NaN, its `status` is the code of its problem and its `message`
    says why. Where no row has a result the problem of the first is the answer.
    """
    service, context = service_of(request), context_of(request.scope)
    engine = service.engine
    model, version = model_of(engine, request)
    context.model = model.name
    if "content-type" in context.headers:
        require_media_type(context.headers, oip.MEDIA_TYPES)
    encoding = content_encoding(context.headers)
    header_length = oip.header_length(context.headers.get(oip.HEADER_LENGTH))
    body = await body_of(request)
    settings = service.settings
    if encoding is not None:
        context.reserve(of_body(settings.max_body_bytes))
    decoding = partial(_decoded, body, encoding, header_length, model, context, settings.max_body_bytes)
    # What a compressed body inflates to is not seen before.
    n_bytes = len(body) if encoding is None else math.inf
    inference, panel, decode_seconds = await service.decoded(decoding, n_bytes)
    stages = context.stages
    stages["decode"] = decode_seconds
    encoding_of_answer = answer_encoding(context.headers)
    if panel is None:
        context.model = None
        batch = TensorBatch(BatchContext.of(context), request.path_params.get("version"), encoding_of_answer)
        with memory_file() as file:
            await service.decoded(partial(pickle.dump, inference, file), n_bytes)
            head, pieces = await service.jobs.answer(batch, file)
        return StreamingResponse(pieces, headers=head, media_type=_media_type(head))
    context.reserve(of_quotes(inference.n_quotes(0)))
    try:
        assessment, stages["queue"] = await service.dispatch.calibrate(engine, panel.job)
    except InvalidInput as error:
        raise inference.refusal(0, error.problems) from None
    stages.update(assessment.seconds._asdict())
    began = perf_counter()
    content, head = encoded_rows(inference, version, [oip.row_of(assessment, inference)], encoding_of_answer)
    stages["encode"] = perf_counter() - began
    context.after.append(partial(service.answered_alone, panel.job, assessment, context))
    return Response(content, headers=head, media_type=_media_type(head))


def _media_type(head: Mapping[str, str]) -> str:
    return oip.BINARY if oip.HEADER_LENGTH in head else oip.JSON


def _decoded(
    body: bytes, encoding: str | None, header_length: int | None, model: Model, context: RequestContext, max_bytes: int
) -> tuple[oip.Inference, PanelRequest | None, float]:
    """The request, its panel if there is one only, and the seconds that took."""
    began = perf_counter()
    if encoding is not None:
        body = inflate(body, encoding, max_bytes)
    inference = oip.decode_request(body, header_length, model)
    panel = inference.panel(0, context.deadline) if inference.n_panels == 1 else None
    return inference, panel, perf_counter() - began


def model_of(engine: Engine, request: Request) -> tuple[Model, str]:
    """The model that the path names, and its version.

    raises  NotFound if it is not served
    """
    name, version = request.path_params["model"], request.path_params.get("version")
    if name not in MODELS:
        raise NotFound(f"There is no model {shown(name)!r}; there is {', '.join(MODELS)}.")
    served = engine.network_version(name)
    if version not in (None, served):
        raise NotFound(f"There is no version {shown(version)!r} of {name}; {served} is served.")
    return MODELS[name], served
