"""What a body holds, counted, and a batch cut into its panels: every one where it is, and no byte believed."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.errors import InvalidRequest, ServiceError, TooLarge
from service.wire.amounts import DEEPEST, Amounts, json_amounts, msgpack_amounts
from service.wire.cutting import panels_of
from service.wire.formats import JSON, MSGPACK, Format

pack = msgspec.msgpack.encode
thorough = settings(deadline=None, derandomize=True, max_examples=100)

NESTED: list[Any] = [
    [],
    {},
    [[]],
    [{}],
    {"": []},
    {"a": {"b": [1, "}", None]}},
    ['"', "\\", "]"],
    [[1, 2], [3.5, [-1]]],
]
# Of sampled parts rather than recursive: Hypothesis takes a hundred milliseconds to think of one recursive value.
VALUES: st.SearchStrategy[Any] = (
    st.sampled_from(NESTED)
    | st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text(max_size=40)
    | st.lists(st.sampled_from(NESTED) | st.integers(0, 300) | st.floats(0, 1), max_size=20)
)
INDENTS = st.sampled_from([None, 0, 3, "\t"])


def amounts(value: Any) -> tuple[int, int, int]:
    """Objects and lists, fields, and values of lists, as they are."""
    inside = [*value.values()] if isinstance(value, dict) else value if isinstance(value, list) else []
    found = [amounts(part) for part in inside]
    container, members, values = isinstance(value, dict | list), isinstance(value, dict), isinstance(value, list)
    own = int(container), members * len(inside), values * len(inside)
    return tuple(map(sum, zip(own, *found, strict=True)))  # type: ignore[return-value]


def strings(value: Any) -> list[str]:
    """All strings, keys included."""
    if isinstance(value, dict):
        return [text for pair in value.items() for part in pair for text in strings(part)]
    if isinstance(value, list):
        return [text for part in value for text in strings(part)]
    return [value] if isinstance(value, str) else []


@thorough
@given(st.dictionaries(st.text(max_size=20), VALUES, max_size=16), INDENTS, st.booleans())
def test_what_a_body_holds_is_counted(value: Any, indent: Any, ascii_only: bool) -> None:
    containers, members, values = amounts(value)
    packed = msgpack_amounts(pack(value))
    assert (packed.containers, packed.members, packed.values) == (containers, members, values)
    assert packed.text == sum(len(pack(text)) for text in strings(value))
    body = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    found = json_amounts(body)
    assert (found.containers, found.members) == (containers, members)
    # A comma between two of anything; so no more than one too few for each list that is not empty.
    commas = containers + members + values
    assert values - containers <= found.values <= commas
    assert found.text == sum(len(json.dumps(text, ensure_ascii=ascii_only).encode()) for text in strings(value))


def test_the_longest_number_is_counted_wherever_it_stands() -> None:
    for body in (b"12345", b"[1, 12345]", b'{"a": 12345}', b'{"a":12345,"b":[1]}', b" -1e-5 ", b"[1,12345", b"[12345}"):
        assert json_amounts(body).longest == 5
    assert json_amounts(b'{"12345678": ["12345678", "\\"]}').longest == 0


def counted_byte_by_byte(body: bytes) -> Amounts:
    """What `json_amounts` counts."""
    containers = members = values = text = longest = i = begin = 0
    while i < len(body):
        c = body[i : i + 1]
        if not (c <= b" " or c in b'",:[]{}'):
            i += 1
            longest = max(longest, i - begin)
            continue
        containers += c in b"[{"
        members += c == b":"
        values += c == b","
        end = i + 1
        if c == b'"':
            while end < len(body) and body[end] != ord('"'):
                end += 2 if body[end] == ord("\\") else 1
            end = min(end + 1, len(body))
            text += end - i
        i = begin = end
    return Amounts(containers, members, values, text, longest)


RUNS = st.tuples(st.sampled_from([bytes([c]) for c in b'""""\\\\\\01-e,,:[]{} \n\0~\x80\xff']), st.integers(1, 70))
PIECES = st.sampled_from([b'"', b'\\"', b"\\", b",", b'":', b"0.25", b"[{", b"]}", b", "])


@thorough
@given(
    st.lists(RUNS.map(lambda run: run[0] * run[1]) | PIECES, max_size=40) | st.binary(max_size=200).map(lambda b: [b])
)
def test_whatever_the_bytes_are_they_are_counted_as_one_by_one(parts: list[bytes]) -> None:
    body = b"".join(parts)
    assert json_amounts(body) == counted_byte_by_byte(body)


# Batches --------------------------------------------------------------------------------------------------------------


def panels(body: bytes, wire: Format = JSON, most: int = 100) -> list[Any]:
    decode = json.loads if wire is JSON else msgspec.msgpack.decode
    return [decode(bytes(panel)) for panel in panels_of(memoryview(body), wire, most)]


