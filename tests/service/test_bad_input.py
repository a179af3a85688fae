"""Bad input gets a 4xx that names the field and never a 500."""

import copy
import gc
import json
import random
import re
import time
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from calibrant.pipeline import Assessment
from service.context import RequestContext
from service.engine import CalibrationJob
from service.errors import ServiceError, TooLarge
from service.wire.formats import JSON
from service.wire.schema import CalibrateRequest, CalibrateResponse, Quotes
from tests.service.client import Client

NAN, INFINITY = float("nan"), float("inf")


def panel(**quotes: Any) -> dict[str, Any]:
    """A good request for six quotes, with some columns replaced."""
    good: dict[str, Any] = {
        "expiry": [0.5, 0.5, 0.5, 1.0, 1.0, 1.0],
        "strike": [90.0, 100.0, 110.0, 90.0, 100.0, 110.0],
        "forward": 100.0,
        "iv": [0.25, 0.22, 0.21, 0.24, 0.22, 0.21],
    }
    return {"model": "heston", "quotes": {**good, **quotes}}


def without(*names: str, **quotes: Any) -> dict[str, Any]:
    request = panel(**quotes)
    for name in names:
        del request["quotes"][name]
    return request


IV = [0.25, 0.22, 0.21, 0.24, 0.22, 0.21]
EXPIRY = [0.5, 0.5, 0.5, 1.0, 1.0, 1.0]


def changed(column: list[float], index: int, value: Any) -> list[Any]:
    return [*column[:index], value, *column[index + 1 :]]


PARAMETERS = {"kappa": 2.0, "theta": 0.05, "xi": 0.5, "rho": -0.7, "v0": 0.05}

