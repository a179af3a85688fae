"""Arrow streams: a table of quotes in, a table of results out, and nothing believed that a stream says of itself."""

import json
import random
import sys
from typing import Any

import numpy as np
import pyarrow
import pyarrow.ipc
import pytest

from benchmarks.load.arrow import arrow_stream, quote_table
from service.errors import InvalidRequest, TooLarge, UnsupportedMediaType
from service.wire.arrow import MEDIA_TYPE, ArrowBatch, library
from service.wire.batch import BatchLimits
from tests.service.bodies import REAL, as_moneyness, real_panel
from tests.service.client import Client
from tests.service.test_bad_input import panel
from tests.shared import needs_shared

BATCH = "/v1/calibrate/batch"
LIMITS = BatchLimits(panels=100, panel_bytes=1 << 22)
QUOTES = panel()["quotes"]
COLUMNS = {**QUOTES, "forward": [100.0] * 6}
ONE = quote_table({"a": COLUMNS})


def table_of(client: Client, body: bytes) -> Any:
    """The table that answers."""
    response = client.post(BATCH, body, content_type=MEDIA_TYPE)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == MEDIA_TYPE
    table = pyarrow.ipc.open_stream(response.content).read_all()
    table.validate(full=True)
    return table


def pointer_of(client: Client, body: bytes) -> str:
    response = client.post(BATCH, body, content_type=MEDIA_TYPE)
    assert response.status_code == 422, response.text
    pointer: str = response.json()["errors"][0]["pointer"]
    return pointer


@needs_shared
def test_real_panels_get_the_answers_of_the_other_formats(client: Client) -> None:
    bodies = {name: as_moneyness(real_panel(name)) for name in REAL}
    answer = table_of(client, arrow_stream(quote_table({name: body["quotes"] for name, body in bodies.items()})))
    fixed = ["panel", "status", "kappa", "theta", "xi", "rho", "v0", "rmse_bp", "message", "excluded", "warnings"]
    assert answer.column_names == fixed
    expected = client.post(BATCH, {"panels": list(bodies.values())}).json()["results"]
    assert answer.column("panel").to_pylist() == list(bodies)
    for row, result in zip(answer.to_pylist(), expected, strict=True):
        assert {name: row[name] for name in result["parameters"]} == result["parameters"]
        assert row["rmse_bp"] == result["fit"]["rmse_bp"]
        assert (row["status"], row["message"]) == (result["status"], result.get("message"))
        assert [x["reason"] for x in row["excluded"]] == [x["reason"] for x in result["fit"]["excluded"]]
        assert [x["code"] for x in row["warnings"]] == [x["code"] for x in result["warnings"]]


def test_rows_of_a_panel_need_not_be_together_and_panels_come_as_their_keys_do(client: Client) -> None:
    both = quote_table({"b": COLUMNS, "a": {**COLUMNS, "iv": [v + 0.01 for v in QUOTES["iv"]]}})
    mixed = both.take([6, 0, 7, 1, 8, 2, 9, 3, 10, 4, 11, 5])
    answer = {row["panel"]: row for row in table_of(client, arrow_stream(mixed)).to_pylist()}
    assert list(answer) == ["a", "b"]
    assert {row["panel"]: row for row in table_of(client, arrow_stream(both)).to_pylist()} == answer


@pytest.mark.parametrize(
    "keys",
    [
        pyarrow.array([7] * 6 + [-3] * 6, pyarrow.int8()),
        pyarrow.array([2**63] * 6 + [1] * 6, pyarrow.uint64()),
        pyarrow.array(["x"] * 6 + [""] * 6, pyarrow.large_string()),
        pyarrow.array(["x"] * 6 + ["y"] * 6).dictionary_encode(),
        # A dictionary may hold a value twice, or one that nothing names, or null, or be in another order.
        pyarrow.DictionaryArray.from_arrays([2, 0, 2, 0, 2, 0] + [1] * 6, ["x", "y", "x", "z", None]),
    ],
    ids=["int8", "uint64", "large_string", "dictionary", "dictionary with a value twice"],
)
def test_keys_are_whole_numbers_or_strings_and_come_back_as_they_went(client: Client, keys: Any) -> None:
    two = quote_table({0: COLUMNS, 1: COLUMNS}).set_column(0, "panel", keys)
    answer = table_of(client, arrow_stream(two))
    assert answer.column("panel").to_pylist() == [keys[0].as_py(), keys[-1].as_py()]
    assert answer.column("status").to_pylist() == ["converged"] * 2


