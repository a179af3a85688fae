"""Noiseless panels after refinement: from the network's start, how many come back to the last digits."""

from typing import NamedTuple

import numpy as np

from calibrant.arrays import Matrix, Vector
from calibrant.calibration import Calibration, calibrate
from calibrant.models import Model
from calibrant.options import Start
from calibrant.panel import OptionPanel

from .accuracy import Spread
from .answers import Answerer
from .inputs import grid_panel
from .surfaces import Nodes, vols_at

TARGET_BP = 0.01


class Refined(NamedTuple):
    """Noiseless panels, calibrated."""

    n_panels: int
    n_within: int
    """Panels with every vol used within `TARGET_BP` of its quote, and converged."""
    worst_bp: Spread
    """Largest vol error of each panel over the quotes used."""
    largest_bp: float
    """Over all panels."""
    parameter_error: Spread
    """Largest error of each panel's parameters, relative to the truth."""
    evaluations: Spread
    failures: list[dict[str, object]]
    """The first ten panels that are not within the target."""


def refined(model: Model, panel: OptionPanel, mid: Matrix, start: Vector, network: Answerer) -> Calibration:
    """`calibrate` from the network's answer, with the second opinions that the service would ask for.

    mid  (n_expiries, n_strikes), what the network saw: it decides, with its answer, whether the start is trusted
    """
    return calibrate(panel, model, [Start("network", start, network.in_domain(start, np.isfinite(mid)))])


def refine_clean(network: Answerer, nodes: Nodes, truth: Matrix, starts: Matrix) -> Refined:
    """Calibrate the exact panels from the network's answers `starts` (n, n_params)."""
    n = len(truth)
    found = [refined(nodes.model, grid_panel(nodes, i, nodes.iv[i]), nodes.iv[i], starts[i], network) for i in range(n)]
    params = np.array([calibration.parameters for calibration in found])
    error = 1e4 * np.abs(vols_at(nodes, params) - nodes.iv).reshape(n, -1)
    worst = np.array([error[i, found[i].panel.index].max() for i in range(n)])
    converged = np.array([calibration.status == "converged" for calibration in found])
    within = converged & (worst <= TARGET_BP)
    return Refined(
        n_panels=n,
        n_within=int(within.sum()),
        worst_bp=Spread.of(worst),
        largest_bp=float(worst.max()),
        parameter_error=Spread.of(np.abs(params / truth - 1.0).max(axis=1)),
        evaluations=Spread.of(np.array([float(calibration.iterations) for calibration in found])),
        failures=[
            {"panel": int(i), "truth": truth[i].tolist(), "status": found[i].status, "worst_bp": float(worst[i])}
            for i in np.flatnonzero(~within)[:10]
        ],
    )
