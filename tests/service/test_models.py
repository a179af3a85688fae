"""Every model at every endpoint and in every format, over HTTP: those with a released network, and those without."""

import json
import pickle
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pyarrow
import pyarrow.ipc
import pytest

from benchmarks.load.arrow import arrow_stream, quote_table
from benchmarks.load.tensors import inference
from calibrant.models import BATES, DOUBLE_HESTON, HESTON, MODELS
from calibrant.models.model import Model
from calibrant.prices import price_steps
from calibrant.steps import finish
from service.costs import Costs
from service.engine import Engine
from service.settings import Settings
from service.wire.arrow import MEDIA_TYPE
from service.wire.schema import CalibrateResponse
from tests.many_factors import ORDINARY
from tests.service.bodies import as_tensors
from tests.service.client import Client
from tests.service.process import Server
from tests.shared import ROOT

BATCH = "/v1/calibrate/batch"
MSGPACK = {"content-type": "application/msgpack"}
of_each = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
of_untrained = pytest.mark.parametrize("model", [BATES, DOUBLE_HESTON], ids=lambda model: model.name)
"""Those of the fixture `untrained`, with jumps and with two variances."""


def true_parameters(model: Model) -> dict[str, float]:
    return {name: ORDINARY[name] for name in model.parameters}


def grid() -> dict[str, list[float]]:
    expiry, strikes = np.array([0.1, 0.25, 0.5, 1.0, 2.0]), np.linspace(-2.0, 1.5, 8)
    log_moneyness = (0.2 * np.sqrt(expiry)[:, np.newaxis] * strikes).ravel()
    return {"expiry": np.repeat(expiry, 8).tolist(), "log_moneyness": log_moneyness.tolist()}


def panel(model: Model) -> dict[str, Any]:
    """A request whose quotes are the model's own vols."""
    of_grid = grid()
    params = np.array([ORDINARY[name] for name in model.parameters])
    log_moneyness, expiry = np.array(of_grid["log_moneyness"]), np.array(of_grid["expiry"])
    iv = finish(price_steps(model, params, log_moneyness, expiry, gradient=False)).implied_vol
    return {"model": model.name, "quotes": {**of_grid, "iv": iv.tolist()}}


def table_of(model: Model, **options: str) -> bytes:
    """Its panel as a table of quotes."""
    metadata = {f"calibrant.{name}": value for name, value in {"model": model.name, **options}.items()}
    return arrow_stream(quote_table({"a": panel(model)["quotes"]}).replace_schema_metadata(metadata))


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=120.0) as http:
        yield http


@pytest.fixture(scope="module")
def untrained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    """A service with a network for Heston and none for the other models."""
    folder = tmp_path_factory.mktemp("networks")
    shutil.copytree(ROOT / "networks" / "heston", folder / "heston")
    client = Client(Settings(networks=folder, default_deadline_ms=60_000.0))
    yield client
    client.close()


@pytest.fixture(scope="module")
def alone(http: httpx.Client) -> dict[str, dict[str, Any]]:
    """The answer of each model to its own panel."""
    answers = {}
    for name, model in MODELS.items():
        response = http.post("/v1/calibrate", json=panel(model))
        assert response.status_code == 200, response.text
        answers[name] = response.json()
    return answers


