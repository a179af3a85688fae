"""The OpenAPI document against the service: schemathesis makes requests of it and holds the answers against it."""

import json
from collections import Counter
from typing import Any

import msgspec
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode

from tests.service.client import Client

fuzzed = settings(
    deadline=None, derandomize=True, max_examples=12, suppress_health_check=list(HealthCheck), phases=[Phase.generate]
)
# What a schema cannot say (that columns are of one length, that a panel needs two quotes) is refused all the same.
load_all_checks()
INEXPRESSIBLE = CHECKS.get_by_names(["positive_data_acceptance"])
# Nor that a deadline can be met.
(IN_TIME,) = CHECKS.get_by_names(["not_a_server_error"])
# A bad panel of a batch is refused inside of its answer.
MAY_COME_LATER = ("/v1/calibrate/batch", "/v1/leverage", "/v1/one-touch")
OF_A_BATCH = CHECKS.get_by_names(["positive_data_acceptance", "negative_data_rejection"])


@schemathesis.serializer("application/msgpack")
def to_msgpack(_: Any, value: Any) -> bytes:
    # Whole numbers of more than 64 bits have no place there.
    return msgspec.msgpack.encode(json.loads(json.dumps(value), parse_int=lambda x: max(min(int(x), 2**63), -(2**63))))


@pytest.fixture(scope="module")
def document(client: Client) -> Any:
    return client.get("/openapi.json").json()


def test_every_path_and_format_is_documented(client: Client, document: Any) -> None:
    told = set(document["paths"]) | {"/openapi.json"}
    assert {route.path for route in client.app.table.routes if not route.page} == told
    batch = document["paths"]["/v1/calibrate/batch"]["post"]
    arrow = "application/vnd.apache.arrow.stream"
    assert set(batch["requestBody"]["content"]) == {"application/json", "application/msgpack", arrow}
    assert set(batch["responses"]["200"]["content"]) == {
        "application/json",
        "application/msgpack",
        "application/x-ndjson",
        arrow,
    }
    for path, operations in document["paths"].items():
        for operation in operations.values():
            later = {"202"} if path in MAY_COME_LATER else set()
            assert set(operation["responses"]) == {"200", "4XX", "5XX", *later}, path
            assert set(operation["responses"]["4XX"]["content"]) == {"application/problem+json"}


def operations(document: Any) -> list[tuple[str, Any]]:
    return [
        (f"{method.upper()} {path}", operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def test_every_field_parameter_and_header_is_described(document: Any) -> None:
    for name, model in document["components"]["schemas"].items():
        assert model.get("description"), name
        for field, values in model.get("properties", {}).items():
            assert values.get("description"), f"{name}.{field}"
    for name, operation in operations(document):
        assert operation["summary"], name
        assert operation["tags"], name
        assert all(parameter["description"] for parameter in operation["parameters"]), name
        for answer in operation["responses"].values():
            assert {"Server-Timing", "X-Request-Id"} <= answer["headers"].keys(), name
            assert all(header["description"] for header in answer["headers"].values()), name


def test_what_needs_no_key_says_so_and_the_rest_names_the_scheme(client: Client, document: Any) -> None:
    assert document["components"]["securitySchemes"]["key"]["scheme"] == "bearer"
    found = {name: operation["security"] for name, operation in operations(document)}
    for route in client.app.table.routes:
        if route.path in document["paths"]:
            assert found[f"{route.method} {route.path}"] == ([] if route.open else [{"key": []}, {}])


def shape(value: Any) -> Any:
    """The fields of a document, without its values."""
    if isinstance(value, dict):
        return {name: shape(of) for name, of in value.items() if of is not None}
    return (
        [shape(value[0])] if isinstance(value, list) and value and isinstance(value[0], dict) else type(value).__name__
    )


def test_each_example_is_answered_as_it_says(client: Client, document: Any) -> None:
    batch = document["paths"]["/v1/calibrate/batch"]["post"]
    panels = batch["requestBody"]["content"]["application/json"]["example"]
    job = client.post("/v1/calibrate/batch", panels, prefer="respond-async")
    assert shape(job.json()) == shape(batch["responses"]["202"]["content"]["application/json"]["example"])
    job_id = job.json()["id"]
    # Until it is done.
    assert "event: done" in client.get(f"/v1/jobs/{job_id}/events").text
    # The end of the job last.
    for name, operation in sorted(operations(document), key=lambda each: each[0].startswith("DELETE")):
        method, path = name.split()
        told = operation["responses"]["200"]["content"]
        assert any("example" in content for content in told.values()), name
        body = operation.get("requestBody", {}).get("content", {}).get("application/json", {}).get("example")
        assert (body is None) == (method != "POST"), name
        served = client.get("/v2/models/heston").json()["versions"][0]
        sent = path.replace("{model}", "heston").replace("{version}", served).replace("{id}", job_id)
        answer = client.request(method, sent, json=body)
        assert answer.status_code == 200, (name, answer.text)
        if "application/json" in told:
            assert shape(answer.json()) == shape(told["application/json"]["example"]), name
    lines = batch["responses"]["200"]["content"]["application/x-ndjson"]
    assert [json.loads(line)["index"] for line in lines["example"].splitlines()] == [0, 1]


def conforming(client: Client, operation: Any, mode: GenerationMode) -> Counter[int]:
    """How often each status came, 0 for a deadline not met; every answer is as the document says."""
    statuses: Counter[int] = Counter()
    excluded = OF_A_BATCH if operation.path.endswith("/batch") else INEXPRESSIBLE

    @fuzzed
    @given(case=operation.as_strategy(generation_mode=mode))
    def answered(case: Any) -> None:
        sent = case.as_transport_kwargs(base_url="http://service")
        sent.pop("cookies", None)
        body = {"content": sent.pop("data")} if "data" in sent else {}
        response = client.request(sent.pop("method"), sent.pop("url"), **body, **sent)
        late = response.status_code in (503, 504) and response.json()["code"].startswith("deadline_")
        statuses[0 if late else response.status_code] += 1
        case.validate_response(response, excluded_checks=[*excluded, IN_TIME] if late else excluded)

    answered()
    return statuses


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_answers_to_what_the_document_allows_and_forbids_are_as_it_says(
    client: Client, document: Any, mode: GenerationMode
) -> None:
    statuses: Counter[int] = Counter()
    for found in schemathesis.openapi.from_dict(document).get_all_operations():
        assert isinstance(found, Ok)
        operation = found.ok()
        # What is forbidden needs a body to be in.
        if mode is GenerationMode.POSITIVE or operation.method == "post":
            statuses += conforming(client, operation, mode)
    assert not [status for status in statuses if status >= 500]
    assert statuses[422] > 20
    if mode is GenerationMode.POSITIVE:
        assert statuses[200] > 10
