"""Whether a change keeps Heston's answers: record what some 320 requests are answered today, and compare after it.

    python -m benchmarks.same_answers record answers.npz
    python -m benchmarks.same_answers compare answers.npz

Panels of the paper's grid, clean and noisy, and every panel of the market at hand, with options of every kind.
Two answers agree within 1e-9 of the objective, 1e-6 bp of every model vol, and each parameter within 1e-9 of itself or
1e-4 of its standard error.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from calibrant.arrays import Vector
from calibrant.calibration import Calibration
from calibrant.models import HESTON
from calibrant.options import CalibrationOptions, Prior
from calibrant.panel import OptionPanel
from calibrant.pipeline import assess
from calibrant.release import released
from reporting.machine import ROOT

from .market import read_panels
from .paper_panels import clean_panels, noisy_panels

SEED = 1014
OBJECTIVE, VOL_BP, PARAMETER, ERRORS = 1e-9, 1e-6, 1e-9, 1e-4
"""Relative; basis points; relative; standard errors."""
_EXACT_VOL = 1e-9
"""Root mean square error below which a fit is exact, and its objective nothing but rounding."""


class Request(NamedTuple):
    """A panel with what is asked of it."""

    label: str
    panel: OptionPanel
    options: CalibrationOptions
    given: Vector | None = None


def requests(quotes: Path) -> Iterator[Request]:
    """The requests, the same ones in every run."""
    plain = CalibrationOptions()
    market = [OptionPanel.from_quotes(**panel.quotes) for panel in read_panels(quotes)] if quotes.is_dir() else []
    clean = [sample.panel for sample in clean_panels(60, SEED)]
    noisy = [sample.panel for sample in noisy_panels(60, SEED)]
    for name, panels in (("clean", clean), ("noisy", noisy), ("market", market)):
        for i, panel in enumerate(panels):
            yield Request(f"{name} {i}", panel, plain)
    small = [panel for panel in market if panel.n_quotes <= 400]
    deviations = np.array([2.0, 0.02, 0.5, 0.2, 0.02])
    kinds = (
        ("lbfgs", plain._replace(refine="lbfgs"), None),
        ("none", plain._replace(refine="none"), None),
        ("fixed", plain._replace(fixed={"kappa": 2.0}), None),
        ("bounds", plain._replace(bounds=_narrowed()), None),
        ("prior", plain._replace(prior=_prior(deviations)), None),
        ("huber", plain._replace(loss="huber"), None),
        ("given", plain, np.array([3.0, 0.05, 0.9, -0.4, 0.06])),
    )
    mixed = [panel for group in zip(noisy, (small * 60)[:60], strict=True) for panel in group] if small else noisy
    for i, panel in enumerate(mixed):
        kind, options, given = kinds[i % len(kinds)]
        yield Request(f"{kind} {i}", panel, options, given)


def _narrowed() -> np.ndarray:
    bounds = np.stack((HESTON.lower, HESTON.upper), axis=1)
    bounds[0] = 0.5, 8.0
    bounds[3] = -0.8, 0.2
    return bounds


def _prior(deviations: Vector) -> Prior:
    return Prior(parameters=np.array([2.0, 0.04, 0.5, -0.6, 0.04]), standard_deviations=deviations)


def answers(quotes: Path) -> Iterator[tuple[str, Calibration]]:
    """The answer to each of the requests."""
    release = released(ROOT / "networks", HESTON.name)
    for request in requests(quotes):
        yield request.label, assess(request.panel, HESTON, release, request.options, request.given).calibration


def differences(before: dict[str, np.ndarray], label: str, now: Calibration) -> list[str]:
    """What is not the same any more; nothing, as a rule."""
    objective, params, errors, vols, status = (before[f"{label}/{part}"] for part in _PARTS)
    found = []
    floor = now.n_quotes * _EXACT_VOL**2
    if str(status) != now.status:
        found.append(f"status {status} -> {now.status}")
    if abs(now.objective - objective) > OBJECTIVE * objective + floor:
        found.append(f"objective {objective:.12g} -> {now.objective:.12g}")
    if vols.shape != now.model_iv.shape:
        return [*found, f"{vols.size} -> {now.model_iv.size} quotes used"]
    if (worst := 1e4 * np.abs(now.model_iv - vols).max()) > VOL_BP:
        found.append(f"model vols by {worst:.2g} bp")
    for name, one, other, error in zip(now.model.parameters, params, now.parameters, errors, strict=True):
        if not abs(other - one) <= max(PARAMETER * abs(one), ERRORS * np.nan_to_num(error)):
            found.append(f"{name} {one:.10g} -> {other:.10g} (standard error {error:.2g})")
    return found


_PARTS = ("objective", "params", "errors", "vols", "status")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=("record", "compare"))
    parser.add_argument("file", type=Path, help="the recorded answers")
    parser.add_argument("--quotes", type=Path, default=ROOT.parent / "shared" / "market", help="market panels")
    arguments = parser.parse_args()
    if arguments.action == "record":
        recorded: dict[str, np.ndarray] = {}
        for label, of in answers(arguments.quotes):
            parts = (of.objective, of.parameters, of.standard_errors, of.model_iv, of.status)
            recorded |= {f"{label}/{part}": np.asarray(value) for part, value in zip(_PARTS, parts, strict=True)}
        np.savez_compressed(arguments.file, allow_pickle=False, **recorded)
        print(f"{len(recorded) // len(_PARTS)} answers recorded in {arguments.file}.")
        return
    with np.load(arguments.file) as file:
        before = dict(file)
    n, changed = 0, 0
    for label, now in answers(arguments.quotes):
        n += 1
        if found := differences(before, label, now):
            changed += 1
            print(f"{label}: {'; '.join(found)}")
    print(f"{n - changed} of {n} answers agree.")
    raise SystemExit(1 if changed else 0)


if __name__ == "__main__":
    main()
