"""The Open Inference Protocol: tensors as they are sent, and refusals that its clients can read."""

import gzip
import json
import zlib
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from benchmarks.load.tensors import inference
from service.wire.oip import EXTENSIONS, OUTPUTS, InferResponse, ModelMetadata, ServerMetadata
from service.wire.schema import ProblemDocument
from tests.service.bodies import REAL, as_moneyness, as_tensors, real_panel
from tests.service.client import Client
from tests.service.test_bad_input import panel
from tests.shared import needs_shared

INFER = "/v2/models/heston/infer"
NAN = float("nan")

EXPIRY = np.repeat([0.25, 0.5, 1.0], 4)
LOG_MONEYNESS = np.tile([-0.2, -0.1, 0.0, 0.1], 3)
IV = np.array([0.27, 0.24, 0.22, 0.21, 0.26, 0.235, 0.22, 0.21, 0.25, 0.23, 0.22, 0.215])
ONE = {"log_moneyness": LOG_MONEYNESS, "expiry": EXPIRY, "iv": IV}
Tensors = dict[str, NDArray[Any]]


def infer(client: Client, tensors: Tensors, path: str = INFER, headers: Any = None, **header: Any) -> httpx.Response:
    body, own = inference(tensors, **header)
    return client.request("POST", path, content=body, headers={**own, **(headers or {})})


def outputs(response: httpx.Response) -> dict[str, Any]:
    """The tensors of a JSON answer, by name."""
    assert response.status_code == 200, response.text
    answer = InferResponse.model_validate_json(response.content)
    return {tensor.name: np.array(tensor.data).reshape(tensor.shape) for tensor in answer.outputs}


def as_json(client: Client, tensors: Tensors) -> dict[str, Any]:
    """The answer of `/v1/calibrate` to the same numbers."""
    return client.calibrate({"quotes": {name: array.tolist() for name, array in tensors.items()}})


def with_(tensors: Tensors, name: str, place: Any, value: float) -> Tensors:
    changed = tensors[name].copy()
    changed[place] = value
    return {**tensors, name: changed}


def rows(*panels: Tensors) -> Tensors:
    """Panels as the rows of tensors, padded with NaN."""
    longest = max(panel["iv"].size for panel in panels)
    return {
        name: np.stack([np.pad(panel[name], (0, longest - panel[name].size), constant_values=NAN) for panel in panels])
        for name in panels[0]
    }


@needs_shared
@pytest.mark.parametrize("name", REAL)
def test_a_panel_in_float64_gives_the_very_same_parameters_as_in_json(client: Client, name: str) -> None:
    request = as_moneyness(real_panel(name))
    tensors = as_tensors(request["quotes"])
    expected = client.calibrate(request)
    for wanted in (tensors, rows(tensors)):
        given = outputs(infer(client, wanted))
        assert given["parameters"].ravel().tolist() == list(expected["parameters"].values())
        assert given["standard_errors"].ravel().tolist() == list(expected["standard_errors"].values())
        assert given["rmse_bp"].tolist() == [expected["fit"]["rmse_bp"]]
        assert given["status"].tolist() == [expected["status"]]
        free = expected["arbitrage"]["quotes"]["free"] and expected["arbitrage"]["surface"]["free"]
        assert given["arbitrage_free"].tolist() == [free]
        assert given["message"].tolist() == [expected.get("message", "")]


def test_weights_count(client: Client) -> None:
    weighted = {**ONE, "weight": np.linspace(1.0, 5.0, IV.size)}
    expected = list(as_json(client, weighted)["parameters"].values())
    assert outputs(infer(client, weighted))["parameters"].tolist() == expected
    assert expected != list(as_json(client, ONE)["parameters"].values())


def test_single_precision_is_the_panel_rounded(client: Client) -> None:
    rounded = {name: array.astype(np.float32) for name, array in ONE.items()}
    expected = list(as_json(client, {n: a.astype(np.float64) for n, a in rounded.items()})["parameters"].values())
    assert outputs(infer(client, rounded))["parameters"].tolist() == expected
    # In JSON too: the datatype says what the numbers are.
    inputs = [{"name": n, "shape": [IV.size], "datatype": "FP32", "data": a.tolist()} for n, a in ONE.items()]
    given = outputs(client.post(INFER, {"inputs": inputs}))
    assert given["parameters"].tolist() == expected


