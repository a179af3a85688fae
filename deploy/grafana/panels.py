"""What the dashboard shows: rows of panels, each with its queries.

Queries of the service's own metrics select the replicas that the viewer chose, `$job` and `$instance` of Grafana; what
the rules of Prometheus record is over all replicas and selected by the job alone.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["timeseries", "stat", "table", "heatmap"]
Scale = Literal["linear", "log", "symlog"]
"""`symlog` also shows 0."""
Unit = Literal["s", "percentunit", "percent", "reqps", "short", "none", "celsius", "watt", "suffix: bp", "suffix: x"]
"""As Grafana names it."""

GREEN, YELLOW, ORANGE, RED = "green", "yellow", "orange", "red"

SELECTED = 'job="$job", instance=~"$instance"'
JOB = 'job="$job"'
SHARE = 0.99
"""Of the calibrations that are to compute within their model's objective."""


@dataclass(frozen=True, kw_only=True)
class Query:
    expr: str
    legend: str = ""


@dataclass(frozen=True, kw_only=True)
class Panel:
    title: str
    description: str
    queries: tuple[Query, ...]
    kind: Kind = "timeseries"
    unit: Unit = "short"
    width: int = 8
    """Of 24."""
    thresholds: tuple[tuple[float, str], ...] = ()
    """From which value which colour; below the first it is `base`."""
    base: str = GREEN
    stacked: bool = False
    scale: Scale = "linear"
    largest: float | None = None
    """Of the axis."""
    columns: tuple[str, ...] = ()
    """Labels shown by a table."""


@dataclass(frozen=True, kw_only=True)
class Row:
    title: str
    panels: tuple[Panel, ...]
    collapsed: bool = False


def quantile(share: float, histogram: str, by: str = "", selected: str = SELECTED) -> str:
    labels = ", ".join(filter(None, (by, "le")))
    return (
        f"histogram_quantile({share:g}, sum by ({labels}) (rate({histogram}_bucket{{{selected}}}[$__rate_interval])))"
    )


def rate(counter: str, by: str, selected: str = SELECTED) -> str:
    return f"sum by ({by}) (rate({counter}{{{selected}}}[$__rate_interval]))"


def quantiles(histogram: str, *shares: float) -> tuple[Query, ...]:
    return tuple(Query(expr=quantile(share, histogram), legend=f"p{100 * share:g}") for share in shares)


COMPUTE = "calibrant_compute_duration_seconds"
ON_TIME = f"calibrant_compute_on_time_total{{{SELECTED}}}"
OBJECTIVE = "max by (model) (calibrant_objective_seconds{%s})"
"""Seconds of compute."""
LATE = ((1.0, RED),)
BURNS = ((1.0, YELLOW), (6.0, ORANGE), (14.4, RED))

