"""Numbers in headers, read as HTTP writes them: Python's own `int` and `float` also take `1_000`, `+5`, blanks, `nan`,
and digits of other scripts, which whoever passed the request on may have read otherwise."""

import re

_WHOLE = re.compile(r"[0-9]{1,19}")
"""As many digits as 64 bits hold."""
_DECIMAL = re.compile(r"[0-9]{1,18}(\.[0-9]{0,40})?([eE][+-]?[0-9]{1,3})?")


def whole_number(text: str) -> int | None:
    """None if the header is no whole number >= 0."""
    return int(text) if _WHOLE.fullmatch(text) else None


def decimal_number(text: str) -> float | None:
    """None if the header is no number >= 0; infinite where it is beyond all floats."""
    return float(text) if _DECIMAL.fullmatch(text) else None
