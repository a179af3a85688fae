"""Arrow streams of quotes, good ones and one that takes far more memory than it has bytes."""

import struct
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow
import pyarrow.ipc


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
