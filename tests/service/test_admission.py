"""Who is let in."""

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from service.admission import LARGE_BODY, Admission, RateLimit, kind_of
from service.context import RequestContext
from service.errors import RateLimited
from service.lane import Priority
from service.memory import Memory
from service.metrics import Metrics
from service.pauses import Pauses
from service.routes import ROUTES
from service.routing import Routes
from service.scheduler import Scheduler
from service.settings import Settings
from tests.service.client import Client
from tests.service.test_bad_input import panel
from tests.service.test_scheduler import held
from tests.shared import ROOT

TABLE = Routes(ROUTES)


def test_a_client_has_its_burst_then_its_rate() -> None:
    limit = RateLimit(rate=2.0, burst=3)
    for _ in range(3):
        limit.spend("desk", 100.0)
    with pytest.raises(RateLimited) as refused:
        limit.spend("desk", 100.0)
    assert refused.value.headers == {"retry-after": "1"}
    # Another client has tokens of its own.
    limit.spend("risk", 100.0)
    limit.spend("desk", 100.5)
    with pytest.raises(RateLimited):
        limit.spend("desk", 100.5)
    # However long it waits, the bucket holds no more than the burst.
    for _ in range(3):
        limit.spend("desk", 1000.0)
    with pytest.raises(RateLimited):
        limit.spend("desk", 1000.0)


def test_the_rates_of_clients_that_have_gone_are_forgotten() -> None:
    limit = RateLimit(rate=1.0, burst=1)
    for i in range(25_000):
        limit.spend(f"client {i}", float(i))
    assert len(limit._buckets) <= 10_000


def test_the_headers_tell_how_urgent_a_request_is() -> None:
    def kind(method: str, path: str, length: int | None = None) -> Priority | None:
        headers = {} if length is None else {"content-length": str(length)}
        return kind_of(TABLE.find(method, path)[0], RequestContext("x", headers))

    assert kind("POST", "/v1/calibrate", 5000) is kind("POST", "/v1/calibrate") is Priority.INTERACTIVE
    assert kind("POST", "/v1/calibrate", LARGE_BODY + 1) is Priority.LONG
    assert kind("POST", "/v1/calibrate/batch", 10) is Priority.BULK
    assert kind("GET", "/metrics") is kind("GET", "/v1/models") is None


def test_what_is_large_goes_between_interactive_requests_and_is_not_kept_out(monkeypatch: pytest.MonkeyPatch) -> None:
    interactive, large = (TABLE.find("POST", path)[0] for path in ("/v1/calibrate", "/v1/calibrate/batch"))
    context = RequestContext("x", {})

    async def test(scheduler: Scheduler) -> None:
        admission = Admission(Settings(), scheduler, Pauses(Metrics()), Memory(1 << 20))
        admission.admit(large, "desk", context)
        # Nobody else is inside: at once.
        await admission.give_way()
        monkeypatch.setattr("service.admission._GIVING_WAY", 30.0)
        for _ in range(2):
            admission.admit(interactive, "desk", context)
        waiting = asyncio.create_task(admission.give_way())
        admission.leave(Priority.INTERACTIVE, context)
        await asyncio.sleep(0.05)
        assert not waiting.done()
        admission.leave(Priority.INTERACTIVE, context)
        await asyncio.wait_for(waiting, 10.0)
        # Beside those that never leave it waits its few milliseconds and goes on.
        monkeypatch.setattr("service.admission._GIVING_WAY", 0.005)
        admission.admit(interactive, "desk", context)
        await asyncio.wait_for(admission.give_way(), 10.0)

    scheduler = Scheduler()
    try:
        asyncio.run(test(scheduler))
    finally:
        scheduler.stop()


@pytest.fixture
def busy(client: Client) -> Iterator[None]:
    """The interactive lane held, with ten seconds of work and one request waiting for it."""
    service = client.app.service
    hold = threading.Event()

    async def occupy() -> list[Any]:
        return [
            await held(service.scheduler, Priority.INTERACTIVE, hold),
            asyncio.ensure_future(service.scheduler.run(lambda: None, cost=10.0)),
        ]

    async def finish() -> None:
        await asyncio.gather(*waiting)

    waiting = client.run(occupy())
    # Someone has to be inside: an idle service lets in whatever was measured.
    service.admission._inside[Priority.INTERACTIVE] += 1
    yield
    service.admission._inside[Priority.INTERACTIVE] -= 1
    hold.set()
    client.run(finish())