OBJECTIVE_ROW = Row(
    title="Objective: 99 % of the calibrations compute within their model's time",
    panels=(
        Panel(
            kind="stat",
            width=4,
            title="Within the objective, last hour",
            description="Share of the interactive calibrations of the last hour that computed within their model's "
            "objective: decode, network, refine, diagnostics and encode, without the queue.",
            unit="percentunit",
            base=RED,
            thresholds=((SHARE, GREEN),),
            queries=(
                Query(
                    expr=f"sum by (model) (increase({ON_TIME}[1h])) / "
                    f"sum by (model) (increase({COMPUTE}_count{{{SELECTED}}}[1h]))",
                    legend="{{model}}",
                ),
            ),
        ),
        Panel(
            kind="stat",
            width=4,
            title="Error budget left, 30 days",
            description="1 % of the calibrations of 30 days may be slower than the objective: what of that is left. "
            "Below zero the objective is missed. All replicas, whichever are selected.",
            unit="percentunit",
            base=RED,
            thresholds=((0.0, ORANGE), (0.25, YELLOW), (0.5, GREEN)),
            queries=(Query(expr=f"job_model:calibrant_compute_budget_left:30d{{{JOB}}}", legend="{{model}}"),),
        ),
        Panel(
            kind="stat",
            width=4,
            title="Compute, p99, of the objective",
            description="99 of 100 calibrations compute within this share of their model's objective. All replicas, "
            "over five minutes.",
            unit="percentunit",
            thresholds=LATE,
            queries=(
                Query(
                    expr=f"job_model:calibrant_compute_duration_seconds:p99_5m{{{JOB}}} / on (model) {OBJECTIVE % JOB}",
                    legend="{{model}}",
                ),
            ),
        ),
        Panel(
            kind="stat",
            width=4,
            title="Replicas ready",
            description="Replicas that answer calibrations, by their own word.",
            unit="none",
            base=RED,
            thresholds=((1.0, YELLOW), (2.0, GREEN)),
            queries=(Query(expr=f"sum(calibrant_ready{{{SELECTED}}} > bool 0)", legend="ready"),),
        ),
        Panel(
            kind="stat",
            width=4,
            title="Refused for want of time or room",
            description="Share of the requests for work that were refused as overloaded or with a deadline out of "
            "reach. A client's own rate limit does not count. All replicas, over five minutes.",
            unit="percentunit",
            thresholds=((0.01, YELLOW), (0.1, RED)),
            queries=(Query(expr=f"job:calibrant_shed:ratio5m{{{JOB}}}", legend="shed"),),
        ),
        Panel(
            kind="stat",
            width=4,
            title="Alerts",
            description="Alerts of the rules that fire or are about to.",
            unit="none",
            thresholds=((1.0, RED),),
            queries=(Query(expr='count(ALERTS{alertname=~"Calibrant.*"}) or vector(0)', legend="alerts"),),
        ),
        Panel(
            title="Compute against the objective",
            description="Median and 99th percentile of the compute time of interactive calibrations; the objective is "
            "for the latter.",
            unit="s",
            scale="log",
            queries=(
                Query(expr=quantile(0.5, COMPUTE, "model"), legend="p50 {{model}}"),
                Query(expr=quantile(0.99, COMPUTE, "model"), legend="p99 {{model}}"),
                Query(expr=OBJECTIVE % SELECTED, legend="objective {{model}}"),
            ),
        ),
        Panel(
            title="Stages, p99",
            description="99th percentile of each stage of a calibration. The queue is no compute, but the client "
            "waits for it too. Percentiles of stages do not add up to that of their sum.",
            unit="s",
            scale="log",
            queries=(Query(expr=quantile(0.99, "calibrant_stage_duration_seconds", "stage"), legend="{{stage}}"),),
        ),
        Panel(
            title="Stages, mean of a calibration",
            description="What a calibration is made of on average; the stages add up.",
            unit="s",
            stacked=True,
            queries=(
                Query(
                    expr=f"{rate('calibrant_stage_duration_seconds_sum', 'stage')} / "
                    f"{rate('calibrant_stage_duration_seconds_count', 'stage')}",
                    legend="{{stage}}",
                ),
            ),
        ),
        Panel(
            title="Share within the objective, by replica",
            description="One replica that is slower than the others shows here.",
            unit="percentunit",
            base=RED,
            thresholds=((SHARE, GREEN),),
            largest=1.0,
            queries=(
                Query(
                    expr=f"sum by (instance) (rate({ON_TIME}[$__rate_interval])) / "
                    f"{rate(f'{COMPUTE}_count', 'instance')}",
                    legend="{{instance}}",
                ),
            ),
        ),
        Panel(
            title="Burn rate of the error budget",
            description="How many times faster than allowed the budget of 30 days is spent, by window. At 14.4 over "
            "an hour, or 6 over six, somebody is called; at 1 over three days there is a ticket. All replicas.",
            unit="suffix: x",
            thresholds=BURNS,
            queries=tuple(
                Query(expr=f"job_model:calibrant_compute_burn:{window}{{{JOB}}}", legend=f"{{{{model}}}} {window}")
                for window in ("5m", "1h", "6h", "3d")
            ),
        ),
        Panel(
            kind="heatmap",
            title="Compute, how it is spread",
            description="Calibrations a second by compute time: two humps are two kinds of panels.",
            unit="s",
            queries=(Query(expr=rate(f"{COMPUTE}_bucket", "le"), legend="{{le}}"),),
        ),
    ),
)

