"""The metrics, all named `calibrant_*`, in base units.

Few series, and none whose labels a client can choose. Observed after the response has left.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from .processes import container_memory, usage
from .tally import Counter, Family, Gauge, Histogram, Snapshot, exposition, snapshot

if TYPE_CHECKING:
    # The supervisor, which adds up the metrics of its workers, has no use for the library.
    from calibrant.pipeline import Assessment

# Fine below 5 ms, with an edge exactly at the 2 ms objective: the share within it is read off, not interpolated.
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


class Metrics:
    """The metrics of one process."""

    def __init__(self) -> None:
        self.request_seconds = Histogram(
            "calibrant_request_duration_seconds",
            "From the first byte of a request to the last of its response.",
            ["route"],
            edges=SECONDS,
        )
        self.stage_seconds = Histogram(
            "calibrant_stage_duration_seconds", "One stage of a calibration.", ["stage"], edges=SECONDS
        )
        self.compute_seconds = Histogram(
            "calibrant_compute_duration_seconds",
            "Compute of one interactive calibration: decode, network, refine, diagnostics and encode; no queue.",
            ["model"],
            edges=SECONDS,
        )
        self.requests = Counter("calibrant_requests", "Requests answered, by HTTP status.", ["route", "code"])
        self.problems = Counter("calibrant_problems", "Requests refused, by problem code.", ["code"])
        self.shed = Counter(
            "calibrant_shed", "Requests refused or dropped for want of time or room, by the reason.", ["reason"]
        )
        self.hung_up = Counter("calibrant_client_disconnects", "Requests whose client went before the answer.")
        self.in_flight = Gauge("calibrant_in_flight", "Requests being served.")
        self.connections = Gauge("calibrant_connections", "Connections open, those not yet secured included.")
        self.handshakes = Gauge("calibrant_tls_handshakes", "Connections open that are not yet secured.")
        self.connections_limit = Gauge("calibrant_connections_limit", "Connections that may be open.")
        self.connections_closed = Counter(
            "calibrant_connections_closed", "Connections that the server closed, by the reason.", ["reason"]
        )
        self.queue_depth = Gauge("calibrant_queue_depth", "Jobs waiting for a lane, by priority.", ["priority"])
        self.queue_wait = Gauge(
            "calibrant_queue_wait_seconds",
            "Estimated wait of a job handed in now, by priority; of several workers the longest.",
            ["priority"],
            across="max",
        )
        self.moved = Counter(
            "calibrant_moved",
            "Jobs that outlived their slice of the interactive lane and went on, where they were, in the background.",
        )
        self.lane_held = Gauge(
            "calibrant_lane_held_seconds",
            "Since the job that has its turn on a lane began it, 0 without one; of several workers the longest.",
            ["lane"],
            across="max",
        )
        self.batch_size = Histogram("calibrant_batch_size", "Panels in one batch request.", edges=PANELS)
        self.calibrations = Counter(
            "calibrant_calibrations",
            "Calibrations answered, by status and by the start that led to the answer.",
            ["model", "status", "start"],
        )
        self.iterations = Histogram(
            "calibrant_refinement_iterations", "Iterations of one refinement.", ["model"], edges=ITERATIONS
        )
        self.rmse_bp = Histogram(
            "calibrant_fit_rmse_basis_points",
            "Root mean square error of one fit, basis points of volatility.",
            ["model"],
            edges=BASIS_POINTS,
        )
        self.fallbacks = Counter(
            "calibrant_fallback_starts",
            "Calibrations in which starts read off the surface were refined as well.",
            ["model"],
        )
        self.arbitrage = Counter(
            "calibrant_arbitrage_violations",
            "Panels with a violation of this kind, in the quotes or on the fitted surface.",
            ["subject", "kind"],
        )
        self.out_of_domain = Counter(
            "calibrant_out_of_domain",
            "Panels whose answer lies outside the network's training domain.",
            ["model"],
        )
        self.engine_failures = Counter(
            "calibrant_engine_failures", "Calls of the engine that raised or gave a number that is not finite."
        )
        self.audits = Counter(
            "calibrant_audits", "Answers recalibrated from many starts, by what came of it.", ["model", "outcome"]
        )
        self.audit_excess = Histogram(
            "calibrant_audit_excess_ratio",
            "Share by which the objective of an audited answer exceeded the best found.",
            ["model"],
            edges=SHARES,
        )
        self.model = Gauge("calibrant_model_info", "The network that serves a model.", ["model", "version"], "max")
        self.provider = Gauge(
            "calibrant_provider_info",
            "The provider that a network runs on and the one asked for.",
            ["model", "requested", "actual"],
            "max",
        )
        self.reloads = Counter("calibrant_reloads", "Reloads of the networks, by outcome.", ["outcome"])
        self.last_reload = Gauge(
            "calibrant_last_reload_successful",
            "0 from a reload of the networks that failed to one that is done.",
            (),
            "min",
        )
        self.loop_lag = Histogram(
            "calibrant_event_loop_lag_seconds", "How late the event loop ran a timer.", edges=PAUSES
        )
        self.pauses = Histogram(
            "calibrant_gc_pause_seconds", "One run of the collector, by generation.", ["generation"], edges=PAUSES
        )
        self.jobs = Gauge("calibrant_jobs_known", "Jobs that clients may ask for, by state.", ["state"])
        self.jobs_ended = Counter("calibrant_jobs_ended", "Jobs that have ended, by kind and state.", ["kind", "state"])
        self.jobs_seconds = Histogram(
            "calibrant_jobs_duration_seconds", "Of a job, from its first step.", ["kind"], edges=JOB_SECONDS
        )
        self.jobs_result_bytes = Gauge("calibrant_jobs_result_bytes", "Memory that the results of jobs take.")
        self.log_drops = Counter("calibrant_log_lines_lost", "Lines that could not be written to the log.")
        self.ready = Gauge("calibrant_ready", "1 when calibrations are answered; the number of workers that are.")
        self.job_process_ready = Gauge("calibrant_job_process_ready", "1 when batches are answered.")
        self.workers = Gauge("calibrant_workers", "Worker processes that the service should have.", (), "max")
        self.workers_ended = Counter(
            "calibrant_workers_ended", "Workers that ended unasked and were replaced, the job process included."
        )
        self.resident = Gauge(
            "calibrant_process_resident_memory_bytes", "Resident memory of the processes of a kind.", ["kind"]
        )
        self.descriptors = Gauge(
            "calibrant_process_open_fds",
            "Files that a process of a kind has open; of several the most.",
            ["kind"],
            "max",
        )
        self.most_descriptors = Gauge(
            "calibrant_process_max_fds",
            "Files that a process of a kind may have open; of several the fewest.",
            ["kind"],
            "min",
        )
        self.cpu = Counter(
            "calibrant_process_cpu_seconds", "Time of the processor that processes of a kind have spent.", ["kind"]
        )
        self.born = Gauge(
            "calibrant_process_start_time_seconds",
            "When a process of a kind began, seconds since 1970; of several the last.",
            ["kind"],
            "max",
        )
        self.container_memory = Gauge(
            "calibrant_container_memory_bytes", "Memory of the container that the system cannot take back.", (), "max"
        )
        self.container_memory_limit = Gauge(
            "calibrant_container_memory_limit_bytes", "Beyond it the system kills; 0 without a limit.", (), "max"
        )
        self.memory_reserved = Gauge(
            "calibrant_memory_reserved_bytes",
            "Memory reserved for the requests in hand; of the processes of a kind the most.",
            ["kind"],
            "max",
        )
        self.memory_budget = Gauge(
            "calibrant_memory_budget_bytes", "Memory that the requests of one process may reserve.", (), "max"
        )
        self.silence = Gauge(
            "calibrant_silence_seconds",
            "Since a process of a kind was last heard of; of several the longest.",
            ["kind"],
            "max",
        )
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
