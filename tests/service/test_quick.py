"""Whatever msgspec takes pydantic takes too, for the same: one schema, read in two ways."""

import copy
import json
import random
import re
from typing import Any

import msgspec
import pytest
from pydantic import BaseModel, ValidationError

from service.errors import InvalidRequest
from service.wire import json as json_format
from service.wire import msgpack, schema
from service.wire.quick import read
from tests.service.test_bad_input import ODD_VALUES, PRICE, RICH, panel, places

MODELS: list[tuple[type[BaseModel], Any]] = [
    (schema.CalibrateRequest, RICH),
    (schema.CalibrateRequest, panel()),
    (schema.PriceRequest, PRICE),
    (schema.Prior, RICH["prior"]),
]
MORE_VALUES = (
    *ODD_VALUES,
    1.0,
    -5,
    0.5,
    1e-320,
    False,
    [None],
    [0, 1],
    [1, 2, 3],
    [[1.0]],
    {"kappa": [1, 2]},
    "lm",
    {"rho": 0},
)


def same(found: Any, model: Any) -> bool:
    """Field by field, down to the types of the values."""
    if isinstance(model, BaseModel):
        return all(same(getattr(found, name), getattr(model, name)) for name in type(model).model_fields)
    return type(found) is type(model) and bool(found == model)


def members(value: Any) -> int:
    if isinstance(value, dict):
        return len(value) + sum(map(members, value.values()))
    return sum(map(members, value)) if isinstance(value, list) else 0


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("place", range(len(MODELS)))
@pytest.mark.parametrize("seed", range(3))
def test_what_is_read_quickly_is_what_the_schema_says(place: int, binary: bool, seed: int) -> None:
    model, good = MODELS[place]
    rng = random.Random(seed)
    taken = 0
    for trial in range(400):
        document = copy.deepcopy(good)
        for _ in range(min(trial, rng.randrange(4))):
            *path, last = rng.choice([*places(document), ("id",)])
            part = document
            for key in path:
                part = part[key]
            if rng.random() < 0.2:
                part.pop(last, None) if isinstance(part, dict) else part.pop(last)
            else:
                part[last] = copy.deepcopy(rng.choice(MORE_VALUES))
        text = json.dumps(document)
        if binary:
            # Its whole numbers end at 64 bits and its strings are UTF-8.
            document = json.loads(text.replace("\\ud800", "?"), parse_int=lambda x: min(int(x), 2**63))
        body = msgspec.msgpack.encode(document) if binary else text.encode()
        quickly = read(body, model, binary=binary)
        try:
            thoroughly = model.model_validate(document) if binary else model.model_validate_json(body)
        except ValidationError:
            assert quickly is None, document
            continue
        if quickly is not None:
            taken += 1
            found, given = quickly
            assert same(found, thoroughly), document
            assert given == members(document)
        else:
            # A whole number beyond what msgspec keeps as one.
            assert re.search(r"\d{19}", text), document
    assert taken > 50


def test_numbers_that_json_has_not_are_refused() -> None:
    for text in ("1_000", "+1", ".5", "1.", "01", "0x10", "NaN", "Infinity", "-Infinity", "1e400", "'1'", "1,", ""):
        body = json.dumps(panel()).replace("0.25", text).encode()
        assert read(body, schema.CalibrateRequest, binary=False) is None
        with pytest.raises(InvalidRequest):
            json_format.decode(body, schema.CalibrateRequest)


def test_no_number_of_messagepack_is_beyond_the_finite() -> None:
    for path in places(RICH):
        for odd in (float("nan"), float("inf"), -float("inf")):
            document = copy.deepcopy(RICH)
            part: Any = document
            for key in path[:-1]:
                part = part[key]
            part[path[-1]] = odd
            with pytest.raises(InvalidRequest):
                msgpack.decode(msgspec.msgpack.encode(document), schema.CalibrateRequest)
