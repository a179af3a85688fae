"""Inputs of every format the service and the command line read, made wrong in all the ways that their structure has.

Half are sound in form and extreme in their numbers, since only what is read gets as far as the arithmetic. The others
have parts replaced, removed, repeated, scaled, exchanged or nested, and their bytes damaged or cut off. Each input is a
function of the seed and its number alone.
"""

import copy
import gzip
import json
import math
import random
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
import numpy as np
import pyarrow
import pyarrow.ipc

from calibrant.arrays import Vector
from calibrant.models import HESTON
from calibrant.quotes_csv import COLUMNS
from service.wire.arrow import MEDIA_TYPE as ARROW

from .tensors import inference

JSON, MSGPACK, LINES, BINARY = (
    "application/json",
    "application/msgpack",
    "application/x-ndjson",
    "application/octet-stream",
)
_MARKS = tuple(f"@@odd{i:02}@@" for i in range(12))
"""Strings that stand for what Python's encoders do not write, until the text is there."""
_ODD_JSON = (
    *("1_000", "0x10", "1e400", "-1e400", "01", "+1", ".5", "1.", "NaN", "-Infinity", "9" * 5000),
    '"\\ud800"',
)
_ODD_PACKED = (
    *(b"\xc7\x08\x05" + bytes(8), b"\xd6\xff" + bytes(4), b"\xc4\x02ab", b"\xca\x7f\xc0\x00\x00"),
    *(b"\xcf" + b"\xff" * 8, b"\xd3\x80" + bytes(7), b"\xc1", b"\x81\x01\x02", b"\xdd\xff\xff\xff\xff"),
    *(b"\xdf\xff\xff\xff\xff", b"\xa1\xff", b"\xcb\x7f\xf8" + bytes(6)),
)
_DEEP = "@@deep@@"


class Input(NamedTuple):
    """What is sent, or read from a file."""

    kind: str
    path: str
    """Of the service; empty for a file of the command line."""
    headers: dict[str, str]
    body: bytes


def mutated(seed: int, number: int) -> Input:
    rng = random.Random((seed << 40) + number)
    kinds = list(KINDS)
    kind = kinds[number % len(kinds)]
    path, headers, body = KINDS[kind](rng)
    if path and rng.random() < 0.05:
        name = rng.choice(("content-type", "accept", "content-encoding", "x-request-deadline-ms", "traceparent"))
        headers[name] = rng.choice(("", "x", "gzip", "application/*", "0", "-1", "1e400", "5", "nan", JSON, ARROW))
    return Input(kind, path, headers, body)


# Numbers --------------------------------------------------------------------------------------------------------------


def _extreme(rng: random.Random) -> float:
    """Of any size that there is."""
    special = (0.0, -0.0, 5e-324, 2.2e-308, 1e308, -1e308, 1.0, -1.0, 1e-16, 0.1, math.nan, math.inf, -math.inf)
    if rng.random() < 0.3:
        return rng.choice(special)
    return float(rng.choice((-1.0, 1.0)) * 10.0 ** rng.uniform(-320.0, 308.0))


def _between(rng: random.Random, low: float, high: float) -> float:
    """Evenly in the logarithm, now and then an end of the range or the number beside it."""
    chance = rng.random()
    if chance < 0.1:
        end = rng.choice((low, high))
        return rng.choice((end, math.nextafter(end, low), math.nextafter(end, high)))
    return math.exp(rng.uniform(math.log(low), math.log(high)))


def _parameter(rng: random.Random, i: int) -> float:
    low, high = float(HESTON.lower[i]), float(HESTON.upper[i])
    if low > 0.0:
        return _between(rng, low, high)
    return rng.choice((low, high, 0.0, 1e-300, rng.uniform(low, high), rng.uniform(low, high)))


def _parameters(rng: random.Random, share: float = 1.0) -> dict[str, float]:
    return {name: _parameter(rng, i) for i, name in enumerate(HESTON.parameters) if rng.random() < share}


def _expiry(rng: random.Random) -> float:
    low, high = rng.choice(((0.003, 5.0),) * 6 + ((1e-6, 100.0), (5e-324, 1e-6)))
    return _between(rng, low, high)


# Documents ------------------------------------------------------------------------------------------------------------


