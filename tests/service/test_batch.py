"""Batches: every panel its own result or problem, in order or as they finish, in every format."""

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpx
import msgspec
import numpy as np
import pyarrow
import pytest
from numpy.typing import NDArray

from calibrant.black import implied_volatility
from calibrant.models import MODELS
from calibrant.panel import OptionPanel
from calibrant.pricing.fourier import otm_values
from service.batches.answers import BatchContext, PanelBatch
from service.batches.groups import GROUP_PANELS
from service.body import memory_file
from service.errors import DeadlineUnreachable, ServiceError
from service.lane import Priority
from service.settings import Settings
from service.wire import schema
from service.wire.arrow import MEDIA_TYPE as ARROW
from service.wire.batch import BatchLimits, DocumentBatch, PanelAnswer
from service.wire.formats import FORMATS
from tests.service.bodies import REAL, as_moneyness, real_panel
from tests.service.client import Client
from tests.service.test_bad_input import NAN, changed, panel
from tests.shared import ROOT, needs_shared

BATCH = "/v1/calibrate/batch"
JSON, MSGPACK, NDJSON = "application/json", "application/msgpack", "application/x-ndjson"


def post(client: Client, panels: list[Any], sent: str = JSON, accept: str = "*/*", **headers: str) -> httpx.Response:
    body = {"panels": panels}
    content = json.dumps(body).encode() if sent == JSON else msgspec.msgpack.encode(body)
    return client.post(BATCH, content, content_type=sent, accept=accept, **headers)


def results(response: httpx.Response) -> list[Any]:
    """The results of an answer in any of the formats of documents, in the order of the request."""
    assert response.status_code == 200, response.text
    match response.headers["content-type"]:
        case "application/json":
            answer = response.json()["results"]
        case "application/msgpack":
            answer = msgspec.msgpack.decode(response.content)["results"]
        case _:
            lines = [json.loads(line) for line in response.text.splitlines()]
            answer = [line for _, line in sorted((line.pop("index"), line) for line in lines)]
    assert isinstance(answer, list)
    return answer


def vols(expiry: NDArray[Any], log_moneyness: NDArray[Any], parameters: dict[str, float]) -> NDArray[Any]:
    model = MODELS["heston"]
    values = otm_values(model, log_moneyness, expiry, np.array([parameters[name] for name in model.parameters]))
    scale = np.exp(np.maximum(-log_moneyness, 0.0))
    return implied_volatility(scale * values, np.abs(log_moneyness), expiry).volatility


@needs_shared
def test_a_panel_in_a_batch_has_the_implied_vols_that_it_has_alone(client: Client) -> None:
    panels = [as_moneyness(real_panel(name)) for name in REAL]
    for body, result in zip(panels, results(post(client, panels)), strict=True):
        alone = client.calibrate(body)
        sound = OptionPanel.from_quotes(**body["quotes"])
        away = vols(sound.expiry, sound.log_moneyness, result["parameters"]) - vols(
            sound.expiry, sound.log_moneyness, alone["parameters"]
        )
        used = np.isfinite(away)
        assert used.mean() > 0.9
        assert np.abs(away[used]).max() < 1e-6
        assert result["status"] == alone["status"]


@needs_shared
def test_strikes_and_log_moneyness_agree(client: Client) -> None:
    for name in REAL:
        request = real_panel(name)
        quotes = request["quotes"]
        k = np.log(np.array(quotes["strike"]) / np.array(quotes["forward"]))
        columns = {x: quotes[x] for x in ("expiry", "iv", "bid_iv", "ask_iv")}
        by_strike, by_moneyness = results(post(client, [request, {"quotes": {**columns, "log_moneyness": k.tolist()}}]))
        t = np.array(quotes["expiry"])
        near = np.abs(k) < 2.0 * np.sqrt(t) * 0.3
        away = vols(t[near], k[near], by_strike["parameters"]) - vols(t[near], k[near], by_moneyness["parameters"])
        assert np.abs(away[np.isfinite(away)]).max() < 1e-6


