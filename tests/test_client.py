"""The client against the real application, and against peers that do what a service under stress does."""

import asyncio
import json
import random
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from threading import Thread
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn

from calibrant.arrays import Vector
from calibrant.client import (
    AsyncClient,
    BatchItem,
    CalibrantError,
    Calibration,
    Client,
    DeadlineExpired,
    EngineFailed,
    InvalidInput,
    Job,
    Leverage,
    NoAnswer,
    NotAllowed,
    Outcome,
    Overloaded,
    PanelRequest,
    RateLimited,
    Retries,
)
from calibrant.client.codecs import MSGPACK
from calibrant.client.patience import Patience
from calibrant.client.steps import Calls, Event, Head, Lost, Read, Send, Steps, Terms
from service.settings import Settings
from tests.intake.chains import AS_OF, chain
from tests.service.client import Client as Application
from tests.service.test_simulations import CLOSED_FORM, SMALL, UP
from tests.shared import ROOT

TRUTH = {"kappa": 2.0, "theta": 0.06, "xi": 0.5, "rho": -0.6, "v0": 0.05}
QUICK = Retries(first_pause_s=0.001)


@dataclass(frozen=True)
class Service:
    """The application and the socket that it is served on."""

    application: Application
    url: str

    def answer(self, path: str, body: Any) -> dict[str, Any]:
        """What a plain HTTP client gets, as JSON."""
        response = httpx.post(f"{self.url}{path}", json=body, timeout=60.0)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    application = Application(Settings(networks=ROOT / "networks"))
    listener = socket.create_server(("127.0.0.1", 0))
    # The application's own loop has started it: nothing is left of its life to the server.
    server = uvicorn.Server(uvicorn.Config(application.app, lifespan="off", log_config=None))
    serving = Thread(target=lambda: application.run(server.serve([listener])))
    serving.start()
    yield Service(application, f"http://127.0.0.1:{listener.getsockname()[1]}")
    server.should_exit = True
    serving.join()
    application.close()


@pytest.fixture(scope="module")
def client(service: Service) -> Iterator[Client]:
    with Client(service.url) as client:
        yield client


@pytest.fixture(scope="module")
def quotes() -> dict[str, Vector]:
    """The DAX panel of 5 July 2002."""
    panel = json.loads((ROOT / "examples" / "dax_20020705.json").read_text())
    return {name: np.array(column) for name, column in panel["quotes"].items()}


def lists(quotes: dict[str, Vector]) -> dict[str, Any]:
    return {name: column.tolist() for name, column in quotes.items()}


def awkward(quotes: dict[str, Vector]) -> list[PanelRequest]:
    """Good and bad panels."""
    in_days = {**quotes, "expiry": np.where(np.arange(104) == 3, 180.0, quotes["expiry"])}
    return [
        {"quotes": quotes, "id": "first"},
        {"quotes": in_days},
        {"quotes": quotes, "refine": "none"},
        {"quotes": quotes, "model": "unheard of"},
    ]


# Against the application ----------------------------------------------------------------------------------------------


def test_an_answer_is_the_one_on_the_wire_field_for_field(
    service: Service, client: Client, quotes: dict[str, Vector]
) -> None:
    answer = client.calibrate(quotes, id="DAX", as_of="2002-07-05", detail=True)
    wire = service.answer(
        "/v1/calibrate", {"quotes": lists(quotes), "id": "DAX", "as_of": "2002-07-05", "detail": True}
    )
    for name in ("model", "id", "as_of", "parameters", "standard_errors", "feller_ratio", "status", "start"):
        assert getattr(answer, name) == wire[name], name
    for name in ("iterations", "out_of_domain", "model_version"):
        assert getattr(answer, name) == wire[name], name
    assert answer.at_bounds == tuple(wire["at_bounds"])
    assert answer.timing_us.keys() == wire["timing_us"].keys()
    assert [vars(excluded) for excluded in answer.fit.excluded] == wire["fit"]["excluded"]
    assert (answer.fit.rmse_bp, answer.fit.n_quotes) == (wire["fit"]["rmse_bp"], wire["fit"]["n_quotes"])
    found = [vars(violation) for violation in answer.arbitrage.quotes.violations]
    assert found
    assert found == wire["arbitrage"]["quotes"]["violations"]
    assert answer.arbitrage.surface.free == wire["arbitrage"]["surface"]["free"]
    assert answer.parameter_correlation is not None
    assert answer.parameter_correlation.tolist() == wire["parameter_correlation"]
    assert answer.model_iv is not None
    assert np.array_equal(answer.model_iv, np.array(wire["model_iv"], dtype=float), equal_nan=True)
    assert np.isnan(answer.model_iv).sum() == len(answer.fit.excluded)


