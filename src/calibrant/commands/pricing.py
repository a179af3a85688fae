"""`calibrant price`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..api import price
from ..errors import InvalidInput, Problem
from ..models import MODELS
from ..report import numbers
from .arguments import list_of_numbers, numbers_by_name
from .tables import require_format, write_rows


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    command = commands.add_parser(
        "price",
        help="price options with given parameters",
        description="Calls, puts and implied vols, undiscounted and in units of the forward, at each of the expiries "
        "for each of the strikes.",
    )
    command.set_defaults(run=run)
    command.add_argument("--model", choices=sorted(MODELS), help="default: that of the answer read, else heston")
    command.add_argument(
        "--parameters",
        required=True,
        metavar="kappa=2,...",
        help="all of them; or a file with an answer of `calibrate --json`, - for standard input",
    )
    command.add_argument("--expiry", type=list_of_numbers, required=True, metavar="YEARS,...")
    command.add_argument("--log-moneyness", type=list_of_numbers, metavar="K,...", help="log(strike / forward)")
    command.add_argument("--strike", type=list_of_numbers, metavar="STRIKE,...", help="with --forward")
    command.add_argument("--forward", type=list_of_numbers, metavar="FORWARD,...", help="one, or one for each expiry")
    command.add_argument("--gradient", action="store_true", help="of the call, by each parameter")
    command.add_argument("--json", action="store_true", help="as the service answers")
    command.add_argument("--out", type=Path, metavar="FILE", help="write a row per option: .csv, .json or .parquet")


def run(given: argparse.Namespace) -> int:
    """raises  InvalidInput, OSError"""
    require_format(given.out)
    model, parameters = _parameters(given)
    expiry = np.array(given.expiry)
    forward = None
    if given.forward is not None:
        if len(given.forward) not in (1, expiry.size):
            needed = f"must be one, or one for each of the {expiry.size} expiries, but are {len(given.forward)}."
            raise InvalidInput(Problem(("forward",), f"`--forward` {needed}"))
        forward = np.broadcast_to(np.array(given.forward), expiry.shape)[:, np.newaxis]
    prices = price(
        model,
        parameters,
        expiry[:, np.newaxis],
        None if given.log_moneyness is None else np.array(given.log_moneyness)[np.newaxis, :],
        strike=None if given.strike is None else np.array(given.strike)[np.newaxis, :],
        forward=forward,
        gradient=given.gradient,
    )
    across = given.log_moneyness if given.log_moneyness is not None else given.strike
    called = "log_moneyness" if given.log_moneyness is not None else "strike"
    columns: dict[str, Sequence[float | None]] = {
        "expiry": np.repeat(expiry, len(across)).tolist(),
        called: np.tile(np.array(across), expiry.size).tolist(),
        "call": prices.call.reshape(-1).tolist(),
        "put": prices.put.reshape(-1).tolist(),
        "implied_vol": numbers(prices.implied_vol.reshape(-1)),
    }
    gradient: dict[str, Sequence[float | None]]
    gradient = {name: values.reshape(-1).tolist() for name, values in (prices.gradient or {}).items()}
    if given.out is not None:
        named = {**columns, **{f"d_call_d_{name}": values for name, values in gradient.items()}}
        write_rows(given.out, [dict(zip(named, row, strict=True)) for row in zip(*named.values(), strict=True)])
    if given.json:
        print(json.dumps({"model": model, **columns, **({"gradient": gradient} if gradient else {})}, allow_nan=False))
    elif given.out is None:
        _print({**columns, **gradient})
    return 0


def _parameters(given: argparse.Namespace) -> tuple[str, dict[str, float]]:
    """The model's name, and its parameters as given or as an answer has them."""
    text: str = given.parameters
    if "=" in text:
        try:
            return given.model or "heston", numbers_by_name(text)
        except argparse.ArgumentTypeError as error:
            raise InvalidInput(Problem(("parameters",), f"`--parameters` {error}.")) from None
    content = sys.stdin.readline() if text == "-" else Path(text).read_text(encoding="utf-8").partition("\n")[0]
    try:
        answer = json.loads(content)
        return given.model or str(answer["model"]), dict(answer["parameters"])
    except (ValueError, KeyError, TypeError):
        needed = "must be numbers by name, or a file whose first line is an answer of `calibrant calibrate --json`."
        raise InvalidInput(Problem(("parameters",), f"`--parameters` {needed}")) from None


def _print(columns: dict[str, Sequence[float | None]]) -> None:
    print("".join(f"{name:>14}" for name in columns))
    for row in zip(*columns.values(), strict=True):
        print("".join(f"{'' if value is None else format(value, '.8g'):>14}" for value in row))
