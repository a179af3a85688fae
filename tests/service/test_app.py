"""What good requests get, and what stands around them: identity, time, limits, health, documentation."""

import json
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Literal

import httpx
import numpy as np
import pytest

from service.settings import Settings
from service.wire.schema import CalibrateResponse, PriceResponse, ProblemDocument
from tests.service.client import Client
from tests.shared import ROOT

STAGES = ("decode", "queue", "network", "refine", "diagnostics")
TRUTH = {"kappa": 2.0, "theta": 0.06, "xi": 0.5, "rho": -0.6, "v0": 0.05}


def priced_panel(client: Client, params: dict[str, float]) -> dict[str, Any]:
    """An exact panel: the service's accurate prices of these parameters."""
    expiry, deviations = np.meshgrid([0.1, 0.35, 0.8, 1.5], np.linspace(-1.5, 1.2, 9), indexing="ij")
    log_moneyness = 0.24 * np.sqrt(expiry) * deviations
    grid = {"expiry": expiry.ravel().tolist(), "log_moneyness": log_moneyness.ravel().tolist()}
    response = client.post("/v1/price", {"model": "heston", "parameters": params, **grid})
    assert response.status_code == 200, response.text
    return {"model": "heston", "quotes": {**grid, "iv": response.json()["implied_vol"]}}


def closeness(answer: dict[str, Any], expected: dict[str, float]) -> float:
    return max(abs(float(answer["parameters"][name]) / value - 1.0) for name, value in expected.items())


def test_the_dax_panel_calibrates_to_its_published_optimum(client: Client, dax: dict[str, Any]) -> None:
    answer = client.calibrate(dax)
    assert answer["status"] == "converged"
    assert answer["fit"]["n_quotes"] + len(answer["fit"]["excluded"]) == 104
    # Far outside the paper's box, and within the domain of real markets: the published optimum is kappa 15.7, xi 3.4.
    assert answer["fit"]["rmse_bp"] == pytest.approx(131.6, abs=0.6)
    assert answer["parameters"]["kappa"] == pytest.approx(15.66, abs=0.5)
    assert not answer["out_of_domain"]


@pytest.mark.parametrize("refine", ["lm", "lbfgs", "none"])
def test_an_answer_is_what_the_schema_describes(client: Client, dax: dict[str, Any], refine: str) -> None:
    answer = client.calibrate({**dax, "refine": refine, "detail": True})
    CalibrateResponse.model_validate_json(json.dumps(answer))
    assert tuple(answer["timing_us"]) == (*STAGES, "total")
    assert answer["timing_us"]["total"] == pytest.approx(sum(answer["timing_us"][stage] for stage in STAGES), abs=0.5)
    assert re.fullmatch(r"heston-\d+@sha256:[0-9a-f]{12,}", answer["model_version"])
    assert answer["id"] == "DAX"
    assert answer["as_of"] == "2002-07-05"


@pytest.mark.parametrize("refine", ["lm", "lbfgs"])
def test_an_exact_panel_gives_back_its_parameters(client: Client, refine: str) -> None:
    answer = client.calibrate({**priced_panel(client, TRUTH), "refine": refine})
    assert answer["status"] == "converged"
    assert answer["fit"]["max_abs_bp"] < 0.01
    assert closeness(answer, TRUTH) < 1e-4


def test_the_network_alone_is_the_answer_without_refinement(client: Client, dax: dict[str, Any]) -> None:
    answer = client.calibrate({**dax, "refine": "none"})
    assert (answer["status"], answer["start"], answer["iterations"]) == ("network_only", "network", 0)
    assert answer["fit"]["rmse_bp"] > client.calibrate(dax)["fit"]["rmse_bp"]


def test_the_same_request_gives_the_same_answer(client: Client, dax: dict[str, Any]) -> None:
    first, second = client.calibrate(dax), client.calibrate(dax)
    del first["timing_us"], second["timing_us"]
    assert first == second


def test_the_order_of_the_quotes_does_not_matter(client: Client, dax: dict[str, Any]) -> None:
    order = np.random.default_rng(3).permutation(104)
    shuffled = {name: [column[i] for i in order] for name, column in dax["quotes"].items()}
    answer = client.calibrate({**dax, "quotes": shuffled})
    assert closeness(answer, client.calibrate(dax)["parameters"]) < 1e-8