def test_every_field_of_the_contract_is_a_field_of_the_result(service: Service, quotes: dict[str, Vector]) -> None:
    wire = service.answer("/v1/calibrate", {"quotes": lists(quotes), "detail": True})
    assert wire.keys() <= Calibration.__dataclass_fields__.keys()


def test_the_asynchronous_client_gives_the_answer_of_the_blocking_one(
    service: Service, client: Client, quotes: dict[str, Vector]
) -> None:
    async def several() -> list[Calibration]:
        transport = httpx.ASGITransport(service.application.app, raise_app_exceptions=False)
        async with AsyncClient("http://service", transport=transport) as asked:
            assert await asked.ready()
            assert (await asked.models())[0].parameters == tuple(TRUTH)
            panel = await asked.panel({"expiry": [0.5], "strike": [100.0], "forward": 100.0, "iv": [0.2]})
            assert panel.quotes["iv"].tolist() == [0.2]
            priced = await asked.price(TRUTH, expiry=[0.5], log_moneyness=[0.0])
            assert priced.call.shape == (1,)
            return list(await asyncio.gather(*(asked.calibrate(quotes) for _ in range(4))))

    expected = client.calibrate(quotes)
    for answer in service.application.run(several()):
        assert answer.parameters == expected.parameters
        assert answer.standard_errors == expected.standard_errors


def test_both_encodings_give_bit_identical_parameters(
    service: Service, client: Client, quotes: dict[str, Vector]
) -> None:
    with Client(service.url, wire="json") as in_json:
        assert in_json.calibrate(quotes).parameters == client.calibrate(quotes).parameters


def test_a_missing_vol_is_nan_in_an_array_and_none_in_a_list(client: Client, quotes: dict[str, Vector]) -> None:
    holed = {**quotes, "iv": np.where(np.isin(np.arange(104), (3, 50)), np.nan, quotes["iv"])}
    listed: dict[str, Any] = lists(quotes)
    listed["iv"][3] = listed["iv"][50] = None
    first, second = client.calibrate(holed), client.calibrate(listed)
    missing = [excluded.index for excluded in first.fit.excluded if excluded.reason == "missing quote"]
    assert missing == [3, 50]
    assert first.parameters == second.parameters


def test_options_and_numpy_scalars_reach_the_service(client: Client, quotes: dict[str, Vector]) -> None:
    options: Any = {"fixed": {"kappa": np.float32(3.0)}, "bounds": {"xi": (0.1, np.float64(1.0))}}
    held = client.calibrate(quotes, **options)
    assert held.parameters["kappa"] == 3.0
    assert held.parameters["xi"] <= 1.0
    assert held.standard_errors["kappa"] is None


def test_quotes_left_out_and_warnings_come_back(client: Client, quotes: dict[str, Vector]) -> None:
    given = client.calibrate(
        {**quotes, "iv": np.where(np.arange(104) < 60, 0.0, quotes["iv"])}, exclude=np.array([60, 61])
    )
    reasons = {excluded.index: excluded.reason for excluded in given.fit.excluded}
    assert set(reasons) >= set(range(62))
    assert (reasons[59], reasons[60]) == ("vol is zero or negative", "excluded by the request")
    (found,) = (warning for warning in given.warnings if warning.code == "many_quotes_excluded")
    assert found.detail.startswith("60 of the 102 quotes")
    assert found.indices == ()


def test_bad_input_names_its_place_and_its_request(client: Client, quotes: dict[str, Vector]) -> None:
    with pytest.raises(InvalidInput, match=r"`quotes.expiry\[17\]` must be at most 100 years") as refused:
        client.calibrate({**quotes, "expiry": np.where(np.arange(104) == 17, 180.0, quotes["expiry"])})
    assert (refused.value.code, refused.value.status) == ("invalid_input", 422)
    assert [problem.pointer for problem in refused.value.errors] == ["/quotes/expiry/17"]
    assert refused.value.request_id


@pytest.mark.parametrize("column", ["nonsense", [[0.1, 0.2]], 0.3, [0.1, "x"]])
def test_a_column_that_is_none_is_refused_before_it_is_sent(column: Any, quotes: dict[str, Vector]) -> None:
    with Client("http://127.0.0.1:9") as unconnected, pytest.raises(InvalidInput) as refused:
        unconnected.calibrate({**quotes, "iv": column})
    assert refused.value.errors[0].pointer == "/quotes/iv"