def _panel(rng: random.Random) -> dict[str, Any]:
    """A request of a panel, sound in form."""
    expiries = [_expiry(rng) for _ in range(rng.choice((1, 1, 2, 3)))]
    n = rng.choice((1, 4, 5, 6, 8, 8, 12, 12, 20, 40))
    expiry = [rng.choice(expiries) for _ in range(n)]
    level, width = (
        _between(rng, *rng.choice(((0.03, 1.5),) * 4 + ((1e-9, 5.0),))),
        rng.choice((1.0, 1.0, 1.0, 3.0, 30.0)),
    )
    k = [min(max(level * math.sqrt(min(t, 100.0)) * rng.gauss(0.0, width), -10.0), 10.0) for t in expiry]
    bend, noise = rng.choice((0.0, 0.1, 1.0)), rng.choice((0.0, 0.01, 0.5))
    vol = [level * (1.0 - 0.1 * x + bend * x * x) * math.exp(noise * rng.gauss(0.0, 1.0)) for x in k]
    quotes: dict[str, Any] = {"expiry": expiry}
    if rng.random() < 0.5:
        quotes["log_moneyness"] = k
    else:
        forward = _between(rng, *rng.choice(((1e-3, 1e5),) * 4 + ((1e-300, 1e300),)))
        quotes |= {"strike": [forward * math.exp(x) for x in k], "forward": forward}
    if rng.random() < 0.7:
        quotes["iv"] = [None if rng.random() < 0.05 else value for value in vol]
    else:
        spread = rng.choice((0.0, 1e-12, 0.01, 0.3))
        quotes |= {"bid_iv": [v * (1.0 - spread) for v in vol], "ask_iv": [v * (1.0 + spread) for v in vol]}
    if rng.random() < 0.2:
        low, high = rng.choice(((0.1, 10.0), (1e-300, 1e300)))
        quotes["weight"] = [rng.choice((0.0, 1.0, _between(rng, low, high))) for _ in range(n)]
    options: dict[str, Callable[[], Any]] = {
        "refine": lambda: rng.choice(("lm", "lbfgs", "none")),
        "loss": lambda: rng.choice(("squared", "huber")),
        "start": lambda: _parameters(rng),
        "bounds": lambda: {
            name: sorted((_parameter(rng, i), _parameter(rng, i)))
            for i, name in enumerate(HESTON.parameters)
            if rng.random() < 0.4
        },
        "fixed": lambda: _parameters(rng, rng.choice((0.2, 0.6, 1.0))),
        "prior": lambda: _prior(rng),
        "exclude": lambda: sorted({rng.randrange(n) for _ in range(rng.randrange(4))}),
        "detail": lambda: True,
        "budget_ms": lambda: rng.choice((0.1, 1e9, 1e9, 1e9)),
        "id": lambda: rng.choice(("", "a", "\0", "x" * 300)),
    }
    return {"quotes": quotes, **{name: made() for name, made in options.items() if rng.random() < 0.2}}


def _prior(rng: random.Random) -> dict[str, Any]:
    means = _parameters(rng, 0.5)
    prior: dict[str, Any] = {
        "parameters": means,
        "standard_deviations": {name: _between(rng, 1e-7, 1e9) for name in means},
    }
    if rng.random() < 0.5:
        prior["noise_bp"] = _between(rng, 1e-6, 1e6)
    return prior


def _options(rng: random.Random) -> dict[str, Any]:
    """A request of prices, sound in form."""
    n = rng.choice((1, 1, 2, 5, 12))
    expiry = [_expiry(rng)] * n if rng.random() < 0.5 else [_expiry(rng) for _ in range(n)]
    k = [
        rng.choice((0.0, rng.gauss(0.0, 0.3), rng.uniform(-10.0, 10.0), _between(rng, 1e-300, 10.0))) for _ in range(n)
    ]
    return {
        "parameters": _parameters(rng),
        "expiry": expiry,
        "log_moneyness": k,
        "gradient": rng.random() < 0.5,
    }


def _batch(rng: random.Random) -> dict[str, Any]:
    return {
        "panels": [
            _panel(rng) if rng.random() < 0.7 else _damaged(rng, _panel(rng)) for _ in range(rng.choice((1, 2, 3)))
        ]
    }


def _odd(rng: random.Random) -> Any:
    made: tuple[Callable[[], Any], ...] = (
        *(lambda: None, lambda: rng.random() < 0.5, lambda: rng.choice((0, -1, 1, 2**31, 2**53 + 1, 2**63, -(2**63)))),
        *(lambda: _extreme(rng), lambda: _extreme(rng), lambda: _extreme(rng)),
        *(lambda: rng.choice(("", "x", "0.2", "\0", "heston", "é" * 40, "x" * 5000)), lambda: rng.choice(_MARKS)),
        *(list, dict, lambda: [_extreme(rng)], lambda: {"a": [None]}, lambda: _DEEP),
    )
    return rng.choice(made)()