def test_the_unit_of_strikes_and_forwards_does_not_matter(client: Client, dax: dict[str, Any]) -> None:
    quotes = dax["quotes"]
    scaled = {**quotes, "strike": [1e3 * k for k in quotes["strike"]], "forward": [1e3 * f for f in quotes["forward"]]}
    answer = client.calibrate({**dax, "quotes": scaled})
    assert closeness(answer, client.calibrate(dax)["parameters"]) < 1e-8


def test_log_moneyness_stands_for_strikes_and_forwards(client: Client, dax: dict[str, Any]) -> None:
    quotes = dax["quotes"]
    moneyness = np.log(np.array(quotes["strike"]) / np.array(quotes["forward"])).tolist()
    given = {"expiry": quotes["expiry"], "log_moneyness": moneyness, "iv": quotes["iv"]}
    assert closeness(client.calibrate({**dax, "quotes": given}), client.calibrate(dax)["parameters"]) < 1e-8


def test_a_null_vol_is_a_missing_quote(client: Client, dax: dict[str, Any]) -> None:
    quotes = dax["quotes"]
    holed = {**quotes, "iv": [None if i in (3, 50) else v for i, v in enumerate(quotes["iv"])]}
    dropped = {name: [v for i, v in enumerate(column) if i not in (3, 50)] for name, column in quotes.items()}
    answer = client.calibrate({**dax, "quotes": holed, "detail": True})
    assert [x["index"] for x in answer["fit"]["excluded"] if x["reason"] == "missing quote"] == [3, 50]
    assert closeness(answer, client.calibrate({**dax, "quotes": dropped})["parameters"]) < 1e-12
    without = [i for i, vol in enumerate(answer["model_iv"]) if vol is None]
    assert without == [x["index"] for x in answer["fit"]["excluded"]]


def test_the_detail_lists_the_model_vols_in_the_order_of_the_request(client: Client, dax: dict[str, Any]) -> None:
    order = list(np.random.default_rng(4).permutation(104))
    shuffled = {name: [column[i] for i in order] for name, column in dax["quotes"].items()}
    answer = client.calibrate({**dax, "quotes": shuffled, "detail": True})
    errors_bp = 1e4 * (np.array(answer["model_iv"], dtype=float) - np.array(shuffled["iv"]))
    errors_bp = errors_bp[np.isfinite(errors_bp)]
    assert errors_bp.size == answer["fit"]["n_quotes"]
    assert np.sqrt(np.mean(errors_bp**2)) == pytest.approx(answer["fit"]["rmse_bp"], rel=1e-12)
    correlation = np.array(answer["parameter_correlation"])
    assert correlation == pytest.approx(correlation.T)
    assert np.diag(correlation) == pytest.approx(1.0)


def test_a_held_parameter_stays_where_it_is(client: Client, dax: dict[str, Any]) -> None:
    answer = client.calibrate({**dax, "fixed": {"kappa": 3.0}})
    assert answer["parameters"]["kappa"] == 3.0
    assert answer["standard_errors"]["kappa"] is None
    assert answer["fit"]["rmse_bp"] > 131.62


def test_tighter_bounds_are_respected_and_named(client: Client, dax: dict[str, Any]) -> None:
    answer = client.calibrate({**dax, "bounds": {"kappa": [0.1, 10.0], "xi": [0.05, 2.0]}})
    assert answer["parameters"]["kappa"] <= 10.0
    assert answer["parameters"]["xi"] <= 2.0
    assert "xi" in answer["at_bounds"]
    assert answer["standard_errors"]["xi"] is None
    assert "xi" in answer["message"]


def test_a_firm_prior_pulls_its_parameter(client: Client, dax: dict[str, Any]) -> None:
    prior = {"parameters": {"kappa": 5.0}, "standard_deviations": {"kappa": 1e-4}}
    answer = client.calibrate({**dax, "prior": prior})
    assert answer["parameters"]["kappa"] == pytest.approx(5.0, abs=0.05)


def test_a_given_start_is_used_where_it_is_the_better(client: Client, dax: dict[str, Any]) -> None:
    optimum = client.calibrate(dax)["parameters"]
    answer = client.calibrate({**dax, "start": optimum})
    assert answer["fit"]["rmse_bp"] == pytest.approx(client.calibrate(dax)["fit"]["rmse_bp"], rel=1e-6)


def test_bid_and_ask_stand_for_the_mid(client: Client, dax: dict[str, Any]) -> None:
    quotes = dict(dax["quotes"])
    mid = quotes.pop("iv")
    quotes |= {"bid_iv": [v - 0.001 for v in mid], "ask_iv": [v + 0.001 for v in mid]}
    # The same spread everywhere is the same weight everywhere.
    answer = client.calibrate({**dax, "quotes": quotes})
    assert closeness(answer, client.calibrate(dax)["parameters"]) < 1e-6


