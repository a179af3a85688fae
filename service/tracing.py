"""A span per request, where OpenTelemetry is installed and set up; else nothing, at no cost.

Only its API is used: what exports the spans, and how many, is the business of whoever starts the process, for example
under `opentelemetry-instrument`.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

from starlette.types import Scope

from .context import RequestContext

try:
    from opentelemetry import propagate, trace
except ImportError:
    _TRACED = False
else:
    _TRACED = True

_OFF: AbstractContextManager[None] = nullcontext()


def span(scope: Scope, context: RequestContext) -> AbstractContextManager[None]:
    """The span of a request, a child of the one that its `traceparent` names."""
    # Without an SDK the provider is a proxy whose spans go nowhere: not worth their making.
    if not _TRACED or isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):
        return _OFF
    return _span(scope, context)


@contextmanager
def _span(scope: Scope, context: RequestContext) -> Iterator[None]:
    with trace.get_tracer("calibrant").start_as_current_span(
        f"{scope['method']} {scope['path']}",
        context=propagate.extract(context.headers),
        kind=trace.SpanKind.SERVER,
        attributes={"http.request.method": scope["method"], "calibrant.request_id": context.request_id},
    ) as current:
        yield
        for stage, seconds in context.stages.items():
            current.set_attribute(f"calibrant.{stage}_seconds", seconds)
