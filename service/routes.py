"""The route table: all that the service answers, and how; FastAPI adds its document."""

from .auth import Scope
from .endpoints import batch, calibrate, console, jobs, operations, panel, price, simulations, triton, v2
from .lane import Priority
from .routing import FORMATS, JSON, Route
from .wire import oip, schema
from .wire import triton as triton_schema

_JOB = "/v1/jobs/{id}"
_MODEL, _VERSION = "/v2/models/{model}", "/versions/{version}"

ROUTES = (
    Route(
        *("POST", "/v1/calibrate", calibrate.calibrate, Priority.INTERACTIVE, Scope.CALIBRATE),
        direct=True,
        body=schema.CalibrateRequest,
        answer=schema.CalibrateResponse,
        gives=FORMATS,
    ),
    Route(
        *("POST", "/v1/calibrate/batch", batch.calibrate_batch, Priority.BULK, Scope.BATCH),
        large=True,
        body=schema.BatchRequest,
        takes=batch.TAKEN,
        answer=schema.BatchResponse,
        gives=batch.GIVEN,
        accepted=schema.Job,
    ),
    Route(
        *("POST", "/v1/panel", panel.panel, Priority.LONG, Scope.CALIBRATE),
        body=schema.PanelRequest,
        takes=panel.TAKEN,
        query=schema.PanelSettings,
        answer=schema.PanelResponse,
        gives=FORMATS,
    ),
    Route(
        *("POST", "/v1/price", price.price, Priority.INTERACTIVE, Scope.PRICE),
        direct=True,
        body=schema.PriceRequest,
        answer=schema.PriceResponse,
        gives=FORMATS,
    ),
    Route(
        *("POST", "/v1/leverage", simulations.leverage, Priority.JOB, Scope.LEVERAGE),
        body=schema.LeverageRequest,
        answer=schema.LeverageResponse,
        gives=FORMATS,
        accepted=schema.Job,
    ),
    Route(
        *("POST", "/v1/one-touch", simulations.one_touch, Priority.JOB, Scope.LEVERAGE),
        body=schema.TouchRequest,
        answer=schema.TouchResponse,
        gives=FORMATS,
        accepted=schema.Job,
    ),
    Route("GET", _JOB, jobs.state, answer=schema.Job),
    Route("DELETE", _JOB, jobs.cancel, answer=schema.Job),
    Route("GET", f"{_JOB}/events", jobs.events, watches=True, gives=("text/event-stream",)),
    Route("GET", f"{_JOB}/result", jobs.result, gives=batch.GIVEN),
    *(
        Route("GET", path, endpoint, open=True, page=True, direct=True, gives=("text/html",))
        for path, endpoint in (("/", console.console), ("/console", console.console), ("/docs", console.docs))
    ),
    Route("GET", "/console/{file}", console.file, open=True, page=True, direct=True, gives=("*/*",)),
    Route("GET", "/v1/models", operations.models, gives=FORMATS),
    Route("GET", "/health/live", operations.live, open=True),
    Route("GET", "/health/ready", operations.ready, open=True),
    Route("GET", "/metrics", operations.metrics, scope=Scope.METRICS, gives=("text/plain",)),
    Route("GET", "/v2", v2.server, oip=True, answer=oip.ServerMetadata),
    Route("GET", "/v2/health/live", v2.live, open=True, oip=True),
    Route("GET", "/v2/health/ready", v2.ready, open=True, oip=True),
    Route(
        *("POST", "/v2/repository/index", triton.index),
        oip=True,
        body=triton_schema.IndexRequest,
        takes=(JSON,),
        answer=triton_schema.RepositoryIndex,
    ),
    # Before the models, as one of which it could be taken.
    Route("GET", "/v2/models/stats", triton.statistics, oip=True, answer=triton_schema.Statistics),
    *(
        route
        for base in (_MODEL, _MODEL + _VERSION)
        for route in (
            Route("GET", base, v2.model_metadata, oip=True, answer=oip.ModelMetadata),
            Route("GET", f"{base}/ready", v2.model_ready, oip=True),
            Route("GET", f"{base}/config", triton.config, oip=True, answer=triton_schema.ModelConfig),
            Route("GET", f"{base}/stats", triton.statistics, oip=True, answer=triton_schema.Statistics),
            Route(
                *("POST", f"{base}/infer", v2.infer, Priority.INTERACTIVE, Scope.CALIBRATE),
                oip=True,
                direct=True,
                body=oip.InferRequest,
                takes=oip.MEDIA_TYPES,
                answer=oip.InferResponse,
                gives=oip.MEDIA_TYPES,
            ),
        )
    ),
)
