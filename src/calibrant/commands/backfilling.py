"""`calibrant backfill PANELS`."""

import argparse
import os
import sys
from pathlib import Path
from time import monotonic
from typing import Any

from ..errors import InvalidInput, Problem
from ..models import MODELS
from .arguments import add_options, options_in
from .tables import refuse

_REASONS = 5
"""Reasons for setting panels aside that are told at the end; all are in the parts."""
_EVERY = 30.0
"""Seconds between lines of progress where they are kept."""


def add_to(commands: "argparse._SubParsersAction[Any]") -> None:
    command = commands.add_parser(
        "backfill",
        help="fit a model to millions of panels",
        description="Fit a model to every panel of a table of quotes: a Parquet file or a folder of them, with the "
        "columns underlying, as_of, panel (optional), and those of POST /v1/calibrate. The parameters are a folder of "
        "Parquet files, one for each underlying's block of dates. Killed, the same command goes on.",
    )
    command.set_defaults(run=run)
    command.add_argument("quotes", type=Path, metavar="PANELS")
    command.add_argument("--out", type=Path, required=True, metavar="PARAMETERS", help="folder of the results")
    add_options(command)
    command.add_argument(
        "--block", choices=("day", "month", "year"), default="month", help="dates done at once (default: month)"
    )
    command.add_argument("--cold", action="store_true", help="no panel starts from the answer before it")
    command.add_argument("--ray", metavar="ADDRESS", help="of a Ray cluster, or local to start one")
    command.add_argument(
        "--workers", type=int, default=os.cpu_count() or 1, help="of --ray local (default: one a core)"
    )


def run(given: argparse.Namespace) -> int:
    """raises  InvalidInput, ArtefactError, ImportError, OSError for what is wrong with all panels"""
    try:
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ImportError("calibrant backfill needs pyarrow: pip install 'calibrant[arrow]'.") from error
    from ..backfill.driving import UnitsLost, backfill
    from ..backfill.settings import Settings

    if given.workers < 1:
        raise InvalidInput(Problem(("workers",), f"`--workers` must be at least 1, but is {given.workers}."))
    settings = Settings(
        model=given.model,
        options=options_in(MODELS[given.model], given),
        block=given.block,
        warm=not given.cold,
        network=None if given.network is None else given.network.absolute(),
    )
    lines = _Lines()
    try:
        end = backfill(
            given.quotes,
            given.out,
            settings,
            ray_address=given.ray,
            workers=given.workers,
            say=lines.say,
            show=lines.show,
        )
    except UnitsLost as error:
        return refuse(error)
    lines.say(f"{end.n_panels:,} panels in {end.seconds:.0f} s, {end.set_aside.total():,} of them set aside")
    for reason, n in end.set_aside.most_common(_REASONS):
        lines.say(f"  {n:,}: {reason}")
    return 0


class _Lines:
    """Progress on standard error: a line that changes where somebody watches, else one every half a minute."""

    def __init__(self) -> None:
        self._watched = sys.stderr.isatty()
        self._last = monotonic()

    def say(self, text: str) -> None:
        print(f"{self._cleared()}calibrant: {text}", file=sys.stderr, flush=True)

    def show(self, state: Any) -> None:
        now = monotonic()
        if now - self._last < (1.0 if self._watched else _EVERY) and state.n_units_done < state.n_units:
            return
        self._last = now
        left = state.seconds / state.n_quotes_done * (state.n_quotes - state.n_quotes_done)
        rate = state.n_panels / max(state.seconds, 1e-9)
        done = f"{state.n_units_done:,}/{state.n_units:,} units, {state.n_panels:,} panels, {rate:.0f}/s"
        text = f"{done}, {state.set_aside.total():,} set aside, {left:.0f} s left"
        print(f"{self._cleared()}{text}", end="" if self._watched else "\n", file=sys.stderr, flush=True)

    def _cleared(self) -> str:
        return "\r\x1b[K" if self._watched else ""