@pytest.mark.parametrize("nested", [False, True])
def test_tensors_may_be_json_flat_or_nested(client: Client, nested: bool) -> None:
    for tensors in (ONE, rows(ONE, ONE)):
        inputs = [
            {"name": n, "shape": list(a.shape), "datatype": "FP64", "data": (a if nested else a.ravel()).tolist()}
            for n, a in tensors.items()
        ]
        given = outputs(client.post(INFER, {"inputs": inputs}))
        assert np.array_equal(given["parameters"], outputs(infer(client, tensors))["parameters"])


@pytest.mark.parametrize("missing", ["NaN", "null"])
def test_a_vol_that_is_nan_or_null_is_a_missing_quote(client: Client, missing: str) -> None:
    holed = with_(ONE, "iv", 5, NAN)
    given = outputs(infer(client, holed))
    inputs = [{"name": n, "shape": [IV.size], "datatype": "FP64", "data": a.tolist()} for n, a in holed.items()]
    body = json.dumps({"inputs": inputs}).replace("NaN", missing).encode()
    assert np.array_equal(outputs(client.post(INFER, body))["parameters"], given["parameters"])
    without = {name: np.delete(array, 5) for name, array in ONE.items()}
    assert given["parameters"].tolist() == list(as_json(client, without)["parameters"].values())


def test_nan_in_all_tensors_is_padding_wherever_it_is(client: Client) -> None:
    padded = {name: np.insert(array, [0, 5, 12], NAN) for name, array in ONE.items()}
    expected = outputs(infer(client, ONE))
    assert np.array_equal(outputs(infer(client, padded))["parameters"], expected["parameters"])
    short = {name: array[:8] for name, array in ONE.items()}
    given = outputs(infer(client, rows(ONE, short)))
    for row, alone in enumerate((ONE, short)):
        assert given["parameters"][row] == pytest.approx(outputs(infer(client, alone))["parameters"], rel=1e-6)


TOO_LONG = "`expiry[0][3]` must be at most 100 years (30 days are 0.082), but is 180.0."


def test_a_refused_row_fails_no_other(client: Client) -> None:
    given = outputs(infer(client, rows(with_(ONE, "expiry", 3, 180.0), ONE)))
    assert given["status"].tolist() == ["invalid_input", "converged"]
    assert given["message"].tolist() == [TOO_LONG, ""]
    assert given["parameters"][1] == pytest.approx(outputs(infer(client, ONE))["parameters"], rel=1e-6)
    assert given["parameters"][0].tolist() == [None] * 5
    assert given["rmse_bp"][0] is None


def test_where_no_row_has_a_result_the_first_problem_is_the_answer(client: Client) -> None:
    bad = with_(ONE, "expiry", 3, 180.0)
    for tensors in (rows(bad), rows(bad, bad, bad)):
        response = infer(client, tensors)
        assert response.status_code == 422
        assert response.json()["error"] == TOO_LONG
        assert response.json()["errors"][0]["pointer"] == "/inputs/1/data/0/3"


def test_many_rows_are_a_batch(client: Client) -> None:
    shifted = [{**ONE, "iv": IV + 0.001 * i} for i in range(40)]
    given = outputs(infer(client, rows(*shifted)))
    assert set(given["status"].tolist()) == {"converged"}
    assert given["parameters"].shape == (40, 5)
    alone = outputs(infer(client, shifted[33]))["parameters"]
    assert given["parameters"][33] == pytest.approx(alone, rel=1e-6)


