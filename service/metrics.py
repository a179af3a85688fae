"""The metrics, all named `calibrant_*`, in base units.

Few series, and none whose labels a client can choose. Observed after the response has left.
"""

from collections.abc import Mapping, Sequence
from time import time
from typing import TYPE_CHECKING

from .processes import container_memory, usage
from .tally import Counter, Family, Gauge, Histogram, Snapshot, exposition, snapshot

if TYPE_CHECKING:
    # The supervisor, which adds up the metrics of its workers, has no use for the library.
    from calibrant.pipeline import Assessment

# Fine below 5 ms.
SECONDS = (
    *(0.00005, 0.0001, 0.0002, 0.0003, 0.0004, 0.0005, 0.00075, 0.001, 0.0015, 0.002, 0.003, 0.004, 0.005),
    *(0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0),
)
PAUSES = (0.0001, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1.0)
ITERATIONS = (1, 2, 3, 4, 5, 6, 8, 10, 15, 20, 30, 50, 100)
BASIS_POINTS = (0.01, 0.1, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)
PANELS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192)
JOB_SECONDS = (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0)
CLOSINGS = ("header", "body", "write", "header_size", "limit", "malformed", "handshake")
"""Why the server closes a connection."""
SHARES = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 0.1, 1.0)


def _counter(name: str, meaning: str, *labels: str) -> Counter:
    return Counter(f"calibrant_{name}", meaning, labels)


def _histogram(name: str, meaning: str, edges: Sequence[float], *labels: str) -> Histogram:
    return Histogram(f"calibrant_{name}", meaning, labels, edges=edges)


def _gauge(name: str, meaning: str, *labels: str) -> Gauge:
    """Of several processes the sum counts."""
    return Gauge(f"calibrant_{name}", meaning, labels)


def _most(name: str, meaning: str, *labels: str) -> Gauge:
    """Of several the largest."""
    return Gauge(f"calibrant_{name}", meaning, labels, "max")


def _least(name: str, meaning: str, *labels: str) -> Gauge:
    """Of several the smallest."""
    return Gauge(f"calibrant_{name}", meaning, labels, "min")


