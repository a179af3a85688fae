"""Stochastic-volatility models calibrated to option quotes.

    from calibrant import calibrate, price

    result = calibrate({"expiry": expiry, "strike": strike, "forward": forward, "iv": iv})

docs/library.md shows what there is. What these names need is imported when one of them is first used:
`import calibrant` alone, which every module of the library and its client begin with, loads nothing.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    __version__: str

    from . import models
    from .api import calibrate, price
    from .errors import InvalidInput
    from .intake import Built, read_quotes
    from .panel import OptionPanel
    from .prices import Prices
    from .quotes_csv import read_csv
    from .result import CalibrationResult

__all__ = [
    "Built",
    "CalibrationResult",
    "InvalidInput",
    "OptionPanel",
    "Prices",
    "__version__",
    "calibrate",
    "models",
    "price",
    "read_csv",
    "read_quotes",
]

_HOMES = {
    "Built": "intake",
    "CalibrationResult": "result",
    "InvalidInput": "errors",
    "OptionPanel": "panel",
    "Prices": "prices",
    "calibrate": "api",
    "price": "api",
    "read_csv": "quotes_csv",
    "read_quotes": "intake",
}
"""The module of each name; `models` is a module itself."""


def __getattr__(name: str) -> object:
    if name == "models":
        return import_module(".models", __name__)
    if name == "__version__":
        return version("calibrant")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