def test_a_planted_butterfly_is_found_at_its_strike(client: Client, dax: dict[str, Any]) -> None:
    quotes = {**dax["quotes"]}
    at = quotes["strike"].index(4600, 65)
    assert quotes["expiry"][at] > 0.9
    quotes["iv"] = [v + 0.05 if i == at else v for i, v in enumerate(quotes["iv"])]
    found = client.calibrate({**dax, "quotes": quotes})["arbitrage"]["quotes"]
    assert not found["free"]
    # The strike is that of the request's unit; the forward differs from one expiry to the next.
    assert any(
        v["kind"] == "butterfly" and v["strike"] == pytest.approx(4600) and v["expiry"] == quotes["expiry"][at]
        for v in found["violations"]
    ), found


def test_an_exact_panel_is_free_of_arbitrage(client: Client) -> None:
    arbitrage = client.calibrate(priced_panel(client, TRUTH))["arbitrage"]
    assert arbitrage == {
        "quotes": {"free": True, "n_violations": 0, "violations": []},
        "surface": {"free": True, "n_violations": 0, "violations": []},
    }


def test_a_budget_spent_before_the_network_is_a_timeout(client: Client, dax: dict[str, Any]) -> None:
    response = client.post("/v1/calibrate", {**dax, "budget_ms": 1e-3})
    assert response.status_code == 504
    assert response.json()["code"] == "deadline_expired"
    assert client.post("/v1/calibrate", dax, x_request_deadline_ms="0.001").status_code == 504
    assert client.post("/v1/calibrate", {**dax, "budget_ms": 60_000}, x_request_deadline_ms="0.001").status_code == 504


def test_a_budget_that_suffices_changes_nothing(client: Client, dax: dict[str, Any]) -> None:
    assert client.calibrate({**dax, "budget_ms": 60_000})["parameters"] == client.calibrate(dax)["parameters"]


def test_ten_thousand_quotes_calibrate(client: Client) -> None:
    rng = np.random.default_rng(8)
    sample = priced_panel(client, TRUTH)["quotes"]
    vols = dict(zip(zip(sample["expiry"], sample["log_moneyness"], strict=True), sample["iv"], strict=True))
    drawn = rng.integers(0, len(vols), 10_000)
    points = list(vols)
    quotes = {
        "expiry": [points[i][0] for i in drawn],
        "log_moneyness": [points[i][1] for i in drawn],
        "iv": [vols[points[i]] + 1e-4 * z for i, z in zip(drawn, rng.standard_normal(10_000), strict=True)],
    }
    answer = client.calibrate({"quotes": quotes})
    assert answer["fit"]["n_quotes"] == 10_000
    assert answer["fit"]["rmse_bp"] == pytest.approx(1.0, abs=0.05)
    assert closeness(answer, TRUTH) < 0.02


def test_prices_satisfy_parity_and_carry_their_vol(client: Client) -> None:
    asked: dict[str, Any] = {
        "model": "heston",
        "parameters": TRUTH,
        "expiry": [0.02, 0.5, 2.0, 2.0, 0.02],
        "log_moneyness": [-0.05, 0.0, 0.3, 8.0, 8.0],
        "gradient": True,
    }
    response = client.post("/v1/price", asked)
    PriceResponse.model_validate_json(response.content)
    answer = response.json()
    call, put = np.array(answer["call"]), np.array(answer["put"])
    assert call - put == pytest.approx(-np.expm1(asked["log_moneyness"]), abs=1e-13)
    assert answer["implied_vol"][:3] == pytest.approx([0.22, 0.22, 0.22], abs=0.06)
    # Twenty standard deviations out there is a time value still; two hundred out none is left to invert.
    assert 0.0 < answer["call"][3] < 1e-40
    assert answer["implied_vol"][3] == pytest.approx(0.4, abs=0.1)
    assert answer["implied_vol"][4] is None
    assert set(answer["gradient"]) == set(TRUTH)