def test_several_record_batches_with_dictionaries_of_their_own_are_one_table(client: Client) -> None:
    keys = [pyarrow.array(["a"] * 6).dictionary_encode(), pyarrow.array(["b"] * 3 + ["a"] * 3).dictionary_encode()]
    parts = [ONE.set_column(0, "panel", key) for key in keys]
    answer = table_of(client, arrow_stream(pyarrow.concat_tables(parts)))
    assert answer.column("panel").to_pylist() == ["a", "b"]


def test_null_and_nan_are_both_missing_and_columns_may_be_of_other_widths(client: Client) -> None:
    iv = np.array(QUOTES["iv"])
    holed = {**COLUMNS, "iv": [None if i == 2 else v for i, v in enumerate(QUOTES["iv"])]}
    (expected,) = table_of(client, arrow_stream(quote_table({"a": holed}))).to_pylist()
    iv[2] = np.nan
    assert table_of(client, with_column("iv", pyarrow.array(iv))).to_pylist() == [expected]
    narrow = quote_table({"a": holed})
    for name, kind in (("strike", pyarrow.int32()), ("forward", pyarrow.uint8()), ("expiry", pyarrow.float32())):
        narrow = narrow.set_column(narrow.column_names.index(name), name, narrow.column(name).cast(kind))
    narrow = narrow.append_column("bid_iv", pyarrow.nulls(6))
    assert table_of(client, arrow_stream(narrow)).to_pylist() == [expected]


def test_the_metadata_of_the_schema_names_model_and_refinement(client: Client) -> None:
    def asked(**metadata: str) -> bytes:
        return arrow_stream(ONE.replace_schema_metadata({"pandas": "{}", **metadata}))

    assert table_of(client, asked(**{"calibrant.refine": "none"})).column("status").to_pylist() == ["network_only"]
    assert table_of(client, asked(**{"calibrant.model": "heston"})).column("status").to_pylist() == ["converged"]
    assert table_of(client, asked(**{"calibrant.loss": "squared"})).column("status").to_pylist() == ["converged"]
    assert pointer_of(client, asked(**{"calibrant.loss": "absolute"})) == "/loss"
    assert pointer_of(client, asked(**{"calibrant.refine": "newton"})) == "/refine"
    assert pointer_of(client, asked(**{"calibrant.model": "sabr"})) == "/model"
    assert pointer_of(client, asked(**{"calibrant.detail": "yes"})) == "/detail"


def test_the_metadata_of_the_schema_holds_a_prior(client: Client) -> None:
    def asked(prior: Any) -> bytes:
        return arrow_stream(ONE.replace_schema_metadata({"calibrant.prior": json.dumps(prior)}))

    prior = {"parameters": {"kappa": 2.0}, "standard_deviations": {"kappa": 0.01}, "noise_bp": 20.0}
    (row,) = table_of(client, asked(prior)).to_pylist()
    expected = client.calibrate({"quotes": QUOTES, "prior": prior})["parameters"]
    assert {name: row[name] for name in expected} == pytest.approx(expected, rel=1e-6)
    assert expected["kappa"] != pytest.approx(client.calibrate({"quotes": QUOTES})["parameters"]["kappa"], rel=1e-2)
    assert pointer_of(client, asked({**prior, "noise_bp": -1.0})) == "/prior/noise_bp"
    assert pointer_of(client, asked({**prior, "parameters": {"kappa": "2"}})) == "/prior/parameters/kappa"
    assert pointer_of(client, asked([])) == "/prior"


def test_quotes_left_out_are_named_by_their_rows_in_the_table(client: Client) -> None:
    longer = {name: [*column, *column[:2]] for name, column in COLUMNS.items()}
    broken = {**longer, "iv": [*QUOTES["iv"], 0.0, 7.0]}
    both = quote_table({"a": COLUMNS, "b": broken, "c": {**COLUMNS, "strike": [-1.0] * 6}})
    first, second, third = table_of(client, arrow_stream(both)).to_pylist()
    assert (first["excluded"], third["excluded"], third["warnings"]) == ([], None, None)
    assert second["excluded"] == [
        {"index": 12, "reason": "vol is zero or negative"},
        {"index": 13, "reason": "vol above 5"},
    ]


def test_a_feed_that_is_broken_is_named_in_the_table(client: Client) -> None:
    n = 13
    columns = {
        "expiry": [0.5] * n,
        "log_moneyness": np.linspace(-0.3, 0.3, n).tolist(),
        "iv": [0.24, 0.22, 0.2, 0.21, 0.215, 0.22] + [0.0] * 7,
    }
    (row,) = table_of(client, arrow_stream(quote_table({"a": columns}))).to_pylist()
    (found,) = (x for x in row["warnings"] if x["code"] == "many_quotes_excluded")
    assert "7 of the 13 quotes" in found["detail"]
    assert found["indices"] is None


