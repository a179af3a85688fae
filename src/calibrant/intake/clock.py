"""Years from the moment of the quotes to that at which options expire."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, time, timedelta
from typing import NamedTuple

import numpy as np

from .contracts import OPEN_SETTLED_ROOTS
from .dates import Moment, moment_of, order_of, zone_named
from .settings import Settings, question

OPEN, CLOSE = time(9, 30), time(16, 0)
DEFAULT_ZONE = "America/New_York"
_DAY_S = 86_400.0
_THIRD_WEEK = range(15, 22)


class Clock(NamedTuple):
    """How time is counted."""

    settings: Settings
    as_of: Moment

    def years(self, expiration: Moment, root: str | None) -> float:
        """To an expiry of options of that root; below zero, or zero, where they have expired.

        Whole days where the quotes are known by their day alone and settlement is at the close: they are then of the
        close too. A time of day of either counts as it is.
        """
        settlement = settled_at(self.settings, expiration, root)
        if self.as_of.clock is None:
            # Quotes of a day are of its close.
            shift = (_seconds(settlement) - _seconds(CLOSE)) / _DAY_S
            return self._count(self.as_of.day, expiration.day, shift)
        zone = zone_named(self.settings.time_zone or DEFAULT_ZONE)
        begin, end = self.as_of.at(CLOSE, zone), expiration.at(settlement, zone)
        if self.settings.day_count == "act/365":
            # By UTC: two times of one zone are subtracted as if its clocks were never changed.
            return (end.astimezone(UTC) - begin.astimezone(UTC)).total_seconds() / (365.0 * _DAY_S)
        end = end.astimezone(begin.tzinfo)
        return self._count(begin.date(), end.date(), (_seconds(end.time()) - _seconds(begin.time())) / _DAY_S)

    def _count(self, begin: date, end: date, more: float) -> float:
        if self.settings.day_count == "act/365":
            return ((end - begin).days + more) / 365.0
        holidays = [_holiday(text) for text in self.settings.holidays]
        return (float(np.busday_count(begin, end, holidays=holidays)) + more) / 252.0


def settled_at(settings: Settings, expiration: Moment, root: str | None) -> time:
    """The time of day at which options are settled."""
    if settings.settlement == "open":
        return OPEN
    third_friday = expiration.day.weekday() == 4 and expiration.day.day in _THIRD_WEEK
    # Those of volatility are settled on a Wednesday, and always at the open.
    if settings.settlement == "exchange" and root in OPEN_SETTLED_ROOTS and (third_friday or root in ("VIX", "VIXW")):
        return OPEN
    return CLOSE


def mixed_settlement(roots: Sequence[tuple[str | None, Moment]]) -> bool:
    """Whether one day has options settled at the open and others at the close."""
    exchange = Settings(settlement="exchange")
    seen: dict[date, set[time]] = {}
    for root, expiration in roots:
        seen.setdefault(expiration.day, set()).add(settled_at(exchange, expiration, root))
    return any(len(times) > 1 for times in seen.values())


def as_of_said(text: str, settings: Settings) -> Moment:
    """raises  InvalidInput if it is no date"""
    moment = moment_of(text, order_of({"as_of": [text]}, settings.date_order)["as_of"])
    if moment is None:
        raise question("as_of", f"must be a date such as 2025-11-28, or a date and time, but is {text[:40]!r}.")
    return moment


def day_of(moment: Moment, zone: str | None) -> Moment:
    """Its day where the exchange is, if the moment says where it is itself."""
    if moment.clock is None or moment.clock.tzinfo is None:
        return Moment(moment.day)
    return Moment(moment.at(CLOSE, moment.clock.tzinfo).astimezone(zone_named(zone or DEFAULT_ZONE)).date())


def _holiday(text: str) -> date:
    moment = moment_of(text)
    if moment is None:
        raise question("holidays", f"must be dates such as 2025-12-25, but holds {text[:40]!r}.")
    return moment.day


def _seconds(clock: time) -> float:
    return timedelta(hours=clock.hour, minutes=clock.minute, seconds=clock.second).total_seconds()


def later(first: Moment, second: Moment) -> Moment:
    """The later of two moments."""
    zone = zone_named(DEFAULT_ZONE)
    begin: datetime = first.at(CLOSE, zone)
    return first if begin >= second.at(CLOSE, zone) else second
