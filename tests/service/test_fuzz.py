"""Every decoder on damaged input: a problem with a pointer or a sound result, and never a failure of the service."""

import copy
import gzip
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pyarrow
import pyarrow.ipc
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from benchmarks.load.arrow import arrow_stream, quote_table
from benchmarks.load.tensors import inference
from calibrant.errors import InvalidInput
from calibrant.models import HESTON
from service.errors import ServiceError
from service.wire import json as json_format
from service.wire import msgpack, oip, schema
from service.wire.arrow import MEDIA_TYPE as ARROW
from service.wire.arrow import ArrowBatch
from service.wire.batch import BatchLimits, DocumentBatch
from service.wire.compression import inflate
from service.wire.formats import FORMATS
from tests.service.bodies import as_tensors
from tests.service.client import Client
from tests.service.test_bad_input import ODD_VALUES, PRICE, RICH, panel, places

fuzzed = settings(
    deadline=None, derandomize=True, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
thoroughly = settings(fuzzed, max_examples=150)
pack = msgspec.msgpack.encode

JSON, MSGPACK = "application/json", "application/msgpack"
LIMITS = BatchLimits(panels=100, panel_bytes=100_000)
BATCH = {"panels": [panel(), RICH]}
QUOTES = {**panel()["quotes"], "forward": [100.0] * 6}
TENSORS = as_tensors({name: QUOTES[name] for name in ("expiry", "iv")} | {"log_moneyness": [-0.1, 0.0, 0.1] * 2})
INFER_BODY, INFER_HEADERS = inference(TENSORS, outputs=[{"name": "status"}], parameters={"refine": "lm"}, id="7")
HEADER_BYTES = int(INFER_HEADERS["inference-header-content-length"])
TABLE = quote_table({"a": QUOTES, "b": QUOTES})
STREAMS = [arrow_stream(TABLE), arrow_stream(TABLE.set_column(0, "panel", TABLE.column("panel").dictionary_encode()))]


@st.composite
def damaged(draw: st.DrawFn, good: bytes) -> bytes:
    """A body with some bytes changed, a piece of it missing or there twice, or its end cut off."""
    body = bytearray(good)
    for _ in range(draw(st.integers(0, 3))):
        body[draw(st.integers(0, len(body) - 1))] = draw(st.sampled_from([0, 1, 0x7F, 0x80, 0xC1, 0xDD, 0xFF, 34, 93]))
    begin, end = sorted((draw(st.integers(0, len(body))), draw(st.integers(0, len(body)))))
    match draw(st.integers(0, 4)):
        case 0:
            del body[begin : begin + 8]
        case 1:
            body[begin:begin] = body[begin : begin + 40]
        case 2:
            del body[end:]
        case _:
            pass
    return bytes(body)


@st.composite
def odd(draw: st.DrawFn, good: Any) -> Any:
    """A document with odd values in some places."""
    document = json.loads(json.dumps(good))
    for _ in range(draw(st.integers(1, 2))):
        *path, last = draw(st.sampled_from(list(places(document))))
        part = document
        for key in path:
            part = part[key]
        part[last] = copy.deepcopy(draw(st.sampled_from(ODD_VALUES)))
    return document


def packed(document: Any) -> bytes:
    """In MessagePack, whose whole numbers end at 64 bits and whose strings are UTF-8."""
    return pack(json.loads(json.dumps(document).replace("\\ud800", "?"), parse_int=lambda x: min(int(x), 2**63)))


def sound_or_refused(work: Callable[[], Any]) -> Any:
    """What `work` gives; None where it refuses, as it must."""
    try:
        return work()
    except (ServiceError, InvalidInput):
        return None


DECODERS: dict[str, tuple[bytes, Callable[[bytes], Any]]] = {
    "JSON": (json.dumps(RICH).encode(), lambda body: json_format.decode(body, schema.CalibrateRequest)),
    "MessagePack": (pack(RICH), lambda body: msgpack.decode(body, schema.CalibrateRequest)),
    "JSON batch": (json.dumps(BATCH).encode(), lambda body: _all(DocumentBatch(body, FORMATS[JSON], LIMITS))),
    "MessagePack batch": (pack(BATCH), lambda body: _all(DocumentBatch(body, FORMATS[MSGPACK], LIMITS))),
    "Arrow": (STREAMS[0], lambda body: _all(ArrowBatch(body, LIMITS))),
    "Arrow with a dictionary": (STREAMS[1], lambda body: _all(ArrowBatch(body, LIMITS))),
    "inference": (INFER_BODY, lambda body: _all(oip.decode_request(body, HEADER_BYTES, HESTON))),
    "gzip": (gzip.compress(INFER_BODY, mtime=0), lambda body: inflate(body, "gzip", 10_000)),
}


def _all(batch: Any) -> list[Any]:
    return [sound_or_refused(lambda i=i: batch.panel(i, lambda _: None)) for i in range(batch.n_panels)]  # type: ignore[misc]


@pytest.mark.parametrize("name", DECODERS)
def test_a_decoder_gives_a_result_or_a_refusal(name: str) -> None:
    good, decode = DECODERS[name]
    assert decode(good)

    @thoroughly
    @given(damaged(good))
    def on_damaged(body: bytes) -> None:
        sound_or_refused(lambda: decode(body))

    on_damaged()


def require_sound(response: Any, answered: Callable[[Any], None]) -> None:
    """A result as it should be, or a problem that says what and where."""
    if response.status_code == 200:
        answered(response)
        return
    assert response.status_code in (413, 422), response.text
    problem = schema.ProblemDocument.model_validate_json(response.content)
    assert problem.detail
    if response.status_code == 422:
        assert problem.errors


def require_calibration(response: Any) -> None:
    schema.CalibrateResponse.model_validate_json(response.content)


def require_prices(response: Any) -> None:
    schema.PriceResponse.model_validate_json(response.content)


def require_results(response: Any) -> None:
    for result in json.loads(response.content)["results"]:
        if "code" in result:
            assert result["code"] in ("invalid_input", "too_large"), result
            schema.ProblemDocument.model_validate(result)
        else:
            schema.CalibrateResponse.model_validate(result)


@fuzzed
@given(document=odd(RICH), binary=st.booleans())
def test_odd_values_in_a_calibration(client: Client, document: Any, binary: bool) -> None:
    if binary:
        response = client.post("/v1/calibrate", packed(document), content_type=MSGPACK, accept=JSON)
    else:
        response = client.post("/v1/calibrate", document)
    require_sound(response, require_calibration)


@fuzzed
@given(document=odd(PRICE), binary=st.booleans())
def test_odd_values_in_a_price(client: Client, document: Any, binary: bool) -> None:
    if binary:
        response = client.post("/v1/price", packed(document), content_type=MSGPACK, accept=JSON)
    else:
        response = client.post("/v1/price", document)
    require_sound(response, require_prices)


@fuzzed
@given(document=odd(BATCH), binary=st.booleans())
def test_odd_values_in_a_batch(client: Client, document: Any, binary: bool) -> None:
    if binary:
        response = client.post("/v1/calibrate/batch", packed(document), content_type=MSGPACK, accept=JSON)
    else:
        response = client.post("/v1/calibrate/batch", document)
    require_sound(response, require_results)


@fuzzed
@given(body=damaged(pack(BATCH)) | damaged(json.dumps(BATCH).encode()))
def test_damaged_batches(client: Client, body: bytes) -> None:
    sent = JSON if body.startswith(b"{") else MSGPACK
    require_sound(client.post("/v1/calibrate/batch", body, content_type=sent, accept=JSON), require_results)


@fuzzed
@given(body=st.sampled_from(STREAMS).flatmap(damaged))
def test_damaged_arrow_streams(client: Client, body: bytes) -> None:
    def answered(response: Any) -> None:
        pyarrow.ipc.open_stream(response.content).read_all().validate(full=True)

    require_sound(client.post("/v1/calibrate/batch", body, content_type=ARROW), answered)


def require_inference(response: Any) -> None:
    head = response.headers.get("inference-header-content-length")
    oip.InferResponse.model_validate_json(response.content if head is None else response.content[: int(head)])


@fuzzed
@given(body=damaged(INFER_BODY), length=st.just(HEADER_BYTES) | st.integers(0, len(INFER_BODY) + 10))
def test_damaged_inferences(client: Client, body: bytes, length: int) -> None:
    headers = {"inference-header-content-length": str(length)}
    response = client.request("POST", "/v2/models/heston/infer", content=body, headers=headers)
    require_sound(response, require_inference)


@fuzzed
@given(header=odd(json.loads(INFER_BODY[:HEADER_BYTES])))
def test_odd_values_in_the_header_of_an_inference(client: Client, header: Any) -> None:
    head = json.dumps(header).encode()
    headers = {"inference-header-content-length": str(len(head))}
    body = head + INFER_BODY[HEADER_BYTES:]
    response = client.request("POST", "/v2/models/heston/infer", content=body, headers=headers)
    require_sound(response, require_inference)
