"""`tritonclient[http]`, as it comes from the package index, against the service as it is run."""

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from calibrant.models import MODELS
from service.settings import Settings
from tests.service.bodies import as_moneyness, as_tensors
from tests.service.process import Server
from tests.service.test_market import requests
from tests.shared import needs_shared

Tensors = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:
        yield client


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def aio_client(server: Server, loop: asyncio.Runner) -> Iterator[Any]:
    async def opened() -> Any:
        return triton_aio.InferenceServerClient(f"127.0.0.1:{server.port}")

    client = loop.run(opened())
    yield client
    loop.run(client.close())


@pytest.fixture(scope="module")
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60.0) as http:
        yield http


def inputs_of(tensors: Tensors, binary: bool = True, module: Any = triton) -> list[Any]:
    inputs = []
    for name, array in tensors.items():
        datatype = "FP32" if array.dtype == np.float32 else "FP64"
        inputs.append(module.InferInput(name, list(array.shape), datatype))
        inputs[-1].set_data_from_numpy(array, binary_data=binary)
    return inputs


def of_v1(http: httpx.Client, request: dict[str, Any]) -> dict[str, Any]:
    response = http.post("/v1/calibrate", json=request)
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def require_answer_of(result: Any, expected: dict[str, Any]) -> None:
    assert result.as_numpy("parameters").tolist() == list(expected["parameters"].values())
    # JSON's null is no number, which a float array says with NaN.
    errors = np.array(list(expected["standard_errors"].values()), np.float64)
    assert np.array_equal(result.as_numpy("standard_errors"), errors, equal_nan=True)
    assert result.as_numpy("rmse_bp").tolist() == [expected["fit"]["rmse_bp"]]
    assert result.as_numpy("status").tolist() == [expected["status"].encode()]
    free = expected["arbitrage"]["quotes"]["free"] and expected["arbitrage"]["surface"]["free"]
    assert result.as_numpy("arbitrage_free").tolist() == [free]


@needs_shared
@pytest.mark.parametrize("request_", list(requests()))
def test_a_real_panel_gets_the_answer_of_v1(
    http: httpx.Client, client: Any, aio_client: Any, loop: asyncio.Runner, request_: dict[str, Any]
) -> None:
    request = as_moneyness(request_)
    tensors = as_tensors(request["quotes"])
    expected = of_v1(http, request)
    require_answer_of(client.infer("heston", inputs_of(tensors)), expected)
    inputs = inputs_of(tensors, module=triton_aio)
    require_answer_of(loop.run(aio_client.infer("heston", inputs)), expected)


EXPIRY = np.repeat([0.25, 0.5, 1.0], 4)
ONE: Tensors = {
    "log_moneyness": np.tile([-0.2, -0.1, 0.0, 0.1], 3),
    "expiry": EXPIRY,
    "iv": np.array([0.27, 0.24, 0.22, 0.21, 0.26, np.nan, 0.22, 0.21, 0.25, 0.23, 0.22, 0.215]),
}
QUOTES = {name: [None if np.isnan(x) else x for x in array.tolist()] for name, array in ONE.items()}


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
@pytest.mark.parametrize("request_compression", [None, "gzip", "deflate"])
@pytest.mark.parametrize("response_compression", [None, "gzip", "deflate"])
def test_every_way_to_send_and_to_ask_gives_the_same(
    http: httpx.Client,
    client: Any,
    aio_client: Any,
    loop: asyncio.Runner,
    binary_in: bool,
    binary_out: bool | None,
    request_compression: str | None,
    response_compression: str | None,
) -> None:
    expected = of_v1(http, {"quotes": QUOTES})
    names = ("parameters", "standard_errors", "rmse_bp", "status", "arbitrage_free")
    compression = {
        "request_compression_algorithm": request_compression,
        "response_compression_algorithm": response_compression,
    }
    for module in (triton, triton_aio):
        outputs = None
        if binary_out is not None:
            outputs = [module.InferRequestedOutput(name, binary_data=binary_out) for name in names]
        inputs = inputs_of(ONE, binary_in, module)
        if module is triton:
            result = client.infer("heston", inputs, outputs=outputs, request_id="7", **compression)
        else:
            result = loop.run(aio_client.infer("heston", inputs, outputs=outputs, request_id="7", **compression))
        if binary_out is False:
            # In JSON a string is text.
            assert result.as_numpy("status").tolist() == ["converged"]
            assert result.as_numpy("parameters").tolist() == list(expected["parameters"].values())
        else:
            require_answer_of(result, expected)
        assert result.get_response()["id"] == "7"


def test_rows_single_precision_and_the_synchronous_clients_asynchronous_call(client: Any, http: httpx.Client) -> None:
    tensors = {name: np.stack([array, array]).astype(np.float32) for name, array in ONE.items()}
    rounded = {
        name: [None if np.isnan(x) else float(np.float32(x)) for x in array.tolist()] for name, array in ONE.items()
    }
    expected = list(of_v1(http, {"quotes": rounded})["parameters"].values())
    result = client.async_infer("heston", inputs_of(tensors)).get_result()
    assert result.as_numpy("parameters") == pytest.approx(np.array([expected, expected]), rel=1e-6)
    assert result.as_numpy("status").tolist() == [b"converged", b"converged"]


def test_parameters_and_timeout_are_understood(client: Any) -> None:
    result = client.infer("heston", inputs_of(ONE), parameters={"refine": "none"}, timeout=10_000_000, priority=1)
    assert result.as_numpy("status").tolist() == [b"network_only"]
    with pytest.raises(InferenceServerException) as expired:
        client.infer("heston", inputs_of(ONE), timeout=1)
    assert expired.value.status() == "504"
    assert "deadline" in expired.value.message()


