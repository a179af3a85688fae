"""Recovery of known parameters: noiseless panels to the last digits, noisy ones to what their noise allows.

    python -m benchmarks.recovery

Every panel is priced by the accurate pricer and calibrated from the released network's start. Part one calibrates
noiseless panels of the paper's box; part two adds noise to the mids, masks quotes, and asks whether the standard errors
reported tell the truth and how far the errors are from the Cramer-Rao bound.
"""

import argparse
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import numpy as np

from calibrant.arrays import Vector
from calibrant.calibration import Calibration, calibrate
from calibrant.models import HESTON
from calibrant.network import Network
from calibrant.options import Start
from calibrant.panel import OptionPanel
from calibrant.release import released
from reporting.machine import RESULTS, describe_machine, write_report
from training.domain import DOMAINS
from training.evaluation.noisy import LARGEST_BOUND, Noisy, study
from training.evaluation.surfaces import nodes_of
from training.exact_panels import grid_quotes, model_vols
from training.panels import panel_parameters

CLEAN_SEED, NOISY_SEED, NOISE_SEED = 11, 12, 13
"""The training, validation and held-out panels have seeds 1, 2 and 3, the strides' latency 5."""
VOL_TARGET_BP = 0.01
PARAMETER_TARGET = 1e-4


class Recovered(NamedTuple):
    """A noiseless panel after calibration."""

    number: int
    """In the seed's sequence."""
    truth: Vector
    calibration: Calibration
    vol_error_bp: float
    """Largest over the quotes used, of the accurate pricer's vols at the fitted parameters."""
    parameter_error: float
    """Largest, relative to the truth."""
    first_ms: float
    best_ms: float

    @property
    def failure(self) -> str | None:
        """Why it counts as a failure; None if it does not."""
        reasons: list[str] = []
        if self.calibration.status != "converged":
            reasons.append(self.calibration.status)
        if not self.vol_error_bp <= VOL_TARGET_BP:
            reasons.append(f"vols {self.vol_error_bp:.2g} bp off")
        if not self.parameter_error <= PARAMETER_TARGET:
            reasons.append(f"parameters {self.parameter_error:.1e} off")
        return ", ".join(reasons) or None


def propose(network: Network, panel_vols: Vector) -> list[Start]:
    """The network's start for vols (n_quotes,) on its own grid, NaN where missing, as the pipeline would make it."""
    iv = panel_vols.reshape(1, network.grid.expiry.size, network.grid.log_moneyness.size)
    params = network.parameters(iv)[0]
    return [Start("network", params, network.in_domain(params, np.isfinite(iv[0])))]


def recover(network: Network, number: int, truth: Vector, repeats: int) -> Recovered:
    """Price a noiseless panel and calibrate it, the same call repeated for its time."""
    expiry, log_moneyness = grid_quotes(DOMAINS["paper"])
    vols = model_vols(HESTON, log_moneyness, expiry, truth)
    panel = OptionPanel.from_quotes(expiry=expiry, log_moneyness=log_moneyness, iv=vols)
    starts = propose(network, vols)
    times = []
    for _ in range(repeats):
        began = perf_counter()
        calibration = calibrate(panel, HESTON, starts)
        times.append(1e3 * (perf_counter() - began))
    used = calibration.panel
    fitted = model_vols(HESTON, used.log_moneyness, used.expiry, calibration.parameters)
    return Recovered(
        number=number,
        truth=truth,
        calibration=calibration,
        vol_error_bp=1e4 * float(np.max(np.abs(fitted - used.mid))),
        parameter_error=float(np.max(np.abs(calibration.parameters / truth - 1.0))),
        first_ms=times[0],
        best_ms=min(times),
    )


def clean_section(panels: list[Recovered]) -> list[str]:
    """The table of the noiseless panels and every failure."""
    failures = [panel for panel in panels if panel.failure]
    best, first = np.array([p.best_ms for p in panels]), np.array([p.first_ms for p in panels])
    evaluations = np.array([p.calibration.iterations for p in panels])
    several = sum(p.calibration.n_starts > 1 for p in panels)
    left_out = sum(len(p.calibration.excluded) for p in panels)
    n_quotes = sum(p.calibration.n_quotes for p in panels) + left_out
    vol_error = np.array([p.vol_error_bp for p in panels])
    parameter_error = np.array([p.parameter_error for p in panels])
    lines = [
        "## Noiseless panels",
        "",
        f"{len(panels)} panels, seed {CLEAN_SEED}. Recovered: converged, every vol within {VOL_TARGET_BP} bp and every "
        f"parameter within {PARAMETER_TARGET:g} of itself. The vols judged are the accurate pricer's at the fitted "
        "parameters. Time: `calibrate`, from the start to the report, its last steps with all digits included.",
        "",
        "| what | measured | target |",
        "|---|---|---|",
        f"| recovered | {100.0 * (1.0 - len(failures) / len(panels)):.2f} % | 99.9 % |",
        f"| largest vol error, bp: median, 99.9 %, worst | {quantiles(vol_error)} | {VOL_TARGET_BP} |",
        f"| largest relative parameter error: median, 99.9 %, worst | {quantiles(parameter_error)} "
        f"| {PARAMETER_TARGET:g} |",
        f"| ms, median (each panel's best call) | {np.median(best):.3f} | 0.4 |",
        f"| ms, 99th percentile (each panel's best call) | {np.percentile(best, 99):.3f} | 1 |",
        f"| ms, median and 99th percentile (each panel's first call) | {np.median(first):.3f}, "
        f"{np.percentile(first, 99):.3f} | |",
        f"| evaluations: mean, 99th percentile, most | {evaluations.mean():.2f}, {np.percentile(evaluations, 99):.0f}, "
        f"{evaluations.max()} | |",
        f"| panels refined from more than one start | {several} | |",
        f"| quotes below the vega floor, left out | {left_out} of {n_quotes} | |",
        "",
        f"Failures: {len(failures)}.",
        "",
    ]
    if failures:
        lines += [
            "| panel | kappa, theta, xi, rho, v0 | reason | largest relative standard error | at bounds | starts |",
            "|---|---|---|---|---|---|",
        ]
    for panel in failures:
        fit = panel.calibration
        spread = np.max(fit.standard_errors / np.abs(fit.parameters))
        lines.append(
            f"| {panel.number} | {', '.join(f'{x:.4g}' for x in panel.truth)} | {panel.failure} | {spread:.1e} "
            f"| {', '.join(fit.at_bounds) or 'none'} | {fit.n_starts} |"
        )
    return [*lines, ""] if failures else lines