def _damaged(rng: random.Random, document: Any) -> Any:
    """With one to three of its parts made wrong."""
    document = copy.deepcopy(document)
    for _ in range(rng.choice((1, 1, 2, 3))):
        owner, key = _place(rng, document)
        if owner is None:
            return _odd(rng)
        rng.choice(_DAMAGES)(rng, owner, key)
    return document


def _place(rng: random.Random, document: Any) -> tuple[Any, Any]:
    """A part of a document, as what holds it and where; None if there is none."""
    owner, key, part = None, None, document
    while isinstance(part, dict | list) and part and (owner is None or rng.random() < 0.7):
        owner, key = part, rng.choice(list(part)) if isinstance(part, dict) else rng.randrange(len(part))
        part = owner[key]
    return owner, key


def _replace(rng: random.Random, owner: Any, key: Any) -> None:
    owner[key] = _odd(rng)


def _remove(rng: random.Random, owner: Any, key: Any) -> None:
    del owner[key]


def _add(rng: random.Random, owner: Any, key: Any) -> None:
    if isinstance(owner, dict):
        owner[rng.choice(("", "a/b~c", "model", "kappa", "weight", "bid_iv", "\0", _MARKS[0]))] = _odd(rng)
    else:
        owner.insert(key, _odd(rng))


def _resize(rng: random.Random, owner: Any, key: Any) -> None:
    part = owner[key]
    if isinstance(part, list):
        owner[key] = rng.choice((part[:-1], part[:1], part * 2, part * 20, [*part, None]))


def _rescale(rng: random.Random, owner: Any, key: Any) -> None:
    """A number, or all of a column, by one factor or to one value."""
    factor = rng.choice((100.0, 1e-2, 365.0, -1.0, 0.0, _extreme(rng)))
    part = owner[key]
    numbers = part if isinstance(part, list) else [part]
    scaled = [x * factor if isinstance(x, float) else x for x in numbers]
    if rng.random() < 0.2:
        scaled = [factor] * len(numbers)
    owner[key] = scaled if isinstance(part, list) else scaled[0]


def _exchange(rng: random.Random, owner: Any, key: Any) -> None:
    """With another part of the same owner."""
    other = rng.choice(list(owner)) if isinstance(owner, dict) else rng.randrange(len(owner))
    owner[key], owner[other] = owner[other], owner[key]


_DAMAGES = (_replace, _replace, _remove, _add, _resize, _rescale, _rescale, _exchange)


# Bytes ----------------------------------------------------------------------------------------------------------------


def _broken(rng: random.Random, body: bytes) -> bytes:
    """Bytes changed, missing, repeated, or cut off."""
    if not body:
        return rng.randbytes(3)
    content = bytearray(body)
    begin = rng.randrange(len(content))
    match rng.randrange(5):
        case 0:
            for _ in range(rng.choice((1, 2, 8))):
                content[rng.randrange(len(content))] = rng.randrange(256)
        case 1:
            del content[begin:]
        case 2:
            del content[begin : begin + rng.choice((1, 4, 8, 64))]
        case 3:
            content[begin:begin] = content[begin : begin + rng.choice((1, 8, 64))]
        case _:
            content[begin : begin + 8] = rng.choice((bytes(8), b"\xff" * 8, rng.randbytes(8)))[: len(content) - begin]
    return bytes(content)


def _text(rng: random.Random, document: Any) -> bytes:
    """JSON, with what Python's encoder does not write."""
    text = json.dumps(document)
    depth = rng.choice((3, 100, 5000, 100_000))
    text = text.replace(f'"{_DEEP}"', rng.choice(("[" * depth + "]" * depth, "[" * depth, '{"a":' * depth)))
    for mark in _MARKS:
        if mark in text:
            text = text.replace(f'"{mark}"', rng.choice(_ODD_JSON))
    if rng.random() < 0.05 and text.startswith("{") and ":" in text:
        # A key twice.
        first = text[1 : text.index(":")]
        text = text[:-1] + f",{first}:{rng.choice(_ODD_JSON)}" + "}"
    body = text.encode(rng.choice(("utf-8",) * 40 + ("utf-8-sig", "utf-16", "utf-32")), "surrogatepass")
    return _broken(rng, body) if rng.random() < 0.1 else body