REQUESTS_ROW = Row(
    title="Requests: how many, how long, what is refused",
    panels=(
        Panel(
            title="Throughput by route",
            description="Requests answered a second. Paths that are none of the service's count as `other`.",
            unit="reqps",
            stacked=True,
            queries=(Query(expr=rate("calibrant_requests_total", "route"), legend="{{route}}"),),
        ),
        Panel(
            title="Answers by HTTP status",
            description="422 is bad input, 429 a client's rate limit, 503 want of time or room, 504 a deadline missed.",
            unit="reqps",
            stacked=True,
            queries=(Query(expr=rate("calibrant_requests_total", "code"), legend="{{code}}"),),
        ),
        Panel(
            title="Response time by route, p99",
            description="From the first byte of a request to the last of its response, with the queue.",
            unit="s",
            scale="log",
            queries=(Query(expr=quantile(0.99, "calibrant_request_duration_seconds", "route"), legend="{{route}}"),),
        ),
        Panel(
            title="Shed by reason",
            description="Requests refused or dropped for want of time or room, and those over their client's rate "
            "limit.",
            unit="reqps",
            queries=(Query(expr=rate("calibrant_shed_total", "reason"), legend="{{reason}}"),),
        ),
        Panel(
            title="Refused by problem",
            description="Requests, and panels of batches, that were refused, by the code that the client was given.",
            unit="reqps",
            queries=(Query(expr=rate("calibrant_problems_total", "code"), legend="{{code}}"),),
        ),
        Panel(
            title="Requests in flight, by replica",
            description="Requests being served, without the scrape that asks.",
            unit="none",
            queries=(Query(expr=f"calibrant_in_flight{{{SELECTED}}} - 1", legend="{{instance}}"),),
        ),
        Panel(
            title="Jobs waiting, by priority",
            description="Interactive calibrations and long ones have a lane each in the workers, batches and audits in "
            "the job process.",
            unit="none",
            queries=(Query(expr=f"sum by (priority) (calibrant_queue_depth{{{SELECTED}}})", legend="{{priority}}"),),
        ),
        Panel(
            title="Estimated wait, by priority",
            description="Of a job handed in now, on the replica where it is longest: what admission compares with "
            "deadlines.",
            unit="s",
            queries=(
                Query(expr=f"max by (priority) (calibrant_queue_wait_seconds{{{SELECTED}}})", legend="{{priority}}"),
            ),
        ),
        Panel(
            title="Connections",
            description="Open, as many as may be, and closed by the server a minute with the reason: too slow with "
            "the header, the body or reading the answer, a header too large, too many. Clients that hung up before "
            "their answer.",
            unit="none",
            scale="symlog",
            queries=(
                Query(expr=f"sum(calibrant_connections{{{SELECTED}}})", legend="open"),
                Query(expr=f"sum(calibrant_connections_limit{{{SELECTED}}})", legend="limit"),
                Query(expr=f"60 * {rate('calibrant_connections_closed_total', 'reason')}", legend="closed: {{reason}}"),
                Query(
                    expr=f"60 * sum(rate(calibrant_client_disconnects_total{{{SELECTED}}}[$__rate_interval]))",
                    legend="hung up",
                ),
            ),
        ),
    ),
)

CALIBRATIONS = rate("calibrant_calibrations_total", "model")

