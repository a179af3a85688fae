"""Real option panels through a running server: fit, speed, the best known optimum, stability, invariance.

    python -m benchmarks.market --quotes ../shared/market

Starts `python -m service` on a free port and sends it every panel that has strikes and forwards, each date apart. With
equal weights the answer is compared with the best of many random starts of another optimiser (scipy's trust-region
reflective least squares) on the same quotes and bounds, both judged by the accurate pricer. So is the refinement of the
network's start alone, without the second opinion that an answer in doubt gets.
"""

import argparse
import csv
import hashlib
import http.client
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import least_squares

from calibrant.arrays import Vector
from calibrant.calibration import calibrate
from calibrant.fit_problem import fit_problem
from calibrant.models import HESTON
from calibrant.optimisers.objective import COARSE, FINE, evaluate
from calibrant.optimisers.objective import Problem as FitProblem
from calibrant.options import CalibrationOptions, Effort, Start
from calibrant.panel import OptionPanel
from calibrant.pipeline import assess
from calibrant.quotes_csv import COLUMNS
from calibrant.release import Release, released
from reporting.machine import CACHE, RESULTS, ROOT, describe_machine, write_report
from training.exact_panels import model_vols

SEED = 21
PERTURBATION_BP = 0.1
LARGEST_MOVE_BP = 0.5
LARGEST_EXCESS = 1e-3
SAME_ANSWER = 1e-8
_LARGE_PANEL = 1000
"""Quotes; above, the other optimiser's starts are cut short."""

Quotes = dict[str, Any]
"""`quotes` of a request."""


class MarketPanel(NamedTuple):
    """One date of one file."""

    label: str
    quotes: Quotes


class BestKnown(NamedTuple):
    """The best of many random starts of another optimiser."""

    params: Vector
    n_found: int
    """Starts that ended within 0.1 % of it."""
    n_starts: int
    seconds: float


class Move(NamedTuple):
    """What perturbed quotes do to the answer."""

    bp: float
    """Largest move of a fitted vol."""
    from_answer_bp: float
    """The same when the perturbed panel is started from the unperturbed answer as well."""
    objective_ratio: float
    """Objective of the perturbed answer over that of the one started from the unperturbed answer."""


class Alone(NamedTuple):
    """The refinement of the network's start, equal weights, in this process."""

    excess: float
    """Objective over the best known, less one, when no other start may join in."""
    iterations: int
    doubted: bool
    """A second opinion is asked for by default."""


class Row(NamedTuple):
    """All that is reported of a panel."""

    label: str
    n_given: int
    default: dict[str, Any]
    """Response with the weights of the contract."""
    equal: dict[str, Any]
    """Response with `weight` = 1."""
    best: BestKnown
    excess: float
    """Objective over the best known, less one."""
    reason: str
    """Why it falls short; empty where it does not."""
    alone: Alone
    move: Move
    shuffled: float
    """Largest relative change of a parameter."""
    rescaled: float


def read_panels(folder: Path) -> list[MarketPanel]:
    """Every panel of the folder whose quotes have strikes and forwards; strategy quotes and rejected files are none."""
    panels = []
    for path in sorted(folder.glob("*.csv")):
        if path.stem.endswith("_rejected"):
            continue
        rows: dict[str, list[dict[str, str]]] = {}
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row["strike"] and row["forward"] and row["expiry_years"]:
                    rows.setdefault(f"{path.stem} {row['as_of']}".strip(), []).append(row)
        for label, group in rows.items():
            quotes = {
                field: [float(row[column]) if row[column] else None for row in group]
                for field, column in COLUMNS.items()
            }
            panels.append(MarketPanel(label, quotes))
    return panels


class Client:
    """One connection to the server."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)

    def get(self, path: str) -> int:
        self._connection.request("GET", path)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status

    def calibrate(self, quotes: Quotes, **options: Any) -> dict[str, Any]:
        """The response, a problem too."""
        body = json.dumps({"quotes": quotes, "detail": True, **options}, allow_nan=False)
        self._connection.request("POST", "/v1/calibrate", body, {"Content-Type": "application/json"})
        answer = self._connection.getresponse()
        document: dict[str, Any] = json.loads(answer.read())
        return document


@contextmanager
def running_server() -> Iterator[Client]:
    """`python -m service` on a free port, ready; ended afterwards."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "CALIBRANT_PORT": str(port), "CALIBRANT_LOG_LEVEL": "warning"}
    server = subprocess.Popen([sys.executable, "-m", "service"], env=environment, cwd=ROOT)
    try:
        for _ in range(600):
            if server.poll() is not None:
                raise RuntimeError(f"the server ended with code {server.returncode} before it was ready")
            try:
                if Client(port).get("/health/ready") == 200:
                    break
            except OSError:
                pass
            time.sleep(0.2)
        else:
            raise RuntimeError("the server was not ready after two minutes")
        yield Client(port)
    finally:
        server.terminate()
        server.wait(timeout=30)