def test_its_errors_read_our_sentence(client: Any, aio_client: Any, loop: asyncio.Runner) -> None:
    bad = {**ONE, "expiry": 1000.0 * EXPIRY}
    with pytest.raises(InferenceServerException) as refused:
        client.infer("heston", inputs_of(bad), response_compression_algorithm="gzip")
    sentence = "`expiry[0]` must be at most 100 years (30 days are 0.082), but is 250.0."
    assert (refused.value.status(), refused.value.message()) == ("422", sentence)
    inputs = inputs_of(bad, module=triton_aio)
    with pytest.raises(InferenceServerException) as also:
        loop.run(aio_client.infer("heston", inputs, response_compression_algorithm="gzip"))
    assert also.value.message() == refused.value.message()
    with pytest.raises(InferenceServerException, match="There is no model 'sabr'"):
        client.infer("sabr", inputs_of(ONE))
    with pytest.raises(InferenceServerException, match="There is nothing at /v2/logging"):
        client.get_log_settings()


@pytest.mark.parametrize("model", MODELS)
def test_the_configuration_has_the_tensors_of_the_metadata_without_their_batch(client: Any, model: str) -> None:
    config, metadata = client.get_model_config(model), client.get_model_metadata(model)
    assert config["name"] == model
    assert config["max_batch_size"] == Settings().max_batch_panels
    for mine, theirs in (("input", "inputs"), ("output", "outputs")):
        assert [(tensor["name"], [-1, *tensor["dims"]]) for tensor in config[mine]] == [
            (tensor["name"], tensor["shape"]) for tensor in metadata[theirs]
        ]
    assert [tensor["name"] for tensor in config["input"] if tensor["optional"]] == ["weight"]
    (version,) = metadata["versions"]
    assert client.get_model_config(model, version) == config
    with pytest.raises(InferenceServerException, match="There is no version '99'"):
        client.get_model_config(model, "99")


def test_statistics_count_what_was_calibrated_and_what_was_refused_by_any_worker() -> None:
    server = Server(workers=2)
    try:
        server.wait_ready(workers=2)
        with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as client:

            def stats() -> Any:
                (found,) = client.get_inference_statistics("heston")["model_stats"]
                return found

            before = stats()
            assert (before["inference_count"], before["last_inference"]) == (0, 0)
            began, n = time.time(), 12
            for _ in range(n):
                # Each over a connection of its own, which either worker may take.
                with triton.InferenceServerClient(f"127.0.0.1:{server.port}") as other:
                    other.infer("heston", inputs_of(ONE))
            rows = {name: np.stack([array] * 3) for name, array in ONE.items()}
            client.infer("heston", inputs_of(rows))
            with pytest.raises(InferenceServerException):
                client.infer("heston", inputs_of({**ONE, "expiry": 1000.0 * EXPIRY}))
            # The rows are counted by the job process, once they have left.
            server.until(lambda: stats()["inference_count"] == n + 3)
            after = stats()
            timed = after["inference_stats"]
            assert timed["success"]["count"] == timed["compute_infer"]["count"] == n
            assert timed["fail"]["count"] == 1
            assert timed["fail"]["ns"] > 0
            parts = sum(timed[part]["ns"] for part in ("queue", "compute_input", "compute_infer", "compute_output"))
            assert timed["success"]["ns"] == pytest.approx(parts, abs=4)
            assert 0 < timed["compute_infer"]["ns"] < timed["success"]["ns"]
            assert 1e3 * began - 1 <= after["last_inference"] <= 1e3 * time.time() + 1
            assert stats() == after
            everything = client.get_inference_statistics()["model_stats"]
            assert [model["name"] for model in everything] == list(MODELS)
            assert after in everything
            version = after["version"]
            assert client.get_inference_statistics("heston", version)["model_stats"] == [after]
    finally:
        server.kill()


def test_the_index_has_every_model_by_both_clients(client: Any, aio_client: Any, loop: asyncio.Runner) -> None:
    index = client.get_model_repository_index()
    assert [entry["name"] for entry in index] == list(MODELS)
    for entry in index:
        assert client.is_model_ready(entry["name"], entry["version"]) == (entry["state"] == "READY")
    assert loop.run(aio_client.get_model_repository_index()) == index
    assert loop.run(aio_client.get_model_config("heston")) == client.get_model_config("heston")


def test_what_it_asks_of_the_server_is_answered(client: Any, aio_client: Any, loop: asyncio.Runner) -> None:
    assert client.is_server_live()
    assert client.is_server_ready()
    extensions = ["binary_tensor_data", "model_configuration", "model_repository", "statistics"]
    assert client.get_server_metadata()["extensions"] == extensions
    (version,) = client.get_model_metadata("heston")["versions"]
    assert client.is_model_ready("heston")
    assert client.is_model_ready("heston", version)
    assert not client.is_model_ready("heston", "99")
    assert not client.is_model_ready("sabr")
    assert client.infer("heston", inputs_of(ONE), model_version=version).get_response()["model_version"] == version

    async def asked() -> tuple[Any, ...]:
        return (
            await aio_client.is_server_live(),
            await aio_client.is_server_ready(),
            await aio_client.is_model_ready("heston", version),
            (await aio_client.get_model_metadata("heston"))["versions"],
        )

    assert loop.run(asked()) == (True, True, True, [version])