def test_a_deadline_that_the_service_refuses_is_its_own_class(client: Client, quotes: dict[str, Vector]) -> None:
    with pytest.raises(DeadlineExpired) as refused:
        client.calibrate(quotes, budget_ms=1e-3)
    assert refused.value.status == 504


def test_a_batch_keeps_its_order_and_a_bad_panel_is_its_own_error(client: Client, quotes: dict[str, Vector]) -> None:
    first, in_days, unrefined, unknown = client.calibrate_batch(awkward(quotes))
    assert isinstance(first, Calibration)
    assert first.id == "first"
    # In a batch the vols agree, the digits of the parameters need not.
    assert first.parameters == pytest.approx(client.calibrate(quotes).parameters, rel=1e-3)
    assert isinstance(in_days, InvalidInput)
    assert in_days.errors[0].pointer == "/panels/1/quotes/expiry/3"
    assert isinstance(unrefined, Calibration)
    assert unrefined.status == "network_only"
    assert isinstance(unknown, InvalidInput)


def test_a_streamed_batch_gives_what_the_whole_one_does(
    service: Service, client: Client, quotes: dict[str, Vector]
) -> None:
    async def streamed() -> list[BatchItem]:
        async with AsyncClient(service.url) as asked:
            return [item async for item in asked.stream_batch(awkward(quotes))]

    whole = client.calibrate_batch(awkward(quotes))
    for items in (list(client.stream_batch(awkward(quotes))), service.application.run(streamed())):
        assert sorted(item.index for item in items) == [0, 1, 2, 3]
        for item in items:
            expected = whole[item.index]
            assert type(item.outcome) is type(expected)
            if isinstance(item.outcome, Calibration) and isinstance(expected, Calibration):
                assert item.outcome.parameters == expected.parameters
            if isinstance(item.outcome, CalibrantError) and isinstance(expected, CalibrantError):
                assert item.outcome.errors == expected.errors


def test_a_job_has_the_outcomes_of_the_batch(service: Service, client: Client, quotes: dict[str, Vector]) -> None:
    async def later() -> tuple[list[Job], list[Outcome]]:
        async with AsyncClient(service.url) as asked:
            job = await asked.submit_batch(awkward(quotes))
            seen = [job async for job in asked.watch_job(job.id)]
            return seen, await asked.job_outcomes(job.id)

    job = client.submit_batch(awkward(quotes))
    assert (job.kind, job.ended) == ("batch", False)
    seen = list(client.watch_job(job.id))
    whole = client.calibrate_batch(awkward(quotes))
    for jobs, outcomes in ((seen, client.job_outcomes(job.id)), service.application.run(later())):
        assert (jobs[-1].state, jobs[-1].progress, jobs[-1].ended) == ("done", 1.0, True)
        for outcome, expected in zip(outcomes, whole, strict=True):
            assert type(outcome) is type(expected)
            if isinstance(outcome, Calibration) and isinstance(expected, Calibration):
                assert outcome.parameters == expected.parameters
    assert client.job(job.id) == seen[-1]


def test_a_leverage_is_waited_for_and_priced_under(service: Service, client: Client) -> None:
    settings: Any = dict(SMALL)
    barrier: Any = UP
    leverage = client.leverage(CLOSED_FORM, **settings)
    assert leverage.leverage.value.shape == leverage.leverage.spot.shape
    assert leverage.leverage.expiry[-1] == 0.1
    (touch,) = client.one_touch([barrier], leverage=leverage.id, greeks=True, n_paths=512).prices
    assert touch.delta is not None
    assert 0.0 < touch.price < 1.0
    # The same as a job: one that was asked for, and one that the work has become because it is long.
    job = client.submit_leverage(CLOSED_FORM, **settings)
    assert [each.state for each in client.watch_job(job.id)][-1] == "done"
    assert np.array_equal(client.leverage_of(job.id).leverage.value, leverage.leverage.value)
    job = client.submit_one_touch([barrier], leverage=leverage.id, greeks=True, n_paths=512)
    assert list(client.watch_job(job.id))[-1].kind == "one_touch"
    assert client.touches_of(job.id).prices == (touch,)

    async def long() -> Leverage:
        async with AsyncClient(service.url) as asked:
            return await asked.leverage(CLOSED_FORM, **{**settings, "n_paths": 65_536})

    found = service.application.run(long())
    assert found.settings["n_paths"] == 65_536
    assert np.array_equal(found.leverage.value, leverage.leverage.value)
    hit: Any = {**barrier, "level": 1.0}
    with pytest.raises(InvalidInput) as refused:
        client.one_touch([hit], leverage=leverage.id)
    assert refused.value.errors[0].pointer == "/barriers/0/level"