@pytest.mark.usefixtures("busy")
def test_what_cannot_be_in_time_is_refused_before_its_body_is_read(client: Client) -> None:
    before = client.get("/metrics").text.count("calibrant_shed_total")
    # Whose limit it was: the service's, by the name of its setting, or the client's own.
    for headers, code, whose in (
        ({}, "overloaded", "`CALIBRANT_DEFAULT_DEADLINE_MS` of the service"),
        ({"x_request_deadline_ms": "2000"}, "deadline_unreachable", "its own deadline (`X-Request-Deadline-Ms`"),
    ):
        # Not even JSON: nobody has looked.
        response = client.post("/v1/calibrate", b"\x00", **headers)
        assert (response.status_code, response.json()["code"]) == (503, code)
        assert whose in response.json()["detail"]
        assert 10 <= int(response.headers["retry-after"]) <= 11
    # The budget is in the body, so this one is refused behind it.
    patient = client.post("/v1/calibrate", {**panel(), "budget_ms": 100}, x_request_deadline_ms="60000")
    assert patient.status_code == 503, patient.text
    assert patient.json()["code"] == "deadline_unreachable"
    text = client.get("/metrics").text
    assert 'calibrant_shed_total{reason="deadline_unreachable"}' in text
    assert 'calibrant_requests_total{code="503",route="/v1/calibrate"}' in text
    assert text.count("calibrant_shed_total") >= before


@pytest.mark.usefixtures("busy")
def test_health_and_metrics_answer_under_overload(client: Client) -> None:
    for path in ("/health/live", "/health/ready", "/metrics", "/v1/models", "/docs"):
        assert client.get(path).status_code == 200


def test_who_gave_a_deadline_needs_time_for_the_answer_as_well(client: Client, dax: dict[str, Any]) -> None:
    admission = client.app.service.admission
    admission._inside[Priority.INTERACTIVE] += 1
    try:
        # Nothing waits, but no calibration takes a tenth of a millisecond.
        response = client.post("/v1/calibrate", dax, x_request_deadline_ms="0.1")
    finally:
        admission._inside[Priority.INTERACTIVE] -= 1
    assert (response.status_code, response.json()["code"]) == (503, "deadline_unreachable")
    # On an idle service it is tried: what was measured may be out of date.
    alone = client.post("/v1/calibrate", dax, x_request_deadline_ms="0.1")
    assert (alone.status_code, alone.json()["code"]) == (504, "deadline_expired")


def test_too_many_requests_at_once_are_told_so(client: Client, dax: dict[str, Any]) -> None:
    admission = client.app.service.admission
    admission._inside[Priority.INTERACTIVE] += 10_000
    try:
        response = client.post("/v1/calibrate", dax)
    finally:
        admission._inside[Priority.INTERACTIVE] -= 10_000
    assert (response.status_code, response.json()["code"]) == (503, "overloaded")
    assert int(response.headers["retry-after"]) >= 1
    assert client.calibrate(dax)["status"] == "converged"


def test_whoever_was_let_in_is_counted_out_whatever_became_of_it(client: Client, dax: dict[str, Any]) -> None:
    admission = client.app.service.admission
    client.calibrate(dax)
    client.post("/v1/calibrate", {})
    client.post("/v1/nothing", dax)
    client.post("/v1/calibrate", dax, x_request_deadline_ms="0.001")
    client.post("/v1/calibrate", dax, x_request_deadline_ms="soon")
    assert set(admission._inside.values()) == {0}


def test_a_body_that_comes_slowly_is_no_reason_to_refuse_who_gave_no_deadline(dax: dict[str, Any]) -> None:
    async def slowly() -> AsyncIterator[bytes]:
        content = json.dumps(dax).encode()
        yield content[:100]
        # Twice the default deadline.
        await asyncio.sleep(0.5)
        yield content[100:]

    client = Client(Settings(networks=ROOT / "networks", default_deadline_ms=250.0))
    headers = {"content-type": "application/json"}
    try:
        assert client.request("POST", "/v1/calibrate", content=slowly(), headers=headers).status_code == 200
        # With a deadline of its own it has until then, from its first byte on.
        headers["x-request-deadline-ms"] = "250"
        late = client.request("POST", "/v1/calibrate", content=slowly(), headers=headers)
    finally:
        client.close()
    assert (late.status_code, late.json()["code"]) == (504, "deadline_expired")


def test_a_client_over_its_rate_is_told_when_to_come_back(dax: dict[str, Any]) -> None:
    client = Client(Settings(networks=ROOT / "networks", rate_limit=0.5, rate_burst=2, default_deadline_ms=5000.0))
    try:
        assert [client.post("/v1/calibrate", dax).status_code for _ in range(3)] == [200, 200, 429]
        response = client.post("/v1/calibrate", dax)
        assert response.json()["code"] == "rate_limited"
        assert int(response.headers["retry-after"]) == 2
        assert client.get("/health/ready").status_code == client.get("/metrics").status_code == 200
    finally:
        client.close()
