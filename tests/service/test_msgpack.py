"""MessagePack: the answers of JSON, in the format asked for, and nothing believed that a body says of itself."""

import struct
import tracemalloc
from typing import Any

import msgspec
import numpy as np
import pytest

from service.errors import InvalidRequest
from service.wire import msgpack, schema
from tests.service.bodies import REAL, as_moneyness, real_panel
from tests.service.client import Client
from tests.service.test_bad_input import BAD_FIELDS, NAN, PRICE, changed, panel
from tests.shared import needs_shared

MSGPACK = "application/msgpack"
JSON = "application/json"
pack = msgspec.msgpack.encode
unpack = msgspec.msgpack.decode


def posted(client: Client, body: Any, path: str = "/v1/calibrate", **headers: str) -> Any:
    content = body if isinstance(body, bytes) else pack(body)
    return client.post(path, content, content_type=MSGPACK, **headers)


@needs_shared
@pytest.mark.parametrize("name", REAL)
def test_a_panel_gives_the_very_same_numbers_as_in_json(client: Client, name: str) -> None:
    request = real_panel(name)
    for body in (request, as_moneyness(request)):
        answer = unpack(posted(client, body).content)
        expected = client.calibrate(body)
        del answer["timing_us"], expected["timing_us"]
        assert answer == expected


@pytest.mark.parametrize(
    ("sent", "accept", "given"),
    [
        (MSGPACK, "*/*", MSGPACK),
        (JSON, "*/*", JSON),
        (MSGPACK, JSON, JSON),
        (JSON, MSGPACK, MSGPACK),
        (JSON, "application/msgpack;q=0.5, application/json;q=0.4", MSGPACK),
        (MSGPACK, "text/html, application/*;q=0.1", MSGPACK),
        (MSGPACK, "application/msgpack;q=0, */*", JSON),
        (MSGPACK, "text/html", MSGPACK),
        (JSON, "application/msgpack;q=nonsense", JSON),
        (JSON, ",;q=,", JSON),
    ],
)
def test_the_answer_is_in_the_format_asked_for(client: Client, sent: str, accept: str, given: str) -> None:
    body = pack(panel()) if sent == MSGPACK else panel()
    response = client.post("/v1/calibrate", body, content_type=sent, accept=accept)
    assert response.status_code == 200
    assert response.headers["content-type"] == given
    answer = unpack(response.content) if given == MSGPACK else response.json()
    assert answer["parameters"] == client.calibrate(panel())["parameters"]


@pytest.mark.parametrize("name", ["application/x-msgpack", "application/vnd.msgpack", "Application/X-MsgPack; v=5"])
def test_its_other_names_are_taken_for_it(client: Client, name: str) -> None:
    expected = client.calibrate(panel())["parameters"]
    answer = client.post("/v1/calibrate", pack(panel()), content_type=name)
    assert (answer.status_code, answer.headers["content-type"]) == (200, MSGPACK)
    assert unpack(answer.content)["parameters"] == expected
    batch = client.post("/v1/calibrate/batch", pack({"panels": [panel()]}), content_type=name)
    assert (batch.status_code, batch.headers["content-type"]) == (200, MSGPACK)
    asked = client.post("/v1/calibrate", panel(), accept=name.partition(";")[0])
    assert (asked.headers["content-type"], unpack(asked.content)["parameters"]) == (MSGPACK, expected)


def test_prices_and_models_come_in_it_too(client: Client) -> None:
    assert unpack(posted(client, PRICE, "/v1/price").content) == client.post("/v1/price", PRICE).json()
    models = client.request("GET", "/v1/models", headers={"accept": MSGPACK})
    assert unpack(models.content) == client.get("/v1/models").json()


def test_a_refusal_is_a_problem_in_json_whatever_was_sent(client: Client) -> None:
    response = posted(client, panel(iv=[0.2]))
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["errors"][0]["pointer"] == "/quotes/iv"


@pytest.mark.parametrize("name", [name for name, (body, _) in BAD_FIELDS.items() if not isinstance(body, bytes)])
def test_a_bad_field_gets_the_pointer_that_it_gets_in_json(client: Client, name: str) -> None:
    body, pointer = BAD_FIELDS[name]
    problem = posted(client, body)
    assert problem.status_code == 422, problem.text
    assert problem.json()["errors"][0]["pointer"] == pointer
    if "NaN" not in name and "infinite" not in name:
        assert problem.json()["errors"] == client.post("/v1/calibrate", body).json()["errors"]