CALIBRATIONS_ROW = Row(
    title="Calibrations: what they are worth",
    panels=(
        Panel(
            title="Calibrations by status",
            description="Panels calibrated a second, those of batches included.",
            unit="short",
            stacked=True,
            queries=(Query(expr=rate("calibrant_calibrations_total", "model, status"), legend="{{model}} {{status}}"),),
        ),
        Panel(
            title="Start that led to the answer",
            description="network: what the network proposed; fallback: read off the surface; given: the client's own.",
            unit="percentunit",
            stacked=True,
            largest=1.0,
            queries=(
                Query(
                    expr=f"{rate('calibrant_calibrations_total', 'start')} / ignoring (start) group_left "
                    f"sum(rate(calibrant_calibrations_total{{{SELECTED}}}[$__rate_interval]))",
                    legend="{{start}}",
                ),
            ),
        ),
        Panel(
            title="Panels of a batch request",
            description="Size of batch requests, and panels a second that come in them.",
            unit="short",
            scale="symlog",
            queries=(
                *quantiles("calibrant_batch_size", 0.5, 0.99),
                Query(
                    expr=f"sum(rate(calibrant_batch_size_sum{{{SELECTED}}}[$__rate_interval]))",
                    legend="panels a second",
                ),
            ),
        ),
        Panel(
            title="Refinement iterations",
            description="Iterations of one refinement. A rise means that the network's starts have become worse.",
            unit="none",
            queries=quantiles("calibrant_refinement_iterations", 0.5, 0.9, 0.99),
        ),
        Panel(
            title="Fit error, RMSE",
            description="Root mean square error of a fit, in basis points of volatility.",
            unit="suffix: bp",
            scale="symlog",
            queries=quantiles("calibrant_fit_rmse_basis_points", 0.5, 0.9, 0.99),
        ),
        Panel(
            title="Fit error against its own week",
            description="Median fit error of the last hour, and of the week before it; twice that is an alert. All "
            "replicas.",
            unit="suffix: bp",
            queries=(
                Query(expr=f"job_model:calibrant_fit_rmse_basis_points:p50_1h{{{JOB}}}", legend="{{model}} last hour"),
                Query(
                    expr=f"job_model:calibrant_fit_rmse_basis_points:p50_1w{{{JOB}}}", legend="{{model}} week before"
                ),
            ),
        ),
        Panel(
            title="Arbitrage found, by kind",
            description="Panels a second with a violation, in the quotes sent or on the surface fitted.",
            unit="short",
            queries=(
                Query(
                    expr=rate("calibrant_arbitrage_violations_total", "subject, kind"), legend="{{subject}}: {{kind}}"
                ),
            ),
        ),
        Panel(
            title="Out of domain, and second starts",
            description="Share of the panels whose answer lies outside what the network was trained on, and share in "
            "which starts read off the surface were refined as well. More than 10 % out of domain in an hour is an "
            "alert.",
            unit="percentunit",
            thresholds=((0.1, ORANGE),),
            queries=(
                Query(
                    expr=f"{rate('calibrant_out_of_domain_total', 'model')} / {CALIBRATIONS}",
                    legend="{{model}} out of domain",
                ),
                Query(
                    expr=f"{rate('calibrant_fallback_starts_total', 'model')} / {CALIBRATIONS}",
                    legend="{{model}} second starts",
                ),
            ),
        ),
        Panel(
            title="Audits by outcome",
            description="Answers calibrated again from many starts, a minute. `better_found`: the answer was not the "
            "best.",
            unit="short",
            queries=(
                Query(expr=f"60 * {rate('calibrant_audits_total', 'model, outcome')}", legend="{{model}} {{outcome}}"),
            ),
        ),
    ),
)

