"""`calibrant panel CHAIN`."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from ..caution import Caution
from ..errors import InvalidInput
from ..intake import Built, Expiry, outcomes_of_files
from ..quote_cautions import tallied
from ..quotes_csv import write_csv
from .arguments import add_settings, settings_in
from .tables import refuse


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    command = commands.add_parser(
        "panel",
        help="make panels of chains of prices, or of vols by delta",
        description="Make a panel of each chain in files: per expiry the forward and the discount by put-call parity, "
        "and the vols of bid, mid and ask. CSV, TSV, Excel, Parquet or JSON, - for standard input. The panels are "
        "written as CSV, which `calibrant calibrate` reads; how they were made is said on standard error.",
    )
    command.set_defaults(run=run)
    command.add_argument("chains", type=Path, nargs="+", metavar="CHAIN")
    command.add_argument("--out", type=Path, metavar="PANEL.csv", help="default: standard output")
    command.add_argument("--json", action="store_true", help="one line per panel, as `POST /v1/panel` answers")
    command.add_argument("--quiet", action="store_true", help="say nothing of how they were made")
    add_settings(command)


def run(given: argparse.Namespace) -> int:
    """raises  InvalidInput, ImportError, OSError for what is wrong with all panels"""
    made: list[Built] = []
    code = 0
    for label, built in outcomes_of_files(given.chains, settings_in(given)):
        try:
            if isinstance(built, InvalidInput):
                raise built
            cautions, excluded = built.panel().cautions, built.panel().excluded
        except InvalidInput as error:
            code = refuse(error)
            continue
        made.append(built)
        if not given.quiet and not given.json:
            _tell(label, built, cautions, [exclusion.reason for exclusion in excluded])
    if not made:
        return code
    if given.out is None:
        _write(made, sys.stdout, given.json)
    else:
        with given.out.open("w", encoding="utf-8", newline="") as file:
            _write(made, file, given.json)
    return code


def _write(made: list[Built], file: Any, as_json: bool) -> None:
    if as_json:
        file.writelines(json.dumps(built.document(), allow_nan=False) + "\n" for built in made)
    else:
        write_csv(made, file)


def _tell(label: str, built: Built, cautions: tuple[Caution, ...], reasons: list[str]) -> None:
    """How a panel was made."""
    lines = [f"{label}: {built.index.size} quotes"]
    if built.expiries:
        lines.append(
            f"  {'expiry':>19}{'years':>10}{'forward':>13}{'+-':>9}{'discount':>11}{'+-':>9}{'pairs':>9}  from"
        )
    lines += [_of_expiry(expiry) for expiry in built.expiries]
    if reasons:
        lines.append(f"  Left out: {tallied(reasons)}.")
    lines += [f"  {caution.code}: {caution.detail}" for caution in cautions]
    print("\n".join(lines), file=sys.stderr)


def _of_expiry(expiry: Expiry) -> str:
    def shown(value: float | None, form: str, width: int) -> str:
        return f"{'' if value is None else format(value, form):>{width}}"

    pairs = f"{expiry.n_pairs}" + (f"-{expiry.n_pairs_rejected}" if expiry.n_pairs_rejected else "")
    line = (
        f"  {expiry.expiration:>19}{expiry.expiry:>10.5f}{expiry.forward:>13.7g}{shown(expiry.forward_error, '.2g', 9)}"
        f"{shown(expiry.discount, '.6f', 11)}{shown(expiry.discount_error, '.1g', 9)}{pairs:>9}  {expiry.forward_from}"
    )
    early = expiry.early_exercise
    if early is None:
        return line
    return (
        f"{line}\n{'':21}early exercise: {early.median_bp:.1f} bp of vol at the median, {early.max_bp:.1f} at most, "
        f"{early.forward_bp:+.1f} bp of the forward; dividend yield {100.0 * early.dividend_yield:.2f} %"
    )