def mids(quotes: Quotes) -> list[float | None]:
    """The mid of each quote as the contract defines it."""
    return [
        iv if iv is not None else 0.5 * (bid + ask) if bid is not None and ask is not None else None
        for iv, bid, ask in zip(quotes["iv"], quotes["bid_iv"], quotes["ask_iv"], strict=True)
    ]


def used_panel(quotes: Quotes, response: dict[str, Any]) -> OptionPanel:
    """The quotes that the server used, equally weighted."""
    excluded = {entry["index"] for entry in response["fit"]["excluded"]}
    kept = [i for i in range(len(quotes["expiry"])) if i not in excluded]
    vols = mids(quotes)
    return OptionPanel.from_quotes(
        expiry=[quotes["expiry"][i] for i in kept],
        strike=[quotes["strike"][i] for i in kept],
        forward=[quotes["forward"][i] for i in kept],
        iv=[vols[i] for i in kept],
        weight=np.ones(len(kept)),
    )


def from_network(quotes: Quotes, release: Release, used: OptionPanel, judged_best: float) -> Alone:
    """What the network's start leads to by itself, and whether that would be doubted.

    used  the quotes that count, on which the objective is judged
    """
    panel = OptionPanel.from_quotes(
        expiry=quotes["expiry"],
        strike=quotes["strike"],
        forward=quotes["forward"],
        iv=mids(quotes),
        weight=np.ones(len(quotes["expiry"])),
    )
    fit = assess(panel, HESTON, release, effort=Effort(second_opinion=False)).calibration
    default = assess(panel, HESTON, release).calibration
    return Alone(
        excess=judged_objective(used, fit.parameters) / judged_best - 1.0,
        iterations=fit.iterations,
        doubted=default.n_starts > 1,
    )


def judged_objective(panel: OptionPanel, params: Vector) -> float:
    """Sum of squared vol differences by the accurate pricer."""
    away = model_vols(HESTON, panel.log_moneyness, panel.expiry, params) - panel.mid
    return float(away @ away)


