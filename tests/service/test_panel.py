"""`POST /v1/panel`: chains in every format to panels that `/v1/calibrate` takes."""

import io
import json
import re
import tracemalloc
import zipfile
from contextlib import suppress
from typing import Any

import msgspec
import numpy as np
import pytest

from calibrant.errors import InvalidInput
from calibrant.intake import panel_steps
from calibrant.steps import finish
from service.routing import FORMATS
from service.wire.panels import chain_in, memory_of
from service.wire.schema import PanelResponse
from tests.intake.chains import AS_OF, EXPIRATIONS, chain, forward_at, rows_as, truth, years
from tests.intake.test_kinds import KINDS, PLAIN, columns_of, delimited, table, vols_table, workbook
from tests.service.client import Client
from tests.shared import ROOT

BODY: dict[str, Any] = {"as_of": AS_OF.isoformat(), "quotes": columns_of(table(quote_date=None))}
TYPES = {
    "a workbook with titles": "vnd.openxmlformats-officedocument.spreadsheetml.sheet",
    "Parquet with times": "vnd.apache.parquet",
}


def made(client: Client, body: Any, path: str = "/v1/panel", **headers: str) -> dict[str, Any]:
    response = client.post(path, body, **headers)
    assert response.status_code == 200, response.text
    PanelResponse.model_validate_json(response.content)
    answer: dict[str, Any] = response.json()
    return answer


def pointers(client: Client, body: Any, path: str = "/v1/panel", **headers: str) -> set[str]:
    response = client.post(path, body, **headers)
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    return {error["pointer"] for error in response.json()["errors"]}


def test_a_chain_becomes_a_panel_that_calibrates(client: Client) -> None:
    answer = made(client, {**BODY, "underlying": "SPX"})
    known = truth(chain())
    quotes = answer["quotes"]
    assert {len(column) for column in quotes.values()} == {len(known), *()}
    for t, k, iv, bid, ask in zip(
        *(quotes[name] for name in ("expiry", "strike", "iv", "bid_iv", "ask_iv")), strict=True
    ):
        assert iv == pytest.approx(known[t, k], abs=6e-4)
        assert bid is None or bid <= iv <= ask
    for expiry, expiration in zip(answer["expiries"], EXPIRATIONS, strict=True):
        assert expiry["expiration"] == expiration.isoformat()
        assert expiry["forward"] == pytest.approx(forward_at(years(expiration)), rel=1e-5)
        assert expiry["forward_from"] == "parity"
        assert 0.0 < expiry["forward_error"] < 0.01
        assert expiry["n_pairs"] > 10
    assert (answer["id"], answer["as_of"], answer["exercise"], answer["warnings"]) == (
        "SPX",
        AS_OF.isoformat(),
        "european",
        [],
    )
    assert len(answer["index"]) + len(answer["excluded"]) == len(BODY["quotes"]["strike"])
    fit = client.calibrate({name: answer[name] for name in ("id", "as_of", "quotes")})
    assert fit["status"] == "converged"


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_every_kind_are_bodies_too(client: Client, kind: str) -> None:
    content = KINDS[kind]()
    body = content.encode() if isinstance(content, str) else content
    if body[:1] in (b"{", b"[") and json_like(body):
        return
    media_type = f"application/{TYPES[kind]}" if kind in TYPES else "text/csv"
    answer = made(client, body, f"/v1/panel?as_of={AS_OF}", content_type=media_type)
    assert len(answer["quotes"]["iv"]) == len(truth(chain()))


def json_like(body: bytes) -> bool:
    return body[1:2] in (b'"', b"{")


def test_messagepack_is_json_in_binary(client: Client) -> None:
    response = client.post("/v1/panel", msgspec.msgpack.encode(BODY), content_type="application/msgpack")
    assert response.headers["content-type"] == "application/msgpack"
    assert msgspec.msgpack.decode(response.content) == made(client, BODY)


def test_vols_by_delta_become_strikes(client: Client) -> None:
    body = {
        "pair": "EURUSD",
        "spot": 1.1,
        "domestic_rate": 0.04,
        "foreign_rate": 0.02,
        "tenor": ["1M", "1Y"],
        "atm": [0.07, 0.075],
        "rr25": [-0.005, -0.008],
        "bf25": [0.002, 0.003],
    }
    answer = made(client, body)
    assert len(answer["quotes"]["strike"]) == 6
    assert answer["expiries"][1]["forward"] == pytest.approx(1.1 * np.exp(0.02))
    assert pointers(client, {name: value for name, value in body.items() if name != "pair"}) == {"/pair", "/convention"}
    convention = {"premium_adjusted": False, "delta": "forward"}
    plain = {"convention": convention, **{name: body[name] for name in ("tenor", "atm", "rr25", "bf25")}}
    assert set(made(client, plain)["quotes"]) == {"expiry", "iv", "log_moneyness"}


def test_american_exercise_is_taken_off(client: Client) -> None:
    pytest.importorskip("QuantLib")
    near = {name: column[:42] for name, column in BODY["quotes"].items()}
    answer = made(client, {**BODY, "quotes": near, "exercise": "american", "spot": 500.0, "rate": 0.04})
    assert answer["expiries"][0]["early_exercise"]["max_bp"] > 0.0


