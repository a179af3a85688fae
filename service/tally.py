"""Counters, gauges and histograms that several processes can add up; the exposition is `prometheus_client`'s.

Why not that library's own: in one process each of its observations costs 3 to 6 us, and a request makes a dozen; its
mode for several keeps files that outlive their processes, has no Info, and reads all of them under the interpreter lock
for each scrape. Here an observation is an addition (0.3 us), a snapshot of a process is a copy of its dicts, and
snapshots are summed and formatted where no request is served: in the supervisor.

Each metric is written by one thread, the event loop's, but those of the collector, which is never in two.
"""

from abc import ABC, abstractmethod
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, TypeAlias

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

Labels: TypeAlias = tuple[str, ...]
Values: TypeAlias = dict[Labels, list[float]]
"""By labels: the one value, or of a histogram the count in each bucket, the last one open, then the sum."""
Snapshot: TypeAlias = dict[str, Values]
"""Values by the name of their metric."""
Across: TypeAlias = Literal["sum", "max", "min"]


class Family(ABC):
    """A metric: its name, its labels, and a list of numbers for each combination of labels seen."""

    across: Across = "sum"
    """What becomes of the values of several processes."""

    def __init__(self, name: str, help_: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self.help = help_
        self.labels = tuple(labels)
        self.values: Values = {}

    @abstractmethod
    def begin(self, *labels: str) -> None:
        """Be there before anything has been seen: of a series that begins with its first event, Prometheus does not see
        that event."""

    @abstractmethod
    def exposed(self, values: Values) -> Metric:
        """As `prometheus_client` writes it."""


class Counter(Family):
    def begin(self, *labels: str) -> None:
        self.values.setdefault(labels, [0.0])

    def inc(self, *labels: str, by: float = 1.0) -> None:
        try:
            self.values[labels][0] += by
        except KeyError:
            self.values[labels] = [by]

    def exposed(self, values: Values) -> Metric:
        family = CounterMetricFamily(self.name, self.help, labels=self.labels)
        for labels, (value,) in values.items():
            family.add_metric(labels, value)
        return family


class Gauge(Family):
    """As it is now: a process that has gone takes its part with it."""

    def __init__(self, name: str, help_: str, labels: Sequence[str] = (), across: Across = "sum") -> None:
        super().__init__(name, help_, labels)
        self.across = across

    def begin(self, *labels: str) -> None:
        self.values.setdefault(labels, [0.0])

    def set(self, value: float, *labels: str) -> None:
        self.values[labels] = [value]

    def inc(self, by: float = 1.0) -> None:
        self.values[()][0] += by

    def clear(self) -> None:
        self.values.clear()

    def exposed(self, values: Values) -> Metric:
        family = GaugeMetricFamily(self.name, self.help, labels=self.labels)
        for labels, (value,) in values.items():
            family.add_metric(labels, value)
        return family


class Histogram(Family):
    def __init__(self, name: str, help_: str, labels: Sequence[str] = (), *, edges: Sequence[float]) -> None:
        super().__init__(name, help_, labels)
        self.edges = tuple(edges)

    def begin(self, *labels: str) -> None:
        self.values.setdefault(labels, [0.0] * (len(self.edges) + 2))

    def observe(self, value: float, *labels: str) -> None:
        counts = self.values.get(labels)
        if counts is None:
            self.begin(*labels)
            counts = self.values[labels]
        counts[bisect_left(self.edges, value)] += 1.0
        counts[-1] += value

    def exposed(self, values: Values) -> Metric:
        family = HistogramMetricFamily(self.name, self.help, labels=self.labels)
        for labels, counts in values.items():
            total, buckets = 0.0, []
            for edge, count in zip((*map(repr, map(float, self.edges)), "+Inf"), counts, strict=False):
                total += count
                buckets.append((edge, total))
            family.add_metric(labels, buckets, sum_value=counts[-1])
        return family


def snapshot(families: Iterable[Family]) -> Snapshot:
    """The values as they are now, to be summed or sent away."""
    return {family.name: {labels: list(values) for labels, values in family.values.items()} for family in families}


def merged(families: Iterable[Family], living: Sequence[Snapshot], gone: Sequence[Snapshot] = ()) -> Snapshot:
    """The snapshots of several processes as one; of those that have gone only what was counted remains."""
    result: Snapshot = {}
    for family in families:
        total: Values = {}
        for part in living if isinstance(family, Gauge) else (*living, *gone):
            for labels, values in part.get(family.name, {}).items():
                so_far = total.get(labels)
                if so_far is None:
                    total[labels] = list(values)
                elif family.across == "sum":
                    total[labels] = [a + b for a, b in zip(so_far, values, strict=True)]
                else:
                    total[labels] = [(max if family.across == "max" else min)(so_far[0], values[0])]
        result[family.name] = total
    return result


class _Snapshot(Collector):
    def __init__(self, families: Sequence[Family], values: Snapshot) -> None:
        self._families = families
        self._values = values

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            yield family.exposed(self._values.get(family.name, {}))


def exposition(families: Sequence[Family], values: Snapshot) -> bytes:
    """Prometheus's text format."""
    registry = CollectorRegistry()
    registry.register(_Snapshot(families, values))
    return generate_latest(registry)
