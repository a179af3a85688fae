"""Cutting a body into parts: every part where it is, and no byte believed."""

import json
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.wire import spans

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


def json_parts(body: bytes, most: int = 100) -> dict[str, Any]:
    parts = spans.json_object(spans.view(body), most)
    keys = [json.loads(body[begin:end]) for begin, end in parts.keys]
    return dict(zip(keys, [json.loads(body[begin:end]) for begin, end in parts.values], strict=True))


def msgpack_parts(body: bytes, most: int = 100) -> dict[str, Any]:
    parts = spans.msgpack_object(spans.view(body), most)
    keys = [msgspec.msgpack.decode(body[begin:end]) for begin, end in parts.keys]
    return dict(zip(keys, [msgspec.msgpack.decode(body[begin:end]) for begin, end in parts.values], strict=True))


@thorough
@given(st.dictionaries(st.text(max_size=20), VALUES, max_size=16), INDENTS, st.booleans())
def test_the_parts_of_a_json_object_are_its_keys_and_values(value: Any, indent: Any, ascii_only: bool) -> None:
    body = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    assert json_parts(b" \n" + body + b"\r\t ") == json.loads(body)


@thorough
@given(st.lists(VALUES, max_size=40), INDENTS)
def test_the_parts_of_a_json_list_are_its_elements(value: Any, indent: Any) -> None:
    body = json.dumps({"panels": value}, indent=indent).encode()
    begin = spans.json_object(spans.view(body), 16).values[0][0]
    found = spans.json_list(spans.view(body), begin, 100)
    assert [json.loads(body[a:b]) for a, b in found] == value


@thorough
@given(st.dictionaries(st.text(max_size=20), VALUES, max_size=16))
def test_the_parts_of_a_msgpack_object_are_its_keys_and_values(value: Any) -> None:
    assert msgpack_parts(pack(value)) == value


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
    packed = spans.msgpack_amounts(spans.view(pack(value)))
    assert (packed.containers, packed.members, packed.values) == (containers, members, values)
    assert packed.text == sum(len(pack(text)) for text in strings(value))
    body = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode()
    found = spans.json_amounts(spans.view(body))
    assert (found.containers, found.members) == (containers, members)
    # A comma between two of anything; so no more than one too few for each list that is not empty.
    commas = containers + members + values
    assert values - containers <= found.values <= commas
    assert found.text == sum(len(json.dumps(text, ensure_ascii=ascii_only).encode()) for text in strings(value))


def test_the_longest_number_is_counted_wherever_it_stands() -> None:
    for body in (b"12345", b"[1, 12345]", b'{"a": 12345}', b'{"a":12345,"b":[1]}', b" -1e-5 ", b"[1,12345", b"[12345}"):
        assert spans.json_amounts(spans.view(body)).longest == 5
    assert spans.json_amounts(spans.view(b'{"12345678": ["12345678", "\\"]}')).longest == 0


def counted_byte_by_byte(body: bytes) -> spans.Amounts:
    """What `spans.json_amounts` counts, 64 bytes at once there."""
    containers = members = values = text = longest = i = begin = 0
    while i < len(body):
        c = body[i : i + 1]
        if not (c <= b"," or c in b":[]{}"):
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
    return spans.Amounts(containers, members, values, text, longest)


# Runs of one byte, so that strings, escapes and numbers end anywhere in a block and reach over several.
RUNS = st.tuples(st.sampled_from([bytes([c]) for c in b'""""\\\\\\01-e,,:[]{} \n\0~\x80\xff']), st.integers(1, 70))
PIECES = st.sampled_from([b'"', b'\\"', b"\\", b",", b'":', b"0.25", b"[{", b"]}", b", "])


@thorough
@given(
    st.lists(RUNS.map(lambda run: run[0] * run[1]) | PIECES, max_size=40) | st.binary(max_size=200).map(lambda b: [b])
)
def test_whatever_the_bytes_are_they_are_counted_as_one_by_one(parts: list[bytes]) -> None:
    body = b"".join(parts)
    assert spans.json_amounts(spans.view(body)) == counted_byte_by_byte(body)


