"""What two readers may read in two ways is refused: a field that is there twice, a number as only Python writes it."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibrant.errors import InvalidInput
from service.context import RequestContext, milliseconds
from service.errors import InvalidRequest
from service.headers import decimal_number, whole_number
from service.wire import json as json_format
from service.wire import msgpack, oip, schema
from service.wire.batch import BatchLimits, DocumentBatch
from service.wire.formats import FORMATS, preferred
from tests.service.client import Client
from tests.service.test_bad_input import PRICE, RICH, panel, places

TENSOR = {"name": "iv", "shape": [1], "datatype": "FP64", "data": [0.2], "parameters": {"note": {"a": 1, "b": [{}]}}}
INFERENCE = {
    "parameters": {"refine": "lm"},
    "inputs": [TENSOR, {**TENSOR, "name": "expiry"}, {**TENSOR, "name": "log_moneyness"}],
}
"""Unknown parameters of a tensor are notes of its client, whatever they hold."""


def with_a_twin(document: Any, path: tuple[Any, ...], escaped: bool) -> bytes:
    """JSON in which the field at that path is there twice."""
    *_, name = path
    marked = json.loads(json.dumps(document))
    part = marked
    for key in path[:-1]:
        part = part[key]
    part["twin"] = part[name]
    again = "".join(f"\\u{ord(c):04x}" for c in name) if escaped else name
    return json.dumps(marked).replace('"twin"', f'"{again}"').encode()


def objects_fields(document: Any) -> list[tuple[Any, ...]]:
    return [path for path in places(document) if isinstance(path[-1], str)]


@pytest.mark.parametrize(
    ("document", "kind", "decode"),
    [
        (RICH, schema.CalibrateRequest, json_format.decode),
        (RICH, schema.CalibrateRequest, json_format.decode_thoroughly),
        (PRICE, schema.PriceRequest, json_format.decode),
        (INFERENCE, oip.InferRequest, json_format.decode_thoroughly),
    ],
    ids=["calibration", "calibration by pydantic", "price", "inference"],
)
@pytest.mark.parametrize("escaped", [False, True])
def test_no_field_may_be_there_twice(document: Any, kind: Any, decode: Any, escaped: bool) -> None:
    assert decode(json.dumps(document).encode(), kind)
    for path in objects_fields(document):
        with pytest.raises(InvalidRequest, match=f"must not hold `{path[-1]}` twice"):
            decode(with_a_twin(document, path, escaped), kind)


def test_colons_in_strings_are_no_fields() -> None:
    document = {**RICH, "id": ":" * 10, "as_of": '2002-07-05T17:30:00 ":" \\\\":\\:'}
    assert json_format.decode(json.dumps(document).encode(), schema.CalibrateRequest).as_of == document["as_of"]
    for path in objects_fields(document):
        with pytest.raises(InvalidRequest, match="twice"):
            json_format.decode(with_a_twin(document, path, False), schema.CalibrateRequest)


def test_no_field_may_be_there_twice_in_messagepack() -> None:
    pack = msgspec.msgpack.encode
    good = panel()
    fields = [pack(part) for item in good.items() for part in item]
    twice = bytes([0x80 + 3]) + b"".join(fields) + pack("model") + pack("heston")
    assert msgpack.decode(pack(good), schema.CalibrateRequest)
    with pytest.raises(InvalidRequest, match="must not hold a field twice"):
        msgpack.decode(twice, schema.CalibrateRequest)


def test_a_batch_has_its_panels_once_and_a_panel_its_fields(client: Client) -> None:
    good = json.dumps(panel())
    response = client.post("/v1/calibrate/batch", f'{{"panels": 1, "\\u0070anels": [{good}]}}'.encode())
    assert (response.status_code, response.json()["code"]) == (422, "invalid_input")
    twin = good.replace('"model"', '"model": "heston", "model"')
    first, second = client.post("/v1/calibrate/batch", f'{{"panels": [{twin}, {good}]}}'.encode()).json()["results"]
    assert (first["code"], second["status"]) == ("invalid_input", "converged")
    assert first["errors"][0]["pointer"] == "/panels/0"
    batch = DocumentBatch(f'{{"panels": [{twin}]}}'.encode(), FORMATS["application/json"], BatchLimits(1, 10_000))
    with pytest.raises(InvalidRequest, match="twice"):
        batch.panel(0, lambda _: None)


ONLY_PYTHONS = (
    "1_000",
    "+5",
    " 5",
    "5 ",
    "٣",
    "0x10",
    "1_0.5",
    "",
    "-0",
    "1e",
    "e5",
    ".5",
    "nan",
    "inf",
    "Infinity",
    "²",
)


@pytest.mark.parametrize("text", ONLY_PYTHONS)
def test_a_number_that_only_python_reads_is_no_number_of_a_header(text: str) -> None:
    assert whole_number(text) is None
    assert decimal_number(text) is None
    with pytest.raises(InvalidInput):
        milliseconds(text)
    with pytest.raises(InvalidInput):
        oip.header_length(text)
    with pytest.raises(InvalidInput):
        _ = RequestContext("a", {"content-length": text}).declared_bytes
    assert preferred(f"b/b;q=0.5, c/c;q={text}", ("b/b", "c/c")) == "b/b"


@given(st.integers(0, 10**18), st.floats(0.0, 1e30))
def test_a_number_as_http_writes_it_is_read(whole: int, decimal: float) -> None:
    assert whole_number(str(whole)) == whole
    assert decimal_number(repr(decimal)) == decimal
    assert decimal_number(f"{decimal:.3e}") == float(f"{decimal:.3e}")


def test_what_stands_in_a_header_reaches_the_request(client: Client) -> None:
    for name in ("x_request_deadline_ms", "content_length"):
        response = client.post("/v1/calibrate", panel(), **{name: "1_000"})
        assert (response.status_code, response.json()["code"]) == (422, "invalid_input")