class Metrics:
    """The metrics of one process."""

    def __init__(self) -> None:
        self.request_seconds = _histogram(
            "request_duration_seconds",
            "From the first byte of a request to the last of its response.",
            SECONDS,
            "route",
        )
        self.stage_seconds = _histogram("stage_duration_seconds", "One stage of a calibration.", SECONDS, "stage")
        self.compute_seconds = _histogram(
            "compute_duration_seconds", "One interactive calibration, all stages but the queue.", SECONDS, "model"
        )
        self.model_seconds = _counter("model_stage_seconds", "Time of interactive calibrations.", "model", "stage")
        self.refusal_seconds = _histogram(
            "refusal_duration_seconds", "One interactive calibration that got no answer.", SECONDS, "model"
        )
        self.last_calibration = _most(
            "last_calibration_seconds", "When a model was calibrated last (Unix time).", "model"
        )
        self.on_time = _counter("compute_on_time", "Those that computed within their model's objective.", "model")
        self.objective = _most("objective_seconds", "Compute that a calibration should take at most.", "model")
        self.requests = _counter("requests", "Requests answered, by HTTP status.", "route", "code")
        self.problems = _counter("problems", "Requests refused, by problem code.", "code")
        self.shed = _counter("shed", "Requests refused or dropped for want of time or room, by the reason.", "reason")
        self.hung_up = _counter("client_disconnects", "Requests whose client went before the answer.")
        self.in_flight = _gauge("in_flight", "Requests being served, but for those that watch a job.")
        self.connections = _gauge("connections", "Connections open, those not yet secured included.")
        self.handshakes = _gauge("tls_handshakes", "Connections open that are not yet secured.")
        self.connections_limit = _gauge("connections_limit", "Connections that may be open.")
        self.connections_closed = _counter("connections_closed", "Connections that the server closed.", "reason")
        self.queue_depth = _gauge("queue_depth", "Jobs waiting for a lane, by priority.", "priority")
        self.queue_wait = _most("queue_wait_seconds", "Estimated wait of work handed in now.", "priority")
        self.moved = _counter("moved", "Work that outlived its slice of the interactive lane and went on elsewhere.")
        self.lane_held = _most("lane_held_seconds", "Age of the turn that a lane is at; 0: idle.", "lane")
        self.batch_size = _histogram("batch_size", "Panels in one batch request.", PANELS)
        self.calibrations = _counter(
            "calibrations",
            "Calibrations answered, by status and by the start that led there.",
            "model",
            "status",
            "start",
        )
        self.iterations = _histogram("refinement_iterations", "Iterations of one refinement.", ITERATIONS, "model")
        self.rmse_bp = _histogram(
            "fit_rmse_basis_points", "Error of one fit, basis points of volatility.", BASIS_POINTS, "model"
        )
        self.fallbacks = _counter("fallback_starts", "Calibrations that surface starts were refined for too.", "model")
        self.arbitrage = _counter("arbitrage_violations", "Panels with a violation of this kind.", "subject", "kind")
        self.out_of_domain = _counter("out_of_domain", "Panels whose answer is outside the training domain.", "model")
        self.engine_failures = _counter("engine_failures", "Calls that raised or gave a number that is not finite.")
        self.audits = _counter("audits", "Answers recalibrated from many starts.", "model", "outcome")
        self.audit_excess = _histogram(
            "audit_excess_ratio", "Share by which an audited objective exceeded the best found.", SHARES, "model"
        )
        self.model = _most("model_info", "The network that serves a model.", "model", "version")
        self.provider = _most(
            "provider_info",
            "The provider that a network runs on, and the one asked for.",
            "model",
            "requested",
            "actual",
        )
        self.reloads = _counter("reloads", "Reloads of the networks, by outcome.", "outcome")
        self.last_reload = _least("last_reload_successful", "0 from a reload that failed until one is done.")
        self.loop_lag = _histogram("event_loop_lag_seconds", "How late the event loop ran a timer.", PAUSES)
        self.pauses = _histogram("gc_pause_seconds", "One run of the collector.", PAUSES, "generation")
        self.jobs = _gauge("jobs_known", "Jobs that clients may ask for, by state.", "state")
        self.jobs_ended = _counter("jobs_ended", "Jobs that have ended, by kind and state.", "kind", "state")
        self.jobs_seconds = _histogram("jobs_duration_seconds", "One job, from its beginning.", JOB_SECONDS, "kind")
        self.jobs_result_bytes = _gauge("jobs_result_bytes", "Memory that the results of jobs take.")
        self.log_drops = _counter("log_lines_lost", "Lines that could not be written to the log.")
        self.ready = _gauge("ready", "1 when calibrations are answered; the number of workers that are.")
        self.job_process_ready = _gauge("job_process_ready", "1 when batches and jobs are answered.")
        self.workers = _most("workers", "Worker processes that the service should have.")
        self.workers_ended = _counter("workers_ended", "Processes that ended unasked and were replaced.")
        self.resident = _gauge("process_resident_memory_bytes", "Resident memory of the processes of a kind.", "kind")
        self.descriptors = _most("process_open_fds", "Files that a process of a kind has open.", "kind")
        self.most_descriptors = _least("process_max_fds", "Files that a process of a kind may have open.", "kind")
        self.cpu = _counter("process_cpu_seconds", "Processor time of the processes of a kind.", "kind")
        self.born = _most("process_start_time_seconds", "When a process of a kind began (Unix time).", "kind")
        self.container_memory = _most("container_memory_bytes", "Memory of the container that cannot be taken back.")
        self.container_memory_limit = _most("container_memory_limit_bytes", "Beyond it the system kills; 0: no limit.")
        self.memory_reserved = _most("memory_reserved_bytes", "Memory reserved for the requests in hand.", "kind")
        self.memory_budget = _most("memory_budget_bytes", "Memory that the requests of one process may reserve.")
        self.silence = _most("silence_seconds", "Time since a process of a kind was last heard of.", "kind")
        self.families = tuple(value for value in vars(self).values() if isinstance(value, Family))
        self.counters = tuple(family for family in self.families if not isinstance(family, Gauge))
        for family in self.families:
            if not family.labels:
                family.begin()
        for reason in CLOSINGS:
            self.connections_closed.begin(reason)
        for generation in range(3):
            self.pauses.begin(str(generation))

    def observe_stages(self, seconds: Mapping[str, float]) -> None:
        for stage, duration in seconds.items():
            self.stage_seconds.observe(duration, stage)

    def observe_calibration(self, assessment: "Assessment") -> None:
        calibration = assessment.calibration
        model = calibration.model.name
        self.calibrations.inc(model, calibration.status, calibration.start)
        self.last_calibration.set(time(), model)
        self.iterations.observe(calibration.iterations, model)
        self.rmse_bp.observe(calibration.rmse_bp, model)
        if calibration.n_starts > 1:
            self.fallbacks.inc(model)
        if assessment.out_of_domain:
            self.out_of_domain.inc(model)
        for subject, verdict in (("quotes", assessment.quotes), ("surface", assessment.surface)):
            for kind in {violation.kind for violation in verdict.violations}:
                self.arbitrage.inc(subject, kind)

    def observe_process(self, kind: str) -> None:
        """What this process has of the machine, and of its container."""
        used = usage()
        self.resident.set(used.resident, kind)
        self.descriptors.set(used.descriptors, kind)
        self.most_descriptors.set(used.most_descriptors, kind)
        self.cpu.values[(kind,)] = [used.cpu]
        self.born.set(used.born, kind)
        container = container_memory()
        if container is not None:
            self.container_memory.set(container[0])
            self.container_memory_limit.set(container[1])

    def snapshot(self) -> Snapshot:
        return snapshot(self.families)

    def exposition(self, values: Snapshot | None = None) -> bytes:
        """In Prometheus's text format: these values, else the process's own."""
        return exposition(self.families, self.snapshot() if values is None else values)
