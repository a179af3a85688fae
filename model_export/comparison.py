"""A release against the one it replaces, on the same held-out panels: what their starts are worth.

A start is worth what it spares the refinement, so the work of whole calibrations counts, in evaluations of the
quotes: the same numbers on every machine. Where nothing is refined the start is the answer, so its distance from the
quotes counts besides. What a network takes to answer is not compared here but by `benchmarks.releases`, which has a
clock.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from calibrant.calibration import calibrate, calibration_steps
from calibrant.models import MODELS
from calibrant.options import CalibrationOptions
from calibrant.panel import OptionPanel, identifiable
from calibrant.pipeline import starting_from
from calibrant.release import Release
from training.domain import DOMAINS
from training.evaluation.inputs import held_out_panels

N_PANELS = 400
"""Of each domain."""
SEED = 6
"""Of the panels: training has 1, validation 2, the evaluation 3, 12 and 13, exports 4 and 5."""
TOLERANCE = 0.02
"""Share by which a figure may be worse: a few of the panels take an evaluation more or less whatever the network."""


class WorseRelease(RuntimeError):
    """What was to be released is worse than what it replaces."""


class Worth(NamedTuple):
    """Of a release's starts, over the panels of a domain."""

    evaluations: float
    """Of all quotes of a panel, until the answer: the mean."""
    error_bp: float
    """Root mean square distance of the start's vols from the quotes: the median."""


class Comparison(NamedTuple):
    """On one domain."""

    domain: str
    n_panels: int
    before: Worth
    after: Worth

    def losses(self) -> list[str]:
        """What is worse, and by how much."""
        found = []
        for what, old, new in (
            ("evaluations to an answer", self.before.evaluations, self.after.evaluations),
            ("bp from the quotes to the start", self.before.error_bp, self.after.error_bp),
        ):
            # Inverted, so that a NaN counts.
            if not new <= old * (1.0 + TOLERANCE):
                found.append(f"{self.domain}: {new:.4g} {what} for {old:.4g}, {100.0 * (new / old - 1.0):.0f} % more")
        return found


def compared(before: Release, after: Release, n_panels: int = N_PANELS) -> list[Comparison]:
    """Both releases, each as a whole, on the panels of every domain that either has a network for."""
    names = dict.fromkeys(network.manifest.domain for network in (*before.networks, *after.networks))
    found = []
    for name in names:
        panels = held_out_panels(DOMAINS[name], SEED, n_panels)
        found.append(Comparison(name, len(panels), *(worth_of(release, panels) for release in (before, after))))
    return found


def require_no_worse(before: Release, comparisons: Sequence[Comparison]) -> None:
    """raises  WorseRelease where a figure is worse than that of `before` by more than `TOLERANCE`"""
    losses = [loss for comparison in comparisons for loss in comparison.losses()]
    if losses:
        raise WorseRelease(
            f"worse than {before.version}, which it would replace ({'; '.join(losses)}): nothing was released. "
            "`--force` releases it all the same."
        )


def worth_of(release: Release, panels: Sequence[OptionPanel]) -> Worth:
    """What the starts of a release are worth."""
    model = MODELS[release.model]
    evaluations, error_bp = [], []
    for panel in panels:
        starts = starting_from(release.propose(panel))
        spent = max((progress.done for progress in calibration_steps(panel, model, starts)), default=0.0)
        evaluations.append(spent / identifiable(panel).n_quotes)
        error_bp.append(calibrate(panel, model, starts, CalibrationOptions(refine="none")).rmse_bp)
    return Worth(float(np.mean(evaluations)), float(np.median(error_bp)))