def test_a_bad_panel_fails_no_other_and_its_message_names_the_row(client: Client) -> None:
    bad = {**COLUMNS, "expiry": [0.5, 0.5, 180.0, 1.0, 1.0, 1.0]}
    first, second = table_of(client, arrow_stream(quote_table({"a": COLUMNS, "b": bad}))).to_pylist()
    assert first["status"] == "converged"
    assert second["status"] == "invalid_input"
    assert second["message"] == "`expiry[8]` must be at most 100 years (30 days are 0.082), but is 180.0."
    assert second["kappa"] is second["rmse_bp"] is None


def test_the_answer_may_be_documents_or_lines(client: Client) -> None:
    body = arrow_stream(quote_table({"a": COLUMNS, "b": {**COLUMNS, "strike": [-90.0] * 6}}))
    for accept in ("application/json", "application/x-ndjson"):
        response = client.post(BATCH, body, content_type=MEDIA_TYPE, accept=accept)
        assert response.status_code == 200
        text = response.text.replace("\n", ",").rstrip(",")
        assert '"id":"a"' in text
        assert '"pointer":"/strike/6"' in text


def compressed(codec: str) -> bytes:
    return arrow_stream(ONE, compression=codec)


def renamed(**names: str) -> bytes:
    return arrow_stream(ONE.rename_columns([names.get(name, name) for name in ONE.column_names]))


def with_column(name: str, column: Any) -> bytes:
    return arrow_stream(ONE.set_column(ONE.column_names.index(name), name, column))