@pytest.mark.parametrize("mark", [b'"', b"\\", b'\\"', b",", b":", b"[", b"}", b" ", b"7"])
@pytest.mark.parametrize("around", [b"1", b" ", b'"', b'",', b"\\", b'"\\', b'"a'])
def test_bytes_are_counted_wherever_a_block_ends(mark: bytes, around: bytes) -> None:
    for place in range(130):
        for behind in (0, 1, 62, 63, 64, 65):
            body = (around * 130)[:place] + mark + (around * 65)[:behind]
            assert spans.json_amounts(spans.view(body)) == counted_byte_by_byte(body)


@thorough
@given(st.lists(VALUES, max_size=40))
def test_the_parts_of_a_msgpack_list_are_its_elements(value: Any) -> None:
    body = pack({"panels": value})
    begin = spans.msgpack_object(spans.view(body), 16).values[0][0]
    found = spans.msgpack_list(spans.view(body), begin, 100)
    assert [msgspec.msgpack.decode(body[a:b]) for a, b in found] == value


@pytest.mark.parametrize("n", [15, 16, 70_000])
@pytest.mark.parametrize("element", [0, 300, -70_000, 0.25, "s" * 40, [1], {"a": [None]}])
def test_lists_of_every_length_and_width_are_cut(n: int, element: Any) -> None:
    body = pack([element] * n)
    found = spans.msgpack_list(spans.view(body), 0, n)
    assert len(found) == n
    assert found[-1] == (len(body) - len(pack(element)), len(body))
    text = json.dumps([element] * n).encode()
    assert len(spans.json_list(spans.view(text), 0, n)) == n


def test_more_parts_than_asked_for_are_too_many() -> None:
    for n in (3, 5000):
        with pytest.raises(spans.TooManyParts):
            spans.json_list(spans.view(json.dumps([0] * (n + 1)).encode()), 0, n)
        with pytest.raises(spans.TooManyParts):
            spans.msgpack_list(spans.view(pack([0] * (n + 1))), 0, n)


BAD_JSON = {
    "empty": b"",
    "blank": b"  \n",
    "open": b'{"a": 1',
    "open string": b'{"a": "x',
    "string ends in an escape": b'{"a": "x\\',
    "open list": b'{"a": [1, [2]',
    "no colon": b'{"a" 1}',
    "no comma": b'{"a": 1 "b": 2}',
    "comma at the end": b'{"a": 1,}',
    "no value": b'{"a": }',
    "number for a key": b"{1: 2}",
    "something behind": b'{"a": 1} x',
    "deep": b'{"a": ' + b"[" * 40 + b"]" * 40 + b"}",
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_a_body_without_the_shape_of_an_object_is_refused(name: str) -> None:
    with pytest.raises(spans.SpanError, match=r"at byte \d+"):
        spans.json_object(spans.view(BAD_JSON[name]), 16)


@pytest.mark.parametrize("body", [b"[1]", b"null", b'"x"', b"17"])
def test_another_kind_of_value_is_no_object(body: bytes) -> None:
    with pytest.raises(spans.OtherKind):
        spans.json_object(spans.view(body), 16)
    with pytest.raises(spans.OtherKind):
        spans.msgpack_object(spans.view(pack(json.loads(body))), 16)


@thorough
@given(st.dictionaries(st.text(max_size=4), VALUES, max_size=4), st.data())
def test_no_byte_put_anywhere_leads_outside_the_body(value: Any, data: st.DataObject) -> None:
    for body, cut in ((json.dumps(value).encode(), spans.json_object), (pack(value), spans.msgpack_object)):
        place = data.draw(st.integers(0, len(body) - 1))
        changed = body[:place] + bytes([data.draw(st.integers(0, 255))]) + body[place + 1 :]
        changed = changed[: data.draw(st.integers(0, len(changed)))]
        try:
            parts = cut(spans.view(changed), 16)
        except (spans.SpanError, spans.OtherKind, spans.TooManyParts):
            continue
        ends = [place for key, part in zip(parts.keys, parts.values, strict=True) for place in (*key, *part)]
        assert ends == sorted(ends)
        assert not ends or ends[-1] <= len(changed)
