"""Assembly of the application: routes, middleware, start-up. Endpoints do HTTP only."""

import gc
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from time import perf_counter
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from prometheus_client import CONTENT_TYPE_LATEST
from pydantic.json_schema import models_json_schema
from pydantic_core import to_json
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response

from . import schema
from .context import context_of
from .decode import calibration_job, deadline_header, decode, json_body, price_job
from .documents import calibration_document, models_document, price_document
from .engine import Engine
from .errors import MethodNotAllowed, NotFound, NotReady
from .metrics import Metrics
from .middleware import BodyLimit, RequestBoundary
from .owner import OwnerThread
from .settings import Settings

log = logging.getLogger("calibrant.service")

JSON = "application/json"
COMPONENTS = "#/components/schemas/{model}"
DEADLINE_HEADER = "x-request-deadline-ms"


class Service:
    """What the endpoints share: the engine and its thread, and why there is no engine if there is none."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.owner = OwnerThread("engine")
        self._engine: Engine | None = None
        self._not_ready = "The networks are being loaded."

    async def start(self) -> None:
        """Load, verify and warm on the thread that will do the work. A failure is kept for `/health/ready` to tell."""
        try:
            self._engine = await self.owner.run(lambda: Engine.load(self.settings.networks))
        except Exception as error:
            log.exception("not ready")
            self._not_ready = f"The networks could not be loaded: {error}"
            return
        for name, network in self._engine.networks.items():
            self.metrics.model.labels(name).info({"version": network.version})
            log.info("serving %s", network.version)
        self.metrics.ready.set(1)
        # What start-up made lives as long as the process: keep the collector from walking it on every full collection.
        gc.collect()
        gc.freeze()

    def stop(self) -> None:
        self.metrics.ready.set(0)
        self.owner.stop()

    @property
    def engine(self) -> Engine:
        if self._engine is None:
            raise NotReady(self._not_ready, headers={"retry-after": "5"})
        return self._engine


def create_app(settings: Settings | None = None) -> FastAPI:
    service = Service(settings or Settings())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await service.start()
        yield
        service.stop()

    app = FastAPI(
        title="Calibrant",
        description="Stochastic-volatility models calibrated to option quotes.",
        version="1",
        lifespan=lifespan,
        redoc_url=None,
        middleware=[
            Middleware(RequestBoundary, metrics=service.metrics),
            Middleware(BodyLimit, max_bytes=service.settings.max_body_bytes),
        ],
        exception_handlers={HTTPException: _refuse_route},
    )
    app.state.service = service
    add = partial(app.add_api_route, response_class=Response)
    add("/v1/calibrate", _calibrate, methods=["POST"], **_documented(schema.CalibrateRequest, schema.CalibrateResponse))
    add("/v1/price", _price, methods=["POST"], **_documented(schema.PriceRequest, schema.PriceResponse))
    add("/v1/models", _models, methods=["GET"])
    add("/health/live", _live, methods=["GET"])
    add("/health/ready", _ready, methods=["GET"])
    add("/metrics", _metrics, methods=["GET"])
    app.openapi = partial(_openapi, app)  # type: ignore[method-assign]
    return app


async def _calibrate(request: Request) -> Response:
    """Calibrate a model to one panel of quotes."""
    service, context = _service(request), context_of(request.scope)
    engine = service.engine
    body = await json_body(request)
    began = perf_counter()
    asked = decode(body, schema.CalibrateRequest)
    deadline = context.deadline(asked.budget_ms, deadline_header(request.headers.get(DEADLINE_HEADER)))
    job = calibration_job(asked, deadline)
    submitted = perf_counter()
    started, outcome = await service.owner.run(lambda: (perf_counter(), engine.calibrate(job)))
    stages = context.stages
    stages["decode"] = submitted - began
    stages["queue"] = started - submitted
    stages.update(outcome.seconds._asdict())
    encoding = perf_counter()
    content = to_json(calibration_document(asked, outcome, stages))
    stages["encode"] = perf_counter() - encoding
    context.after.append(partial(service.metrics.observe_calibration, outcome))
    return Response(content, media_type=JSON)


async def _price(request: Request) -> Response:
    """Prices, implied volatilities and, if asked, gradients of a model with the parameters given."""
    service = _service(request)
    engine = service.engine
    asked = decode(await json_body(request), schema.PriceRequest)
    job = price_job(asked)
    outcome = await service.owner.run(lambda: engine.price(job))
    return Response(to_json(price_document(job, outcome)), media_type=JSON)


async def _models(request: Request) -> Response:
    """The models served: their parameters, admissible bounds, training domain and network."""
    return Response(to_json(models_document(_service(request).engine)), media_type=JSON)


async def _live(request: Request) -> Response:
    """200 as long as the process answers."""
    return Response(to_json({"status": "live"}), media_type=JSON)


async def _ready(request: Request) -> Response:
    """200 when calibrations are answered, else 503 with the reason."""
    networks = _service(request).engine.networks
    models = {
        name: {"model_version": network.version, "provider": network.provider} for name, network in networks.items()
    }
    return Response(to_json({"status": "ready", "models": models}), media_type=JSON)


async def _metrics(request: Request) -> Response:
    """Prometheus metrics."""
    # Formatting holds the interpreter lock, but off the event loop it gives it up every few milliseconds.
    exposition = await run_in_threadpool(_service(request).metrics.exposition)
    return Response(exposition, media_type=CONTENT_TYPE_LATEST)


def _service(request: Request) -> Service:
    service = request.app.state.service
    assert isinstance(service, Service)
    return service


async def _refuse_route(request: Request, error: Exception) -> Response:
    """What the router refuses, as a problem like every other refusal."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        detail = f"{request.url.path} answers {allowed}, not {request.method}."
        raise MethodNotAllowed(detail, headers={"allow": allowed})
    raise NotFound(f"There is nothing at {request.url.path}.")


def _documented(body: type[schema.Request], answer: type[schema.Response]) -> dict[str, Any]:
    """OpenAPI of an endpoint that reads the raw body and builds its own response."""
    content = {JSON: {"schema": {"$ref": COMPONENTS.format(model=body.__name__)}}}
    problem = {"model": schema.Problem, "description": "Refused; `code` says why."}
    return {
        "openapi_extra": {"requestBody": {"required": True, "content": content}},
        "responses": {200: {"model": answer}, "4XX": problem, "5XX": problem},
    }


def _openapi(app: FastAPI) -> dict[str, Any]:
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        _, definitions = models_json_schema(
            [(schema.CalibrateRequest, "validation"), (schema.PriceRequest, "validation")], ref_template=COMPONENTS
        )
        document["components"]["schemas"].update(definitions["$defs"])
        app.openapi_schema = document
    return app.openapi_schema
