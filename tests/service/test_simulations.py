"""Leverages and touches over HTTP: ids, answers at once and later, and what is wrong with a request, in every field."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from service.settings import Settings
from service.wire import schema
from tests.service.client import Client
from tests.shared import ROOT

RATES = {"domestic_rate": 0.02, "foreign_rate": 0.01}
SSVI = {"s0": 0.08, "sinf": 0.1, "b": 1.5, "r0": -0.1, "rinf": -0.3, "a": 1.0, "eta": 1.2, "gam": 0.5, "th0": 0.01}
CLOSED_FORM: dict[str, Any] = {"kind": "ssvi", "spot": 1.1, **RATES, "parameters": SSVI}
PILLARS: dict[str, Any] = {
    "kind": "fx_pillars", "pair": "EURUSD", "spot": 1.1, **RATES, "expiry": [0.1, 0.25], "atm": [0.07, 0.075],
    "rr25": [-0.006, -0.008], "bf25": [0.002, 0.0022], "rr10": [-0.011, -0.015], "bf10": [0.006, 0.007],
}  # fmt: skip
HESTON = {"kappa": 1.5, "theta": 0.01, "xi": 0.3, "rho": -0.3, "v0": 0.008}
SMALL: dict[str, Any] = {"heston": HESTON, "maturity": 0.1, "n_particles": 500, "n_paths": 512}
UP: dict[str, Any] = {"level": 1.13, "direction": "up", "expiry": 0.1}
LEVERAGE, TOUCH = "/v1/leverage", "/v1/one-touch"


def answered(client: Client, path: str, body: dict[str, Any], **headers: str) -> Any:
    """The result, whether it came at once or, on a slow machine, as a job."""
    response = client.post(path, body, **headers)
    if response.status_code == 202:
        at = response.headers["location"]
        keys = {"authorization": headers["authorization"]} if "authorization" in headers else {}
        client.request("GET", f"{at}/events", headers=keys)
        response = client.request("GET", f"{at}/result", headers=keys)
    assert response.status_code == 200, response.text
    return response.json()


def problems(response: httpx.Response) -> dict[str, str]:
    """By their pointers."""
    assert response.status_code == 422, response.text[:500]
    document = response.json()
    assert document["code"] == "invalid_input"
    found = {problem["pointer"]: problem["detail"] for problem in document["errors"]}
    assert len(found) == len(document["errors"])
    return found


def refused(client: Client, path: str, body: dict[str, Any]) -> dict[str, str]:
    return problems(client.post(path, body))


@pytest.mark.parametrize(
    "surface",
    [
        CLOSED_FORM,
        PILLARS,
        {"kind": "heston", "spot": 1.1, **RATES, "parameters": HESTON},
        {
            "kind": "quotes",
            "spot": 1.1,
            **RATES,
            "quotes": {
                "expiry": [0.1] * 3 + [0.3] * 3,
                "strike": [1.05, 1.1, 1.15] * 2,
                "iv": [0.081, 0.078, 0.079, 0.085, 0.08, 0.082],
            },
        },
    ],
    ids=lambda surface: str(surface["kind"]),
)
def test_a_leverage_answers_by_its_schema_and_prices_by_its_id(client: Client, surface: dict[str, Any]) -> None:
    document = answered(client, LEVERAGE, {"surface": surface, **SMALL})
    schema.LeverageResponse.model_validate_json(json.dumps(document))
    assert document["surface"]["kind"] == surface["kind"]
    grid = document["leverage"]
    assert (grid["expiry"][0], grid["expiry"][-1]) == (0.0, 0.1)
    assert len(grid["expiry"]) == len(grid["spot"]) == len(grid["value"])
    assert max(abs(row["error_bp"]) for row in document["repricing"]) < 60.0
    prices = {}
    for model in ("bs", "lv", "heston", "slv"):
        body = {"leverage": document["id"], "model": model, "barriers": [UP], "n_paths": 2048, "greeks": True}
        touch = answered(client, TOUCH, body)
        schema.TouchResponse.model_validate_json(json.dumps(touch))
        [prices[model]] = touch["prices"]
    assert len({price["price"] for price in prices.values()}) == 4
    assert all(abs(price["price"] - prices["bs"]["tv"]) < 0.2 for price in prices.values())
    assert all(price["delta"] > 0.0 for price in prices.values())
    assert prices["bs"]["se"] == 0.0 < prices["slv"]["se"]


def test_a_touch_takes_the_settings_of_a_leverage_as_well_as_its_id(client: Client) -> None:
    settings = {"surface": CLOSED_FORM, **SMALL, "seed": 5, "estimator": "purbf", "n_units": 20}
    calibrated = answered(client, LEVERAGE, settings)
    barriers = [UP, {"levels": [1.05, 1.16], "expiry": 0.08}]
    by_settings = answered(client, TOUCH, {**settings, "barriers": barriers})
    by_id = answered(
        client, TOUCH, {"leverage": calibrated["id"], "barriers": barriers, "seed": 5, "n_paths": SMALL["n_paths"]}
    )
    assert by_settings["prices"] == by_id["prices"]
    assert by_settings["calibration"] == by_id["calibration"]
    assert by_id["settings"]["seed"] == calibrated["settings"]["seed"] == 5
    estimator = calibrated["settings"]["estimator"]
    assert (estimator["kind"], estimator["n_units"]) == ("purbf", 20)
    # As it was echoed it is taken again.
    again = answered(client, LEVERAGE, {"surface": CLOSED_FORM, **SMALL, "seed": 5, "estimator": estimator})
    assert again["leverage"] == calibrated["leverage"]


def test_messagepack_says_the_same_as_json(client: Client) -> None:
    body = {"surface": CLOSED_FORM, "model": "bs", "barriers": [UP, {"levels": [1.0, 1.2], "expiry": 0.1}]}
    packed = client.request(
        "POST", TOUCH, content=msgspec.msgpack.encode(body), headers={"content-type": "application/msgpack"}
    )
    assert packed.headers["content-type"] == "application/msgpack"
    document = msgspec.msgpack.decode(packed.content)
    assert document["prices"] == answered(client, TOUCH, body)["prices"]


def test_the_mixing_is_found_that_meets_a_price(client: Client) -> None:
    settings = {"surface": CLOSED_FORM, **SMALL}
    barrier = {**UP, "level": 1.125}

    def price_at(mixing: float) -> float:
        answer = answered(client, TOUCH, {**settings, "mixing": mixing, "barriers": [barrier]})
        return float(answer["prices"][0]["price"])

    low, high = price_at(0.0), price_at(1.0)
    price = 0.5 * (low + high)
    found = answered(client, LEVERAGE, {**settings, "mixing": {"fit_to": {**barrier, "price": price}}})
    assert 0.0 < found["heston"]["mixing"] < 1.0
    # Few particles: a small change of the mixing may move some of them past each other, and with them the price.
    assert price_at(found["heston"]["mixing"]) == pytest.approx(price, abs=0.25 * abs(high - low))
    for price in (0.001, 0.999):
        response = client.post(
            LEVERAGE, {**settings, "mixing": {"fit_to": {**barrier, "price": price}}}, prefer="respond-async"
        )
        events = client.get(f"{response.headers['location']}/events").text
        ended = json.loads(events.split("data: ")[-1])
        assert [each["pointer"] for each in ended["problem"]["errors"]] == ["/mixing/fit_to/price"]


def test_later_is_a_job_whose_result_is_the_answer(client: Client) -> None:
    response = client.post(LEVERAGE, {"surface": CLOSED_FORM, **SMALL}, prefer="respond-async")
    assert response.status_code == 202
    assert response.headers["preference-applied"] == "respond-async"
    job = response.json()
    assert (job["kind"], response.headers["location"]) == ("leverage", f"/v1/jobs/{job['id']}")
    events = client.get(f"/v1/jobs/{job['id']}/events").text
    assert json.loads(events.split("data: ")[-1])["state"] == "done"
    result = client.get(f"/v1/jobs/{job['id']}/result")
    assert int(result.headers["content-length"]) == len(result.content)
    assert result.json()["id"] == job["id"]
    # Of a price the id means nothing.
    touch = client.post(TOUCH, {"leverage": job["id"], "barriers": [UP]}, prefer="respond-async")
    client.get(f"{touch.headers['location']}/events")
    found = refused(client, TOUCH, {"leverage": touch.json()["id"], "barriers": [UP]})
    assert "one_touch" in found["/leverage"]


def test_what_is_expected_to_be_long_is_a_job_and_what_is_far_too_long_refused(client: Client) -> None:
    long = client.post(LEVERAGE, {"surface": CLOSED_FORM, "maturity": 2.0, "n_particles": 1_000_000})
    assert long.status_code == 202
    assert "preference-applied" not in long.headers
    assert client.request("DELETE", long.headers["location"]).json()["state"] == "cancelled"
    for settings in (
        {"n_particles": 10_000_000, "estimator": "nw_gaussian", "maturity": 5.0},
        {"n_paths": 100_000_000},
        {"step_days": 0.01, "maturity": 5.0},
        {"n_particles": 100_000, "estimator": "nw_quartic", "bandwidth": "leave_one_out"},
        {"estimator": "rbf", "n_units": 100_000},
    ):
        response = client.post(LEVERAGE, {"surface": CLOSED_FORM, "maturity": 2.0, **settings})
        assert (response.status_code, response.json()["code"]) == (413, "too_large"), settings


def test_every_wrong_field_is_named_at_once(client: Client) -> None:
    found = refused(
        client,
        LEVERAGE,
        {
            "surface": {**CLOSED_FORM, "spot": "high"},
            "heston": {"kappa": 1.0, "rho": 2.0},
            "mixing": 1.5,
            "maturity": -1.0,
            "n_particles": 2.5,
            "step_days": True,
            "estimator": "purbf",
            "n_units": 0,
            "seed": -1,
            "scheme": "milstein",
            "particles": 3,
        },
    )
    assert set(found) == {
        *("/surface/spot", "/heston/theta", "/heston/xi", "/heston/rho", "/heston/v0", "/mixing", "/maturity"),
        *("/n_particles", "/step_days", "/n_units", "/seed", "/scheme", "/particles"),
    }
    barriers = [UP, {**UP, "level": 1.0}, {**UP, "expiry": -1.0}, {**UP, "level": "x", "strike": 1.0}, 3, {}]
    body = {"surface": CLOSED_FORM, "barriers": barriers, "model": "sabr", "greeks": 1, "n_paths": 0, "mixing": -0.1}
    assert set(refused(client, TOUCH, body)) == {
        *("/barriers/1/level", "/barriers/2/expiry", "/barriers/3/level", "/barriers/3/strike", "/barriers/4"),
        *("/barriers/5/expiry", "/model", "/greeks", "/n_paths", "/mixing"),
    }


@pytest.mark.parametrize("mixing", [-0.01, 1.01, "all", [0.5], True, {"to": 1}, {"fit_to": {**UP, "price": 0.0}}])
def test_a_mixing_is_a_share_or_a_price(client: Client, mixing: Any) -> None:
    found = refused(client, LEVERAGE, {"surface": CLOSED_FORM, **SMALL, "mixing": mixing})
    assert all(pointer.startswith("/mixing") for pointer in found)


def with_quotes(**columns: Any) -> dict[str, Any]:
    return {"surface": {**PILLARS, **columns}, "maturity": 0.1}


@pytest.mark.parametrize(
    ("body", "pointer"),
    [
        (with_quotes(atm=[0.07, 0.0]), "/surface/atm/1"),
        (with_quotes(atm=[-0.07, 0.075]), "/surface/atm/0"),
        (with_quotes(expiry=[-0.1, 0.25]), "/surface/expiry/0"),
        (with_quotes(expiry=[0.0, 0.25]), "/surface/expiry/0"),
        # Strangles whose wings cross: a risk reversal larger than the vols themselves.
        (with_quotes(rr25=[-0.2, -0.2]), "/surface/"),
        (with_quotes(bf25=[-0.08, -0.08]), "/surface/"),
        # The variance at the money falls by half in time.
        (
            {**with_quotes(atm=[0.07, 0.02], rr25=[0, 0], bf25=[0.001, 0.001], rr10=None, bf10=None), "maturity": 0.25},
            "/",
        ),
        ({"surface": CLOSED_FORM, "maturity": 0.1, "heston": {**HESTON, "rho": -2.0}}, "/heston/rho"),
        ({"surface": PILLARS, "maturity": 0.5}, "/surface/expiry"),
        ({"surface": {**CLOSED_FORM, "parameters": {**SSVI, "eta": 50.0}}, "maturity": 0.5}, "/surface/parameters"),
    ],
)
def test_a_surface_that_is_none_says_where(client: Client, body: dict[str, Any], pointer: str) -> None:
    found = refused(client, LEVERAGE, body)
    assert any(each.startswith(pointer) for each in found), found


@pytest.mark.parametrize(
    ("barrier", "field", "why"),
    [
        ({**UP, "level": 1.05}, "level", "already hit"),
        ({**UP, "level": 1.1}, "level", "already hit"),
        ({"levels": [1.12, 1.2], "expiry": 0.1}, "levels", "already hit"),
        ({"levels": [1.2, 1.0], "expiry": 0.1}, "levels", "rising pair"),
        ({"levels": [1.0], "expiry": 0.1}, "levels", "pair"),
        ({**UP, "kind": "no_touch", "paid": "at_hit"}, "paid", "at_expiry"),
        ({**UP, "payout": "USD"}, "payout", "domestic"),
        ({"level": 1.2, "expiry": 0.1}, "direction", "up"),
        ({**UP, "expiry": 0.0}, "expiry", "> 0"),
        ({**UP, "expiry": 1.0}, "expiry", "beyond"),
    ],
)
@pytest.mark.parametrize("model", ["bs", "lv", "slv"])
def test_a_barrier_that_is_none_says_why(
    client: Client, barrier: dict[str, Any], field: str, why: str, model: str
) -> None:
    body = {"surface": PILLARS, "barriers": [UP, barrier], "model": model}
    found = refused(client, TOUCH, body)
    assert why in (found.get(f"/barriers/1/{field}") or found["/maturity"])


@pytest.fixture(scope="module")
def keyed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """Three keys, one of them of another scope, and few jobs."""
    path: Path = tmp_path_factory.mktemp("keys") / "keys.json"
    scopes = {"desk": ["leverage"], "risk": ["leverage"], "quant": ["calibrate"]}
    path.write_text(
        json.dumps(
            {
                name: {"sha256": hashlib.sha256(name.encode()).hexdigest(), "scopes": of_key}
                for name, of_key in scopes.items()
            }
        )
    )
    client = Client(Settings(networks=ROOT / "networks", api_keys=path, max_jobs=2))
    yield client
    client.close()


def test_a_leverage_is_known_to_its_key_alone_and_not_for_ever(keyed: Client) -> None:
    def with_key(name: str) -> dict[str, str]:
        return {"authorization": f"Bearer {name}"}

    settings = {"surface": CLOSED_FORM, **SMALL}
    assert keyed.post(LEVERAGE, settings, **with_key("quant")).status_code == 403
    ids = [answered(keyed, LEVERAGE, settings, **with_key("desk"))["id"]]
    touch = {"leverage": ids[0], "barriers": [UP], "model": "bs"}
    answered(keyed, TOUCH, touch, **with_key("desk"))
    for who in ("risk",):
        response = keyed.post(TOUCH, touch, **with_key(who))
        assert set(problems(response)) == {"/leverage"}
        assert keyed.request("GET", f"/v1/jobs/{ids[0]}", headers=with_key(who)).status_code == 404
    # The oldest makes room.
    ids += [answered(keyed, LEVERAGE, settings, **with_key("desk"))["id"] for _ in range(2)]
    assert len(set(ids)) == 3
    assert "/leverage" in problems(keyed.post(TOUCH, touch, **with_key("desk")))
    answered(keyed, TOUCH, {**touch, "leverage": ids[-1]}, **with_key("desk"))
    service = keyed.app.service
    kept = service.metrics.jobs_result_bytes.values[()][0]
    assert keyed.request("DELETE", f"/v1/jobs/{ids[-1]}", headers=with_key("desk")).status_code == 200
    assert service.metrics.jobs_result_bytes.values[()][0] < kept
    assert service.memory.reserved == 0


def test_a_deadline_that_passes_ends_the_work(client: Client) -> None:
    body = {"surface": CLOSED_FORM, **SMALL, "n_particles": 20_000, "n_paths": 16_384}
    response = client.post(LEVERAGE, body, x_request_deadline_ms="40")
    assert (response.status_code, response.json()["code"]) == (504, "deadline_expired")


def test_the_examples_of_the_document_are_requests(client: Client) -> None:
    document = client.get("/openapi.json").json()
    for path, name in ((LEVERAGE, "LeverageRequest"), (TOUCH, "TouchRequest")):
        for example in document["components"]["schemas"][name]["examples"]:
            assert client.post(path, example, prefer="respond-async").status_code == 202