def test_null_is_a_missing_quote_and_nan_is_none(client: Client) -> None:
    iv = panel()["quotes"]["iv"]
    answer = unpack(posted(client, panel(iv=changed(iv, 2, None))).content)
    assert answer["fit"]["excluded"] == [{"index": 2, "reason": "missing quote"}]
    problem = posted(client, panel(iv=changed(iv, 2, NAN))).json()
    assert problem["errors"] == [
        {"pointer": "/quotes/iv/2", "detail": "`quotes.iv[2]` must be a finite number, but is not a number."}
    ]


def test_numbers_may_be_whole_or_of_single_precision(client: Client) -> None:
    quotes = panel()["quotes"]
    iv = np.array(quotes["iv"], np.float32)
    packed = pack(panel(strike=[int(k) for k in quotes["strike"]], forward=100))
    for vol in quotes["iv"]:
        packed = packed.replace(b"\xcb" + struct.pack(">d", vol), b"\xca" + struct.pack(">f", vol))
    expected = client.calibrate(panel(iv=iv.astype(float).tolist()))
    assert unpack(posted(client, packed).content)["parameters"] == expected["parameters"]


GOOD = pack(panel())

BAD_BODIES = {
    "empty": (b"", "it ends inside a value"),
    "truncated": (GOOD[:-1], "it ends inside a value"),
    "two documents": (GOOD * 2, "goes on behind its value"),
    "JSON": (b'{"model": "heston"}', "goes on behind its value"),
    "a list of four thousand million": (b"\xdd\xff\xff\xff\xff", "it ends inside a value"),
    "an object of four thousand million": (b"\xdf\xff\xff\xff\xff", "it ends inside a value"),
    "a string of four thousand million": (b"\xdb\xff\xff\xff\xff", "it ends inside a value"),
    "a length cut short": (b"\xdd\xff", "it ends inside a value"),
    "nested beyond reason": (b"\x91" * 100_000 + b"\x90", "at most 4096 objects and lists"),
    "nested too deep to be read": (b"\x81\xa1a" + b"\x91" * 4000 + b"\x90", "recursion"),
    "a million empty lists": (b"\xdd" + struct.pack(">I", 1_000_000) + b"\x90" * 1_000_000, "at most"),
    "a number for a key": (pack({**panel(), 1: 2}), "no key that is not a string"),
    "a number for a key inside": (pack({**panel(), "start": {1: 2.0}}), "no key that is not a string"),
    "a list for a key": (b"\x83" + GOOD[1:] + b"\x90\x01", "no key that is not a string"),
    "an extension": (pack({"id": msgspec.msgpack.Ext(5, b"x")}), "a type that JSON does not have"),
    "a timestamp": (b"\x81\xa2id\xd6\xff\x00\x00\x00\x01", "a type that JSON does not have"),
    "the byte that means nothing": (b"\xc1", "a type that JSON does not have"),
    "a string that is not UTF-8": (b"\x81\xa2id\xa2\xff\xfe", "is not MessagePack"),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_a_body_that_is_no_request_is_refused(client: Client, name: str) -> None:
    body, said = BAD_BODIES[name]
    response = posted(client, body)
    assert response.status_code == 422, response.text
    assert said in response.json()["detail"]
    assert response.json()["errors"][0]["pointer"] == ""


def test_binary_data_is_no_number_and_no_string(client: Client) -> None:
    problem = posted(client, panel(iv=changed(panel()["quotes"]["iv"], 1, b"\xff"))).json()
    assert problem["errors"][0] == {
        "pointer": "/quotes/iv/1",
        "detail": "`quotes.iv[1]` must be a number, but is binary data.",
    }
    assert posted(client, {**panel(), "id": b"x"}).json()["errors"][0]["pointer"] == "/id"


@pytest.mark.parametrize(
    "body",
    [
        b"\xdd" + struct.pack(">I", 4_000_000) + b"\x80" * 4_000_000,
        (b"\xdd" + struct.pack(">I", 4_000_000)) * 10 + b"\xc0" * 4_000_000,
        b"\xdd" + struct.pack(">I", 4_000_000) + b"\x91" * 4_000_000,
    ],
    ids=["empty objects", "lists in lists", "lists of one"],
)
def test_what_a_body_says_of_its_lengths_takes_no_memory(body: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(InvalidRequest):
            msgpack.decode(body, schema.CalibrateRequest)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
