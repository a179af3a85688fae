"""`calibrant leverage FILE`."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..errors import InvalidInput, Problem
from ..slv.leverage_file import write_leverage
from ..slv.requests import CalibratedLeverage, leverage_work
from ..slv.requests_by_name import NamedLeverage, leverage_named
from .surfaces import add_surface, request_of
from .tables import Bar


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    command = commands.add_parser(
        "leverage",
        help="calibrate the leverage function of a stochastic local volatility model",
        description="Fit a surface and Heston to quotes, calibrate the leverage by particles and price the vanillas "
        "under it. Prints how well they are met; --out keeps the leverage, a row a node.",
    )
    command.set_defaults(run=run)
    add_surface(command)
    command.add_argument("--out", type=Path, metavar="LEVERAGE.parquet", help="for `calibrant one-touch` and others")
    command.add_argument("--json", action="store_true", help="one line, as `POST /v1/leverage` answers")


def run(given: argparse.Namespace) -> int:
    """raises  InvalidInput, ImportError, OSError"""
    if given.out is not None and given.out.suffix != ".parquet":
        raise InvalidInput(Problem(("out",), f"`--out` must end in .parquet, but is {given.out.name!r}."))
    request = request_of(given)
    named = leverage_named(request)
    calibrated = Bar("leverage").driven(leverage_work(named.request))
    if given.out is not None:
        write_leverage(given.out, calibrated, request)
    cautions = (*named.surface.warnings, *calibrated.cautions)
    if given.json:
        about = {"surface": named.surface.document(), "warnings": [each.document() for each in cautions]}
        print(json.dumps({**calibrated.to_dict(), **about}, allow_nan=False))
    else:
        _print(calibrated, named)
    for caution in cautions:
        print(f"calibrant: {caution.code}: {caution.detail}", file=sys.stderr)
    return 0


def _print(calibrated: CalibratedLeverage, named: NamedLeverage) -> None:
    fitted, repriced = named.surface.fitted, calibrated.repriced
    if fitted is not None:
        off = f"{fitted.rmse_bp:.2f} bp rms and {fitted.max_abs_bp:.2f} bp at most off the quotes"
        print(f"surface: {fitted.method}, {off}")
    heston = calibrated.fit.heston
    fit = "" if calibrated.fit.rmse_bp is None else f", fitted within {calibrated.fit.rmse_bp:.1f} bp rms"
    print(
        f"heston: kappa {heston.kappa:.5g}, theta {heston.theta:.5g}, xi {heston.xi:.5g}, rho {heston.rho:.5g}, "
        f"v0 {heston.v0:.5g}, mixing {calibrated.mixing:.4g}{fit}"
    )
    leverage = calibrated.leverage
    print(
        f"leverage: {leverage.value.shape[0]} dates by {leverage.value.shape[1]} spots, {calibrated.n_clipped} of "
        f"{leverage.value.size} local vols clipped, {1e-3 * calibrated.timing_ms['total']:.2f} s"
    )
    if repriced is None:
        return
    print(f"{'expiry':>9}{'strike':>12}{'target_iv':>11}{'model_iv':>10}{'error_bp':>10}{'+-':>7}")
    for row in zip(*(column.tolist() for column in repriced.columns().values()), strict=True):
        expiry, strike, target, model, error, se = row
        print(f"{expiry:>9.4f}{strike:>12.6g}{target:>11.5f}{model:>10.5f}{error:>10.2f}{se:>7.2f}")
