"""The Open Inference Protocol: `/v2`."""

import math
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from importlib.metadata import version as version_of
from time import perf_counter
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from calibrant.errors import InvalidInput
from calibrant.models import MODELS
from calibrant.models.model import Model

from ..body import body_of
from ..context import RequestContext, context_of
from ..engine import Engine
from ..errors import NotFound, ServiceError, TooLarge
from ..openapi import JSON, answering, documented
from ..scheduler import Priority
from ..service import Service, service_of
from ..wire import oip
from ..wire.batch import Answer, PanelRequest
from ..wire.compression import answer_encoding, content_encoding, deflate, inflate
from ..wire.formats import require_media_type

Endpoint = Callable[[Request], Awaitable[Response]]

_MODEL, _VERSION = "/v2/models/{model}", "/versions/{version}"


def add_routes(app: FastAPI) -> None:
    about: tuple[tuple[str, Endpoint, type[BaseModel] | None], ...] = (
        ("/v2", server, oip.ServerMetadata),
        ("/v2/health/live", live, None),
        ("/v2/health/ready", ready, None),
    )
    for path, endpoint, answer in about:
        app.add_api_route(path, endpoint, methods=["GET"], response_class=Response, **answering(answer))
    for base in (_MODEL, _MODEL + _VERSION):
        named = {"parameters": [_parameter(name) for name in ("model", "version") if f"{{{name}}}" in base]}
        described = {"openapi_extra": named, **answering(oip.ModelMetadata)}
        app.add_api_route(base, model_metadata, methods=["GET"], response_class=Response, **described)
        readiness = {"openapi_extra": named, **answering(None)}
        app.add_api_route(f"{base}/ready", model_ready, methods=["GET"], response_class=Response, **readiness)
        inference = documented(oip.InferRequest, oip.InferResponse, oip.MEDIA_TYPES, oip.MEDIA_TYPES)
        inference["openapi_extra"] |= named
        app.add_api_route(f"{base}/infer", infer, methods=["POST"], response_class=Response, **inference)


def _parameter(name: str) -> dict[str, Any]:
    # Read from the path by hand: what FastAPI does for an argument costs more than decoding the request.
    values = {"type": "string", "enum": list(MODELS)} if name == "model" else {"type": "string"}
    return {"name": name, "in": "path", "required": True, "schema": values}


async def server(request: Request) -> Response:
    """What answers here, and which extensions of the protocol it knows."""
    about = {"name": "calibrant", "version": version_of("calibrant"), "extensions": ["binary_tensor_data"]}
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
    model, version = _model_of(service_of(request).engine, request)
    return Response(to_json(oip.model_metadata(model, version)), media_type=JSON)


async def model_ready(request: Request) -> Response:
    """200 when the model answers calibrations."""
    model, _ = _model_of(service_of(request).require_ready(), request)
    return Response(to_json({"name": model.name, "ready": True}), media_type=JSON)


async def infer(request: Request) -> Response:
    """Calibrate a model to one panel, tensors of shape [n], or to a panel a row, [b, n].

    A row that is refused fails no other: its numbers are NaN, its `status` is the code of its problem and its `message`
    says why. Where no row has a result the problem of the first is the answer.
    """
    service, context = service_of(request), context_of(request.scope)
    engine = service.engine
    model, version = _model_of(engine, request)
    if "content-type" in context.headers:
        require_media_type(context.headers, oip.MEDIA_TYPES)
    encoding = content_encoding(context.headers)
    header_length = oip.header_length(context.headers.get(oip.HEADER_LENGTH))
    body = await body_of(request)
    settings = service.settings
    decoding = partial(_decoded, body, encoding, header_length, model, context, settings.max_body_bytes)
    # What a compressed body inflates to is not seen before.
    n_bytes = len(body) if encoding is None else math.inf
    inference, panel, decode_seconds = await service.decoded(decoding, n_bytes)
    stages = context.stages
    stages["decode"] = decode_seconds
    encoding_of_answer = answer_encoding(context.headers)
    if panel is None:
        rows = await _many(service, context, engine, inference)
        encoded = partial(_encoded, inference, version, rows, encoding_of_answer)
        content, headers = await service.scheduler.run(encoded, priority=Priority.BULK)
    else:
        try:
            assessment, stages["queue"] = await service.dispatch.calibrate(engine, panel.job)
        except InvalidInput as error:
            raise inference.refusal(0, error.problems) from None
        stages.update(assessment.seconds._asdict())
        began = perf_counter()
        rows = [oip.row_of(assessment, model.n_params)]
        content, headers = _encoded(inference, version, rows, encoding_of_answer)
        stages["encode"] = perf_counter() - began
        context.after.append(partial(service.answered_alone, panel.job, assessment, context))
    media_type = oip.BINARY if oip.HEADER_LENGTH in headers else oip.JSON
    return Response(content, headers=headers, media_type=media_type)


async def _many(service: Service, context: RequestContext, engine: Engine, inference: oip.Inference) -> list[oip.Row]:
    """The answers to tensors with several rows.

    raises  the problem of the first row, if none has a result
    """
    most = service.settings.max_batch_panels
    if inference.n_panels > most:
        raise TooLarge(f"The tensors must have at most {most} rows, but have {inference.n_panels}.")
    service.metrics.batch_size.observe(inference.n_panels)
    rows: list[oip.Row] = []
    refusals: list[ServiceError] = []
    async for group in service.batches.run(engine, inference, context.deadline, partial(_row, inference.model)):
        service.counted(group, context.request_id)
        rows += [done.part for done in group]
        refusals += [done.outcome for done in group if isinstance(done.outcome, ServiceError)]
    if len(refusals) == len(rows):
        raise refusals[0]
    return rows


def _encoded(
    inference: oip.Inference, version: str, rows: Sequence[oip.Row], encoding: str | None
) -> tuple[bytes, dict[str, str]]:
    """The body of an answer and the headers that describe it."""
    content, head = oip.encode_answer(inference, version, rows)
    headers = {} if head is None else {oip.HEADER_LENGTH: str(head)}
    if encoding is not None:
        content = deflate(content, encoding)
        headers |= {"content-encoding": encoding, "vary": "accept-encoding"}
    return content, headers


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


def _row(model: Model, answer: Answer) -> oip.Row:
    return oip.row_of(answer.outcome, model.n_params)


def _model_of(engine: Engine, request: Request) -> tuple[Model, str]:
    """The model that the path names, and its version.

    raises  NotFound if it is not served
    """
    name, version = request.path_params["model"], request.path_params.get("version")
    if name not in engine.releases:
        raise NotFound(f"There is no model {name[:80]!r}; there is {', '.join(engine.releases)}.")
    served = str(engine.releases[name].networks[0].manifest.version)
    if version not in (None, served):
        raise NotFound(f"There is no version {version[:80]!r} of {name}; {served} is served.")
    return MODELS[name], served