def same(answer: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two answers differ in nothing but the time they took."""
    return {**answer, "timing_us": None} == {**other, "timing_us": None}


@of_each
def test_a_panel_of_a_model_is_fitted_by_it(alone: dict[str, dict[str, Any]], model: Model) -> None:
    answer = alone[model.name]
    CalibrateResponse.model_validate_json(json.dumps(answer))
    assert answer["model"] == model.name
    assert tuple(answer["parameters"]) == tuple(answer["standard_errors"]) == model.parameters
    assert answer["fit"]["rmse_bp"] < 1.0
    assert answer["arbitrage"]["quotes"]["free"]
    assert answer["model_version"].startswith(f"{model.name}-")
    assert (answer["start"], answer["out_of_domain"]) == ("network", False)


@of_each
def test_msgpack_and_batches_give_the_answer_of_json(
    http: httpx.Client, alone: dict[str, dict[str, Any]], model: Model
) -> None:
    body = panel(model)
    packed = http.post("/v1/calibrate", content=msgspec.msgpack.encode(body), headers=MSGPACK)
    assert same(msgspec.msgpack.decode(packed.content), alone[model.name])
    # Its neighbours in the batch are of all models.
    panels = [panel(other) for other in MODELS.values()] + [body]
    for content, headers in (
        (json.dumps({"panels": panels}).encode(), {"content-type": "application/json"}),
        (msgspec.msgpack.encode({"panels": panels}), MSGPACK),
    ):
        response = http.post(BATCH, content=content, headers=headers)
        decoded = json.loads if headers["content-type"] == "application/json" else msgspec.msgpack.decode
        results = decoded(response.content)["results"]
        assert [result["model"] for result in results] == [*MODELS, model.name]
        assert same(results[-1], alone[model.name])


def test_lines_of_a_batch_of_all_models_are_the_answers_of_each(
    http: httpx.Client, alone: dict[str, dict[str, Any]]
) -> None:
    panels = {"panels": [panel(model) for model in MODELS.values()]}
    response = http.post(BATCH, json=panels, headers={"accept": "application/x-ndjson"})
    lines = sorted(map(json.loads, response.text.splitlines()), key=lambda line: int(line["index"]))
    for line, name in zip(lines, MODELS, strict=True):
        del line["index"]
        assert same(line, alone[name])


@of_each
def test_a_table_has_the_columns_of_its_model_and_no_others(
    http: httpx.Client, alone: dict[str, dict[str, Any]], model: Model
) -> None:
    body = table_of(model)
    response = http.post(BATCH, content=body, headers={"content-type": MEDIA_TYPE})
    assert response.status_code == 200, response.text
    table = pyarrow.ipc.open_stream(response.content).read_all()
    fixed = ["rmse_bp", "message", "excluded", "warnings"]
    assert table.column_names == ["panel", "status", *model.parameters, *fixed]
    (row,) = table.to_pylist()
    assert {name: row[name] for name in model.parameters} == alone[model.name]["parameters"]


def test_a_table_of_several_models_has_the_columns_of_those_that_it_answers(http: httpx.Client) -> None:
    def columns(*models: Model) -> list[str]:
        panels = {"panels": [panel(model) for model in models]}
        response = http.post(BATCH, json=panels, headers={"accept": MEDIA_TYPE})
        names: list[str] = pyarrow.ipc.open_stream(response.content).read_all().column_names
        return names[2:-4]

    assert columns(HESTON) == list(HESTON.parameters)
    assert columns(BATES, HESTON) == list(BATES.parameters)
    assert columns(DOUBLE_HESTON) == list(DOUBLE_HESTON.parameters)


@of_each
def test_tensors_are_described_and_answered(http: httpx.Client, alone: dict[str, dict[str, Any]], model: Model) -> None:
    path = f"/v2/models/{model.name}"
    described = http.get(path).json()
    (version,) = described["versions"]
    assert int(version) > 0
    assert described["platform"] != "numba"
    shapes = {tensor["name"]: tensor["shape"] for tensor in described["outputs"]}
    assert shapes["parameters"] == shapes["standard_errors"] == [-1, model.n_params]
    assert http.get(f"{path}/versions/{version}/ready").status_code == 200
    tensors = as_tensors(panel(model)["quotes"])
    expected = list(alone[model.name]["parameters"].values())
    for tensor_shape in (tensors, {name: np.stack((column, column)) for name, column in tensors.items()}):
        body, headers = inference(tensor_shape)
        response = http.post(f"{path}/versions/{version}/infer", content=body, headers=headers)
        assert response.status_code == 200, response.text
        answer = response.json()
        assert (answer["model_name"], answer["model_version"]) == (model.name, version)
        outputs = {output["name"]: output for output in answer["outputs"]}
        n_rows = outputs["parameters"]["shape"][0] if len(outputs["parameters"]["shape"]) == 2 else 1
        assert outputs["parameters"]["data"] == n_rows * expected


@of_each
def test_a_model_prices_options(http: httpx.Client, model: Model) -> None:
    body = {"model": model.name, "parameters": true_parameters(model), **grid(), "gradient": True}
    answer = http.post("/v1/price", json=body).json()
    packed = http.post("/v1/price", content=msgspec.msgpack.encode(body), headers=MSGPACK)
    assert msgspec.msgpack.decode(packed.content) == answer
    assert tuple(answer["gradient"]) == model.parameters
    parity = np.array(answer["call"]) - np.array(answer["put"]) - (1.0 - np.exp(grid()["log_moneyness"]))
    assert np.abs(parity).max() < 1e-12
    assert answer["implied_vol"] == pytest.approx(panel(model)["quotes"]["iv"], rel=1e-9)


@of_untrained
def test_a_model_without_a_network_is_served_from_the_surface(untrained: Client, model: Model) -> None:
    answer = untrained.calibrate(panel(model))
    assert (answer["start"], answer["model_version"], answer["out_of_domain"]) == ("fallback", None, False)
    assert answer["fit"]["rmse_bp"] < 1.0
    described = untrained.get(f"/v2/models/{model.name}").json()
    assert (described["versions"], described["platform"]) == (["0"], "numba")
    of_model = {entry["model"]: entry for entry in untrained.get("/v1/models").json()["models"]}[model.name]
    assert (of_model["networks"], of_model["training_domain"], of_model["model_version"]) == ([], None, None)
    ready = untrained.get("/health/ready").json()["models"][model.name]
    assert (ready["starts"], ready["provider"]) == ("surface", None)


@of_untrained
def test_a_network_that_is_not_there_is_asked_for_in_vain(untrained: Client, model: Model) -> None:
    body = {**panel(model), "refine": "none"}
    refused = untrained.post("/v1/calibrate", body)
    assert (refused.status_code, refused.json()["code"]) == (422, "invalid_input")
    (error,) = refused.json()["errors"]
    assert error["pointer"] == "/refine"
    assert "there is no network" in error["detail"]
    (of_batch,) = untrained.post(BATCH, {"panels": [body]}).json()["results"]
    assert of_batch["errors"][0]["pointer"] == "/panels/0/refine"
    tensors = as_tensors(body["quotes"])
    content, headers = inference(tensors, parameters={"refine": "none"})
    path = f"/v2/models/{model.name}/infer"
    of_tensors = untrained.request("POST", path, content=content, headers=headers)
    assert of_tensors.status_code == 422
    detail = error["detail"].replace("`refine`", "`parameters.refine`")
    assert of_tensors.json()["errors"] == [{"pointer": "/parameters/refine", "detail": detail}]
    table = table_of(model, refine="none")
    answered = untrained.post(BATCH, table, content_type=MEDIA_TYPE)
    (row,) = pyarrow.ipc.open_stream(answered.content).read_all().to_pylist()
    assert (row["status"], row[model.parameters[0]]) == ("invalid_input", None)


@of_each
def test_the_answer_of_a_network_is_near_the_quotes(http: httpx.Client, model: Model) -> None:
    answer = http.post("/v1/calibrate", json={**panel(model), "refine": "none"}).json()
    assert (answer["start"], answer["status"]) == ("network", "network_only")
    assert answer["fit"]["rmse_bp"] < 300.0


@of_each
def test_each_model_is_listed_with_what_it_is_served_on(http: httpx.Client, model: Model) -> None:
    listed = {entry["model"]: entry for entry in http.get("/v1/models").json()["models"]}
    packed = http.get("/v1/models", headers={"accept": "application/msgpack"})
    assert {entry["model"]: entry for entry in msgspec.msgpack.decode(packed.content)["models"]} == listed
    assert list(listed) == list(MODELS)
    of_model = listed[model.name]
    assert of_model["parameters"] == list(model.parameters)
    bounds = dict(zip(model.parameters, np.column_stack((model.lower, model.upper)).tolist(), strict=True))
    assert of_model["admissible_bounds"] == bounds
    ready = http.get("/health/ready").json()["models"][model.name]
    assert ready["model_version"] == of_model["model_version"]
    assert ready["starts"] == "network"
    assert of_model["networks"]
    low, high = (np.array([of_model["training_domain"][name][end] for name in model.parameters]) for end in (0, 1))
    assert ((model.lower <= low) & (low < high) & (high <= model.upper)).all()


@of_each
def test_the_metrics_tell_the_models_apart(server: Server, alone: dict[str, dict[str, Any]], model: Model) -> None:
    name, answer = model.name, alone[model.name]
    assert server.metric(f'calibrant_objective_seconds{{model="{name}"}}') == 1e-3 * model.objective_ms
    computed = server.metric(f'calibrant_compute_duration_seconds_count{{model="{name}"}}')
    assert computed >= 1.0
    assert 0.0 <= server.metric(f'calibrant_compute_on_time_total{{model="{name}"}}') <= computed
    series = f'calibrant_calibrations_total{{model="{name}",start="{answer["start"]}",status="{answer["status"]}"}}'
    assert server.metric(series) >= 1.0


def test_an_unknown_model_is_told_which_there_are(http: httpx.Client) -> None:
    for response in (
        http.post("/v1/calibrate", json={**panel(HESTON), "model": "sabr"}),
        http.post("/v1/price", json={"model": "sabr", "parameters": {}, **grid()}),
        http.get("/v2/models/sabr"),
    ):
        assert 400 <= response.status_code < 500
        assert all(name in response.text for name in MODELS)


def test_a_network_that_is_another_models_is_never_served(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "networks" / "heston", tmp_path / "heston")
    shutil.copytree(ROOT / "networks" / "heston", tmp_path / "bates")
    client = Client(Settings(networks=tmp_path))
    try:
        answer = client.get("/health/ready")
        assert (answer.status_code, answer.json()["code"]) == (503, "not_ready")
        assert "must be networks for bates" in answer.json()["detail"]
    finally:
        client.close()


def test_a_reload_that_would_lose_the_network_of_one_model_is_refused(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "networks" / "heston", tmp_path / "heston")
    client = Client(Settings(networks=tmp_path))
    service = client.app.service
    try:
        # As if Bates had been trained: of that network nothing is left in the folder.
        before = service.engine
        service.engine.releases = {**before.releases, "bates": before.releases["heston"]}
        assert "bates" in client.run(service.reload())
        assert service.engine is before
    finally:
        client.close()


@of_each
def test_a_model_is_the_same_one_in_every_process(model: Model) -> None:
    assert pickle.loads(pickle.dumps(model)) is model


@of_each
def test_a_model_is_expected_to_cost_what_it_says(model: Model) -> None:
    costs = Costs()
    for work in ("lm", "lbfgs"):
        assert costs.mean(model, work, 100) == pytest.approx(model.cost * costs.mean(HESTON, work, 100))
    assert costs.mean(model, "price", 100) == pytest.approx(len(model.factors) * costs.mean(HESTON, "price", 100))


def test_only_models_with_kernels_for_it_are_refined_on_the_gpu(client: Client) -> None:
    engine = client.app.service.engine
    asked = Engine(engine.releases, gpu_refinement=True)
    assert [name for name in MODELS if asked.refines_on_gpu(name)] == ["heston"]
    assert not any(engine.refines_on_gpu(name) for name in MODELS)