BAD_FIELDS: dict[str, tuple[Any, str]] = {
    "NaN in iv": (panel(iv=changed(IV, 2, NAN)), "/quotes/iv/2"),
    "infinite iv": (panel(iv=changed(IV, 2, INFINITY)), "/quotes/iv/2"),
    "NaN in expiry": (panel(expiry=changed(EXPIRY, 4, NAN)), "/quotes/expiry/4"),
    "expiry of days": (panel(expiry=changed(EXPIRY, 1, 180)), "/quotes/expiry/1"),
    "every quote expired": (panel(expiry=[-0.02] * 6), "/quotes"),
    "null expiry": (panel(expiry=changed(EXPIRY, 0, None)), "/quotes/expiry/0"),
    "every vol in percent": (panel(iv=[100.0 * vol for vol in IV]), "/quotes"),
    "every vol zero or negative": (panel(iv=[0.0, -0.2, 0.0, 0.0, 0.0, -0.1]), "/quotes"),
    "vol in a string": (panel(iv=changed(IV, 0, "0.25")), "/quotes/iv/0"),
    "vol as a boolean": (panel(iv=changed(IV, 0, True)), "/quotes/iv/0"),
    "iv not a list": (panel(iv=0.25), "/quotes/iv"),
    "every ask below its bid": (without("iv", bid_iv=IV, ask_iv=[v - 0.01 for v in IV]), "/quotes"),
    "exclude a quote that is not there": ({**panel(), "exclude": [0, 6]}, "/exclude/1"),
    "exclude counted from the end": ({**panel(), "exclude": [-1]}, "/exclude/0"),
    "exclude by a mask": ({**panel(), "exclude": [True, False]}, "/exclude/0"),
    "exclude halves": ({**panel(), "exclude": [0.5]}, "/exclude/0"),
    "exclude beyond measure": ({**panel(), "exclude": [2**40]}, "/exclude/0"),
    "exclude everything": ({**panel(), "exclude": [0, 1, 2, 3, 4, 5]}, "/quotes"),
    "unknown loss": ({**panel(), "loss": "absolute"}, "/loss"),
    "ask too short": (without("iv", bid_iv=IV, ask_iv=IV[:-1]), "/quotes/ask_iv"),
    "iv too short": (panel(iv=IV[:-1]), "/quotes/iv"),
    "strike too long": (panel(strike=[90.0] * 7), "/quotes/strike"),
    "forward too short": (panel(forward=[100.0] * 5), "/quotes/forward"),
    "weight too short": (panel(weight=[1.0]), "/quotes/weight"),
    "negative weight": (panel(weight=[1.0, 1.0, 1.0, 1.0, -1.0, 1.0]), "/quotes/weight/4"),
    "negative strike": (panel(strike=[90.0, -100.0, 110.0, 90.0, 100.0, 110.0]), "/quotes/strike/1"),
    "strike next to nothing": (panel(strike=[90.0, 5e-324, 110.0, 90.0, 100.0, 110.0]), "/quotes/strike/1"),
    "strike beyond measure": (panel(strike=[90.0, 1e308, 110.0, 90.0, 100.0, 110.0], forward=1e-5), "/quotes/strike/0"),
    "zero forward": (panel(forward=0.0), "/quotes/forward"),
    "negative forward of one quote": (panel(forward=[100.0, 100.0, -1.0, 100.0, 100.0, 100.0]), "/quotes/forward/2"),
    "forward in a string": (panel(forward="100"), "/quotes/forward"),
    "string among the forwards": (panel(forward=[100.0, "x", 100.0, 100.0, 100.0, 100.0]), "/quotes/forward/1"),
    "strike without forward": (without("forward"), "/quotes/forward"),
    "strike and log_moneyness": (panel(log_moneyness=[0.0] * 6), "/quotes/log_moneyness"),
    "no strike at all": (without("strike", "forward"), "/quotes/strike"),
    "no vols at all": (without("iv"), "/quotes/iv"),
    "empty panel": (panel(expiry=[], strike=[], iv=[]), "/quotes/expiry"),
    "every quote missing": (panel(iv=[None] * 6), "/quotes"),
    "one quote": (panel(expiry=[0.5], strike=[100.0], iv=[0.2]), "/quotes"),
    "one quote that is not missing": (panel(iv=[None, 0.2, None, None, None, None]), "/quotes"),
    "unknown column": (panel(vega=[1.0] * 6), "/quotes/vega"),
    "no quotes": ({"model": "heston"}, "/quotes"),
    "quotes not an object": ({"model": "heston", "quotes": [1, 2]}, "/quotes"),
    "unknown field": ({**panel(), "refinement": "lm"}, "/refinement"),
    "unknown field with a slash": ({**panel(), "a/b~c": 1}, "/a~1b~0c"),
    "unknown model": ({**panel(), "model": "hestn"}, "/model"),
    "unknown refine": ({**panel(), "refine": "newton"}, "/refine"),
    "start without rho": ({**panel(), "start": {k: v for k, v in PARAMETERS.items() if k != "rho"}}, "/start/rho"),
    "start beyond the bounds": ({**panel(), "start": {**PARAMETERS, "rho": -1.5}}, "/start/rho"),
    "start with an unknown parameter": ({**panel(), "start": {**PARAMETERS, "alpha": 1.0}}, "/start/alpha"),
    "start in a string": ({**panel(), "start": {**PARAMETERS, "xi": "0.5"}}, "/start/xi"),
    "bounds the wrong way round": ({**panel(), "bounds": {"kappa": [5.0, 1.0]}}, "/bounds/kappa"),
    "bounds outside the admissible": ({**panel(), "bounds": {"kappa": [1.0, 100.0]}}, "/bounds/kappa"),
    "bounds of three": ({**panel(), "bounds": {"kappa": [1.0, 2.0, 3.0]}}, "/bounds/kappa"),
    "bounds of an unknown parameter": ({**panel(), "bounds": {"lambda": [1.0, 2.0]}}, "/bounds/lambda"),
    "bounds with a string": ({**panel(), "bounds": {"kappa": [1.0, "2"]}}, "/bounds/kappa/1"),
    "fixed beyond the bounds": ({**panel(), "fixed": {"v0": 40.0}}, "/fixed/v0"),
    "fixed outside the given bounds": (
        {**panel(), "fixed": {"v0": 0.5}, "bounds": {"v0": [0.01, 0.1]}},
        "/fixed/v0",
    ),
    "fixed unknown": ({**panel(), "fixed": {"volvol": 1.0}}, "/fixed/volvol"),
    "prior without deviation": (
        {**panel(), "prior": {"parameters": {"kappa": 2.0}, "standard_deviations": {}}},
        "/prior/standard_deviations/kappa",
    ),
    "prior with a zero deviation": (
        {**panel(), "prior": {"parameters": {"kappa": 2.0}, "standard_deviations": {"kappa": 0.0}}},
        "/prior/standard_deviations/kappa",
    ),
    "prior with a deviation too small to be one": (
        {**panel(), "prior": {"parameters": {"kappa": 2.0}, "standard_deviations": {"kappa": 5e-5}}},
        "/prior/standard_deviations/kappa",
    ),
    "prior with a mean out of bounds": (
        {**panel(), "prior": {"parameters": {"rho": -1.5}, "standard_deviations": {"rho": 0.1}}},
        "/prior/parameters/rho",
    ),
    "prior with an unknown parameter": (
        {**panel(), "prior": {"parameters": {"alpha": 2.0}, "standard_deviations": {"alpha": 0.1}}},
        "/prior/parameters/alpha",
    ),
    "prior without noise": (
        {**panel(), "prior": {"parameters": {}, "standard_deviations": {}, "noise_bp": 0.0}},
        "/prior/noise_bp",
    ),
    "prior with noise beyond measure": (
        {**panel(), "prior": {"parameters": {}, "standard_deviations": {}, "noise_bp": 1e300}},
        "/prior/noise_bp",
    ),
    "prior without parameters": ({**panel(), "prior": {"standard_deviations": {}}}, "/prior/parameters"),
    "negative budget": ({**panel(), "budget_ms": -1}, "/budget_ms"),
    "detail not a boolean": ({**panel(), "detail": "yes"}, "/detail"),
    "id not a string": ({**panel(), "id": 7}, "/id"),
    "number too large for a float": (
        json.dumps(panel()).replace("[0.25", "[1e400").encode(),
        "/quotes/iv/0",
    ),
}