def test_the_gradient_is_that_of_the_call(client: Client) -> None:
    asked = {
        "model": "heston",
        "parameters": TRUTH,
        "expiry": [0.5, 1.0],
        "log_moneyness": [-0.1, 0.1],
        "gradient": True,
    }
    gradient = client.post("/v1/price", asked).json()["gradient"]
    for name, value in TRUTH.items():
        step = 1e-5 * abs(value)
        up, down = (
            np.array(client.post("/v1/price", {**asked, "parameters": {**TRUTH, name: value + s}}).json()["call"])
            for s in (step, -step)
        )
        assert gradient[name] == pytest.approx((up - down) / (2 * step), rel=1e-5, abs=1e-9)


def test_the_timing_header_adds_up(client: Client, dax: dict[str, Any]) -> None:
    response = client.post("/v1/calibrate", dax)
    timing = {
        name: float(duration)
        for name, duration in re.findall(r"(\w+);dur=([0-9.]+)", response.headers["server-timing"])
    }
    assert tuple(timing) == (*STAGES, "encode", "total")
    assert sum(duration for stage, duration in timing.items() if stage != "total") <= timing["total"] + 0.01
    told = response.json()["timing_us"]
    assert all(timing[stage] == pytest.approx(1e-3 * told[stage], abs=2e-3) for stage in STAGES)


def test_a_request_keeps_its_identity(client: Client, dax: dict[str, Any]) -> None:
    assert client.post("/v1/calibrate", dax, x_request_id="desk-7/42").headers["x-request-id"] == "desk-7/42"
    refused = client.post("/v1/calibrate", {}, x_request_id="desk-7/43")
    assert refused.headers["x-request-id"] == refused.json()["request_id"] == "desk-7/43"
    first, second = (client.get("/health/live").headers["x-request-id"] for _ in range(2))
    assert first != second
    assert client.post("/v1/calibrate", dax, x_request_id="x" * 200).headers["x-request-id"] != "x" * 200


def test_an_unknown_path_and_a_wrong_method_are_problems_too(client: Client) -> None:
    missing = client.get("/v1/nothing")
    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    wrong = client.get("/v1/calibrate")
    assert (wrong.status_code, wrong.json()["code"], wrong.headers["allow"]) == (405, "method_not_allowed", "POST")
    for path in ("/health/live", "/docs"):
        assert client.post(path, {}).headers["allow"] == "GET, HEAD"
    for response in (missing, wrong):
        assert response.headers["content-type"] == "application/problem+json"
        ProblemDocument.model_validate_json(response.content)


def test_a_body_declared_too_large_is_refused_unread(client: Client) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield b" " * 1_000_000

    headers = {"content-type": "application/json", "content-length": "100000000"}
    response = client.request("POST", "/v1/calibrate", content=body(), headers=headers)
    assert (response.status_code, response.json()["code"]) == (413, "too_large")
    assert read == 0


def test_a_body_that_grows_too_large_is_refused_at_the_limit(client: Client) -> None:
    read = 0

    async def body() -> AsyncIterator[bytes]:
        nonlocal read
        for _ in range(100):
            read += 1
            yield b" " * 1_000_000

    response = client.request("POST", "/v1/calibrate", content=body(), headers={"content-type": "application/json"})
    assert (response.status_code, response.json()["code"]) == (413, "too_large")
    assert read <= 6


def test_the_models_are_described(client: Client) -> None:
    heston, *_ = client.get("/v1/models").json()["models"]
    assert heston["model"] == "heston"
    assert heston["parameters"] == ["kappa", "theta", "xi", "rho", "v0"]
    assert heston["admissible_bounds"] == {
        "kappa": [0.001, 60.0],
        "theta": [1e-4, 4.0],
        "xi": [0.001, 15.0],
        "rho": [-0.9999, 0.9999],
        "v0": [1e-4, 4.0],
    }
    assert set(heston["training_domain"]) == set(heston["parameters"])


@pytest.mark.parametrize("provider", ["cuda", "tensorrt"])
def test_a_provider_that_cannot_be_had_is_said_and_not_replaced(provider: Literal["cuda", "tensorrt"]) -> None:
    client = Client(Settings(networks=ROOT / "networks", provider=provider))
    try:
        answer = client.get("/health/ready")
        assert answer.status_code == 503
        assert "could not be loaded" in answer.json()["detail"]
        assert client.post("/v1/calibrate", {}).status_code == 503
    finally:
        client.close()


def test_health_tells_the_network_and_its_provider(client: Client) -> None:
    assert client.get("/health/live").json() == {"status": "live"}
    ready = client.get("/health/ready")
    assert ready.status_code == 200
    assert ready.json()["models"]["heston"]["provider"] == "CPUExecutionProvider"


