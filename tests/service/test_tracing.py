"""Spans, where something is there to take them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.trace.propagation import get_current_span

from service import tracing
from tests.service.client import Client

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


class Recorded(trace.NonRecordingSpan):
    def __init__(self, name: str, parent: Any, attributes: Any) -> None:
        super().__init__(trace.SpanContext(1, 2, False))
        self.name, self.parent, self.attributes = name, parent, dict(attributes)

    def set_attribute(self, key: str, value: Any) -> None:
        self.attributes[key] = value


class Recorder(trace.TracerProvider, trace.Tracer):
    """As little of an SDK as takes a span."""

    def __init__(self) -> None:
        self.spans: list[Recorded] = []

    def get_tracer(self, *_: Any, **__: Any) -> trace.Tracer:
        return self

    def start_span(self, name: str, context: Any = None, *_: Any, **kwargs: Any) -> Recorded:
        self.spans.append(Recorded(name, get_current_span(context).get_span_context(), kwargs["attributes"]))
        return self.spans[-1]

    @contextmanager
    def start_as_current_span(  # type: ignore[override]
        self, name: str, *args: Any, **kwargs: Any
    ) -> Iterator[Recorded]:
        span = self.start_span(name, *args, **kwargs)
        with trace.use_span(span):
            yield span


def test_a_request_is_a_span_below_the_one_it_came_from(
    client: Client, dax: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    monkeypatch.setattr(trace, "get_tracer_provider", lambda: recorder)
    monkeypatch.setattr(trace, "get_tracer", recorder.get_tracer)
    client.post("/v1/calibrate", dax, traceparent=PARENT, x_request_id="desk-7")
    (span,) = recorder.spans
    assert span.name == "POST /v1/calibrate"
    assert f"{span.parent.trace_id:032x}" == PARENT.split("-")[1]
    assert span.attributes["calibrant.request_id"] == "desk-7"
    assert span.attributes["calibrant.refine_seconds"] > 0.0


def test_without_an_sdk_there_is_no_span() -> None:
    assert isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)
    assert tracing.span({}, None) is tracing._OFF  # type: ignore[arg-type]


def test_the_trace_that_a_request_belongs_to_is_echoed(client: Client, dax: dict[str, Any]) -> None:
    assert client.post("/v1/calibrate", dax, traceparent=PARENT).headers["traceparent"] == PARENT
    assert client.post("/v1/calibrate", {}, traceparent=PARENT).headers["traceparent"] == PARENT
    for bad in ("00-xyz", PARENT + "\t", PARENT.upper()):
        assert "traceparent" not in client.post("/v1/calibrate", dax, traceparent=bad).headers