BAD = panel(strike=changed(panel()["quotes"]["strike"], 3, -1.0))
MIXED = [panel(), BAD, 17, panel(), {}, None, [], panel(iv=[0.2] * 6), {**panel(), "model": "sabr"}, "x", panel()]
CODES = [None, *["invalid_input"] * 2, None, *["invalid_input"] * 3, None, *["invalid_input"] * 2, None]


@pytest.mark.parametrize("sent", [JSON, MSGPACK])
@pytest.mark.parametrize("accept", [JSON, MSGPACK, NDJSON])
def test_one_bad_panel_fails_no_other(client: Client, sent: str, accept: str) -> None:
    response = post(client, MIXED, sent, accept)
    assert response.headers["content-type"] == accept
    found = results(response)
    assert [result.get("code") for result in found] == CODES
    expected = client.calibrate(panel())["parameters"]
    for body, result in zip(MIXED, found, strict=True):
        if "code" in result:
            problem = schema.ProblemDocument.model_validate(result)
            assert problem.errors
            assert problem.errors[0].pointer.startswith(f"/panels/{MIXED.index(body)}")
        else:
            schema.CalibrateResponse.model_validate(result)
        if body == panel():
            assert list(result["parameters"].values()) == pytest.approx(list(expected.values()), rel=1e-6)


def test_a_problem_points_from_the_root_of_the_request(client: Client) -> None:
    problem = results(post(client, [panel(), BAD]))[1]
    sentence = "`panels[1].quotes.strike[3]` must be a finite number > 0, but is -1.0."
    assert problem["errors"] == [{"pointer": "/panels/1/quotes/strike/3", "detail": sentence}]
    assert problem["detail"] == sentence


def test_a_panel_that_is_no_json_fails_alone(client: Client) -> None:
    good = json.dumps(panel())
    body = f'{{"panels": [{good}, {{"quotes": nonsense}}, {good[:-1]}, "x": [}}], {good}]}}'.encode()
    found = results(client.post(BATCH, body))
    assert [result.get("code") for result in found] == [None, "invalid_input", "invalid_input", None]
    assert found[1]["errors"][0]["pointer"] == "/panels/1"
    assert found[1]["detail"].startswith("`panels[1]` is not JSON: ")


def test_results_come_in_the_order_of_the_request_over_many_groups(client: Client) -> None:
    panels = [{**panel(), "id": str(i)} if i % 7 else BAD for i in range(100)]
    for accept in (JSON, NDJSON):
        found = results(post(client, panels, accept=accept))
        assert [result.get("id", "bad") for result in found] == [str(i) if i % 7 else "bad" for i in range(100)]


def test_lines_carry_their_index(client: Client) -> None:
    response = post(client, [panel()] * 40, accept=NDJSON)
    assert sorted(json.loads(line)["index"] for line in response.text.splitlines()) == list(range(40))


def test_every_kind_of_option_is_taken_by_each_panel_for_itself(client: Client) -> None:
    optimum = client.calibrate(panel())["parameters"]
    panels = [
        {**panel(), "refine": "none", "id": "a", "as_of": "today", "detail": True},
        {**panel(), "refine": "lbfgs", "fixed": {"rho": -0.5}, "bounds": {"kappa": [1.0, 5.0]}},
        {**panel(), "start": optimum, "prior": {"parameters": {"xi": 0.5}, "standard_deviations": {"xi": 0.1}}},
    ]
    for sent in (JSON, MSGPACK):
        none, lbfgs, prior = results(post(client, panels, sent))
        assert (none["status"], none["id"], none["as_of"]) == ("network_only", "a", "today")
        assert len(none["model_iv"]) == 6
        assert lbfgs["parameters"]["rho"] == -0.5
        assert 1.0 <= lbfgs["parameters"]["kappa"] <= 5.0
        assert prior["status"] == "converged"


def test_a_batch_takes_the_time_of_its_header_and_a_panel_that_of_its_budget(client: Client) -> None:
    late, fine = results(post(client, [{**panel(), "budget_ms": 1e-3}, panel()]))
    assert (late["code"], fine["status"]) == ("deadline_expired", "converged")
    whole = post(client, [panel()] * 20, x_request_deadline_ms="0.001")
    assert (whole.status_code, whole.json()["code"]) == (504, "deadline_expired")


