"""Prometheus metrics, all named `calibrant_*`, in base units.

Few series: a scrape formats every bucket while it holds the interpreter lock. Observed after the response has left.
"""

from collections.abc import Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest

from calibrant.pipeline import Assessment

# Fine below 5 ms, with an edge exactly at the 2 ms objective: the share within it is read off, not interpolated.
SECONDS = (
    *(0.00005, 0.0001, 0.0002, 0.0003, 0.0004, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005),
    *(0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0),
)
ITERATIONS = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100)
BASIS_POINTS = (0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)


class Metrics:
    """The metrics of one application, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        registry = self.registry
        self.request_seconds = Histogram(
            "calibrant_request_duration_seconds",
            "From the request's headers to the last byte of its response.",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.stage_seconds = Histogram(
            "calibrant_stage_duration_seconds",
            "One stage of a calibration.",
            ["stage"],
            buckets=SECONDS,
            registry=registry,
        )
        self.requests = Counter(
            "calibrant_requests", "Requests answered, by HTTP status.", ["route", "code"], registry=registry
        )
        self.problems = Counter("calibrant_problems", "Requests refused, by problem code.", ["code"], registry=registry)
        self.in_flight = Gauge("calibrant_in_flight", "Requests being served.", registry=registry)
        self.calibrations = Counter(
            "calibrant_calibrations",
            "Calibrations answered, by status and by the start that led to the answer.",
            ["model", "status", "start"],
            registry=registry,
        )
        self.iterations = Histogram(
            "calibrant_refinement_iterations",
            "Iterations of one refinement.",
            ["model"],
            buckets=ITERATIONS,
            registry=registry,
        )
        self.rmse_bp = Histogram(
            "calibrant_fit_rmse_basis_points",
            "Root mean square error of one fit, basis points of volatility.",
            ["model"],
            buckets=BASIS_POINTS,
            registry=registry,
        )
        self.arbitrage = Counter(
            "calibrant_arbitrage_violations",
            "Panels with a violation of this kind, in the quotes or on the fitted surface.",
            ["subject", "kind"],
            registry=registry,
        )
        self.out_of_domain = Counter(
            "calibrant_out_of_domain",
            "Panels whose answer lies outside the network's training domain.",
            ["model"],
            registry=registry,
        )
        self.model = Info("calibrant_model", "The network that serves a model.", ["model"], registry=registry)
        self.ready = Gauge("calibrant_ready", "1 when calibrations are answered.", registry=registry)

    def observe_stages(self, seconds: Mapping[str, float]) -> None:
        for stage, duration in seconds.items():
            self.stage_seconds.labels(stage).observe(duration)

    def observe_calibration(self, assessment: Assessment) -> None:
        calibration = assessment.calibration
        model = calibration.model.name
        self.calibrations.labels(model, calibration.status, calibration.start).inc()
        self.iterations.labels(model).observe(calibration.iterations)
        self.rmse_bp.labels(model).observe(calibration.rmse_bp)
        if assessment.out_of_domain:
            self.out_of_domain.labels(model).inc()
        for subject, verdict in (("quotes", assessment.quotes), ("surface", assessment.surface)):
            for kind in {violation.kind for violation in verdict.violations}:
                self.arbitrage.labels(subject, kind).inc()

    def exposition(self) -> bytes:
        return generate_latest(self.registry)