def best_known(panel: OptionPanel, n_starts: int, seed: int) -> BestKnown:
    """The best of `n_starts` random starts of scipy's bounded trust-region reflective method.

    Starts are uniform in the logarithm: kappa 0.05 to 50, xi 0.05 to 10, theta and v0 a tenth to ten times the at-the-
    money variance; rho uniform in +-0.95. Panels of more than a thousand quotes get 40 evaluations a start, the others
    200, and the five best of them are then run until they converge with the kernel's finest error.
    """
    problem = fit_problem(panel, HESTON, CalibrationOptions())
    generator = np.random.default_rng(seed)
    nearest = panel.mid[np.argsort(np.abs(panel.log_moneyness))[: max(3, panel.n_quotes // 20)]]
    variance = float(np.median(nearest) ** 2)
    low = np.array([0.05, 0.1 * variance, 0.05, -0.95, 0.1 * variance])
    high = np.array([50.0, 10.0 * variance, 10.0, 0.95, 10.0 * variance])
    share = generator.random((n_starts, 5))
    starts = np.exp(np.log(np.abs(low)) + (np.log(np.abs(high)) - np.log(np.abs(low))) * share)
    starts[:, 3] = low[3] + (high[3] - low[3]) * share[:, 3]
    starts = np.clip(starts, problem.lower * 1.0001, problem.upper * 0.9999)
    began = time.perf_counter()
    evaluations = 40 if panel.n_quotes > _LARGE_PANEL else 200
    found = sorted((_trust_region(problem, start, COARSE, evaluations) for start in starts), key=lambda fit: fit[0])
    finest = [_trust_region(problem, params, FINE, 200) for _, params in found[:5]]
    objective, params = min(finest, key=lambda fit: fit[0])
    return BestKnown(
        params=params,
        n_found=sum(one <= (1.0 + LARGEST_EXCESS) * objective for one, _ in found),
        n_starts=n_starts,
        seconds=time.perf_counter() - began,
    )


def _trust_region(problem: FitProblem, start: Vector, vol_error: float, evaluations: int) -> tuple[float, Vector]:
    vols = problem.vol.copy()
    residual, jacobian = np.empty(problem.vol.size), np.empty((5, problem.vol.size))

    def residuals(params: Vector) -> Vector:
        evaluate(params, problem, vol_error, vols, residual, jacobian)
        return residual.copy()

    def derivatives(params: Vector) -> Vector:
        # scipy asks for the derivatives at the point it accepted, which need not be the last one evaluated.
        evaluate(params, problem, vol_error, vols, residual, jacobian)
        return jacobian.T.copy()

    fit = least_squares(
        residuals,
        np.clip(start, problem.lower, problem.upper),
        derivatives,
        bounds=(problem.lower, problem.upper),
        x_scale="jac",
        ftol=1e-12,
        xtol=1e-12,
        gtol=1e-15,
        max_nfev=evaluations,
    )
    return 2.0 * float(fit.cost), fit.x


def vector(response: dict[str, Any]) -> Vector:
    return np.array([response["parameters"][name] for name in HESTON.parameters])


def relative_change(response: dict[str, Any], other: dict[str, Any]) -> float:
    a, b = vector(response), vector(other)
    return float(np.max(np.abs(b / a - 1.0)))


def sum_of_squares(response: dict[str, Any]) -> float:
    return float(response["fit"]["n_quotes"] * response["fit"]["rmse_bp"] ** 2)


def perturb(client: Client, quotes: Quotes, equal: dict[str, Any], seed: int) -> Move:
    """Move every mid by a tenth of a basis point up or down."""
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], len(quotes["expiry"]))
    vols = [
        None if vol is None else vol + 1e-4 * PERTURBATION_BP * sign
        for vol, sign in zip(mids(quotes), signs, strict=True)
    ]
    moved_quotes = {**quotes, "iv": vols, "bid_iv": None, "ask_iv": None, "weight": [1.0] * len(vols)}
    moved = client.calibrate(moved_quotes)
    held = client.calibrate(moved_quotes, start=equal["parameters"])
    return Move(
        bp=largest_difference_bp(equal, moved),
        from_answer_bp=largest_difference_bp(equal, held),
        objective_ratio=sum_of_squares(moved) / sum_of_squares(held),
    )


def largest_difference_bp(response: dict[str, Any], other: dict[str, Any]) -> float:
    """Over the quotes used in both."""
    vols = np.array([response["model_iv"], other["model_iv"]], np.float64)  # None becomes NaN
    return 1e4 * float(np.nanmax(np.abs(vols[0] - vols[1])))


def shuffled_quotes(quotes: Quotes, seed: int) -> Quotes:
    order = np.random.default_rng(seed).permutation(len(quotes["expiry"]))
    return {field: [values[i] for i in order] for field, values in quotes.items()}


def rescaled_quotes(quotes: Quotes) -> Quotes:
    return {
        **quotes,
        "strike": [1e3 * strike for strike in quotes["strike"]],
        "forward": [1e3 * forward for forward in quotes["forward"]],
    }


def why_short(panel: OptionPanel, best: BestKnown, judged_best: float) -> str:
    """Whether the refinement stops short at the best known optimum, or no start led there."""
    again = calibrate(panel, HESTON, [Start("given", best.params)], CalibrationOptions())
    there = judged_objective(panel, again.parameters)
    if there <= (1.0 + LARGEST_EXCESS) * judged_best:
        return f"another optimum, which {best.n_found} of {best.n_starts} random starts reach and none of ours"
    return f"the refinement leaves the best known optimum ({again.status})"


def measure(client: Client, release: Release, panel: MarketPanel, n_starts: int, known: "Checkpoint") -> Row:
    """Everything about one panel."""
    default = client.calibrate(panel.quotes)
    if "parameters" not in default:
        raise RuntimeError(f"{panel.label}: {default.get('detail')} {default.get('errors')}")
    quotes = {**panel.quotes, "weight": [1.0] * len(panel.quotes["expiry"])}
    equal = client.calibrate(quotes)
    used = used_panel(panel.quotes, equal)
    best = known.best(used, n_starts)
    judged_best = judged_objective(used, best.params)
    excess = judged_objective(used, vector(equal)) / judged_best - 1.0
    return Row(
        label=panel.label,
        n_given=len(panel.quotes["expiry"]),
        default=default,
        equal=equal,
        best=best,
        excess=excess,
        reason=why_short(used, best, judged_best) if excess > LARGEST_EXCESS else "",
        alone=from_network(panel.quotes, release, used, judged_best),
        move=perturb(client, quotes, equal, SEED),
        shuffled=relative_change(equal, client.calibrate(shuffled_quotes(quotes, SEED))),
        rescaled=relative_change(equal, client.calibrate(rescaled_quotes(quotes))),
    )


class Checkpoint:
    """The best known optima found so far, a line each, found again by the quotes they belong to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lines: dict[str, dict[str, Any]] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                entry = json.loads(line)
                self._lines[entry["key"]] = entry

    def best(self, panel: OptionPanel, n_starts: int) -> BestKnown:
        quotes = np.concatenate([panel.expiry, panel.log_moneyness, panel.mid, panel.weight])
        key = f"{SEED} {n_starts} {hashlib.sha256(quotes.tobytes()).hexdigest()}"
        if key not in self._lines:
            best = best_known(panel, n_starts, SEED)
            entry = {**best._asdict(), "key": key, "params": best.params.tolist()}
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a") as file:
                file.write(json.dumps(entry) + "\n")
            self._lines[key] = entry
        entry = self._lines[key]
        return BestKnown(np.array(entry["params"]), entry["n_found"], entry["n_starts"], entry["seconds"])


def summary(rows: list[Row]) -> list[str]:
    """What was asked and how many panels meet it."""
    worst = max(rows, key=lambda row: row.excess)
    moved = max(rows, key=lambda row: row.move.bp)
    n = len(rows)
    return [
        "| what | panels | worst |",
        "|---|---|---|",
        f"| calibrated | {n} | {sum(row.default['status'] != 'converged' for row in rows)} not converged with default, "
        f"{sum(row.equal['status'] != 'converged' for row in rows)} with equal weights |",
        f"| objective within {100 * LARGEST_EXCESS:g} % of the best known | "
        f"{sum(row.excess <= LARGEST_EXCESS for row in rows)} of {n} | {worst.excess:+.1e} ({worst.label}) |",
        f"| all quotes moved by {PERTURBATION_BP} bp: fitted vols move {LARGEST_MOVE_BP} bp at most | "
        f"{sum(row.move.bp <= LARGEST_MOVE_BP for row in rows)} of {n} | {moved.move.bp:.3g} bp ({moved.label}) |",
        f"| shuffled: parameters within {SAME_ANSWER:g} | {sum(row.shuffled <= SAME_ANSWER for row in rows)} of {n} "
        f"| {max(row.shuffled for row in rows):.1e} |",
        f"| strikes and forward times 1,000: within {SAME_ANSWER:g} | "
        f"{sum(row.rescaled <= SAME_ANSWER for row in rows)} of {n} | {max(row.rescaled for row in rows):.1e} |",
        *(_alone_line(group, chosen) for group, chosen in groups(rows).items()),
        "",
        f"Answers from the network's start: {sum(row.equal['start'] == 'network' for row in rows)} of {n} with equal "
        f"weights. Quotes left out for a vega below 1e-3 of the forward: "
        f"{sum(_low_vega(row.equal) for row in rows)} of {sum(row.n_given for row in rows)}.",
        "",
    ]


def groups(rows: list[Row]) -> dict[str, list[Row]]:
    """The dates of one underlying, the SSE 50 ETF, are most of the panels: they count apart."""
    dates = [row for row in rows if row.label.startswith("sse50etf")]
    return {"SSE 50 ETF": dates, "all others": [row for row in rows if row not in dates]}


def _alone_line(group: str, rows: list[Row]) -> str:
    if not rows:
        return f"| from the network's start alone, {group} | - | - |"
    worst = max(rows, key=lambda row: row.alone.excess)
    within = sum(row.alone.excess <= LARGEST_EXCESS for row in rows)
    doubted = sum(row.alone.doubted for row in rows)
    return (
        f"| from the network's start alone within {100 * LARGEST_EXCESS:g} %, {group}; a second opinion is asked for "
        f"on {doubted} | {within} of {len(rows)} | {worst.alone.excess:+.1e} ({worst.label}) |"
    )


def _low_vega(response: dict[str, Any]) -> int:
    return sum(entry["reason"].startswith("vega below") for entry in response["fit"]["excluded"])


def exceptions(rows: list[Row]) -> list[str]:
    """Every panel that misses a target, with the reason."""
    lines = []
    for row in rows:
        if row.alone.excess > LARGEST_EXCESS:
            lines.append(
                f"- {row.label}: the network's start alone ends {100 * row.alone.excess:.2f} % above the best known; "
                f"with the second opinion {100 * row.excess:+.1e} %."
            )
        if row.excess > LARGEST_EXCESS:
            ours = ", ".join(f"{x:.4g}" for x in vector(row.equal))
            best = ", ".join(f"{x:.4g}" for x in row.best.params)
            lines.append(
                f"- {row.label}: {100 * row.excess:.2f} % above the best known. {row.reason}. Ours ({ours}), best "
                f"({best})."
            )
        if row.move.bp > LARGEST_MOVE_BP:
            held = f"started from the unperturbed answer they move {row.move.from_answer_bp:.2g} bp"
            if row.move.from_answer_bp <= LARGEST_MOVE_BP:
                other = 100.0 * (1.0 / row.move.objective_ratio - 1.0)
                kind = f"a jump between optima: {held}, to an objective {other:+.2g} % from the other's"
            else:
                kind = f"no jump between optima: {held}, so the fit itself is that sensitive there"
            lines.append(f"- {row.label}: fitted vols move {row.move.bp:.3g} bp, {kind}.")
        for name, change in (("shuffled", row.shuffled), ("strikes and forward times 1,000", row.rescaled)):
            if change > SAME_ANSWER:
                lines.append(f"- {row.label}: {name}, a parameter changes by {change:.1e} of itself.")
    return ["## Short of a target", "", *(lines or ["None."]), ""]


def tables(rows: list[Row]) -> list[str]:
    """A line for each panel in both tables."""
    lines = [
        "## Weights of the contract",
        "",
        "1 / spread^2 where bid and ask are quoted, else equal. Times from `timing_us` of one request, ms.",
        "",
        "| panel | quotes used | left out | rmse bp | status | start | at bounds | out of domain | evaluations "
        "| refine | total |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        fit, timing = row.default["fit"], row.default["timing_us"]
        lines.append(
            f"| {row.label} | {fit['n_quotes']} | {len(fit['excluded'])} | {fit['rmse_bp']:.2f} "
            f"| {row.default['status']} | {row.default['start']} | {', '.join(row.default['at_bounds']) or '-'} "
            f"| {'yes' if row.default['out_of_domain'] else 'no'} | {row.default['iterations']} "
            f"| {timing['refine'] / 1e3:.2f} | {timing['total'] / 1e3:.2f} |"
        )
    lines += [
        "",
        "## Equal weights",
        "",
        "Excess: objective over the best known less one, both by the accurate pricer; network alone: the same without "
        "a second opinion. Found: random starts that ended "
        "within 0.1 % of the best. Move: largest move of a fitted vol when every quote moves by "
        f"{PERTURBATION_BP} bp.",
        "",
        "| panel | quotes used | rmse bp | status | start | at bounds | refine ms | excess | network alone "
        "| its evaluations | found | move bp | shuffled | times 1,000 |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        fit = row.equal["fit"]
        lines.append(
            f"| {row.label} | {fit['n_quotes']} | {fit['rmse_bp']:.2f} | {row.equal['status']} | {row.equal['start']} "
            f"| {', '.join(row.equal['at_bounds']) or '-'} | {row.equal['timing_us']['refine'] / 1e3:.2f} "
            f"| {row.excess:+.1e} | {row.alone.excess:+.1e} | {row.alone.iterations} "
            f"| {row.best.n_found}/{row.best.n_starts} | {row.move.bp:.3f} | {row.shuffled:.0e} "
            f"| {row.rescaled:.0e} |"
        )
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quotes", type=Path, default=ROOT.parent / "shared" / "market", help="folder of CSV panels")
    parser.add_argument("--starts", type=int, default=50, help="random starts of the other optimiser")
    parser.add_argument("--only", default="", help="panels whose label contains this")
    parser.add_argument("--checkpoint", type=Path, default=CACHE / "market_starts.jsonl")
    parser.add_argument("--out", type=Path, default=RESULTS / "market.md")
    given = parser.parse_args()
    panels = [panel for panel in read_panels(given.quotes) if given.only in panel.label]
    known = Checkpoint(given.checkpoint)
    rows: list[Row] = []
    release = released(ROOT / "networks", HESTON.name)
    with running_server() as client:
        for panel in panels:
            row = measure(client, release, panel, given.starts, known)
            rows.append(row)
            print(
                f"{len(rows)}/{len(panels)} {row.label}: {row.equal['fit']['rmse_bp']:.2f} bp, "
                f"excess {row.excess:+.1e}, move {row.move.bp:.3f} bp, other optimiser {row.best.seconds:.1f} s",
                flush=True,
            )
    lines = [
        "# Real panels through the server",
        "",
        f"`python -m benchmarks.market --starts {given.starts}`, {rows[0].equal['model_version']}, seed {SEED}; the "
        f"other optimiser took {sum(row.best.seconds for row in rows):.0f} s: trust-region reflective (scipy), random "
        "starts, 200 evaluations each (40 on panels of more than 1,000 quotes), the five best polished.",
        "",
        describe_machine("onnxruntime"),
        "",
        *summary(rows),
        *exceptions(rows),
        *tables(rows),
    ]
    write_report(given.out, lines)


if __name__ == "__main__":
    main()