def test_what_is_not_begun_by_the_deadline_of_the_batch_is_a_problem_each(client: Client) -> None:
    service: Any = client.app.service
    first = GROUP_PANELS * service.answers.batches.crew.size
    body = json.dumps({"panels": [panel()] * (first + 20)}).encode()
    batch = DocumentBatch(body, FORMATS[JSON], BatchLimits(panels=first + 20, panel_bytes=10_000))
    read: list[float | None] = []

    def deadline(budget_ms: float | None) -> float:
        """Of a panel, which is read on the lane: passed for those after the first group."""
        if threading.current_thread().name == "background":
            read.append(budget_ms)
            if len(read) > first:
                return time.perf_counter() - 1.0
        return time.perf_counter() + 60.0

    def finish(answer: PanelAnswer) -> str:
        return answer.outcome.code if isinstance(answer.outcome, ServiceError) else answer.outcome.calibration.status

    async def all_of_it() -> list[str]:
        groups = service.answers.batches.groups.run(service.engine, batch, deadline, finish)
        return [done.part async for group in groups for done in group]

    assert client.run(all_of_it()) == ["converged"] * first + ["deadline_expired"] * 20


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (b"", ""),
        (b"[]", ""),
        (b"null", ""),
        (b'{"panels": [', ""),
        (b'{"panels": []} x', ""),
        (b"{}", "/panels"),
        (b'{"panels": null}', "/panels"),
        (b'{"panels": {}}', "/panels"),
        (b'{"panels": []}', "/panels"),
        (b'{"panels": [1], "model": "heston"}', "/model"),
        (b'{"panels": [1], "\\u006dodel": 1}', "/model"),
        (b'{"panels": [1], "\\ud800": 1}', ""),
        (b'{"panels": [1], "\xff": 1}', ""),
        (b"{" + b",".join(b'"%d": 1' % i for i in range(100)) + b"}", "/panels"),
    ],
)
def test_a_body_that_is_no_batch_is_refused_as_a_whole(client: Client, body: bytes, pointer: str) -> None:
    response = client.post(BATCH, body)
    assert response.status_code == 422, response.text
    assert response.json()["errors"][0]["pointer"] == pointer


def test_a_field_may_be_written_with_escapes(client: Client) -> None:
    body = f'{{"\\u0070anels": [{json.dumps(panel())}]}}'.encode()
    assert results(client.post(BATCH, body))[0]["status"] == "converged"


def test_media_types_that_are_none_of_a_batch_are_refused(client: Client) -> None:
    for sent in ("text/plain", NDJSON, "application/octet-stream"):
        response = client.post(BATCH, {"panels": [panel()]}, content_type=sent)
        assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")
    assert client.post(BATCH, {"panels": [panel()]}, content_encoding="gzip").status_code == 415


@pytest.fixture(scope="module")
def small() -> Iterator[Client]:
    """A service that takes little."""
    client = Client(
        Settings(networks=ROOT / "networks", max_batch_panels=20, max_body_bytes=1000, max_batch_body_bytes=20_000)
    )
    yield client
    client.close()


def test_limits_on_bytes_and_panels_hold(small: Client) -> None:
    assert len(results(post(small, [panel()] * 20))) == 20
    for sent in (JSON, MSGPACK):
        many = post(small, [0] * 21, sent)
        assert (many.status_code, many.json()["code"]) == (413, "too_large")
        assert "20 panels" in many.json()["detail"]
        large, fine = results(post(small, [panel(weight=[1.0] * 300), panel()], sent))
        assert (large["code"], fine["status"]) == ("too_large", "converged")
        assert "`panels[0]` must have at most 1000 bytes" in large["detail"]
    assert post(small, [panel()] * 200).status_code == 413


