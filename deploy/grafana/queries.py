"""The queries of the committed dashboard, asked of a Prometheus as Grafana asks them."""

import json
from typing import Any, NamedTuple

import httpx
import numpy as np

from calibrant.arrays import Vector

from .build import DASHBOARD

WINDOW = "10s"
"""In place of Grafana's `$__rate_interval`, where scrapes are two seconds apart."""


class Series(NamedTuple):
    labels: dict[str, str]
    times: Vector
    """Seconds since 1970."""
    values: Vector


class Prometheus:
    """What Grafana asks of it."""

    def __init__(self, url: str) -> None:
        self.url = url

    def _data(self, path: str, **parameters: Any) -> Any:
        answer = httpx.get(f"{self.url}/api/v1/{path}", params=parameters, timeout=30.0).json()
        if answer["status"] != "success":
            raise ValueError(f"{answer['error']} in {parameters}")
        return answer["data"]

    def instant(self, expr: str, at: float | None = None) -> list[Series]:
        """raises  ValueError if the query is none"""
        when = {} if at is None else {"time": at}
        return [_series(one["metric"], [one["value"]]) for one in self._data("query", query=expr, **when)["result"]]

    def range(self, expr: str, start: float, end: float, step: float = 1.0) -> list[Series]:
        """raises  ValueError if the query is none"""
        result = self._data("query_range", query=expr, start=start, end=end, step=step)["result"]
        return [_series(one["metric"], one["values"]) for one in result]

    def rules(self) -> list[dict[str, Any]]:
        """Those it evaluates, with their health."""
        return [rule for group in self._data("rules")["groups"] for rule in group["rules"]]

    def value(self, expr: str, at: float | None = None) -> float:
        """Of a query with one answer."""
        (one,) = self.instant(expr, at)
        return float(one.values[0])


def _series(metric: dict[str, str], samples: list[list[Any]]) -> Series:
    times, values = zip(*samples, strict=True)
    return Series(metric, np.array(times, float), np.array(values, float))


def filled_in(expr: str) -> str:
    """A query of the dashboard with Grafana's variables as it fills them in."""
    for variable, value in (("$__rate_interval", WINDOW), ("$job", "calibrant"), ("$instance", ".*")):
        expr = expr.replace(variable, value)
    return expr


def panels() -> list[dict[str, Any]]:
    """Of the committed dashboard, each with the `row` it is in."""
    result, row = [], ""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
            result += [{**inner, "row": row} for inner in panel["panels"]]
        else:
            result.append({**panel, "row": row})
    return result
