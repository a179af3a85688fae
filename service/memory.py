"""How much memory requests may take, over all that a process has in hand: reserved before it is taken.

A body may become a hundred times as large as it is, as numbers of a wider type, as objects of Python's, as an answer. A
process that takes what it is asked for is killed by the system, and with it everything else that it has in hand. So
each request says beforehand what it will need at most, and is refused where that is not to be had.
"""

from threading import Lock
from types import TracebackType

from .errors import Overloaded, TooLarge

_SHARE = 0.5
"""Of all that one request may take: beside the largest there is room for others."""
_FOR_SMALL, _SMALL = 0.25, 1 << 20
"""Share of all that is for those of at most so many bytes: beside a few large requests the many small ones go on."""
_PER_BYTE = 3
"""Of a body: in pieces, as a whole, and what of it waits to be read."""
_PER_QUOTE = 640
"""As numbers of Python's and of numpy's, and in the answer, left out with a reason. All these are measured in
`tests/service/test_memory.py`."""
_PER_OPTION = 700
"""Priced with its gradient, as numbers of Python's and of numpy's, and in the answer."""
_PRICING, _PRICED_AT_A_TIME, _PER_OPTION_AT_A_TIME = 400_000, 256, 2500
"""What pricing takes of however few options; how many are priced together, and what each takes meanwhile."""
_LEAST_OF_A_QUOTE = 3
"""Bytes of a body: three numbers of one."""
_MOST_VALUES = 100_000
"""Most numbers that are read of one panel: `MOST` of `wire.amounts`."""


def of_body(n_bytes: int) -> int:
    """Bytes that a request takes while its body is received and read."""
    return _PER_BYTE * n_bytes


def of_quotes(n_quotes: int) -> int:
    """Bytes that a panel takes until it is answered."""
    return _PER_QUOTE * n_quotes


def of_options(n_options: int) -> int:
    """The same of options to be priced."""
    return _PRICING + _PER_OPTION_AT_A_TIME * min(n_options, _PRICED_AT_A_TIME) + _PER_OPTION * n_options


def of_panel(n_bytes: int) -> int:
    """Bytes that a panel of so many in a body may take, whatever is in them."""
    return of_body(n_bytes) + of_quotes(min(n_bytes, _MOST_VALUES) // _LEAST_OF_A_QUOTE)


class Memory:
    """The budget of one process. `Hold`s may be on any thread."""

    def __init__(self, most: int) -> None:
        """`most` bytes for all requests together."""
        self.most = most
        self.reserved = 0
        self._lock = Lock()

    def hold(self) -> "Hold":
        return Hold(self)

    def move(self, more: int, small: bool = True) -> bool:
        """Reserve so many bytes more, or fewer, for a small request or a large one; whether there was room."""
        room = self.most if small else int((1.0 - _FOR_SMALL) * self.most)
        with self._lock:
            if more > 0 and self.reserved + more > room:
                return False
            self.reserved += more
            return True


class Hold:
    """What one request has reserved, until it is closed or nobody has it any more."""

    __slots__ = ("_memory", "n_bytes")

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.n_bytes = 0

    def resize(self, n_bytes: int) -> None:
        """Hold so many bytes, no more and no fewer.

        raises  TooLarge if no request may have as many, Overloaded if others have them at the moment
        """
        most = int(_SHARE * self._memory.most)
        if n_bytes > most:
            raise TooLarge(
                f"The request and its answer would take more than the {most} bytes of memory that one may have: "
                "send less at once, or have a batch answered as application/x-ndjson."
            )
        if not self._memory.move(n_bytes - self.n_bytes, n_bytes <= _SMALL):
            raise Overloaded("The requests in hand take all the memory that there is for them.")
        self.n_bytes = n_bytes

    def grow(self, n_bytes: int) -> None:
        """Hold so many bytes more. Raises as `resize`."""
        self.resize(self.n_bytes + n_bytes)

    def part(self, n_bytes: int) -> "Hold":
        """As much of this as another needs from now on, who has it in the place of this one."""
        taken = Hold(self._memory)
        taken.n_bytes = min(n_bytes, self.n_bytes)
        self.n_bytes -= taken.n_bytes
        return taken

    def close(self) -> None:
        self._memory.move(-self.n_bytes)
        self.n_bytes = 0

    # A generator that is dropped before it has begun runs none of its `finally`.
    __del__ = close

    def __enter__(self) -> "Hold":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()