def test_a_failure_in_one_panel_is_a_problem_that_gives_nothing_away(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = client.app.service.engine
    steps = engine.calibration_steps

    def fail_on_lbfgs(job: Any, begun: Any = None) -> Any:
        if job.options.refine == "lbfgs":
            raise ZeroDivisionError("secret")
        return steps(job, begun)

    monkeypatch.setattr(engine, "calibration_steps", fail_on_lbfgs)
    failed, fine = results(post(client, [{**panel(), "refine": "lbfgs"}, panel()]))
    assert (failed["code"], fine["status"]) == ("engine_failed", "converged")
    assert "secret" not in json.dumps(failed)


def test_a_network_that_fails_is_each_panels_own_problem(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    network = client.app.service.engine.releases["heston"].networks[-1]
    monkeypatch.setattr(type(network), "parameters", lambda *_: np.full((1, 5), NAN))
    found = results(post(client, [{**panel(), "refine": "none"}] * 3))
    assert [result["code"] for result in found] == ["engine_failed"] * 3


def test_panels_are_counted_in_the_metrics(client: Client) -> None:
    def value(line: str) -> float:
        lines = [x for x in client.get("/metrics").text.splitlines() if x.startswith(line)]
        return float(lines[0].rsplit(" ", 1)[1]) if lines else 0.0

    counted = ("calibrant_batch_size_count", "calibrant_batch_size_sum", "calibrant_refinement_iterations_count")
    before = [value(line) for line in counted]
    post(client, [panel(), BAD, panel()])
    assert [value(line) - was for line, was in zip(counted, before, strict=True)] == [1, 3, 2]


def test_interactive_requests_are_answered_while_a_batch_runs(client: Client) -> None:
    batch_is_done = threading.Event()

    def run_batch() -> None:
        results(post(client, [panel()] * 3000))
        batch_is_done.set()

    thread = threading.Thread(target=run_batch)
    thread.start()
    answered_meanwhile = 0
    while not batch_is_done.is_set():
        # Patient, as other tests may keep the machine busy: how soon is what `benchmarks` measure.
        assert client.calibrate(panel(), x_request_deadline_ms="60000")["status"] == "converged"
        answered_meanwhile += 1
    thread.join()
    assert answered_meanwhile > 5


def test_a_batch_that_cannot_be_begun_by_its_deadline_is_refused_at_once(client: Client) -> None:
    service: Any = client.app.service

    async def ask() -> None:
        hold = threading.Event()
        running = asyncio.ensure_future(service.scheduler.run(hold.wait, priority=Priority.BULK, cost=60.0))
        await asyncio.sleep(0.1)
        asked = BatchContext("x", time.perf_counter(), 30_000.0)
        try:
            with memory_file() as body, pytest.raises(DeadlineUnreachable) as caught:
                await service.jobs.answer(PanelBatch(asked, JSON, JSON), body)
        finally:
            hold.set()
            await running
        assert 55 <= int(caught.value.headers["retry-after"]) <= 60

    client.run(ask())


def test_an_arrow_answer_to_documents_is_keyed_by_their_number(client: Client) -> None:
    response = post(client, [panel(), BAD], accept=ARROW)
    table = pyarrow.ipc.open_stream(response.content).read_all()
    assert table.column("panel").to_pylist() == [0, 1]
    assert table.column("status").to_pylist() == ["converged", "invalid_input"]


def test_a_batch_refined_where_the_gpu_would_has_the_answers_it_has_without(
    client: Client, dax: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the kernel's twin on the processor; with a bad panel, one of the network's own answer, and one too few."""
    engine = client.app.service.engine
    panels = [dax, BAD, {**dax, "refine": "none"}, panel(iv=[0.2] * 6), {**dax, "fixed": {"rho": -0.6}}]
    expected = results(post(client, panels))
    monkeypatch.setattr(engine, "gpu_refinement", True)
    found = results(post(client, panels))
    assert [answer.get("status") for answer in found] == [answer.get("status") for answer in expected]
    for i in (0, 4):
        assert found[i]["parameters"] == pytest.approx(expected[i]["parameters"], rel=1e-6)
    # Six equal vols leave most parameters open: what they say is the fit.
    assert found[3]["fit"]["max_abs_bp"] == pytest.approx(expected[3]["fit"]["max_abs_bp"], abs=1e-4)
    assert found[0]["iterations"] < expected[0]["iterations"]
    assert found[2]["parameters"] == pytest.approx(expected[2]["parameters"], rel=1e-6)