BAD = {
    "nothing": (b"", ""),
    "JSON": (b'{"panels": []}', ""),
    "cut short": (arrow_stream(ONE)[:-40], ""),
    "cut in its schema": (arrow_stream(ONE)[:60], ""),
    "two streams": (arrow_stream(ONE) * 2, ""),
    "compressed with lz4": (compressed("lz4"), ""),
    "compressed with zstd": (compressed("zstd"), ""),
    "a dictionary compressed": (
        arrow_stream(ONE.set_column(0, "panel", ONE.column("panel").dictionary_encode()), compression="zstd"),
        "",
    ),
    "no rows": (arrow_stream(ONE.slice(0, 0)), "/panel"),
    "no key": (renamed(panel="iv2"), "/iv2"),
    "an unknown column": (renamed(iv="vol"), "/vol"),
    "a column twice": (renamed(strike="iv"), "/iv"),
    "no expiry": (arrow_stream(ONE.drop_columns(["expiry"])), "/expiry"),
    "no type for expiries": (with_column("expiry", pyarrow.nulls(6)), "/expiry"),
    "a thousand columns": (arrow_stream(pyarrow.table({f"c{i}": [1] for i in range(1000)})), ""),
    "strings for numbers": (with_column("iv", pyarrow.array(["0.2"] * 6)), "/iv"),
    "halves for numbers": (with_column("iv", pyarrow.array(np.full(6, 0.2, np.float16))), "/iv"),
    "lists for numbers": (with_column("iv", pyarrow.array([[0.2]] * 6)), "/iv"),
    "floats for keys": (with_column("panel", pyarrow.array([1.0] * 6)), "/panel"),
    "no type for keys": (with_column("panel", pyarrow.nulls(6)), "/panel"),
    "null among keys": (with_column("panel", pyarrow.array(["a", "a", None, "a", "a", "a"])), "/panel/2"),
    "null among the keys of a dictionary": (
        with_column("panel", pyarrow.DictionaryArray.from_arrays([0, 0, 0, 1, 0, 0], ["a", None])),
        "/panel/3",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_body_that_is_no_such_table_is_refused_as_a_whole(client: Client, name: str) -> None:
    body, pointer = BAD[name]
    assert pointer_of(client, body) == pointer


TYPES = (pyarrow.null(), pyarrow.float64(), pyarrow.float32(), pyarrow.float16(), pyarrow.int8(), pyarrow.uint64())


def test_whatever_types_the_columns_have_there_is_an_answer_or_a_pointer_to_one(client: Client) -> None:
    rng = random.Random(5)
    answered = refused = 0
    for _ in range(60):
        table = ONE
        for name in rng.sample(ONE.column_names[1:], rng.choice((1, 1, 2, 3))):
            kind = rng.choice(TYPES)
            values = [None if kind == TYPES[0] else rng.choice((1, 0, None))] * 6
            table = table.set_column(table.column_names.index(name), name, pyarrow.array(values, kind))
        response = client.post(BATCH, arrow_stream(table), content_type=MEDIA_TYPE, accept="application/json")
        assert response.status_code in (200, 422), response.text
        if response.status_code == 200:
            answered += 1
            assert "engine_failed" not in response.text
        else:
            refused += 1
            assert response.json()["errors"][0]["pointer"][1:] in ONE.column_names
    assert answered > 5
    assert refused > 5


@pytest.mark.parametrize("table", [ONE, ONE.slice(0, 0)])
def test_a_file_is_no_stream_and_is_told_so(client: Client, table: Any) -> None:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_file(sink, table.schema) as writer:
        writer.write(table)
    refused = client.post(BATCH, sink.getvalue().to_pybytes(), content_type=MEDIA_TYPE)
    assert refused.status_code == 422
    assert refused.json()["detail"].startswith("The body is an Arrow file, and must be a stream")
    refused = client.post(BATCH, b"", content_type="application/vnd.apache.arrow.file")
    assert refused.status_code == 415
    assert MEDIA_TYPE in refused.json()["detail"]


INDICES = {
    "numbers": pyarrow.array([7, 3, 5, 1, 9, 2], pyarrow.int64()),
    "strings": pyarrow.array(["a", "b", None, "d", "e", "f"]),
    "large strings": pyarrow.array(["a"] * 6, pyarrow.large_string()),
    "times": pyarrow.array(range(6), pyarrow.timestamp("ns", "UTC")),
    "no numbers": pyarrow.array([np.nan] * 6),
}


@pytest.mark.parametrize("name", INDICES)
def test_the_index_of_a_frame_is_passed_over(client: Client, name: str) -> None:
    """As `pyarrow.Table.from_pandas` hands it on: last, under names of its own."""
    framed = ONE.append_column("__index_level_0__", INDICES[name]).append_column(
        "__index_level_1__", INDICES["numbers"]
    )
    assert table_of(client, arrow_stream(framed)).to_pylist() == table_of(client, arrow_stream(ONE)).to_pylist()


def test_an_index_of_another_kind_is_told_how_to_leave_it_out(client: Client) -> None:
    for column in (pyarrow.array(["a"] * 6).dictionary_encode(), pyarrow.array([[1]] * 6), pyarrow.nulls(6)):
        body = arrow_stream(ONE.append_column("__index_level_0__", column))
        response = client.post(BATCH, body, content_type=MEDIA_TYPE)
        assert response.status_code == 422
        (error,) = response.json()["errors"]
        assert error["pointer"] == "/__index_level_0__"
        assert "`preserve_index=False`" in error["detail"]


def test_offsets_that_lead_outside_are_found() -> None:
    stream = bytearray(arrow_stream(ONE))
    # The offsets of the keys' letters: 0, 1, 2 ... 6 in four bytes each.
    offsets = np.arange(7, dtype="<i4").tobytes()
    place = stream.index(offsets)
    for last in (10_000, -5):
        stream[place : place + len(offsets)] = np.array([0, 1, 2, 3, 4, 5, last], "<i4").tobytes()
        with pytest.raises(InvalidRequest, match="not an Arrow IPC stream"):
            ArrowBatch(bytes(stream), LIMITS)


def test_a_long_string_named_often_stays_one_string() -> None:
    # Written out it would be 100 GB.
    keys = pyarrow.DictionaryArray.from_arrays(np.zeros(100_000, np.int8), ["x" * 1_000_000])
    numbers = pyarrow.array(np.full(100_000, 0.5, np.float32))
    body = arrow_stream(pyarrow.table({"panel": keys, "expiry": numbers, "iv": numbers, "log_moneyness": numbers}))
    before = pyarrow.total_allocated_bytes()
    batch = ArrowBatch(body, LIMITS)
    assert batch.n_panels == 1
    assert pyarrow.total_allocated_bytes() - before < 10_000_000


def test_too_many_panels_are_too_large() -> None:
    numbers = [0.5] * 101
    body = arrow_stream(pyarrow.table({"panel": range(101), "expiry": numbers}))
    with pytest.raises(TooLarge, match="at most 100 panels, but names 101"):
        ArrowBatch(body, LIMITS)


def test_a_panel_of_too_many_quotes_is_too_large() -> None:
    batch = ArrowBatch(arrow_stream(quote_table({"a": COLUMNS, "b": COLUMNS})), BatchLimits(100, 8 * 6 * 4))
    assert batch.panel(0, lambda _: None).job.panel.n_quotes == 6
    small = ArrowBatch(arrow_stream(quote_table({"a": COLUMNS})), BatchLimits(100, 8 * 6 * 4 - 1))
    with pytest.raises(TooLarge, match="at most 191 bytes of numbers, but has 192"):
        small.panel(0, lambda _: None)


def test_without_the_library_the_refusal_names_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UnsupportedMediaType, match=r"calibrant\[arrow\]"):
        library()
