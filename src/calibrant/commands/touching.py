"""`calibrant one-touch`."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..errors import InvalidInput, Problem
from ..slv.leverage_file import read_leverage
from ..slv.requests import touch_work
from ..slv.requests_by_name import KeptLeverage, NamedTouches, touches_named
from .surfaces import MARKET, add_surface, request_of, settings_of
from .tables import Bar

_BARRIER = ("level", "levels", "direction", "expiry", "paid", "kind", "payout")


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    command = commands.add_parser(
        "one-touch",
        help="price one-touches and no-touches",
        description="Price a barrier, or those of a request in JSON, under Black-Scholes, local, stochastic or "
        "stochastic local volatility: calibrated to the quotes of FILE, or to what `calibrant leverage --out` wrote.",
    )
    command.set_defaults(run=run)
    add_surface(command)
    command.add_argument("--leverage", type=Path, metavar="LEVERAGE.parquet", help="in place of FILE")
    barrier = command.add_argument_group("the barrier")
    barrier.add_argument("--level", type=float, metavar="SPOT")
    barrier.add_argument("--levels", type=float, nargs=2, metavar=("LOW", "HIGH"), help="of a double no-touch")
    barrier.add_argument("--direction", choices=("up", "down"))
    barrier.add_argument("--expiry", type=float, metavar="YEARS")
    barrier.add_argument("--paid", choices=("at_expiry", "at_hit"))
    barrier.add_argument("--kind", choices=("one_touch", "no_touch"))
    barrier.add_argument("--payout", choices=("domestic", "foreign"))
    command.add_argument("--model", choices=("bs", "lv", "heston", "slv"), help="default: slv")
    command.add_argument("--greeks", action="store_true", default=None, help="delta and gamma by the same paths")
    command.add_argument("--json", action="store_true", help="one line, as `POST /v1/one-touch` answers")


def run(given: argparse.Namespace) -> int:
    """raises  InvalidInput, ImportError, OSError"""
    named = _named(given)
    answer = Bar("one-touch").driven(touch_work(named.request))
    warnings = () if named.surface is None else named.surface.warnings
    if given.json:
        surface = None if named.surface is None else named.surface.document()
        about = {"surface": surface, "warnings": [each.document() for each in warnings]}
        print(json.dumps({**answer.to_dict(), **about}, allow_nan=False))
    else:
        greeks = f"{'delta':>12}{'gamma':>12}" if named.request.greeks else ""
        print(f"{'expiry':>9}{'level':>22}{'kind':>11}{'price':>11}{'+-':>9}{'tv':>11}{greeks}")
        for barrier, price in zip(named.request.barriers, answer.prices, strict=True):
            level = (
                f"{barrier.level:.6g} {barrier.direction}"
                if barrier.levels is None
                else "{:.6g} {:.6g}".format(*barrier.levels)
            )
            more = "" if price.delta is None else f"{price.delta:>12.5g}{price.gamma:>12.5g}"
            print(
                f"{barrier.expiry:>9.4f}{level:>22}{barrier.kind:>11}{price.price:>11.6f}{price.se:>9.1g}{price.tv:>11.6f}{more}"
            )
    for caution in warnings:
        print(f"calibrant: {caution.code}: {caution.detail}", file=sys.stderr)
    return 0


def _named(given: argparse.Namespace) -> NamedTouches:
    said = {name: getattr(given, name) for name in _BARRIER if getattr(given, name) is not None}
    more: dict[str, Any] = {"barriers": [said]} if said else {}
    more |= {name: value for name in ("model", "greeks") if (value := getattr(given, name)) is not None}
    if given.leverage is None:
        return touches_named({**request_of(given), **more})
    if given.file is not None or any(getattr(given, name) is not None for name in MARKET):
        needed = "must be left out beside --leverage, which has its own surface."
        raise InvalidInput(Problem((), f"FILE, --spot, --domestic-rate and --foreign-rate {needed}"))
    kept: KeptLeverage = read_leverage(given.leverage)
    return touches_named({"leverage": given.leverage.name, **settings_of(given), **more}, lambda _: kept)