def test_a_job_that_is_cancelled_has_no_outcomes(client: Client, quotes: dict[str, Vector]) -> None:
    job = client.submit_batch([{"quotes": quotes}] * 3000)
    assert client.cancel_job(job.id).state == "cancelled"
    assert [job.state for job in client.watch_job(job.id)] == ["cancelled"]
    with pytest.raises(CalibrantError, match="cancelled"):
        client.job_outcomes(job.id)
    with pytest.raises(CalibrantError, match="There is nothing"):
        client.job("../../health/live")


def test_a_batch_without_quotes_is_refused_before_it_is_sent(quotes: dict[str, Vector]) -> None:
    panels: Any = [{"quotes": quotes}, {"id": "empty"}]
    with Client("http://127.0.0.1:9") as unconnected, pytest.raises(InvalidInput) as refused:
        unconnected.calibrate_batch(panels)
    assert refused.value.errors[0].pointer == "/panels/1/quotes"


def test_a_chain_becomes_a_panel_to_calibrate(service: Service, client: Client) -> None:
    options = chain()
    columns: dict[str, Any] = {
        "expiration": np.array([option.expiration for option in options], "datetime64[D]"),
        "type": [option.side for option in options],
        "strike": np.array([option.strike for option in options]),
        "bid": np.array([option.bid for option in options]),
        "ask": np.array([option.ask if option.ask > 0.02 else np.nan for option in options]),
    }
    panel = client.panel(columns, as_of=AS_OF, underlying="SPX")
    assert (panel.id, panel.as_of, panel.exercise) == ("SPX", AS_OF.isoformat(), "european")
    assert [expiry.forward_from for expiry in panel.expiries] == ["parity"] * 3
    assert panel.quotes["iv"].shape == (len(panel.index),)
    assert client.calibrate(panel.quotes).status == "converged"
    with pytest.raises(InvalidInput) as refused:
        client.panel(columns)
    assert [error.pointer for error in refused.value.errors] == ["/as_of"]
    with pytest.raises(InvalidInput, match="`strike` must be a column"):
        client.panel({**columns, "strike": [[100.0]]})


def test_prices_are_arrays_with_nan_where_there_is_no_vol(service: Service, client: Client) -> None:
    grid = {"expiry": [0.5, 0.001], "log_moneyness": [0.0, 8.0]}
    prices = client.price(TRUTH, expiry=np.array(grid["expiry"]), log_moneyness=grid["log_moneyness"], gradient=True)
    wire = service.answer("/v1/price", {"model": "heston", "parameters": TRUTH, **grid, "gradient": True})
    assert prices.call.tolist() == wire["call"]
    assert prices.put.tolist() == wire["put"]
    assert np.isnan(prices.implied_vol).tolist() == [False, True]
    assert prices.gradient is not None
    assert {name: column.tolist() for name, column in prices.gradient.items()} == wire["gradient"]
    assert client.price(TRUTH, **grid).gradient is None  # type: ignore[arg-type]


def test_the_models_tell_their_bounds(client: Client) -> None:
    (heston,) = (model for model in client.models() if model.model == "heston")
    assert heston.parameters == tuple(TRUTH)
    assert heston.admissible_bounds["rho"] == (-0.9999, 0.9999)
    assert heston.networks[0].grid.expiry.ndim == 1


def test_readiness_is_asked_of_the_service(client: Client) -> None:
    assert client.ready()
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with Client(f"http://127.0.0.1:{port}") as unconnected:
        assert not unconnected.ready()


def test_the_example_runs(service: Service) -> None:
    program = (ROOT / "examples" / "client.py").read_text().replace("http://127.0.0.1:8000", service.url)
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    *parameters, last = run.stdout.splitlines()
    assert [line.split()[0] for line in parameters] == list(TRUTH)
    assert last.startswith("converged, 131.")


# Against peers --------------------------------------------------------------------------------------------------------

Script = Callable[[int, socket.socket], None]