def test_the_outputs_asked_for_are_given_in_that_order_binary_or_not(client: Client) -> None:
    asked: list[dict[str, Any]] = [
        {"name": "status", "parameters": {"binary_data": True}},
        {"name": "parameters", "parameters": {"binary_data": False}},
        {"name": "arbitrage_free"},
        {"name": "rmse_bp", "parameters": {"binary_data": True}},
    ]
    response = infer(client, ONE, outputs=asked, id="desk 7")
    length = int(response.headers["inference-header-content-length"])
    header = InferResponse.model_validate_json(response.content[:length])
    assert response.headers["content-type"] == "application/octet-stream"
    assert [tensor.name for tensor in header.outputs] == [output["name"] for output in asked]
    (version,) = client.get("/v2/models/heston").json()["versions"]
    assert (header.id, header.model_name, header.model_version) == ("desk 7", "heston", version)
    sizes = [tensor.parameters and tensor.parameters["binary_data_size"] for tensor in header.outputs]
    expected = outputs(infer(client, ONE))
    assert sizes == [13, None, None, 8]
    # A string is its length in four bytes, then itself.
    assert response.content[length : length + 13] == b"\x09\0\0\0converged"
    assert np.frombuffer(response.content[-8:], "<f8") == expected["rmse_bp"]
    assert header.outputs[1].data == expected["parameters"].tolist()


def test_all_outputs_are_binary_where_the_request_says_so(client: Client) -> None:
    response = infer(client, ONE, parameters={"binary_data_output": True})
    length = int(response.headers["inference-header-content-length"])
    header = json.loads(response.content[:length])
    sizes = [output["parameters"]["binary_data_size"] for output in header["outputs"]]
    assert length + sum(sizes) == len(response.content)
    by_default = [name for name in OUTPUTS if name not in ("excluded", "warnings")]
    assert [output["name"] for output in header["outputs"]] == by_default
    assert [output["datatype"] for output in header["outputs"]] == [OUTPUTS[name] for name in by_default]
    assert not any("data" in output for output in header["outputs"])


def test_what_is_left_out_and_what_is_doubtful_come_as_json_if_asked_for(client: Client) -> None:
    half = ONE["iv"].size // 2 + 1
    broken = with_(ONE, "iv", slice(0, half), 0.0)
    # A place that is padding, in front of all others, moves them.
    shifted = {name: np.concatenate(([NAN], array)) for name, array in broken.items()}
    asked = [{"name": name} for name in ("warnings", "excluded")]
    for tensors, first in ((broken, 0), (shifted, 1)):
        given = outputs(infer(client, tensors, outputs=asked))
        assert list(given) == ["warnings", "excluded"]
        left_out = json.loads(given["excluded"].item())
        assert left_out == [{"index": first + i, "reason": "vol is zero or negative"} for i in range(half)]
        assert "many_quotes_excluded" in [warning["code"] for warning in json.loads(given["warnings"].item())]
    refused, sound = outputs(infer(client, rows(with_(ONE, "expiry", 0, 180.0), ONE), outputs=asked))["excluded"]
    assert (json.loads(refused), json.loads(sound)) == ([], [])


def test_loss_and_a_prior_are_parameters(client: Client) -> None:
    prior = {"parameters": {"kappa": 2.0}, "standard_deviations": {"kappa": 0.01}, "noise_bp": 20.0}
    request = {"quotes": {name: array.tolist() for name, array in ONE.items()}, "prior": prior, "loss": "squared"}
    given = outputs(infer(client, ONE, parameters={"prior": json.dumps(prior), "loss": "squared"}))
    assert given["parameters"].tolist() == list(client.calibrate(request)["parameters"].values())
    assert given["parameters"].tolist() != outputs(infer(client, ONE))["parameters"].tolist()
    for odd, pointer in (
        ("{", ""),
        ("[]", ""),
        (json.dumps({**prior, "noise_bp": 0}), "/noise_bp"),
        ("{}", "/parameters"),
    ):
        response = infer(client, ONE, parameters={"prior": odd})
        assert response.status_code == 422
        assert response.json()["errors"][0]["pointer"] == "/parameters/prior" + pointer


def test_refine_is_a_parameter(client: Client) -> None:
    assert outputs(infer(client, ONE, parameters={"refine": "none"}))["status"].tolist() == ["network_only"]


