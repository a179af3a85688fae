"""What a client sent comes back in a sentence, and so in part: half a megabyte of it is nobody's business."""

import json
from typing import Any

import msgspec
import pyarrow
import pytest

from benchmarks.load.arrow import arrow_stream, quote_table
from benchmarks.load.tensors import inference
from calibrant.errors import Problem
from service.errors import NotFound
from service.wire.arrow import MEDIA_TYPE
from tests.service.client import Client
from tests.service.test_arrow import COLUMNS
from tests.service.test_bad_input import PRICE, RICH, panel, places
from tests.service.test_fuzz import TENSORS

LONG = "x" * 50_000
MOST = 12_000
"""Bytes of an answer: twenty problems of a name and a sentence each."""
MOST_OF_ONE = 1500


def answer_of(client: Client, path: str, body: Any, **headers: str) -> bytes:
    response = client.post(path, body, **headers)
    assert 400 <= response.status_code < 500, response.status_code
    return response.content


def with_long_values(document: Any) -> list[Any]:
    """The document with something long in each place in turn, as a value and as a name."""
    found = []
    for path in places(document):
        for as_name in (False, True):
            changed = json.loads(json.dumps(document))
            part = changed
            for key in path[:-1]:
                part = part[key]
            if not as_name:
                part[path[-1]] = LONG
            elif isinstance(path[-1], str):
                part[LONG] = part.pop(path[-1])
            found.append(changed)
    return found


def test_long_values_and_names_come_back_short_wherever_they_stand(client: Client) -> None:
    n = 0
    # What is echoed by contract, and free text.
    asked = {name: value for name, value in RICH.items() if name not in ("id", "as_of")}
    for path, document in (("/v1/calibrate", asked), ("/v1/price", PRICE)):
        for changed in with_long_values(document):
            if changed == document:
                continue
            assert len(answer_of(client, path, changed)) < MOST_OF_ONE
            packed = msgspec.msgpack.encode(changed)
            assert len(answer_of(client, path, packed, content_type="application/msgpack")) < MOST_OF_ONE
            n += 1
    assert n > 60
    many = {**panel(), "start": {f"{i}{LONG[:400]}": 1.0 for i in range(200)}}
    assert len(answer_of(client, "/v1/calibrate", many)) < MOST


def test_long_headers_come_back_short(client: Client) -> None:
    for name in ("content_type", "content_encoding", "x_request_deadline_ms"):
        assert len(answer_of(client, "/v1/calibrate", panel(), **{name: LONG})) < MOST_OF_ONE
    body, _ = inference(TENSORS)
    for name in ("content_type", "content_encoding", "inference_header_content_length"):
        assert len(answer_of(client, "/v2/models/heston/infer", body, **{name: LONG})) < MOST_OF_ONE
    assert len(answer_of(client, "/v1/calibrate/batch", b"{}", content_type=LONG)) < MOST_OF_ONE


def test_long_paths_come_back_short_and_lead_nowhere(client: Client) -> None:
    for path in (f"/{LONG}", f"/v2/models/{LONG}", f"/v2/models/heston/versions/{LONG}", f"/v1/calibrate/{LONG}"):
        response = client.get(path)
        assert response.status_code == 404
        assert len(response.content) < MOST_OF_ONE
    method = client.request("PUT" + LONG, "/v1/calibrate")
    assert method.status_code == 405
    assert len(method.content) < MOST_OF_ONE


def test_long_headers_of_an_inference_come_back_short(client: Client) -> None:
    body, headers = inference(TENSORS, outputs=[{"name": "status"}], parameters={"refine": "lm"})
    length = int(headers["inference-header-content-length"])
    header = json.loads(body[:length])
    for changed in with_long_values(header):
        head = json.dumps(changed).encode()
        sent = {"inference-header-content-length": str(len(head))}
        response = client.request("POST", "/v2/models/heston/infer", content=head + body[length:], headers=sent)
        assert response.status_code in (200, 422)
        assert len(response.content) < 2 * MOST_OF_ONE
    shapes = {**header, "inputs": [{**each, "shape": [1] * 20_000} for each in header["inputs"]]}
    shapes["inputs"][1]["shape"] = [1, 2]
    response = client.request("POST", "/v2/models/heston/infer", content=json.dumps(shapes).encode())
    assert response.status_code == 422
    assert len(response.content) < MOST


def test_long_names_of_an_arrow_stream_come_back_short(client: Client) -> None:
    table = quote_table({"a": COLUMNS})
    nested = pyarrow.struct([(f"{i}{LONG[:300]}", pyarrow.int8()) for i in range(100)])
    for changed in (
        table.rename_columns([LONG if name == "iv" else name for name in table.column_names]),
        table.set_column(1, table.column_names[1], pyarrow.nulls(6, nested)),
        table.replace_schema_metadata({f"calibrant.{LONG}": "a"}),
        table.replace_schema_metadata({"calibrant.model": LONG}),
        table.replace_schema_metadata({"calibrant.refine": LONG}),
    ):
        assert len(answer_of(client, "/v1/calibrate/batch", arrow_stream(changed), content_type=MEDIA_TYPE)) < MOST


def test_a_problem_names_a_field_as_far_as_a_sentence_can() -> None:
    problem = Problem.at(("quotes", LONG, 3), "must be short.")
    assert len(problem.detail) < 120
    assert len(problem.pointer) < 120
    assert Problem.at(("quotes", "iv", 3), "must be short.") == (("quotes", "iv", 3), "`quotes.iv[3]` must be short.")
    assert len(NotFound(LONG).detail) == 1000


@pytest.mark.parametrize("host", ["elsewhere.example", "x/health/live?", "x:80@elsewhere", "["])
def test_the_host_header_leads_nobody_anywhere(client: Client, host: str) -> None:
    for path in ("/v1/calibrate/", "/health/live/", "/docs/", "/nothing"):
        response = client.request("GET", path, headers={"host": host})
        assert response.status_code == 404, path
        assert "location" not in response.headers
        assert path in response.json()["detail"]
    for path in ("/docs", "/openapi.json"):
        assert "elsewhere" not in client.request("GET", path, headers={"host": host}).text
