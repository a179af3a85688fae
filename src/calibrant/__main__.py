"""The command line: `calibrant calibrate QUOTES.csv`."""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import NoReturn

from .errors import InvalidInput
from .models import MODELS, Model
from .network import ArtefactError
from .options import CalibrationOptions
from .pipeline import Assessment, assess
from .quotes_csv import read_csv
from .release import Release, release_in_reach, require_release_of
from .report import calibration_report, notes, stages_us


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, like every other complaint of this program."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; 0, or 2 if any input was bad."""
    given = _parser().parse_args(arguments)
    model = MODELS[given.model]
    try:
        release = _release(model, given.network)
        began = perf_counter()
        panels = read_csv(given.quotes)
        reading = (perf_counter() - began) / len(panels)
    except (InvalidInput, ArtefactError, ImportError, OSError) as error:
        return _refuse(error)
    if release is None:
        print("calibrant: no network or no ONNX Runtime, starting from the shape of the surface", file=sys.stderr)
    options = CalibrationOptions(refine=given.refine)
    code = 0
    table = _Table(model.parameters, max(len(label) for label, _ in panels))
    for label, panel in panels:
        try:
            assessment = assess(panel, model, release, options)
        except InvalidInput as error:
            code = _refuse(f"{label}: {error}")
            continue
        if given.json:
            timing = stages_us(decode=reading, queue=0.0, **assessment.seconds._asdict())
            print(json.dumps(calibration_report(assessment, timing_us=timing, panel_id=label), allow_nan=False))
        else:
            table.print(label, assessment)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="calibrant", description="Stochastic-volatility models calibrated to option quotes.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    command = commands.add_parser(
        "calibrate",
        help="fit a model to the quotes of a file",
        description="Fit a model to each panel of a CSV file with the columns expiry_years, strike, forward, and "
        "mid_iv or bid_iv and ask_iv; panels are told apart by the columns underlying and as_of.",
    )
    command.add_argument("quotes", type=Path, metavar="QUOTES.csv")
    command.add_argument("--model", choices=sorted(MODELS), default="heston")
    command.add_argument(
        "--refine", choices=("lm", "lbfgs", "none"), default="lm", help="none gives the network's answer (default: lm)"
    )
    command.add_argument("--json", action="store_true", help="one line per panel, as the service answers")
    command.add_argument("--network", type=Path, metavar="FOLDER", help="a released version, such as networks/heston/1")
    return parser


def _release(model: Model, folder: Path | None) -> Release | None:
    """The version asked for, else the newest released one if it is in reach and can be run, else None."""
    if folder is not None:
        return require_release_of(model, Release.load(folder))
    return release_in_reach(model)


def _refuse(error: object) -> int:
    more = len(error.problems) - 1 if isinstance(error, InvalidInput) else 0
    print(f"calibrant: {error}{f' (and {more} more)' if more else ''}", file=sys.stderr)
    return 2


class _Table:
    """A row of results per panel, the standard errors below it, and what should be known about it."""

    def __init__(self, parameters: Sequence[str], width: int) -> None:
        self.parameters = parameters
        self.width = max(width, len("panel"))
        self.begun = False

    def print(self, label: str, assessment: Assessment) -> None:
        if not self.begun:
            names = "".join(f"{name:>10}" for name in self.parameters)
            print(f"{'panel':{self.width}}{names}{'rmse_bp':>10}{'max_bp':>10}{'quotes':>12}  status")
            self.begun = True
        fit = assessment.calibration
        values = "".join(f"{value:>10.5g}" for value in fit.parameters)
        errors = "".join(f"{'':>10}" if error != error else f"{error:>10.2g}" for error in fit.standard_errors)
        used = f"{fit.n_quotes}/{fit.n_quotes + len(fit.excluded)}"
        print(f"{label:{self.width}}{values}{fit.rmse_bp:>10.2f}{fit.max_abs_bp:>10.2f}{used:>12}  {fit.status}")
        print(f"{'+-':>{self.width}}{errors}")
        for note in notes(assessment):
            print(f"  {note}")


if __name__ == "__main__":
    sys.exit(main())