def test_parameters_that_are_null_are_as_if_absent(client: Client) -> None:
    inputs = [
        {"name": n, "shape": [IV.size], "datatype": "FP64", "data": a.tolist(), "parameters": None}
        for n, a in ONE.items()
    ]
    wanted = [{"name": "status", "parameters": None}, {"name": "parameters", "parameters": None}]
    given = outputs(client.post(INFER, {"id": None, "parameters": None, "inputs": inputs, "outputs": wanted}))
    assert list(given) == ["status", "parameters"]
    assert np.array_equal(given["parameters"], outputs(infer(client, ONE))["parameters"])
    # With binary tensors too, whose own parameters say where they are.
    binary = outputs(infer(client, ONE, parameters=None))
    assert np.array_equal(binary["parameters"], given["parameters"])
    odd: Any
    for odd in (0, [], "", False):
        assert infer(client, ONE, parameters=odd).json()["errors"][0]["pointer"] == "/parameters"


def test_the_timeout_is_in_microseconds(client: Client) -> None:
    expired = infer(client, ONE, parameters={"timeout": 1})
    assert (expired.status_code, expired.json()["code"]) == (504, "deadline_expired")
    assert expired.json()["error"] == expired.json()["detail"]
    for patient in (60_000_000, 0):
        assert outputs(infer(client, ONE, parameters={"timeout": patient}))["status"].tolist() == ["converged"]
    # The smaller of the two deadlines holds.
    both = infer(client, ONE, parameters={"timeout": 60_000_000}, headers={"x-request-deadline-ms": "0.001"})
    assert both.status_code in (503, 504)


@pytest.mark.parametrize("media_type", [None, "application/json", "application/octet-stream"])
def test_media_types_of_clients_are_accepted_and_none_too(client: Client, media_type: str | None) -> None:
    headers = {} if media_type is None else {"content-type": media_type}
    assert infer(client, ONE, headers=headers).status_code == 200


def test_other_media_types_and_encodings_are_refused(client: Client) -> None:
    for headers in ({"content-type": "text/plain"}, {"content-encoding": "br"}, {"content-encoding": "gzip, gzip"}):
        response = infer(client, ONE, headers=headers)
        assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")
        assert response.json()["error"] == response.json()["detail"]


@pytest.mark.parametrize(("encoding", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress)])
def test_compressed_requests_and_answers(client: Client, encoding: str, pack: Any) -> None:
    body, headers = inference(ONE, parameters={"binary_data_output": True})
    response = client.request(
        "POST",
        INFER,
        content=pack(body),
        headers={**headers, "content-encoding": encoding, "accept-encoding": encoding},
    )
    assert response.status_code == 200, response.text
    assert response.headers["content-encoding"] == encoding
    plain = infer(client, ONE, parameters={"binary_data_output": True})
    # httpx inflates; the length of the header is that of the inflated one.
    assert response.content == plain.content
    assert response.headers["inference-header-content-length"] == plain.headers["inference-header-content-length"]


def test_a_refusal_is_never_compressed(client: Client) -> None:
    # The asynchronous tritonclient reads the bytes of a refusal as they come.
    response = infer(client, with_(ONE, "expiry", 0, 180.0), headers={"accept-encoding": "gzip"})
    assert response.status_code == 422
    assert "content-encoding" not in response.headers


def test_a_bomb_is_refused_at_the_limit_for_bodies(client: Client) -> None:
    headers = {"content-encoding": "gzip"}
    response = client.request("POST", INFER, content=gzip.compress(bytes(50_000_000)), headers=headers)
    assert (response.status_code, response.json()["code"]) == (413, "too_large")
    assert "inflated" in response.json()["error"]


def header_of(*inputs: dict[str, Any], **more: Any) -> bytes:
    return json.dumps({"inputs": list(inputs), **more}).encode()


def tensor(name: str, shape: Any = (12,), datatype: str = "FP64", size: Any = None, **more: Any) -> dict[str, Any]:
    described = {"name": name, "shape": list(shape), "datatype": datatype, **more}
    return described if size is None else {**described, "parameters": {"binary_data_size": size}}


