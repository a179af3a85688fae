"""What may be said about quotes beside the quotes: it settles what the file leaves open.

Every field is one of the body of `POST /v1/panel` and, with dashes, a flag of the command line, so that a question
asked about a field names what answers it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, get_args

from ..errors import InvalidInput, Problem, shown

Exercise = Literal["european", "american"]
DayCount = Literal["act/365", "business/252"]
Settlement = Literal["close", "open", "exchange"]
ExpiryUnit = Literal["years", "days"]
VolUnit = Literal["decimal", "percent"]
PriceUnit = Literal["currency", "underlying"]
DateOrder = Literal["dmy", "mdy"]
Decimal = Literal["point", "comma"]
Use = Literal["prices", "vols"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """None leaves it to the file."""

    as_of: str | None = None
    """Date, or date and time, of the quotes."""
    underlying: str | None = None
    """Which panel, where there are several; the name of the panel, where there is none."""
    expiration: str | None = None
    """Of all quotes: a date or years, where no column says it."""
    spot: float | None = None
    forward: float | None = None
    """Of all quotes, which are then of one expiry."""
    rate: float | None = None
    """Continuously compounded, per year."""
    dividend_yield: float | None = None
    """Continuous, per year."""
    exercise: Exercise | None = None
    day_count: DayCount = "act/365"
    holidays: Sequence[str] = ()
    """That `business/252` does not count, beside weekends."""
    settlement: Settlement = "close"
    """At the close, the open, or as the exchange has it: index options of the third Friday at the open."""
    time_zone: str | None = None
    """Of times of day without one, and of settlement; by default that of New York."""
    expiry_unit: ExpiryUnit | None = None
    vol_unit: VolUnit | None = None
    strike_unit: float | None = None
    """What one of the column `strike` is in the unit of the prices: 0.01 for cents."""
    price_unit: PriceUnit | None = None
    date_order: DateOrder | None = None
    """Of dates such as 03/04/2026."""
    decimal: Decimal | None = None
    """What 1,234 means."""
    columns: Mapping[str, str] | None = None
    """The column of a field, where its name does not tell: `{"strike": "X"}`."""
    use: Use | None = None
    """Of a file that has both."""
    sheet: str | None = None
    """Of a workbook."""
    pair: str | None = None
    """Of delta quotes: EURUSD."""
    convention: Mapping[str, Any] | str | None = None
    """Of delta quotes: what the market's own for the pair does not say, or is not."""
    domestic_rate: float | None = None
    foreign_rate: float | None = None


NAMES = tuple(field.name for field in fields(Settings))
_CHOICES = {
    "exercise": get_args(Exercise),
    "day_count": get_args(DayCount),
    "settlement": get_args(Settlement),
    "expiry_unit": get_args(ExpiryUnit),
    "vol_unit": get_args(VolUnit),
    "price_unit": get_args(PriceUnit),
    "date_order": get_args(DateOrder),
    "decimal": get_args(Decimal),
    "use": get_args(Use),
}
CHOICES: Mapping[str, tuple[str, ...]] = _CHOICES
NUMBERS = ("spot", "forward", "rate", "dividend_yield", "strike_unit", "domestic_rate", "foreign_rate")
RATES = ("rate", "dividend_yield", "domestic_rate", "foreign_rate")
LARGEST_RATE = 1.0
"""What is as large or larger is percent."""
_LARGEST = 1e15
_POSITIVE = ("spot", "forward", "strike_unit")


def question(field: str, needed: str) -> InvalidInput:
    """What has to be known, under the field that answers it: `question("rate", "must be given, since ...")`."""
    return InvalidInput(Problem.at((field,), needed))


def settings_of(given: Mapping[str, Any]) -> Settings:
    """Settings by name, None as absent.

    raises  InvalidInput with every value that is not of its kind
    """
    problems = []
    values: dict[str, Any] = {}
    for name, value in given.items():
        if value is None:
            continue
        if name not in NAMES:
            problems.append(Problem.at((name,), "is not a setting of quotes."))
        elif name in _CHOICES and value not in _CHOICES[name]:
            listed = " or ".join(_CHOICES[name])
            problems.append(Problem.at((name,), f"must be {listed}, but is {shown(value)!r}."))
        elif name in NUMBERS and not _is_number(value, least=0.0 if name in _POSITIVE else None):
            more = " > 0" if name in _POSITIVE else ""
            problems.append(Problem.at((name,), f"must be a finite number{more}, but is {shown(value)!r}."))
        elif name in RATES and abs(value) >= LARGEST_RATE:
            problems.append(Problem.at((name,), f"must be a decimal (0.04 for 4 %), but is {value:g}."))
        else:
            values[name] = float(value) if name in NUMBERS else value
    if problems:
        raise InvalidInput(*problems)
    return Settings(**values)


def _is_number(value: object, least: float | None) -> bool:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= _LARGEST and (least is None or value > least)
