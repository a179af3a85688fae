"""Dates and times as people write them."""

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from typing import NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from .settings import DateOrder, question
from .table import Cell


class Moment(NamedTuple):
    """A day, and the time of day where it is told."""

    day: date
    clock: time | None = None
    """With its zone, where that is told too."""

    def __str__(self) -> str:
        if self.clock is None:
            return self.day.isoformat()
        return datetime.combine(self.day, self.clock).isoformat()

    def at(self, clock: time, zone: tzinfo) -> datetime:
        """As an instant; `clock` and `zone` hold where it says neither."""
        moment = datetime.combine(self.day, self.clock or clock)
        return moment if moment.tzinfo is not None else moment.replace(tzinfo=zone)


_MONTHS = {
    "jan": 1,
    "feb": 2,
    "mar": 3,
    "mär": 3,
    "mrz": 3,
    "apr": 4,
    "may": 5,
    "mai": 5,
    "jun": 6,
    "jul": 7,
    "aug": 8,
    "sep": 9,
    "oct": 10,
    "okt": 10,
    "nov": 11,
    "dec": 12,
    "dez": 12,
}
_ZONES = {
    "Z": UTC,
    "UTC": UTC,
    "GMT": UTC,
    **{name: timezone(timedelta(hours=h)) for name, h in (("EST", -5), ("EDT", -4), ("CST", -6), ("CDT", -5))},
    **{name: timezone(timedelta(hours=h)) for name, h in (("CET", 1), ("CEST", 2), ("BST", 1))},
}
_CLOCK = re.compile(
    r"(?:T|\s+(?:at\s+)?|(?<=\d)\s*)(?P<hour>\d{1,2}):(?P<minute>\d\d)(?::(?P<second>\d\d)(?:[.,](?P<part>\d+))?)?"
    r"\s*(?P<half>[ap]m)?\s*(?P<zone>Z|[+-]\d\d(?::?\d\d)?|[A-Z]{2,4})?$",
    re.IGNORECASE,
)
_YEAR_FIRST = re.compile(r"(\d{4})[-/.](\d{1,2})[-/.](\d{1,2})")
_DOTS = re.compile(r"(\d{1,2})\.(\d{1,2})\.(\d{4}|\d\d)")
_EITHER = re.compile(r"(\d{1,2})[-/](\d{1,2})[-/](\d{4}|\d\d)")
_DAY_MONTH = re.compile(r"(\d{1,2})(?:st|nd|rd|th)?[-. /]*([^\W\d_]{3,9})\.?[-., /']*(\d{4}|\d\d)")
_MONTH_DAY = re.compile(r"([^\W\d_]{3,9})\.?[- ]*(\d{1,2})(?:st|nd|rd|th)?,?[- ]+(\d{4})")
_WEEKDAY = re.compile(r"^(?:mon|tue|wed|thu|fri|sat|sun)[a-z]*\.?,?\s+", re.IGNORECASE)
_TENOR = re.compile(r"(?:\d+\s*(?:BD|D|W|M|Y)){1,3}", re.IGNORECASE)
_NEXT_DAY = {"ON": 1 / 365, "O/N": 1 / 365, "TN": 2 / 365, "T/N": 2 / 365, "SN": 3 / 365, "S/N": 3 / 365, "SW": 7 / 365}
_PER_YEAR = {"D": 365.0, "W": 365.0 / 7.0, "M": 12.0, "Y": 1.0}


def order_of(columns: Mapping[str, Iterable[Cell]], said: DateOrder | None) -> dict[str, DateOrder]:
    """The order of day and month in each column of dates; what one column tells holds for those that do not.

    raises  InvalidInput, asking for `date_order`, if no column tells
    """
    found: dict[str, DateOrder] = {}
    doubtful: dict[str, str] = {}
    for name, cells in columns.items():
        for cell in cells:
            either = isinstance(cell, str) and _EITHER.match(_WEEKDAY.sub("", cell))
            if not either:
                continue
            first, second = int(either[1]), int(either[2])
            if first > 12 or second > 12:
                found[name] = "dmy" if first > 12 else "mdy"
                break
            if first != second:
                doubtful[name] = either[0]
    open_ones = [name for name in doubtful if name not in found]
    told = said or (next(iter(found.values())) if len(set(found.values())) == 1 else None)
    if open_ones and told is None:
        name = open_ones[0]
        needed = f"must be dmy or mdy, since nothing in the column `{name}` tells which day {doubtful[name]} is"
        raise question("date_order", f"{needed}.")
    return {name: found.get(name, told or "mdy") for name in columns}