IN_JSON = [tensor(name, data=array.tolist()) for name, array in ONE.items()]
BINARY = [tensor(name, size=96) for name in ONE]
RAW = b"".join(array.tobytes() for array in ONE.values())

BAD = {
    "no tensors": (header_of(), b"", "/inputs"),
    "a tensor is missing": (header_of(*IN_JSON[:2]), b"", "/inputs"),
    "an unknown tensor": (header_of(*IN_JSON, tensor("vega", data=IV.tolist())), b"", "/inputs/3/name"),
    "a tensor twice": (header_of(*IN_JSON, IN_JSON[0]), b"", "/inputs/3/name"),
    "another datatype": (header_of({**IN_JSON[0], "datatype": "INT64"}, *IN_JSON[1:]), b"", "/inputs/0/datatype"),
    "no shape": (header_of({**IN_JSON[0], "shape": []}, *IN_JSON[1:]), b"", "/inputs/0/shape"),
    "three dimensions": (header_of({**IN_JSON[0], "shape": [1, 3, 4]}, *IN_JSON[1:]), b"", "/inputs/0/shape"),
    "a negative shape": (header_of({**IN_JSON[0], "shape": [-12]}, *IN_JSON[1:]), b"", "/inputs/0/shape/0"),
    "a shape beyond measure": (header_of({**IN_JSON[0], "shape": [10**300]}, *IN_JSON[1:]), b"", "/inputs/0/shape/0"),
    "a shape of no rows": (header_of(*(tensor(n, (0, 12), data=[]) for n in ONE)), b"", "/inputs/0/shape"),
    "other shapes": (header_of(*IN_JSON[:2], tensor("iv", (11,), data=IV[:11].tolist())), b"", "/inputs/2/shape"),
    "too few values": (header_of(*IN_JSON[:2], tensor("iv", data=IV[:11].tolist())), b"", "/inputs/2/data"),
    "rows of other lengths": (
        header_of(*(tensor(n, (2, 6), data=[[0.2] * 5, [0.2] * 7]) for n in ONE)),
        b"",
        "/inputs/0/data",
    ),
    "a value in a string": (header_of(*IN_JSON[:2], tensor("iv", data=["0.2"] * 12)), b"", "/inputs/2/data/0"),
    "a boolean": (header_of(*IN_JSON[:2], tensor("iv", data=[True] * 12)), b"", "/inputs/2/data/0"),
    "no values": (header_of(*IN_JSON[:2], tensor("iv")), b"", "/inputs/2/data"),
    "size of another datatype": (
        header_of(*(tensor(n, datatype="FP32", size=96) for n in ONE)),
        RAW,
        "/inputs/0/parameters/binary_data_size",
    ),
    "size and values": (header_of({**BINARY[0], "data": IV.tolist()}, *BINARY[1:]), RAW, "/inputs/0/data"),
    "a negative size": (
        header_of(tensor("iv", size=-96), *BINARY[:2]),
        RAW,
        "/inputs/0/parameters/binary_data_size",
    ),
    "bytes are missing": (header_of(*BINARY), RAW[:-1], "/inputs/2/parameters/binary_data_size"),
    "bytes are left": (header_of(*BINARY), RAW + b"\0", ""),
    "shared memory": (
        header_of({**tensor("iv"), "parameters": {"shared_memory_region": "r"}}, *IN_JSON[:2]),
        b"",
        "/inputs/0/parameters/shared_memory_region",
    ),
    "an unknown output": (header_of(*BINARY, outputs=[{"name": "vega"}]), RAW, "/outputs/0/name"),
    "a classification": (
        header_of(*BINARY, outputs=[{"name": "status", "parameters": {"classification": 3}}]),
        RAW,
        "/outputs/0/parameters/classification",
    ),
    "an unknown parameter": (header_of(*BINARY, parameters={"refin": "lm"}), RAW, "/parameters/refin"),
    "another refinement": (header_of(*BINARY, parameters={"refine": "newton"}), RAW, "/parameters/refine"),
    "a timeout of half a microsecond": (header_of(*BINARY, parameters={"timeout": 0.5}), RAW, "/parameters/timeout"),
    "a negative timeout": (header_of(*BINARY, parameters={"timeout": -1}), RAW, "/parameters/timeout"),
    "a timeout beyond measure": (header_of(*BINARY, parameters={"timeout": 10**400}), RAW, "/parameters/timeout"),
    "no JSON": (b"{", RAW, ""),
    "a list": (b"[]", RAW, ""),
    "infinite": (header_of(*BINARY), RAW[:-8] + np.array([np.inf]).tobytes(), "/inputs/2/data/11"),
    "NaN in expiry alone": (
        header_of(*BINARY),
        RAW[:96] + np.array([NAN]).tobytes() + RAW[104:],
        "/inputs/1/data/0",
    ),
    "every quote missing": (header_of(*BINARY), RAW[:192] + np.full(12, NAN).tobytes(), "/inputs/2/data"),
    "nothing but padding": (header_of(*BINARY), np.full(36, NAN).tobytes(), "/inputs/1/data"),
    "one quote": (header_of(*BINARY), RAW[:192] + np.array([0.2] + [NAN] * 11).tobytes(), "/inputs"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_request_is_refused_with_a_sentence_and_a_pointer(client: Client, name: str) -> None:
    head, raw, pointer = BAD[name]
    response = client.request(
        "POST", INFER, content=head + raw, headers={"inference-header-content-length": str(len(head))}
    )
    assert response.status_code == 422, response.text
    problem = ProblemDocument.model_validate_json(response.content)
    assert problem.errors is not None
    assert problem.errors[0].pointer == pointer, response.text
    assert problem.error == problem.detail == problem.errors[0].detail


@pytest.mark.parametrize("length", ["", "-1", "1e3", "x", "1_0", "٣", "9" * 30, str(2**62)])
def test_a_length_of_the_header_that_cannot_be_is_refused(client: Client, length: str) -> None:
    body, _ = inference(ONE)
    headers = {"inference-header-content-length": length.encode()}
    response = client.request("POST", INFER, content=body, headers=headers)
    assert response.status_code == 422
    assert "header" in response.json()["error"]


def test_without_its_length_the_header_is_all_there_is(client: Client) -> None:
    body, _ = inference(ONE)
    assert client.request("POST", INFER, content=body).status_code == 422
    assert client.request("POST", INFER, content=header_of(*IN_JSON)).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/sabr/infer",
        "/v2/models/heston/versions/99/infer",
        "/v2/models/heston/versions//infer",
        "/v2/models/heston/config",
    ],
)
def test_what_is_not_served_is_not_found_and_says_so(client: Client, path: str) -> None:
    response = infer(client, ONE, path=path)
    assert response.status_code in (404, 405)
    assert response.json()["error"] == response.json()["detail"]


def test_the_server_and_its_model_describe_themselves(client: Client) -> None:
    about = ServerMetadata.model_validate_json(client.get("/v2").content)
    assert (about.name, about.extensions) == ("calibrant", EXTENSIONS)
    metadata = ModelMetadata.model_validate_json(client.get("/v2/models/heston").content)
    assert client.get(f"/v2/models/heston/versions/{metadata.versions[0]}").json() == metadata.model_dump()
    assert [tensor.name for tensor in metadata.inputs] == ["log_moneyness", "expiry", "iv", "weight"]
    assert {tensor.name: tensor.datatype for tensor in metadata.outputs} == OUTPUTS
    assert client.get("/v2/health/live").json() == {"live": True}
    assert client.get("/v2/health/ready").json() == {"ready": True}
    for path in ("/v2/models/heston/ready", f"/v2/models/heston/versions/{metadata.versions[0]}/ready"):
        assert client.get(path).status_code == 200
    assert client.get("/v2/models/sabr/ready").status_code == 404


def test_panels_of_v1_are_no_inference(client: Client) -> None:
    response = client.post(INFER, panel())
    assert response.status_code == 422
    assert "/inputs" in [error["pointer"] for error in response.json()["errors"]]