def http(status: str, body: bytes, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", *headers, f"content-length: {len(body)}", "connection: close"]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def problem(status: int, code: str, *headers: str) -> bytes:
    document = {"status": status, "code": code, "detail": f"It is {code}.", "request_id": "of-the-peer"}
    return http(f"{status} X", json.dumps(document).encode(), "content-type: application/problem+json", *headers)


def sends(*answers: bytes) -> Script:
    """Answers in turn, the last one for ever; an empty one closes the connection without a word."""

    def serve(number: int, connection: socket.socket) -> None:
        connection.sendall(answers[min(number, len(answers) - 1)])

    return serve


class Peer:
    """One request a connection, answered by a script; what it was sent is kept."""

    def __init__(self, script: Script) -> None:
        self.requests: list[tuple[dict[str, str], bytes]] = []
        self._script = script
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = Thread(target=self._serve)
        self._thread.start()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                received = b""
                while b"\r\n\r\n" not in received:
                    received += connection.recv(65536)
                head, _, body = received.partition(b"\r\n\r\n")
                lines = (line.split(": ", 1) for line in head.decode().split("\r\n")[1:])
                headers = {name.lower(): value for name, value in lines}
                while len(body) < int(headers.get("content-length", "0")):
                    body += connection.recv(65536)
                self.requests.append((headers, body))
                try:
                    self._script(len(self.requests) - 1, connection)
                except OSError:
                    continue


@pytest.fixture(scope="module")
def answer(service: Service, quotes: dict[str, Vector]) -> bytes:
    """A good answer of the service, as bytes of HTTP."""
    response = httpx.post(f"{service.url}/v1/calibrate", json={"quotes": lists(quotes)}, timeout=60.0)
    document = json.dumps({**response.json(), "of_a_newer_service": {"x": [1, 2]}}).encode()
    return http("200 OK", document, "content-type: application/json")


def blocking(url: str, quotes: Any, deadline_ms: float | None, **terms: Any) -> Calibration:
    with Client(url, retries=QUICK, **terms) as client:
        return client.calibrate(quotes, deadline_ms=deadline_ms)


def asynchronous(url: str, quotes: Any, deadline_ms: float | None, **terms: Any) -> Calibration:
    async def once() -> Calibration:
        async with AsyncClient(url, retries=QUICK, **terms) as client:
            return await client.calibrate(quotes, deadline_ms=deadline_ms)

    return asyncio.run(once())


Caller = Callable[..., Calibration]
both = pytest.mark.parametrize("calibrate", [blocking, asynchronous])


@both
def test_a_refusal_for_the_moment_is_tried_again(calibrate: Caller, answer: bytes, quotes: dict[str, Vector]) -> None:
    refusals = (problem(503, "overloaded", "retry-after: 0"), problem(429, "rate_limited", "retry-after: 0"))
    with Peer(sends(*refusals, http("502 Bad Gateway", b"<html>"), answer)) as peer:
        assert calibrate(peer.url, quotes, None).status == "converged"
        ids = {headers["x-request-id"] for headers, _ in peer.requests}
        assert (len(peer.requests), len(ids)) == (4, 1)


@both
def test_retry_after_may_be_a_date(calibrate: Caller, answer: bytes, quotes: dict[str, Vector]) -> None:
    past = "retry-after: Sun, 06 Nov 1994 08:49:37 GMT"
    with Peer(sends(problem(503, "overloaded", past), answer)) as peer:
        assert calibrate(peer.url, quotes, None).status == "converged"
    # By the clock of whoever wrote it.
    dates = ("date: Sun, 06 Nov 1994 08:49:37 GMT", "retry-after: Sun, 06 Nov 1994 08:59:37 GMT")
    with Peer(sends(http("503 X", b"<html>", *dates))) as peer:
        with pytest.raises(Overloaded) as refused:
            calibrate(peer.url, quotes, None)
        assert refused.value.retry_after_s == 600.0
        assert len(peer.requests) == 1


@both
def test_a_connection_closed_without_an_answer_is_tried_again(
    calibrate: Caller, answer: bytes, quotes: dict[str, Vector]
) -> None:
    with Peer(sends(b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf", answer)) as peer:
        assert calibrate(peer.url, quotes, None).status == "converged"
        assert len(peer.requests) == 3


@both
def test_attempts_come_to_an_end(calibrate: Caller, quotes: dict[str, Vector]) -> None:
    with Peer(sends(b"")) as peer:
        with pytest.raises(NoAnswer) as lost:
            calibrate(peer.url, quotes, None)
        # It may be what ends the service each time.
        assert len(peer.requests) == 1 + QUICK.resends < QUICK.attempts
        assert lost.value.request_id == peer.requests[0][0]["x-request-id"]
    with Peer(sends(problem(503, "overloaded", "retry-after: 0"))) as peer:
        with pytest.raises(Overloaded):
            calibrate(peer.url, quotes, None)
        assert len(peer.requests) == QUICK.attempts
    # The service says that it had the request in hand when it ended, and so it did the next.
    with Peer(sends(problem(503, "engine_failed", "retry-after: 0"))) as peer:
        with pytest.raises(EngineFailed):
            calibrate(peer.url, quotes, None)
        assert len(peer.requests) == 2


FAILURES: dict[str, list[Event]] = {
    "overloaded": [Head(503, {"retry-after": "0"}), b""],
    "rate limited": [Head(429, {}), b""],
    "unconnected": [Lost(httpx.ConnectError(""))],
    "a proxy without an answer": [Head(502, {}), b"<html>", b""],
    "lost before the answer": [Lost(httpx.ReadError(""))],
    "lost within a refusal": [Head(503, {}), Lost(httpx.RemoteProtocolError(""))],
    "lost within the answer": [Head(200, {}), b"{", Lost(httpx.ReadError(""))],
}
UNANSWERED = {name for name in FAILURES if name.startswith(("lost", "a proxy"))}


def failures_met(call: Steps[Any], rng: random.Random) -> list[str]:
    """The failures that a call meets, one after the other by chance, until it gives up."""
    met: list[str] = []
    events: list[Event] = []
    event: Event = None
    try:
        while True:
            step = call.send(event)
            if isinstance(step, Send):
                met.append(rng.choice(list(FAILURES)))
                events = list(FAILURES[met[-1]])
            event = events.pop(0) if isinstance(step, Send | Read) else None
    except CalibrantError:
        return met


def test_whatever_else_goes_wrong_a_request_is_sent_again_a_few_times_after_it_got_no_answer() -> None:
    rng = random.Random(11)
    panel: Any = {"expiry": [0.5], "log_moneyness": [0.0], "iv": [0.2]}
    for _ in range(300):
        retries = Retries(attempts=rng.randint(1, 12), resends=rng.randint(0, 4), first_pause_s=0.0)
        calls = Calls(Terms(key=None, deadline_ms=None, timeout_s=60, network_ms=0, retries=retries, wire="json"))
        call = rng.choice(
            [
                calls.calibrate(panel, None, {}),
                calls.calibrate_batch([{"quotes": panel}], None),
                calls.stream_batch([{"quotes": panel}], None),
                calls.price(TRUTH, [0.5], [0.0], "heston", False, None),
                calls.panel({"expiry": [0.5]}, None, {}),
                calls.models(),
            ]
        )
        met = failures_met(call, rng)
        unanswered = [name in UNANSWERED for name in met]
        # It ends with the first limit that is met, and not before.
        assert len(met) <= retries.attempts
        assert sum(unanswered[:-1]) <= retries.resends
        assert len(met) == retries.attempts or sum(unanswered) == retries.resends + 1


@both
@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (422, "invalid_input", InvalidInput),
        (413, "too_large", InvalidInput),
        (401, "unauthenticated", NotAllowed),
        (403, "forbidden", NotAllowed),
        (500, "engine_failed", EngineFailed),
        (504, "deadline_expired", DeadlineExpired),
        (418, "of_a_newer_service", CalibrantError),
    ],
)
def test_a_refusal_for_good_is_not_tried_again(
    calibrate: Caller, status: int, code: str, kind: type[CalibrantError], quotes: dict[str, Vector]
) -> None:
    # It is the code that decides: an expired deadline has a `Retry-After` too, for who wants to ask with another one.
    with Peer(sends(problem(status, code, "retry-after: 0"))) as peer:
        with pytest.raises(kind, match=f"It is {code}.") as refused:
            calibrate(peer.url, quotes, None)
        assert type(refused.value) is kind
        assert (refused.value.code, refused.value.request_id) == (code, "of-the-peer")
        assert refused.value.retry_after_s == 0.0
        assert len(peer.requests) == 1


@both
def test_a_retry_beyond_the_deadline_is_not_waited_for(calibrate: Caller, quotes: dict[str, Vector]) -> None:
    with Peer(sends(problem(503, "deadline_unreachable", "retry-after: 60"))) as peer:
        with pytest.raises(Overloaded) as refused:
            calibrate(peer.url, quotes, 500.0)
        assert refused.value.retry_after_s == 60.0
        assert len(peer.requests) == 1


@both
def test_the_service_is_told_what_is_left_of_the_deadline(
    calibrate: Caller, answer: bytes, quotes: dict[str, Vector]
) -> None:
    with Peer(sends(problem(503, "not_ready", "retry-after: 0"), answer)) as peer:
        calibrate(peer.url, quotes, 30_000.0)
        calibrate(peer.url, quotes, None)
        first, second = (float(headers["x-request-deadline-ms"]) for headers, _ in peer.requests[:2])
        assert 0.0 < second < first < 30_000.0
        assert "x-request-deadline-ms" not in peer.requests[2][0]


@both
def test_an_answer_that_drips_ends_with_the_deadline(calibrate: Caller, quotes: dict[str, Vector]) -> None:
    def drip(_: int, connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        connection.settimeout(0.02)
        for _ in range(100_000):
            connection.sendall(b"x")
            try:
                if not connection.recv(1):
                    return
            except TimeoutError:
                continue

    with Peer(drip) as peer, pytest.raises(DeadlineExpired) as expired:
        calibrate(peer.url, quotes, 200.0)
    assert expired.value.request_id == peer.requests[0][0]["x-request-id"]


@both
def test_silence_ends_with_the_timeout(calibrate: Caller, quotes: dict[str, Vector]) -> None:
    def listen(_: int, connection: socket.socket) -> None:
        connection.recv(1)

    with Peer(listen) as peer:
        with pytest.raises(DeadlineExpired):
            calibrate(peer.url, quotes, None, timeout_s=0.1)
        assert len(peer.requests) == 1


@both
def test_a_service_without_msgpack_is_asked_in_json(
    calibrate: Caller, answer: bytes, quotes: dict[str, Vector]
) -> None:
    with Peer(sends(problem(415, "unsupported_media_type"), answer)) as peer:
        assert calibrate(peer.url, quotes, None).status == "converged"
        types = [headers["content-type"] for headers, _ in peer.requests]
        assert types == ["application/msgpack", "application/json"]
        assert json.loads(peer.requests[1][1]) == MSGPACK.decode(peer.requests[0][1], dict[str, Any])


@both
def test_a_key_is_sent_as_bearer(calibrate: Caller, answer: bytes, quotes: dict[str, Vector]) -> None:
    with Peer(sends(answer)) as peer:
        calibrate(peer.url, quotes, None, key="secret")
        assert peer.requests[0][0]["authorization"] == "Bearer secret"


@both
@pytest.mark.parametrize("body", [b"<html>", b"{}", b'{"model": 3}'])
def test_an_answer_that_cannot_be_read_says_so(calibrate: Caller, body: bytes, quotes: dict[str, Vector]) -> None:
    with Peer(sends(http("200 OK", body))) as peer, pytest.raises(CalibrantError) as failed:
        calibrate(peer.url, quotes, None)
    assert failed.value.code == "unreadable_answer"


@both
def test_a_proxys_page_is_an_error_by_its_status(calibrate: Caller, quotes: dict[str, Vector]) -> None:
    with Peer(sends(http("502 Bad Gateway", b"<html>"))) as peer:
        with pytest.raises(NoAnswer) as failed:
            calibrate(peer.url, quotes, None)
        # The service may have gone while it had the request.
        assert len(peer.requests) == 1 + QUICK.resends
    assert failed.value.code == "http_502"
    with Peer(sends(http("429 X", b""))) as peer, pytest.raises(RateLimited):
        calibrate(peer.url, quotes, None)


def test_a_stream_that_breaks_delivers_each_panel_once(service: Service, quotes: dict[str, Vector]) -> None:
    panels = [{"quotes": lists(quotes), "refine": "none", "id": str(i)} for i in range(5)]
    response = httpx.post(
        f"{service.url}/v1/calibrate/batch", json={"panels": panels}, headers={"accept": "application/x-ndjson"}
    )
    lines = response.content.splitlines(keepends=True)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\nconnection: close\r\n"
    # Broken within the third line; then an end that comes too early; then all of it.
    broken = head + b"content-length: 100000\r\n\r\n" + lines[0] + lines[1] + lines[2][:20]
    short = head + b"\r\n" + lines[2]
    whole = head + b"\r\n" + b"".join(lines)
    with Peer(sends(broken, short, whole)) as peer, Client(peer.url, retries=QUICK) as client:
        items = list(client.stream_batch(panels))  # type: ignore[arg-type]
        assert len(peer.requests) == 3
    assert sorted(item.index for item in items) == [0, 1, 2, 3, 4]
    for item in items:
        assert isinstance(item.outcome, Calibration)
        assert item.outcome.id == str(item.index)


def test_a_stream_that_comes_a_panel_further_each_time_is_not_asked_for_without_end(
    service: Service, quotes: dict[str, Vector]
) -> None:
    panels = [{"quotes": lists(quotes), "refine": "none"} for _ in range(9)]
    response = httpx.post(
        f"{service.url}/v1/calibrate/batch", json={"panels": panels}, headers={"accept": "application/x-ndjson"}
    )
    lines = response.content.splitlines(keepends=True)
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\nconnection: close\r\n\r\n"

    def in_a_thread(url: str) -> None:
        with Client(url, retries=QUICK) as client:
            list(client.stream_batch(panels))  # type: ignore[arg-type]

    async def in_a_loop(url: str) -> None:
        async with AsyncClient(url, retries=QUICK) as client:
            [item async for item in client.stream_batch(panels)]  # type: ignore[arg-type]

    for ask in (in_a_thread, lambda url: asyncio.run(in_a_loop(url))):
        with Peer(sends(*(head + b"".join(lines[:n]) for n in range(1, 10)))) as peer:
            with pytest.raises(NoAnswer, match="ended with 6 panels without a result"):
                ask(peer.url)
            assert len(peer.requests) == 1 + QUICK.resends


class Traced(httpx.AsyncHTTPTransport):
    """Counts the connections made."""

    connected = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        async def count(event: str, _: dict[str, Any]) -> None:
            self.connected += event == "connection.connect_tcp.complete"

        request.extensions["trace"] = count
        return await super().handle_async_request(request)


def test_a_connection_is_kept_from_one_request_to_the_next(service: Service) -> None:
    async def connected() -> int:
        transport = Traced()
        async with AsyncClient(service.url, transport=transport) as client:
            for _ in range(5):
                assert await client.ready()
        return transport.connected

    assert service.application.run(connected()) == 1


@pytest.mark.parametrize("address", ["localhost:8000", "ftp://localhost", "http://", "http://x:port"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(ValueError, match="`base_url` must"):
        Client(address)


def test_an_asynchronous_call_can_be_cancelled(quotes: dict[str, Vector]) -> None:
    closed: Future[bool] = Future()

    def listen(_: int, connection: socket.socket) -> None:
        closed.set_result(connection.recv(1) == b"")

    async def given_up(url: str) -> None:
        async with AsyncClient(url) as client:
            await asyncio.wait_for(client.calibrate(quotes), 0.1)

    with Peer(listen) as peer:
        with pytest.raises(TimeoutError):
            asyncio.run(given_up(peer.url))
        assert closed.result(5.0), "the service was not told that nobody waits any more"


@pytest.mark.parametrize(
    ("failure", "least", "most"),
    [
        (Overloaded("", code="overloaded", status=503, retry_after_s=3.0), 3.0, 4.5),
        (Overloaded("", code="overloaded", status=503, retry_after_s=0.0), 0.1, 0.15),
        (RateLimited("", code="rate_limited", status=429), 0.1, 0.15),
        (NoAnswer("", code="not_connected"), 0.1, 0.15),
        (NoAnswer("", code="http_502", status=502), 0.1, 0.15),
        (NoAnswer("", code="connection_broken"), 0.0, 0.0),
    ],
)
def test_a_pause_is_never_shorter_than_retry_after(failure: CalibrantError, least: float, most: float) -> None:
    pauses = [Patience(Retries(), None, 60.0, 0.0).pause(failure) for _ in range(200)]
    assert least <= min(pauses)
    assert max(pauses) <= most
    # Clients that were refused together do not come back together.
    assert least == 0.0 or len(set(pauses)) == len(pauses)


def test_pauses_double_up_to_the_longest() -> None:
    patience = Patience(Retries(attempts=10, first_pause_s=1.0, longest_pause_s=4.0), None, 600.0, 0.0)
    failure = Overloaded("", code="overloaded", status=503)
    for shortest in (1.0, 2.0, 4.0, 4.0):
        assert shortest <= patience.pause(failure) <= 1.5 * shortest


WITHOUT = """
import sys
import calibrant.panel
for package in ("httpx", "msgspec"):
    kept, sys.modules[package] = sys.modules.get(package), None
    try:
        import calibrant.client
    except ImportError as error:
        print(error)
    sys.modules[package] = kept
"""


def test_without_its_packages_the_client_says_what_to_install() -> None:
    run = subprocess.run([sys.executable, "-c", WITHOUT], cwd=ROOT, capture_output=True, text=True, check=True)
    needed = "calibrant.client needs httpx and msgspec: pip install 'calibrant[client]'"
    assert [line.startswith(needed) for line in run.stdout.splitlines()] == [True, True]
