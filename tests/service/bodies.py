"""Requests as the formats want them, made from one request in the words of the schema."""

import json
import struct
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pyarrow
import pyarrow.ipc
from numpy.typing import NDArray

from tests.service.test_market import requests

Tensors = Mapping[str, NDArray[Any]]


REAL = ("spx_201010", "gld_20220715", "btc_20211021", "dax", "vix", "sse50etf")
"""An index, a commodity, a coin, a stressed index, a volatility index and a fund of another continent."""


@cache
def _requests() -> dict[str, dict[str, Any]]:
    return {str(param.id): param.values[0] for param in requests()}


def real_panel(name: str) -> dict[str, Any]:
    """The request made of the market file whose name begins so; of several dates the first."""
    return next(body for id_, body in _requests().items() if id_.startswith(name))


def as_moneyness(request: dict[str, Any]) -> dict[str, Any]:
    """The panel by log-moneyness, mid and equal weights, which every format can say; without the quotes that miss."""
    quotes = request["quotes"]
    strike, forward, expiry = (np.array(quotes[name], float) for name in ("strike", "forward", "expiry"))
    bid, ask, iv = (np.array(quotes[name], float) for name in ("bid_iv", "ask_iv", "iv"))
    mid = np.where(np.isnan(iv), 0.5 * (bid + ask), iv)
    there = ~np.isnan(mid)
    columns = {"expiry": expiry, "log_moneyness": np.log(strike / forward), "iv": mid}
    return {"quotes": {name: column[there].tolist() for name, column in columns.items()}}


def as_tensors(quotes: Mapping[str, Any], dtype: Any = np.float64) -> dict[str, NDArray[Any]]:
    """Columns of a request as arrays, null as NaN."""
    return {name: np.array(column, np.float64).astype(dtype) for name, column in quotes.items() if column is not None}


def inference(tensors: Tensors, **header: Any) -> tuple[bytes, dict[str, str]]:
    """The body and the headers of a request of the Open Inference Protocol with binary tensors."""
    names = {np.dtype(np.float64): "FP64", np.dtype(np.float32): "FP32"}
    inputs = [
        {
            "name": name,
            "shape": list(array.shape),
            "datatype": names[array.dtype],
            "parameters": {"binary_data_size": array.nbytes},
        }
        for name, array in tensors.items()
    ]
    head = json.dumps({"inputs": inputs, **header}).encode()
    body = head + b"".join(array.tobytes() for array in tensors.values())
    return body, {"inference-header-content-length": str(len(head))}


def arrow_stream(table: Any, **options: Any) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, table.schema, options=pyarrow.ipc.IpcWriteOptions(**options)) as writer:
        writer.write(table)
    written: bytes = sink.getvalue().to_pybytes()
    return written


def quote_table(panels: Mapping[Any, Mapping[str, Any]]) -> Any:
    """The quotes of several panels as one table, keyed by `panel`."""
    keys = [key for key, quotes in panels.items() for _ in quotes["expiry"]]
    names = {name for quotes in panels.values() for name in quotes}
    columns = {
        name: pyarrow.array(
            [value for quotes in panels.values() for value in quotes.get(name, [None] * len(quotes["expiry"]))],
            pyarrow.float64(),
        )
        for name in sorted(names)
    }
    return pyarrow.table({"panel": keys, **columns})


def aliased(n: int) -> bytes:
    """A stream of so many rows whose columns are all the first one's buffer."""
    names = ("panel", "expiry", "strike", "forward", "log_moneyness", "iv", "bid_iv", "ask_iv", "weight")
    ones = pyarrow.array(np.ones(n, np.int8))
    plain = arrow_stream(pyarrow.table(dict.fromkeys(names, ones)))
    _, second = (message for message in pyarrow.ipc.MessageReader.open_stream(pyarrow.py_buffer(plain)))
    body, head = second.body.to_pybytes(), bytearray(second.metadata.to_pybytes())
    step = len(body) // len(names)
    for i in range(1, len(names)):
        # The values of a column by their place in the body, which may be said with padding or without.
        place = head.index(struct.pack("<q", i * step) + struct.pack("<q", n))
        head[place : place + 8] = bytes(8)
    # Other buffers, of no length, lie at ends that are gone.
    for i in range(1, len(names) + 1):
        empty = struct.pack("<qq", i * step, 0)
        while (place := head.find(empty)) >= 0:
            head[place : place + 8] = bytes(8)
    place = head.index(struct.pack("<q", len(body)))
    head[place : place + 8] = struct.pack("<q", step)
    metadata = second.metadata.to_pybytes()
    start = plain[: plain.index(metadata) - 8]
    frame, end = struct.pack("<II", 0xFFFFFFFF, len(metadata)), struct.pack("<II", 0xFFFFFFFF, 0)
    return b"".join((start, frame, bytes(head), body[:step], end))