def _packed(rng: random.Random, document: Any) -> bytes:
    """MessagePack, with what Python's encoder does not write."""
    body = msgspec.msgpack.encode(document)
    depth = rng.choice((3, 100, 5000, 100_000))
    body = body.replace(_as_packed(_DEEP), b"\x91" * depth + b"\xc0")
    for mark in _MARKS:
        if _as_packed(mark) in body:
            body = body.replace(_as_packed(mark), rng.choice(_ODD_PACKED))
    return _broken(rng, body) if rng.random() < 0.1 else body


def _as_packed(mark: str) -> bytes:
    return msgspec.msgpack.encode(mark)


# Kinds ----------------------------------------------------------------------------------------------------------------

_Made = tuple[str, dict[str, str], bytes]


def _asking(path: str, make: Callable[[random.Random], Any], packed: bool) -> Callable[[random.Random], _Made]:
    def made(rng: random.Random) -> _Made:
        document = make(rng)
        if rng.random() < 0.5:
            document = _damaged(rng, document)
        headers = {"content-type": MSGPACK if packed else JSON}
        if rng.random() < 0.1:
            headers["accept"] = rng.choice((JSON, MSGPACK, LINES, ARROW))
        return path, headers, _packed(rng, document) if packed else _text(rng, document)

    return made


def _arrow(rng: random.Random) -> _Made:
    columns: dict[str, list[Any]] = {name: [] for name in ("panel", "expiry", "log_moneyness", "iv")}
    for i in range(rng.choice((1, 2, 3))):
        quotes = _panel(rng)["quotes"]
        if "log_moneyness" not in quotes:
            quotes["log_moneyness"] = [math.log(x / quotes["forward"]) for x in quotes["strike"]]
        vol = quotes.get("iv") or quotes["bid_iv"]
        for name, values in (
            ("panel", [i] * len(vol)),
            ("iv", vol),
            *((c, quotes[c]) for c in ("expiry", "log_moneyness")),
        ):
            columns[name] += values
    table = pyarrow.table({name: _array(rng, values) for name, values in columns.items()})
    for _ in range(rng.choice((0, 0, 1, 2))):
        i = rng.randrange(table.num_columns) if table.num_columns else 0
        match rng.randrange(4):
            case 0 if table.num_columns:
                table = table.remove_column(i)
            case 1:
                name = rng.choice(("panel", "weight", "strike", "forward", "bid_iv", "", "x"))
                odd = [rng.choice((_extreme(rng), None)) for _ in range(table.num_rows)]
                table = table.append_column(name, _array(rng, odd))
            case 2:
                table = table.slice(rng.randrange(table.num_rows + 1), rng.choice((0, 1, 1000)))
            case _:
                odd_name = rng.choice(("heston", "lm", "lbfgs", "none", "x", "", "\0"))
                table = table.replace_schema_metadata(
                    {rng.choice(("calibrant.model", "calibrant.refine", "x")): odd_name}
                )
    sink = pyarrow.BufferOutputStream()
    new = pyarrow.ipc.new_file if rng.random() < 0.1 else pyarrow.ipc.new_stream
    options = pyarrow.ipc.IpcWriteOptions(compression=rng.choice((None,) * 18 + ("lz4", "zstd")))
    with new(sink, table.schema, options=options) as writer:
        writer.write_table(table, rng.choice((None, 1, 3)))
    body = sink.getvalue().to_pybytes()
    headers = {"content-type": ARROW}
    if rng.random() < 0.3:
        headers["accept"] = rng.choice((JSON, LINES, ARROW))
    return "/v1/calibrate/batch", headers, _broken(rng, body) if rng.random() < 0.4 else body


def _array(rng: random.Random, values: list[Any]) -> Any:
    """A column in one of the types that there are, a number wherever it is one."""
    plain = pyarrow.array(values)
    match rng.randrange(20):
        case 0:
            return plain.dictionary_encode()
        case 1:
            return pyarrow.array([None if x is None else str(x) for x in values], pyarrow.string())
        case 2:
            return pyarrow.nulls(len(values))
        case 3:
            return pyarrow.array([None if x is None else [x] for x in values])
        case 4:
            narrow: Vector = np.array([math.nan if x is None else x for x in values], np.float64)
            with np.errstate(all="ignore"):
                return pyarrow.array(narrow.astype(rng.choice((np.float32, np.float16, np.int8, np.uint64, np.bool_))))
        case 5:
            return pyarrow.array([_extreme(rng) for _ in values])
        case _:
            return plain


