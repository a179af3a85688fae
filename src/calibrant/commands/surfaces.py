"""What `leverage` and `one-touch` read: requests as the service takes them, or a market's quotes with flags beside."""

import argparse
import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import InvalidInput, Problem
from ..intake import Settings, quotes_of_file
from ..intake.numbers import number_of
from ..intake.quotes import Quotes
from ..slv.estimators import ESTIMATORS

MARKET = ("spot", "domestic_rate", "foreign_rate")
_SETTINGS = ("maturity", "mixing", "kappa", "n_particles", "step_days", "estimator", "scheme", "seed", "n_paths")
_IN_FILE = {"spot": "spot", "domestic_rate": "rate", "foreign_rate": "dividend_yield"}
"""Columns that may hold what the flags say."""


def add_surface(parser: argparse.ArgumentParser) -> None:
    """The file, and the flags that say what it leaves open."""
    parser.add_argument(
        "file",
        type=Path,
        nargs="?",
        metavar="FILE",
        help="quotes by delta or by strike (CSV, TSV, Excel, Parquet), or a request in JSON",
    )
    market = parser.add_argument_group("what the quotes leave open")
    market.add_argument("--spot", type=float, metavar="S")
    for name in ("domestic", "foreign"):
        market.add_argument(
            f"--{name}-rate",
            type=_rate,
            metavar="RATE",
            help="a year, continuously compounded: a number, or a CSV file of `expiry` and `zero`",
        )
    market.add_argument("--pair", metavar="EURUSD", help="whose conventions hold; default: the file's underlying")
    market.add_argument("--underlying", metavar="NAME", help="which panel, where a file has several")
    market.add_argument("--as-of", metavar="DATE", help="of the quotes, where the file does not say")
    market.add_argument("--butterfly", choices=("market_strangle", "smile"))
    settings = parser.add_argument_group("how it is calibrated")
    settings.add_argument("--maturity", type=float, metavar="YEARS", help="default: the last expiry")
    settings.add_argument("--mixing", type=float, metavar="SHARE", help="of xi that is left stochastic (default: 0.66)")
    settings.add_argument("--kappa", type=float, help="held while Heston is fitted")
    settings.add_argument("--particles", dest="n_particles", type=int, metavar="N", help="default: 2048")
    settings.add_argument("--step-days", type=float, metavar="DAYS", help="largest time step (default: 5)")
    settings.add_argument("--estimator", choices=tuple(ESTIMATORS), metavar="NAME", help=", ".join(ESTIMATORS))
    settings.add_argument("--scheme", choices=("qe", "euler"))
    settings.add_argument("--paths", dest="n_paths", type=int, metavar="N", help="for prices (default: 32768)")
    settings.add_argument("--seed", type=int, metavar="N")


def request_of(given: argparse.Namespace) -> dict[str, Any]:
    """The request that a file and the flags make.

    raises  InvalidInput, naming every flag that is missing; OSError, ImportError
    """
    said = settings_of(given)
    if given.file is None:
        raise InvalidInput(Problem(("file",), "A FILE of quotes or of a request must be given."))
    if given.file.suffix == ".json":
        return {**_document(given.file), **said}
    return {"surface": _surface(given), **said}


def settings_of(given: argparse.Namespace) -> dict[str, Any]:
    """What the flags say of how it is calibrated."""
    return {name: getattr(given, name) for name in _SETTINGS if getattr(given, name) is not None}


def _document(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidInput(Problem((), f"{path.name} is not JSON: {error}.")) from None
    if not isinstance(document, dict):
        raise InvalidInput(Problem((), f"{path.name} must hold an object, a request by the names of its fields."))
    return document


def _surface(given: argparse.Namespace) -> dict[str, Any]:
    settings = Settings(underlying=given.underlying, as_of=given.as_of, pair=given.pair)
    quotes = quotes_of_file(given.file, settings)
    if quotes.kind == "prices":
        needed = "must hold vols, but holds prices: `calibrant panel` makes vols of them."
        raise InvalidInput(Problem((), f"{given.file.name} {needed}"))
    market = {name: _said(given, quotes, name) for name in MARKET}
    if quotes.kind == "vols" and quotes.has("forward"):
        # Spot and domestic rate with the forwards say the foreign one.
        market = {name: value for name, value in market.items() if name != "foreign_rate" or value is not None}
    missing = [name for name, value in market.items() if value is None]
    if missing:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in missing)
        named = " and ".join(f"`{name}`" for name in missing)
        raise InvalidInput(Problem((), f"{given.file.name} does not say {named}: {flags} must be given."))
    if quotes.kind == "vols":
        columns = [name for name in ("log_moneyness", "strike", "forward", "iv") if quotes.has(name)]
        if "strike" in columns:
            columns = [name for name in columns if name != "log_moneyness"]
        return {"kind": "quotes", **market, "quotes": {"expiry": quotes.expiry.tolist(), **_listed(quotes, columns)}}
    pair = given.pair or quotes.underlying
    columns = [
        name for name in quotes.values if name == "atm" or name.rstrip("0123456789") in ("rr", "bf", "call", "put")
    ]
    surface = {"kind": "fx_pillars", "pair": pair, **market, "expiry": quotes.expiry.tolist()}
    if given.butterfly is not None:
        surface["butterfly"] = given.butterfly
    return {**surface, **_listed(quotes, columns)}


def _said(given: argparse.Namespace, quotes: Quotes, name: str) -> Any:
    """By its flag, else by the file: one number, or one an expiry."""
    value = getattr(given, name)
    if value is not None or not quotes.has(_IN_FILE[name]):
        return value
    column = quotes.value(_IN_FILE[name])
    known = np.unique(column[np.isfinite(column)])
    if known.size == 1:
        return float(known[0])
    if name == "spot":
        raise InvalidInput(Problem.at(("spot",), f"must be one number, but the file has {known.size} (--spot)."))
    return column.tolist()


def _listed(quotes: Quotes, names: list[str]) -> dict[str, list[float | None]]:
    return {name: [x if np.isfinite(x) else None for x in quotes.value(name).tolist()] for name in names}


def _rate(text: str) -> float | Mapping[str, list[float]]:
    """A number, or a curve from a file."""
    number = number_of(text)
    if number is not None:
        return number
    path = Path(text)
    if not path.is_file():
        raise argparse.ArgumentTypeError(f"must be a number or a CSV file of `expiry` and `zero`, but is {text!r}")
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    try:
        return {name: [float(row[name]) for row in rows] for name in ("expiry", "zero")}
    except (KeyError, TypeError, ValueError):
        raise argparse.ArgumentTypeError(f"{text} must have the columns `expiry` (years) and `zero`, numbers") from None