def moment_of(cell: Cell, order: DateOrder = "mdy") -> Moment | None:
    """A cell as a day, or a day with a time; None if it is something else.

    Midnight is no time of day: it is how programs write a date.
    """
    if isinstance(cell, datetime):
        return Moment(cell.date(), _clock(cell.timetz()))
    if isinstance(cell, date):
        return Moment(cell)
    if isinstance(cell, int | float):
        return _of_number(float(cell))
    if cell is None:
        return None
    text = cell.strip()
    if re.fullmatch(r"\d+(\.0+)?", text):
        return _of_number(float(text))
    clock, found = None, _CLOCK.search(text)
    if found:
        clock = _read_clock(found)
        if clock is None:
            return None
        text = text[: found.start()]
        clock = _clock(clock)
    text = _WEEKDAY.sub("", text.strip().rstrip(","))
    try:
        day = _day(text, order)
    except ValueError:
        return None
    return None if day is None else Moment(day, clock)


def _clock(clock: time) -> time | None:
    return None if clock.replace(tzinfo=None) == time() else clock


def _read_clock(found: re.Match[str]) -> time | None:
    hour, zone = int(found["hour"]), found["zone"]
    if found["half"]:
        hour = hour % 12 + (12 if found["half"].lower() == "pm" else 0)
    micro = int((found["part"] or "0")[:6].ljust(6, "0"))
    try:
        return time(hour, int(found["minute"]), int(found["second"] or 0), micro, tzinfo=_zone(zone))
    except ValueError:
        return None


def _zone(text: str | None) -> tzinfo | None:
    if not text:
        return None
    if text[0] in "+-":
        minutes = 60 * int(text[1:3]) + int(text[3:].lstrip(":") or 0)
        return timezone(timedelta(minutes=-minutes if text[0] == "-" else minutes))
    if text.upper() == "ET":
        return zone_named("America/New_York")
    return _ZONES.get(text.upper())


def _day(text: str, order: DateOrder) -> date | None:
    if found := _YEAR_FIRST.fullmatch(text):
        return date(int(found[1]), int(found[2]), int(found[3]))
    if re.fullmatch(r"\d{8}", text):
        return date(int(text[:4]), int(text[4:6]), int(text[6:]))
    if found := _DOTS.fullmatch(text):
        return date(_year(found[3]), int(found[2]), int(found[1]))
    if found := _EITHER.fullmatch(text):
        day, month = (found[1], found[2]) if order == "dmy" else (found[2], found[1])
        return date(_year(found[3]), int(month), int(day))
    if found := _DAY_MONTH.fullmatch(text):
        month_number = _MONTHS.get(found[2][:3].lower())
        return None if month_number is None else date(_year(found[3]), month_number, int(found[1]))
    if found := _MONTH_DAY.fullmatch(text):
        month_number = _MONTHS.get(found[1][:3].lower())
        return None if month_number is None else date(int(found[3]), month_number, int(found[2]))
    return None


def _year(text: str) -> int:
    return int(text) if len(text) == 4 else 2000 + int(text)


def _of_number(value: float) -> Moment | None:
    """19991231, a serial number of Excel's, or seconds (or thousandths, or less) since 1970."""
    if value == int(value) and 19_000_101 <= value <= 21_991_231:
        try:
            text = f"{int(value)}"
            return Moment(date(int(text[:4]), int(text[4:6]), int(text[6:])))
        except ValueError:
            return None
    if 25_000.0 <= value <= 75_000.0:
        moment = datetime(1899, 12, 30) + timedelta(days=value)
        return Moment(moment.date(), _clock(moment.time()))
    for scale in (1.0, 1e3, 1e6, 1e9):
        if 3e8 <= value / scale <= 8e9:
            moment = datetime.fromtimestamp(value / scale, UTC)
            return Moment(moment.date(), _clock(moment.timetz()))
    return None


def tenor_of(cell: Cell) -> float | None:
    """`3M` in years; None if it is something else."""
    if not isinstance(cell, str):
        return None
    text = cell.upper().replace(" ", "")
    if text in _NEXT_DAY:
        return _NEXT_DAY[text]
    if not _TENOR.fullmatch(text):
        return None
    return sum(int(n) / _PER_YEAR[unit[-1]] for n, unit in re.findall(r"(\d+)(BD|D|W|M|Y)", text))


def first_date_in(lines: Sequence[str], order: DateOrder = "mdy") -> Moment | None:
    """The first date that stands in a text."""
    for line in lines:
        for found in re.finditer(
            r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d)?)?"
            r"|[A-Z][a-z]{2,8}\.? \d{1,2}, \d{4}(?: at \d{1,2}:\d\d [AP]M(?: [A-Z]{2,4})?)?"
            r"|\d{1,2}[.]\d{1,2}[.]\d{4}"
            r"|\d{1,2}[- ][A-Z][a-z]{2}[- ]\d{4}",
            line,
        ):
            moment = moment_of(found[0], order)
            if moment is not None:
                return moment
    return None


def zone_named(name: str) -> tzinfo:
    """raises  InvalidInput if there is none of that name"""
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise question("time_zone", f"must be a zone such as America/New_York, but is {name[:40]!r}.") from None
