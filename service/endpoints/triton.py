"""What Triton's own tools ask under `/v2` beside the Open Inference Protocol."""

from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from calibrant.models import MODELS

from ..body import body_of
from ..routing import JSON
from ..service import service_of
from ..wire import triton
from ..wire.json import decode_thoroughly
from .v2 import model_of


async def config(request: Request) -> Response:
    """How a model takes its tensors: names, types, optional ones, panels of one request."""
    service = service_of(request)
    model, version = model_of(service.engine, request)
    return Response(to_json(triton.model_config(model, version, service.settings.max_batch_panels)), media_type=JSON)


async def statistics(request: Request) -> Response:
    """Counts and times of the models' calibrations: of all workers, whichever is asked."""
    service = service_of(request)
    engine = service.engine
    names = [model_of(engine, request)[0].name] if "model" in request.path_params else list(MODELS)
    totals = triton.Totals(await service.exposition())
    found = [triton.model_statistics(name, engine.network_version(name), totals) for name in names]
    return Response(to_json({"model_stats": found}), media_type=JSON)


async def index(request: Request) -> Response:
    """The models, their versions, and whether they answer."""
    engine = service_of(request).require_ready()
    body = await body_of(request)
    if body:
        decode_thoroughly(body, triton.IndexRequest)
    entries = [
        {"name": name, "version": engine.network_version(name), "state": "READY", "reason": ""} for name in MODELS
    ]
    return Response(to_json(entries), media_type=JSON)
