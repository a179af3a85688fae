"""What an operator asks: the models served, health, metrics."""

from prometheus_client import CONTENT_TYPE_LATEST
from pydantic_core import to_json
from starlette.requests import Request
from starlette.responses import Response

from ..routing import JSON
from ..service import service_of
from ..wire.documents import models_document, serving_document
from ..wire.formats import answer_format


async def models(request: Request) -> Response:
    """The models served: their parameters, admissible bounds, training domain and network."""
    answer = answer_format(request.headers)
    return Response(answer.encode(models_document(service_of(request).engine)), media_type=answer.media_type)


async def live(request: Request) -> Response:
    """200 as long as the process answers."""
    return Response(to_json({"status": "live"}), media_type=JSON)


async def ready(request: Request) -> Response:
    """200 when calibrations are answered, else 503 with the reason."""
    engine = service_of(request).require_ready()
    return Response(to_json({"status": "ready", "models": serving_document(engine)}), media_type=JSON)


async def metrics(request: Request) -> Response:
    """Prometheus metrics: of all workers, whichever is asked."""
    return Response(await service_of(request).exposition(), media_type=CONTENT_TYPE_LATEST)