def quantiles(values: Vector) -> str:
    return ", ".join(f"{x:.1e}" for x in (np.median(values), np.percentile(values, 99.9), values.max()))


def noisy_section(noisy: Noisy) -> list[str]:
    """Coverage and efficiency per parameter, over the panels where both are defined and over the others apart."""
    without = noisy.judged & ~np.isfinite(noisy.z).all(axis=1)
    judged, loose = noisy.judged & ~without, noisy.loose
    lines = [
        "## Noisy panels",
        "",
        f"{judged.size} panels, seed {NOISY_SEED}, noise seed {NOISE_SEED}, quoted as in `training.evaluation.noisy`: "
        "Gaussian noise of 0.5 bp on every mid, 5 % of the quotes missing at random, equal weights. Coverage: share of "
        "panels whose truth lies within two standard errors reported (Student's t with some 70 degrees of freedom: "
        "95.1 %). Efficiency: root mean square of error over the Cramer-Rao bound of that panel's quotes, derivatives "
        "from the accurate pricer at the truth.",
        "",
        f"Judged: {judged.sum()}. Counted apart: {noisy.on_bound.sum()} ended on a bound, {loose.sum()} have a "
        f"Cramer-Rao bound above {100 * LARGEST_BOUND:g} % of a parameter, {without.sum()} have no standard error for "
        f"another reason. Not converged: {(~noisy.converged).sum()}.",
        "",
        "| parameter | coverage, % (93 to 97) | efficiency (0.95 to 1.05) | mean of error / bound "
        "| coverage of those with a wide bound, % |",
        "|---|---|---|---|---|",
    ]
    for i, name in enumerate(HESTON.parameters):
        covered = 100.0 * np.mean(np.abs(noisy.z[judged, i]) <= 2.0)
        efficiency = np.sqrt(np.mean(noisy.after[judged, i] ** 2))
        wide = f"{100.0 * np.mean(np.abs(noisy.z[loose, i]) <= 2.0):.1f}" if loose.any() else "none"
        lines.append(f"| {name} | {covered:.2f} | {efficiency:.3f} | {noisy.after[judged, i].mean():+.3f} | {wide} |")
    return [*lines, ""]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", type=Path, default=Path("networks"))
    parser.add_argument("--clean", type=int, default=2500, help="noiseless panels")
    parser.add_argument("--noisy", type=int, default=5000, help="noisy panels")
    parser.add_argument("--repeats", type=int, default=5, help="timed calls of each noiseless panel")
    parser.add_argument("--out", type=Path, default=RESULTS / "recovery.md")
    given = parser.parse_args()
    # The narrowest network is that of the paper's box.
    network = released(given.networks, "heston").networks[0]
    domain = DOMAINS[network.manifest.domain]
    recover(network, 0, panel_parameters(domain, CLEAN_SEED, 0, 1)[0], 1)  # compiles
    began = perf_counter()
    panels = []
    for i, truth in enumerate(panel_parameters(domain, CLEAN_SEED, 0, given.clean)):
        panels.append(recover(network, i, truth, given.repeats))
        if (i + 1) % 500 == 0:
            print(f"noiseless {i + 1}/{given.clean}, {sum(p.failure is not None for p in panels)} failed", flush=True)
    truths = panel_parameters(domain, NOISY_SEED, 0, given.noisy)
    noisy = study(network, nodes_of(domain, truths), truths, NOISE_SEED, lambda line: print(line, flush=True))
    lines = [
        "# Recovery of known parameters",
        "",
        f"`python -m benchmarks.recovery --clean {given.clean} --noisy {given.noisy} --repeats {given.repeats}`, "
        f"{network.version}, {perf_counter() - began:.0f} s.",
        "",
        describe_machine("onnxruntime"),
        "",
        f"Panels of 8 expiries x 10 strikes, parameters uniform in the box `{domain.name}` (`training.panels`).",
        "",
        *clean_section(panels),
        *noisy_section(noisy),
    ]
    write_report(given.out, lines)


if __name__ == "__main__":
    main()
