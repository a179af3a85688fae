"""What the command line can do, a module a command.

arguments     what may be said: flags, and numbers by name
backfilling   `backfill`: tables of millions of panels to tables of parameters
calibrating   `calibrate`: panels or chains to parameters
panelling     `panel`: chains to panels
pricing       `price`: parameters to prices
leveraging    `leverage`: a surface to a leverage function
touching      `one-touch`: barriers to prices
surfaces      what both read: requests, and files of a market's quotes
tables        what is printed and written
"""

import argparse
from collections.abc import Sequence
from importlib.metadata import version
from typing import NoReturn

from ..errors import InvalidInput
from ..network import ArtefactError
from . import backfilling, calibrating, leveraging, panelling, pricing, touching
from .tables import refuse


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """One line, like every other complaint of this program."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def run(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0, or 2 if any input was bad."""
    parser = _Parser(prog="calibrant", description="Stochastic-volatility models calibrated to option quotes.")
    parser.add_argument("--version", action="version", version=f"%(prog)s {version('calibrant')}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (calibrating, panelling, pricing, leveraging, touching, backfilling):
        command.add_to(commands)
    given = parser.parse_args(arguments)
    try:
        code: int = given.run(given)
        return code
    except BrokenPipeError:
        raise
    except (InvalidInput, ArtefactError, ImportError, OSError) as error:
        return refuse(error)