@thorough
@given(st.lists(VALUES, min_size=1, max_size=40), INDENTS, st.booleans())
def test_the_panels_of_a_batch_are_the_elements_of_its_list(value: list[Any], indent: Any, ascii_only: bool) -> None:
    body = json.dumps({"panels": value}, indent=indent, ensure_ascii=ascii_only).encode()
    assert panels(b" \n" + body + b"\r\t ") == value
    assert panels(pack({"panels": value}), MSGPACK) == value


@pytest.mark.parametrize("n", [1, 15, 16, 70_000])
@pytest.mark.parametrize("element", [0, 300, -70_000, 0.25, "s" * 40, [1], {"a": [None]}])
def test_lists_of_every_length_and_width_are_cut(n: int, element: Any) -> None:
    for wire in (JSON, MSGPACK):
        body = memoryview(wire.encode({"panels": [element] * n}))
        found = panels_of(body, wire, n)
        assert (len(found), bytes(found[-1])) == (n, wire.encode(element))
        if n > 1:
            with pytest.raises(TooLarge, match=f"at most {n - 1} panels"):
                panels_of(body, wire, n - 1)


BAD_JSON = {
    "empty": b"",
    "blank": b"  \n",
    "open": b'{"panels": [1',
    "open object": b'{"panels": [1]',
    "open string": b'{"panels": ["x',
    "string ends in an escape": b'{"panels": ["x\\',
    "open list": b'{"panels": [1, [2]',
    "no colon": b'{"panels" [1]}',
    "no comma": b'{"panels": [1] "b": 2}',
    "comma at the end": b'{"panels": [1],}',
    "no value": b'{"panels": }',
    "number for a key": b"{1: [2]}",
    "something behind": b'{"panels": [1]} x',
    "a key of another batch": b'{"panels": [1], "panel": [2]}',
    "twice": b'{"panels": [1], "panels": [2]}',
    "twice, once in escapes": b'{"panels": [], "\\u0070anels": [1]}',
    "deep": b'{"panels": [' + b"[" * 40 + b"]" * 40 + b"]}",
    "a list": b"[1]",
    "null": b"null",
    "a string": b'"x"',
    "no list": b'{"panels": {"a": 1}}',
    "no panels": b'{"panels": []}',
    "another field": b'{"a": [1]}',
}


@pytest.mark.parametrize("name", BAD_JSON)
@pytest.mark.parametrize("padding", [0, 100_000])
def test_a_body_that_is_no_batch_is_refused_whatever_its_size(name: str, padding: int) -> None:
    body = BAD_JSON[name] + b" " * padding
    with pytest.raises(InvalidRequest):
        panels(body)
    try:
        document = json.loads(body)
    except ValueError:
        return
    if "twice" not in name and name != "deep":
        with pytest.raises(InvalidRequest):
            panels(pack(document), MSGPACK)


def test_nesting_is_bounded_and_nothing_else_is_judged() -> None:
    for depth in (DEEPEST - 2, DEEPEST - 1, DEEPEST):
        body = b'{"panels": [' + b"[" * depth + b"NaN, }" + b"]" * (depth - 1) + b"]}"
        if depth < DEEPEST:
            assert len(panels_of(memoryview(body), JSON, 1)) == 1
        else:
            with pytest.raises(InvalidRequest):
                panels_of(memoryview(body), JSON, 1)


def test_a_field_of_a_msgpack_batch_is_there_once() -> None:
    field = pack("panels") + pack([1])
    for head in (b"\x81", b"\xde\x00\x01", b"\xdf\x00\x00\x00\x01"):
        assert panels(head + field, MSGPACK) == [1]
        twice = head[:-1] + bytes([head[-1] + 1]) + field * 2
        with pytest.raises(InvalidRequest, match="twice"):
            panels(twice, MSGPACK)


@thorough
@given(st.lists(VALUES, min_size=1, max_size=4), st.data())
def test_no_byte_put_anywhere_leads_outside_the_body(value: list[Any], data: st.DataObject) -> None:
    for wire, body in ((JSON, json.dumps({"panels": value}).encode()), (MSGPACK, pack({"panels": value}))):
        place = data.draw(st.integers(0, len(body) - 1))
        changed = body[:place] + bytes([data.draw(st.integers(0, 255))]) + body[place + 1 :]
        changed = changed[: data.draw(st.integers(0, len(changed)))]
        try:
            found = panels_of(memoryview(changed), wire, 16)
        except ServiceError:
            continue
        assert sum(map(len, found)) < len(changed)
        assert all(bytes(panel) in changed for panel in found)


@thorough
@given(VALUES, st.data())
def test_whatever_the_bytes_are_msgpack_is_counted_or_refused(value: Any, data: st.DataObject) -> None:
    body = bytearray(pack({"a": value}))
    for _ in range(data.draw(st.integers(1, 3))):
        body[data.draw(st.integers(0, len(body) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = msgpack_amounts(bytes(body))
    except InvalidRequest:
        return
    # Binary data is no JSON, and the decoder sees to it.
    decoded = msgspec.msgpack.decode(bytes(body), type=msgspec.Raw)
    assert len(bytes(decoded)) == len(body)
    assert max(found.containers, found.members, found.values, found.text) <= len(body)