REPLICAS_ROW = Row(
    title="Replicas: what serves, and on what",
    panels=(
        Panel(
            kind="table",
            title="Networks served",
            description="The version of each model on each replica, with the first digits of its checksum.",
            columns=("instance", "model", "version"),
            queries=(Query(expr=f"calibrant_model_info{{{SELECTED}}}"),),
        ),
        Panel(
            kind="table",
            title="Provider",
            description="What the networks run on, and what was asked for. Any difference is an alert.",
            columns=("instance", "model", "requested", "actual"),
            queries=(Query(expr=f"calibrant_provider_info{{{SELECTED}}}"),),
        ),
        Panel(
            title="Workers ready, by replica",
            description="Workers that answer calibrations, as many as there should be, and the one for batches.",
            unit="none",
            queries=(
                Query(expr=f"calibrant_ready{{{SELECTED}}}", legend="{{instance}}"),
                Query(expr=f"calibrant_workers{{{SELECTED}}}", legend="{{instance}} should be"),
                Query(expr=f"calibrant_job_process_ready{{{SELECTED}}}", legend="{{instance}} for batches"),
            ),
        ),
        Panel(
            title="Event loop, lateness",
            description="How late a timer runs that is due every 20 ms: what holds up every request of a worker at "
            "once.",
            unit="s",
            scale="log",
            thresholds=((0.01, ORANGE),),
            queries=(
                Query(expr=quantile(0.5, "calibrant_event_loop_lag_seconds", "instance"), legend="{{instance}} p50"),
                Query(expr=quantile(0.99, "calibrant_event_loop_lag_seconds", "instance"), legend="{{instance}} p99"),
            ),
        ),
        Panel(
            title="Collector, pauses",
            description="Share of the time that the garbage collector holds a replica up, summed over its workers, "
            "by generation.",
            unit="percentunit",
            queries=(
                Query(
                    expr=rate("calibrant_gc_pause_seconds_sum", "instance, generation"),
                    legend="{{instance}} gen {{generation}}",
                ),
            ),
        ),
        Panel(
            title="Faults in 15 minutes",
            description="Failures of the engine, lines lost to the log, workers that ended unasked, and reloads by "
            "outcome.",
            unit="none",
            queries=(
                Query(
                    expr=f"sum(increase(calibrant_engine_failures_total{{{SELECTED}}}[15m]))", legend="engine failures"
                ),
                Query(
                    expr=f"sum(increase(calibrant_log_lines_lost_total{{{SELECTED}}}[15m]))", legend="log lines lost"
                ),
                Query(expr=f"sum(increase(calibrant_workers_ended_total{{{SELECTED}}}[15m]))", legend="workers ended"),
                Query(
                    expr=f"sum by (outcome) (increase(calibrant_reloads_total{{{SELECTED}}}[15m]))",
                    legend="reloads {{outcome}}",
                ),
            ),
        ),
        Panel(
            title="Proxy: replicas it sends to",
            description="Replicas that pass the proxy's readiness check.",
            unit="none",
            width=12,
            queries=(Query(expr='sum(haproxy_backend_active_servers{proxy="calibrant"})', legend="active"),),
        ),
        Panel(
            title="Scrapes",
            description="How long a scrape takes, or until it was given up.",
            unit="s",
            width=12,
            queries=(Query(expr=f"scrape_duration_seconds{{{SELECTED}}}", legend="{{instance}}"),),
        ),
    ),
)

GPU_ROW = Row(
    title="GPU (DCGM exporter)",
    collapsed=True,
    panels=(
        Panel(
            title="GPU utilisation",
            description="Share of the time in which at least one kernel ran.",
            unit="percent",
            largest=100.0,
            queries=(Query(expr="DCGM_FI_DEV_GPU_UTIL", legend="{{instance}} {{gpu}}"),),
        ),
        Panel(
            title="GPU memory",
            description="Share of the memory in use; above 95 % for ten minutes is an alert.",
            unit="percentunit",
            largest=1.0,
            thresholds=((0.95, RED),),
            queries=(
                Query(
                    expr="DCGM_FI_DEV_FB_USED / (DCGM_FI_DEV_FB_USED + DCGM_FI_DEV_FB_FREE)",
                    legend="{{instance}} {{gpu}}",
                ),
            ),
        ),
        Panel(
            title="GPU clock of the multiprocessors",
            description="In MHz. A clock that falls under load is a GPU that is too hot or short of power.",
            unit="short",
            queries=(Query(expr="DCGM_FI_DEV_SM_CLOCK", legend="{{instance}} {{gpu}}"),),
        ),
        Panel(
            title="GPU temperature",
            description="Of the chip.",
            unit="celsius",
            queries=(Query(expr="DCGM_FI_DEV_GPU_TEMP", legend="{{instance}} {{gpu}}"),),
        ),
        Panel(
            title="GPU power",
            description="Power drawn.",
            unit="watt",
            queries=(Query(expr="DCGM_FI_DEV_POWER_USAGE", legend="{{instance}} {{gpu}}"),),
        ),
        Panel(
            title="GPU errors",
            description="The last XID error of the driver; 0 is none.",
            unit="none",
            thresholds=((1.0, RED),),
            queries=(Query(expr="DCGM_FI_DEV_XID_ERRORS", legend="{{instance}} {{gpu}}"),),
        ),
    ),
)

ROWS = (OBJECTIVE_ROW, REQUESTS_ROW, CALIBRATIONS_ROW, REPLICAS_ROW, GPU_ROW)