@pytest.mark.parametrize("name", BAD_FIELDS)
def test_a_bad_field_is_refused_with_a_pointer_to_it(client: Client, name: str) -> None:
    body, pointer = BAD_FIELDS[name]
    response = client.post("/v1/calibrate", body)
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["code"] == "invalid_input"
    assert problem["errors"][0]["pointer"] == pointer, problem
    for error in problem["errors"]:
        # The house's sentence: the name in backticks first, a full stop last.
        assert re.fullmatch(r"`[^`]+` .*\.", error["detail"]), error
    assert problem["detail"] == problem["errors"][0]["detail"]


UNUSABLE: dict[str, tuple[dict[str, Any], str]] = {
    "expired": (panel(expiry=changed(EXPIRY, 5, -0.02)), "expired"),
    "expires now": (panel(expiry=changed(EXPIRY, 5, 0.0)), "expired"),
    "vol above 5": (panel(iv=changed(IV, 5, 5.01)), "vol above 5"),
    "zero vol": (panel(iv=changed(IV, 5, 0.0)), "vol is zero or negative"),
    "negative vol": (panel(iv=changed(IV, 5, -0.2)), "vol is zero or negative"),
    "no bid": (
        without("iv", bid_iv=changed(IV, 5, 0.0), ask_iv=[v + 0.01 for v in IV]),
        "no bid: its vol is zero, and no iv",
    ),
    "crossed bid and ask": (
        without("iv", bid_iv=changed(IV, 5, 0.23), ask_iv=[v + 0.01 for v in IV]),
        "ask below bid",
    ),
    "mid far away": (
        panel(iv=changed(IV, 5, 0.3), bid_iv=[v - 0.01 for v in IV], ask_iv=[v + 0.01 for v in IV]),
        "mid outside its bid and ask",
    ),
    "not trusted": ({**panel(), "exclude": [5]}, "excluded by the request"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_quote_that_cannot_be_used_is_left_out_and_named(client: Client, name: str) -> None:
    request, reason = UNUSABLE[name]
    answer = client.calibrate({**request, "detail": True})
    assert answer["fit"]["excluded"] == [{"index": 5, "reason": reason}]
    assert answer["fit"]["n_quotes"] == 5
    assert answer["model_iv"][5] is None


def test_a_broken_feed_is_answered_with_a_warning(client: Client) -> None:
    # A prior, since what is left is fewer quotes than parameters.
    prior = {"parameters": PARAMETERS, "standard_deviations": PARAMETERS | {"rho": 0.3}}
    broken = without("iv", bid_iv=[*IV[:2], *[0.0] * 4], ask_iv=[*(v + 0.01 for v in IV[:2]), *[5.0] * 4])
    answer = client.calibrate({**broken, "prior": prior})
    assert "many_quotes_excluded" in {warning["code"] for warning in answer["warnings"]}
    assert "many_quotes_excluded" not in {warning["code"] for warning in client.calibrate(panel())["warnings"]}


def test_the_good_request_that_the_bad_ones_are_made_of_is_answered(client: Client) -> None:
    assert client.calibrate(panel())["fit"]["n_quotes"] == 6


BAD_BODIES = {
    "garbage": bytes(range(256)),
    "empty": b"",
    "not UTF-8": b'{"model": "\xff\xfe"}',
    "truncated": json.dumps(panel()).encode()[:-1],
    "two documents": json.dumps(panel()).encode() * 2,
    "a list": b"[]",
    "a number": b"17",
    "null": b"null",
    "nested beyond reason": b"[" * 100_000,
    "an integer of a million digits": b'{"budget_ms": ' + b"1" * 1_000_000 + b"}",
}


@pytest.mark.parametrize("name", BAD_BODIES)
@pytest.mark.parametrize("path", ["/v1/calibrate", "/v1/price"])
def test_a_body_that_is_no_request_is_refused(client: Client, path: str, name: str) -> None:
    response = client.post(path, BAD_BODIES[name])
    assert response.status_code == 422, response.text
    problem = response.json()
    assert problem["code"] == "invalid_input"
    assert problem["errors"][0]["detail"]
    assert "pointer" in problem["errors"][0]


def test_many_bad_cells_give_one_problem_a_column(client: Client) -> None:
    problem = client.post("/v1/calibrate", panel(iv=["x"] * 20_000, strike=["x"] * 20_000)).json()
    assert [error["pointer"] for error in problem["errors"]] == ["/quotes/strike/0", "/quotes/iv/0"]


def test_many_unknown_fields_give_a_short_answer(client: Client) -> None:
    response = client.post("/v1/calibrate", {**panel(), **{f"field{i}": 1 for i in range(10_000)}})
    assert response.status_code == 422
    assert len(response.content) < 10_000


MIB = 1 << 20
QUOTES = b'{"quotes": {"expiry": ['
HEAVY = {
    "more quotes than are decoded in one piece": (QUOTES + b",".join([b"1"] * 200_000) + b"]}}", 413),
    "a million nulls": (QUOTES + b",".join([b"null"] * 800_000) + b"]}}", 413),
    "unknown fields": (b"{" + b",".join(b'"f%d":1' % i for i in range(300_000)) + b"}", 422),
    "unknown parameters": (b'{"start": {' + b",".join(b'"f%d":""' % i for i in range(250_000)) + b"}}", 422),
    "an unknown list of lists": (b'{"x": [' + b",".join([b"[]"] * 90_000) + b"]}", 422),
    "objects in lists": (QUOTES + b",".join([b'{"a":[1]}'] * 80_000) + b"]}}", 422),
    "a string of escapes": (b'{"model": "' + b"\\u00e9" * 600_000 + b'"}', 422),
    "numbers of thousands of digits": (QUOTES + b",".join([b"1" * 4000] * 900) + b"]}}", 422),
}


@pytest.mark.parametrize("name", HEAVY)
def test_a_body_that_would_hold_all_others_up_is_refused_before_it_is_decoded(name: str) -> None:
    body, status = HEAVY[name]
    assert len(body) < 4 * MIB
    tracemalloc.start()
    try:
        with pytest.raises(ServiceError, match="at most") as refused:
            JSON.decode(body, CalibrateRequest)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()
    assert refused.value.status == status


@pytest.mark.parametrize("name", ["an unknown list of lists", "a million nulls"])
def test_a_refusal_keeps_nothing_of_its_request(client: Client, name: str) -> None:
    body, status = HEAVY[name]
    client.post("/v1/calibrate", body)
    gc.collect()
    gc.disable()
    try:
        assert client.post("/v1/calibrate", body).status_code == status
        end = time.monotonic() + 5.0
        # The thread that raised it needs a moment to forget it.
        while any(isinstance(each, ServiceError) for each in gc.get_objects()):
            assert time.monotonic() < end, "the refusal is still there"
            time.sleep(0.05)
    finally:
        gc.enable()


def test_an_answered_request_leaves_nothing_to_the_collector(client: Client, dax: dict[str, Any]) -> None:
    client.calibrate(dax)
    gc.collect()
    gc.disable()
    try:
        client.calibrate(dax)
        end = time.monotonic() + 5.0
        # What is counted once the answer has left, and the lane, need a moment.
        while any(isinstance(each, RequestContext | CalibrationJob | Assessment) for each in gc.get_objects()):
            assert time.monotonic() < end, "something of the request is still there"
            time.sleep(0.05)
    finally:
        gc.enable()


def test_ten_thousand_quotes_are_decoded_with_every_column() -> None:
    body = {"quotes": {name: [0.123456789012345] * 10_000 for name in Quotes.model_fields}}
    quotes = JSON.decode(json.dumps(body).encode(), CalibrateRequest).quotes
    assert len(quotes.expiry) == 10_000
    with pytest.raises(TooLarge):
        JSON.decode(json.dumps({"quotes": {"expiry": [0.5] * 100_002}}).encode(), CalibrateRequest)


@pytest.mark.parametrize("media_type", ["text/plain", "application/x-www-form-urlencoded", "application/xml", ""])
def test_another_media_type_is_refused(client: Client, media_type: str) -> None:
    response = client.post("/v1/calibrate", panel(), content_type=media_type)
    assert response.status_code == 415
    assert response.json()["code"] == "unsupported_media_type"


def test_an_absent_media_type_is_refused(client: Client) -> None:
    response = client.request("POST", "/v1/calibrate", content=json.dumps(panel()).encode())
    assert response.status_code == 415
    assert "absent" in response.json()["detail"]


def test_the_media_type_may_carry_a_charset(client: Client) -> None:
    response = client.post("/v1/calibrate", panel(), content_type="Application/JSON; charset=utf-8")
    assert response.status_code == 200


MARK = b"\xef\xbb\xbf"


@pytest.mark.parametrize("mark", [MARK, MARK + b" \n"])
def test_a_byte_order_mark_before_json_says_nothing(client: Client, mark: bytes) -> None:
    expected = client.calibrate(panel())["parameters"]
    body = json.dumps(panel()).encode()
    assert client.post("/v1/calibrate", mark + body).json()["parameters"] == expected
    whole = client.post("/v1/calibrate/batch", mark + b'{"panels": [' + body + b"]}")
    assert whole.json()["results"][0]["parameters"] == expected
    price = json.dumps(PRICE).encode()
    assert client.post("/v1/price", mark + price).json() == client.post("/v1/price", price).json()


@pytest.mark.parametrize("mark", [MARK * 2, b" " + MARK, MARK[:2], "\ufeff".encode("utf-16-le"), MARK + MARK[:1]])
@pytest.mark.parametrize("path", ["/v1/calibrate", "/v1/calibrate/batch", "/v1/price"])
def test_another_mark_or_one_elsewhere_is_no_json(client: Client, path: str, mark: bytes) -> None:
    for body in (mark, mark + b'{"panels": [{}]}', mark + b"{}"):
        response = client.post(path, body)
        assert (response.status_code, response.json()["code"]) == (422, "invalid_input")
        assert response.json()["errors"][0]["pointer"] == ""


def test_a_compressed_body_is_refused(client: Client) -> None:
    response = client.post("/v1/calibrate", panel(), content_encoding="gzip")
    assert response.status_code == 415
    assert response.json()["code"] == "unsupported_media_type"


@pytest.mark.parametrize("value", ["soon", "-5", "0", "nan", "inf", ""])
def test_a_deadline_header_that_is_no_time_is_refused(client: Client, value: str) -> None:
    response = client.post("/v1/calibrate", panel(), x_request_deadline_ms=value)
    assert response.status_code == 422
    assert "X-Request-Deadline-Ms" in response.json()["detail"]


PRICE: dict[str, Any] = {
    "model": "heston",
    "parameters": PARAMETERS,
    "expiry": [0.5, 1.0],
    "log_moneyness": [0.0, 0.1],
}

BAD_PRICES: dict[str, tuple[dict[str, Any], str]] = {
    "expiry zero": ({**PRICE, "expiry": [0.5, 0.0]}, "/expiry/1"),
    "expiry too short": ({**PRICE, "expiry": [0.5]}, "/log_moneyness"),
    "NaN in log_moneyness": ({**PRICE, "log_moneyness": [NAN, 0.0]}, "/log_moneyness/0"),
    "log_moneyness out of reach": ({**PRICE, "log_moneyness": [0.0, 900.0]}, "/log_moneyness/1"),
    "nothing to price": ({**PRICE, "expiry": [], "log_moneyness": []}, "/expiry"),
    "missing parameter": ({**PRICE, "parameters": {"kappa": 1.0}}, "/parameters/theta"),
    "parameter beyond the bounds": ({**PRICE, "parameters": {**PARAMETERS, "theta": -0.04}}, "/parameters/theta"),
    "unknown model": ({**PRICE, "model": "sabr"}, "/model"),
    "unknown field": ({**PRICE, "spot": 100.0}, "/spot"),
}


@pytest.mark.parametrize("name", BAD_PRICES)
def test_a_bad_field_of_a_price_request_is_refused_with_a_pointer_to_it(client: Client, name: str) -> None:
    body, pointer = BAD_PRICES[name]
    response = client.post("/v1/price", body)
    assert response.status_code == 422, response.text
    assert response.json()["errors"][0]["pointer"] == pointer, response.text


RICH: dict[str, Any] = {
    "model": "heston",
    "quotes": {
        **panel()["quotes"],
        "bid_iv": [v - 0.01 for v in IV],
        "ask_iv": [v + 0.01 for v in IV],
        "weight": [1.0] * 6,
    },
    "start": PARAMETERS,
    "bounds": {"kappa": [0.1, 10.0]},
    "fixed": {"rho": -0.4},
    "prior": {"parameters": {"xi": 0.5}, "standard_deviations": {"xi": 0.1}, "noise_bp": 5.0},
    "exclude": [1],
    "detail": True,
    "id": "a",
}
ODD_VALUES: tuple[Any, ...] = (
    *(None, True, 0, -1, 1e308, -1e308, 5e-324, 1e-12, 4.999, 99.9, 2**63, 10**400, NAN, INFINITY),
    *("", "x", "\ud800", [], [1.0], {}, {"a": 1}),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every place in a document, as a path from its root."""
    parts = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in parts:
        yield (*path, key)
        yield from places(part, (*path, key))


@pytest.mark.parametrize("seed", range(4))
def test_no_odd_value_anywhere_breaks_the_service(client: Client, seed: int) -> None:
    rng = random.Random(seed)
    answered = refused = 0
    for _ in range(100):
        body = copy.deepcopy(RICH)
        for name in rng.sample(["start", "bounds", "fixed", "prior", "exclude", "detail"], 3):
            del body[name]
        for _ in range(rng.choice((1, 1, 2))):
            *path, last = rng.choice(list(places(body)))
            part = body
            for key in path:
                part = part[key]
            part[last] = copy.deepcopy(rng.choice(ODD_VALUES))
        response = client.post("/v1/calibrate", body)
        assert response.status_code in (200, 422), (response.text, body)
        if response.status_code == 200:
            answered += 1
            CalibrateResponse.model_validate_json(response.content)
        else:
            refused += 1
            assert all("pointer" in error for error in response.json()["errors"])
    assert answered > 5
    assert refused > 50
