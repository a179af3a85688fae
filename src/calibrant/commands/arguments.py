"""What may be said on the command line: settings of quotes as flags, numbers by the names of parameters."""

import argparse
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from ..by_name import bounds_of, held_of, prior_of
from ..errors import shown
from ..intake import Settings, settings_of
from ..intake.settings import CHOICES, NUMBERS
from ..models import MODELS, Model
from ..options import CalibrationOptions

_OF_LISTS = ("holidays",)
_OF_PAIRS = ("columns", "convention")
_HELP = {
    "as_of": "date, or date and time, of the quotes: 2025-11-28",
    "underlying": "which panel, where a file has several",
    "expiration": "of all quotes, where no column says it",
    "forward": "of all quotes, which are then of one expiry",
    "rate": "continuously compounded, per year",
    "dividend_yield": "continuous, per year",
    "exercise": "of prices; american needs --spot and --rate",
    "day_count": "default: act/365",
    "holidays": "that business/252 does not count: 2025-12-25,2026-01-01",
    "settlement": "exchange: at the open for index options of the third Friday (default: close)",
    "time_zone": "of settlement, and of times without one (default: America/New_York)",
    "strike_unit": "one of a strike in the unit of the prices: 0.01 for cents",
    "price_unit": "underlying: quoted in coin",
    "date_order": "of dates such as 03/04/2026",
    "decimal": "what parts whole numbers from decimals",
    "columns": "the column of a field: strike=X,bid=Y",
    "use": "of a file that has both",
    "sheet": "of a workbook",
    "pair": "of vols by delta: EURUSD",
    "convention": "of vols by delta: premium_adjusted=false,delta=forward,atm=forward",
    "foreign_rate": "by which spot deltas are discounted",
}


def flag_of(name: str) -> str:
    """The flag that answers a question about a setting."""
    return "--" + name.replace("_", "-")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The model, and what may be asked of its fit to any panel."""
    parser.add_argument("--model", choices=sorted(MODELS), default="heston")
    parser.add_argument(
        "--refine", choices=("lm", "lbfgs", "none"), default="lm", help="none gives the network's answer (default: lm)"
    )
    parser.add_argument("--loss", choices=("squared", "huber"), default="squared")
    parser.add_argument("--fixed", type=numbers_by_name, metavar="kappa=2,...", help="parameters held at a value")
    parser.add_argument("--bounds", type=bounds_by_name, metavar="kappa=0.1:20,...", help="of any of the parameters")
    parser.add_argument(
        "--prior",
        type=prior_by_name,
        metavar="kappa=2:0.5,...",
        help="means and standard deviations of any of the parameters; noise_bp=8 is that of a quote",
    )
    parser.add_argument("--network", type=Path, metavar="FOLDER", help="a released version, such as networks/heston/1")


def options_in(model: Model, given: argparse.Namespace) -> CalibrationOptions:
    """raises  InvalidInput naming the flag and the parameter"""
    return CalibrationOptions(
        refine=given.refine,
        loss=given.loss,
        bounds=None if given.bounds is None else bounds_of(model, given.bounds, ("--bounds",)),
        fixed=None if given.fixed is None else held_of(model, given.fixed, ("--fixed",)),
        prior=None if given.prior is None else prior_of(model, given.prior, ("--prior",)),
    )


def add_settings(parser: argparse.ArgumentParser) -> None:
    """The settings of `calibrant.intake.Settings`, a flag each."""
    group = parser.add_argument_group("what the quotes leave open")
    for each in fields(Settings):
        name = each.name
        kind: dict[str, Any] = {"metavar": name.split("_")[-1].upper()}
        if name in CHOICES:
            kind = {"choices": CHOICES[name]}
        elif name in NUMBERS:
            kind["type"] = float
        elif name in _OF_LISTS:
            kind["type"] = _listed
        elif name in _OF_PAIRS:
            kind |= {"type": _paired, "metavar": "NAME=VALUE,..."}
        group.add_argument(flag_of(name), default=None, help=_HELP.get(name), **kind)


def settings_in(given: argparse.Namespace) -> Settings:
    """raises  InvalidInput"""
    return settings_of({each.name: getattr(given, each.name) for each in fields(Settings)})


def numbers_by_name(text: str) -> dict[str, float]:
    """`kappa=2,rho=-0.7`"""
    return {name: _number(value, name) for name, value in _pairs(text).items()}


def bounds_by_name(text: str) -> dict[str, tuple[float, float]]:
    """`kappa=0.1:20,rho=-0.9:0`"""
    return {name: _two(value, name, "bounds such as 0.1:20") for name, value in _pairs(text).items()}


def prior_by_name(text: str) -> dict[str, Any]:
    """`kappa=2:0.5,rho=-0.7:0.1,noise_bp=8`: means with their standard deviations."""
    pairs = _pairs(text)
    prior: dict[str, Any] = {}
    if "noise_bp" in pairs:
        prior["noise_bp"] = _number(pairs.pop("noise_bp"), "noise_bp")
    both = {name: _two(value, name, "mean and standard deviation such as 2:0.5") for name, value in pairs.items()}
    prior["parameters"] = {name: mean for name, (mean, _) in both.items()}
    prior["standard_deviations"] = {name: deviation for name, (_, deviation) in both.items()}
    return prior


def list_of_numbers(text: str) -> list[float]:
    """`0.1,0.5,1`"""
    return [_number(each, "a list") for each in text.split(",") if each.strip()]


def _listed(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


def _paired(text: str) -> Mapping[str, Any]:
    if "=" not in text:
        raise argparse.ArgumentTypeError(f"must be NAME=VALUE,..., but is {shown(text)!r}")
    return {name: _value(value) for name, value in _pairs(text).items()}


def _value(text: str) -> Any:
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    try:
        return float(text)
    except ValueError:
        return text


def _pairs(text: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for each in text.split(","):
        name, equals, value = (part.strip() for part in each.partition("="))
        if not (name and equals and value):
            raise argparse.ArgumentTypeError(f"must be NAME=VALUE,..., but holds {shown(each)!r}")
        found[name] = value
    return found


def _number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{name} must be a number, but is {shown(text)!r}") from None


def _two(text: str, name: str, needed: str) -> tuple[float, float]:
    first, colon, second = text.partition(":")
    if not colon:
        raise argparse.ArgumentTypeError(f"{name} must be {needed}, but is {shown(text)!r}")
    return _number(first, name), _number(second, name)