REFUSED: dict[str, tuple[dict[str, Any], set[str]]] = {
    "nothing": ({}, {"/quotes"}),
    "no date": ({"quotes": BODY["quotes"]}, {"/as_of"}),
    "a date that is none": ({**BODY, "as_of": "yesterday"}, {"/as_of"}),
    "no expiry and no strike": (
        {**BODY, "quotes": {name: BODY["quotes"][name] for name in ("type", "bid", "ask")}},
        {"/quotes/expiry", "/quotes/strike"},
    ),
    "unequal columns": ({**BODY, "quotes": {**BODY["quotes"], "bid": [1.0]}}, {"/quotes/bid"}),
    "text for a number": (
        {**BODY, "quotes": {**BODY["quotes"], "bid": ["x", *BODY["quotes"]["bid"][1:]]}},
        {"/quotes/bid/0"},
    ),
    "a side that is none": (
        {**BODY, "quotes": {**BODY["quotes"], "type": ["X", *BODY["quotes"]["type"][1:]]}},
        {"/quotes/type/0"},
    ),
    "an expiry that is none": (
        {**BODY, "quotes": {**BODY["quotes"], "expiration": ["soon", *BODY["quotes"]["expiration"][1:]]}},
        {"/quotes/expiration/0"},
    ),
    "a field that is none": ({**BODY, "colour": "red"}, {"/colour"}),
    "an exercise that is none": ({**BODY, "exercise": "bermudan"}, {"/exercise"}),
    "American without a spot": ({**BODY, "exercise": "american"}, {"/spot", "/rate"}),
    "two panels": (
        {**BODY, "quotes": {**BODY["quotes"], "ticker": ["A", *["B"] * (len(BODY["quotes"]["bid"]) - 1)]}},
        {"/underlying"},
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_missing_or_open_is_refused_with_its_field(client: Client, name: str) -> None:
    body, expected = REFUSED[name]
    assert pointers(client, body) == expected


def test_questions_of_files_are_answered_in_the_query(client: Client) -> None:
    rows = rows_as(chain(), **{**PLAIN, "strike": lambda o: 100.0 * o.strike})
    text = "\n".join(",".join(map(str, row.values())) for row in rows)
    body = (",".join(PLAIN) + "\n" + text).encode()
    assert pointers(client, body, content_type="text/csv") == {"/strike_unit"}
    made(client, body, "/v1/panel?strike_unit=0.01", content_type="text/csv")
    assert pointers(client, body, "/v1/panel?strike_unit=little", content_type="text/csv") == {"/strike_unit"}
    assert pointers(client, body, "/v1/panel?colour=red", content_type="text/csv") == {"/colour"}
    swapped = "\n".join(
        ["expiry_years,forward,strike,mid_iv", *(",".join(map(str, row.values())) for row in vols_table())]
    )
    assert pointers(client, swapped.encode(), content_type="text/csv") == {"/columns"}
    path = "/v1/panel?columns=strike=forward,forward=strike"
    assert made(client, swapped.encode(), path, content_type="text/csv")["expiries"] == []


def test_a_file_packed_too_well_is_too_large(client: Client) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("xl/worksheets/sheet1.xml", bytes(40 << 20))
    response = client.post("/v1/panel", packed.getvalue(), content_type="application/octet-stream")
    assert (response.status_code, response.json()["code"]) == (413, "too_large")


def bodies() -> dict[str, tuple[bytes, str]]:
    """Chains that take much memory for their size."""
    cells: dict[str, list[float]] = {"expiry": [0.5], "strike": [1], "forward": [1], "iv": [9]}
    narrow = "t,k,f,iv\n" + "1,1,1,9\n" * 50_000
    broad = ",".join(["t", "k", "f", "iv", *"x" * 60]) + "\n" + ("1," * 63 + "9\n") * 3000
    return {
        "narrow": (narrow.encode(), "text/csv"),
        "broad": (broad.encode(), "text/csv"),
        "a chain": (delimited(table()).encode(), "text/csv"),
        "JSON": (json.dumps({"quotes": {n: c * 20_000 for n, c in cells.items()}}).encode(), "application/json"),
        "MessagePack": (msgspec.msgpack.encode({"quotes": {n: c * 20_000 for n, c in cells.items()}}), FORMATS[1]),
        "a workbook": (workbook(), "application/octet-stream"),
    }


@pytest.mark.parametrize("name", ["narrow", "broad", "a chain", "JSON", "MessagePack", "a workbook"])
def test_no_chain_takes_more_memory_than_was_reserved(name: str) -> None:
    body, media_type = bodies()[name]
    tracemalloc.start()
    try:
        tables, settings = chain_in(body, media_type, {"vol_unit": "percent", "expiry_unit": "years"})
        with suppress(InvalidInput):
            json.dumps(finish(panel_steps(tables, settings)).document())
        taken = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert taken < memory_of(body, media_type)


def test_bytes_that_are_nothing_are_refused(client: Client) -> None:
    assert pointers(client, b"\x00\x01\x02", content_type="application/octet-stream") == {""}
    response = client.post("/v1/panel", b"<x/>", content_type="text/html")
    assert response.status_code == 415


def test_a_chain_of_ten_thousand_options_is_read(client: Client) -> None:
    strikes = tuple(np.linspace(300.0, 700.0, 1700))
    rows = columns_of(
        rows_as(chain(strikes=strikes, digits=6), **{name: of for name, of in PLAIN.items() if name != "quote_date"})
    )
    assert len(json.dumps(rows)) > 500_000
    assert len(made(client, {"as_of": str(AS_OF), "quotes": rows})["quotes"]["iv"]) > 4000


def test_the_requests_of_the_page_are_answered(client: Client) -> None:
    chain = (ROOT / "examples" / "chain.csv").read_bytes()
    assert client.post("/v1/panel", chain, content_type="text/csv").status_code == 200
    page = (ROOT / "docs" / "intake.md").read_text()
    (body,) = re.findall(r"application/json' -d '(.*?)'\n", page, re.DOTALL)
    answer = client.post("/v1/panel", body.encode()).json()
    assert len(answer["quotes"]["strike"]) == 3
    assert answer["expiries"][0]["forward_from"] == "parity"