def _tensors(binary: bool) -> Callable[[random.Random], _Made]:
    def made(rng: random.Random) -> _Made:
        quotes = _panel(rng)["quotes"]
        vol = quotes.get("iv") or quotes["bid_iv"]
        k = quotes.get("log_moneyness") or [math.log(x / quotes["forward"]) for x in quotes["strike"]]
        columns = {"log_moneyness": k, "expiry": quotes["expiry"], "iv": vol}
        if "weight" in quotes:
            columns["weight"] = quotes["weight"]
        rows = rng.choice((0, 0, 0, 1, 2, 3))
        kind = rng.choice((np.float64, np.float64, np.float32))
        tensors = {}
        for name, values in columns.items():
            column: Vector = np.array([math.nan if x is None else x for x in values], np.float64)
            if rng.random() < 0.1:
                column[rng.randrange(column.size)] = _extreme(rng)
            with np.errstate(all="ignore"):
                column = column.astype(kind)
            tensors[name] = np.tile(column, (rows, 1)) if rows else column
        options: dict[str, Any] = {}
        if rng.random() < 0.4:
            options["parameters"] = {
                "refine": rng.choice(("lm", "lbfgs", "none")),
                "loss": rng.choice(("squared", "huber")),
                "timeout": rng.choice((0, 0, 0, 1, 10**9)),
                **({"prior": json.dumps(_prior(rng))} if rng.random() < 0.3 else {}),
            }
        if rng.random() < 0.3:
            names = ("parameters", "status", "excluded", "warnings", "rmse_bp", "message")
            options["outputs"] = [{"name": name} for name in rng.sample(names, 3)]
        body, headers = inference(tensors, **options)
        length = int(headers["inference-header-content-length"])
        head, tail = json.loads(body[:length]), body[length:]
        if not binary:
            for given, tensor in zip(head["inputs"], tensors.values(), strict=True):
                del given["parameters"]
                given["data"] = tensor.astype(float).tolist()
            tail, headers = b"", {}
        if rng.random() < 0.4:
            head = _damaged(rng, head)
        front = _text(rng, head)
        body = front + (_broken(rng, tail) if tail and rng.random() < 0.15 else tail)
        if headers:
            odd_length = rng.choice(("", "-1", "1e3", str(len(front) + 1), str(10**30)))
            headers["inference-header-content-length"] = odd_length if rng.random() < 0.05 else str(len(front))
        if rng.random() < 0.15:
            encoding = rng.choice(("gzip", "deflate"))
            headers["content-encoding"] = encoding
            body = gzip.compress(body, 1, mtime=0) if encoding == "gzip" else zlib.compress(body, 1)
            body = _broken(rng, body) if rng.random() < 0.5 else body
        return "/v2/models/heston/infer", headers, body

    return made


def _csv(rng: random.Random) -> _Made:
    quotes = _panel(rng)["quotes"]
    n = len(quotes["expiry"])
    if "strike" not in quotes:
        quotes |= {"strike": [math.exp(x) for x in quotes.pop("log_moneyness")], "forward": 1.0}
    quotes["forward"] = [quotes["forward"]] * n
    names = [name for name in COLUMNS if name in quotes]
    rows = [[COLUMNS[name] for name in names]]
    rows += [["" if (x := quotes[name][i]) is None else repr(x) for name in names] for i in range(n)]
    for _ in range(rng.choice((0, 0, 1, 3))):
        row = rng.choice(rows)
        if row:
            row[rng.randrange(len(row))] = str(
                rng.choice((_odd(rng), _extreme(rng), "1,5", '"', "'", "\n", "-", " 0.2 "))
            )
    for _ in range(rng.choice((0, 0, 0, 1))):
        row = rng.choice(rows)
        row[:] = rng.choice((row[:-1], row * 2, [], [*row, ""]))
    text = rng.choice(("\n", "\n", "\r\n", "\r")).join(",".join(row) for row in rows)
    body = text.encode(rng.choice(("utf-8",) * 10 + ("utf-8-sig", "utf-16", "latin-1")), "ignore")
    return "", {}, _broken(rng, body) if rng.random() < 0.1 else body


KINDS: dict[str, Callable[[random.Random], _Made]] = {
    "JSON": _asking("/v1/calibrate", _panel, packed=False),
    "MessagePack": _asking("/v1/calibrate", _panel, packed=True),
    "prices, JSON": _asking("/v1/price", _options, packed=False),
    "prices, MessagePack": _asking("/v1/price", _options, packed=True),
    "batch, JSON": _asking("/v1/calibrate/batch", _batch, packed=False),
    "batch, MessagePack": _asking("/v1/calibrate/batch", _batch, packed=True),
    "Arrow": _arrow,
    "tensors, JSON": _tensors(binary=False),
    "tensors, binary": _tensors(binary=True),
    "CSV": _csv,
}