@pytest.fixture(params=["heston", "bates"])
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Client]:
    """A service of which the files of one model's networks have one byte too many."""
    shutil.copytree(ROOT / "networks", tmp_path / "networks")
    for model in (tmp_path / "networks" / request.param).rglob("model.onnx"):
        model.write_bytes(model.read_bytes() + b"\0")
    client = Client(Settings(networks=tmp_path / "networks"))
    yield client
    client.close()


def test_a_damaged_network_is_never_served(damaged: Client, dax: dict[str, Any]) -> None:
    assert damaged.get("/health/live").status_code == 200
    for response in (damaged.get("/health/ready"), damaged.post("/v1/calibrate", dax), damaged.get("/v1/models")):
        assert (response.status_code, response.json()["code"]) == (503, "not_ready")
        assert "sha256" in response.json()["detail"]
        assert int(response.headers["retry-after"]) > 0


def test_an_unexpected_failure_is_a_problem_that_gives_nothing_away(
    client: Client, dax: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(client.app.service.engine, "calibration_steps", fail)
    response = client.post("/v1/calibrate", dax)
    assert (response.status_code, response.json()["code"]) == (500, "engine_failed")
    assert "secret" not in response.text
    monkeypatch.undo()
    assert client.calibrate(dax)["status"] == "converged"


def test_a_number_that_is_not_finite_never_leaves(
    client: Client, dax: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = client.app.service.engine.releases["heston"].networks[0]
    monkeypatch.setattr(type(network), "parameters", lambda *_: np.full((1, 5), np.nan))
    response = client.post("/v1/calibrate", {**dax, "refine": "none"})
    assert (response.status_code, response.json()["code"]) == (500, "engine_failed")


def test_the_metrics_count_what_happened(client: Client, dax: dict[str, Any]) -> None:
    def value(line: str) -> float:
        found = re.search(rf"^{re.escape(line)} ([0-9.e+]+)$", client.get("/metrics").text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    lines = {
        'calibrant_requests_total{code="200",route="/v1/calibrate"}': 2,
        'calibrant_requests_total{code="422",route="/v1/calibrate"}': 1,
        'calibrant_requests_total{code="404",route="other"}': 1,
        'calibrant_problems_total{code="invalid_input"}': 1,
        'calibrant_stage_duration_seconds_count{stage="refine"}': 2,
        'calibrant_refinement_iterations_count{model="heston"}': 2,
        'calibrant_request_duration_seconds_bucket{le="0.002",route="/health/live"}': 0,
    }
    before = {line: value(line) for line in lines}
    client.calibrate(dax)
    client.calibrate(dax)
    client.post("/v1/calibrate", {})
    client.get("/nowhere")
    assert {line: value(line) - before[line] for line in lines} == lines
    assert value("calibrant_ready") == 1
    assert value("calibrant_in_flight") == 1
    assert (
        value('calibrant_provider_info{actual="CPUExecutionProvider",model="heston",requested="CPUExecutionProvider"}')
        == 1
    )
    samples = [line for line in client.get("/metrics").text.splitlines() if not line.startswith("#")]
    assert all(line.startswith("calibrant_") for line in samples)


def test_the_openapi_document_describes_requests_and_answers(client: Client) -> None:
    document = client.get("/openapi.json").json()
    operation = document["paths"]["/v1/calibrate"]["post"]
    assert operation["requestBody"]["content"]["application/json"]["schema"] == {
        "$ref": "#/components/schemas/CalibrateRequest"
    }
    schemas = document["components"]["schemas"]
    references = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(document)))
    assert references <= schemas.keys()
    assert {"CalibrateRequest", "CalibrateResponse", "PriceRequest", "PriceResponse", "ProblemDocument"} <= references
    assert schemas["CalibrateRequest"]["additionalProperties"] is False
    assert client.get("/docs").status_code == 200


def test_requests_at_the_same_time_do_not_disturb_each_other(client: Client, dax: dict[str, Any]) -> None:
    import asyncio

    other = priced_panel(client, TRUTH)
    expected = [client.calibrate(body)["parameters"] for body in (dax, other)]

    async def both() -> list[httpx.Response]:
        transport = httpx.ASGITransport(client.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://service", timeout=120.0) as http:
            # All at once they would be beyond the default deadline.
            patient = {"x-request-deadline-ms": "60000"}
            posts = (http.post("/v1/calibrate", json=body, headers=patient) for body in (dax, other) * 8)
            return await asyncio.gather(*posts)

    answers = [response.json()["parameters"] for response in client.run(both())]
    assert answers == expected * 8
