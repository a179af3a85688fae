"""From a panel to everything that is said about it: the network's start, the refinement, both arbitrage verdicts.

What the service does for a request and the command line for a file.
"""

from dataclasses import replace
from time import perf_counter
from typing import NamedTuple

import numpy as np

from .arbitrage import Verdict, check_quotes, check_surface
from .arrays import Vector
from .calibrate import Calibration, CalibrationOptions, Start, calibrate
from .errors import InvalidInput, Problem
from .grid import project
from .models.model import Model
from .network import ArtefactError, Network
from .panel import OptionPanel


class StageSeconds(NamedTuple):
    """How long each stage took."""

    network: float
    """Projection onto the network's grid and the network itself."""
    refine: float
    diagnostics: float


class Assessment(NamedTuple):
    """A calibrated panel and what was checked about it."""

    panel: OptionPanel
    """As given; `calibration.panel` holds the quotes used."""
    calibration: Calibration
    quotes: Verdict
    """Static arbitrage of the quotes."""
    surface: Verdict
    """Static arbitrage of the fitted surface."""
    out_of_domain: bool
    """The answer, or the panel, is not of the kind that the network was trained on; False without a network."""
    model_version: str | None
    """Of the network; None without one."""
    seconds: StageSeconds


def require_network_of(model: Model, network: Network) -> Network:
    """The network, if it was trained for this model.

    raises  ArtefactError if it was not
    """
    manifest = network.manifest
    if manifest.name != model.name or manifest.parameters != model.parameters:
        found = f"{manifest.name} ({', '.join(manifest.parameters)})"
        raise ArtefactError(f"{network.version} must be a network for {model.name}, but was trained for {found}.")
    return network


class NetworkTooLate(TimeoutError):
    """The deadline passed before the network had answered: there is not even a start to give back."""


def assess(
    panel: OptionPanel,
    model: Model,
    network: Network | None,
    options: CalibrationOptions | None = None,
    given: Vector | None = None,
) -> Assessment:
    """Calibrate a panel and check it for arbitrage.

    network  proposes the start; None leaves that to the starts read off the surface
    given    parameters to start from as well
    raises   InvalidInput if the panel or an option allows no calibration; NetworkTooLate; ArithmeticError if the
             result holds a number that is not finite
    """
    options = options or CalibrationOptions()
    if panel.n_quotes < 2:
        raise InvalidInput(Problem.at(("quotes",), "must hold at least two usable quotes, but holds one."))
    if network is None and options.refine == "none":
        needed = "must be lm or lbfgs, since `none` asks for a network's answer and there is no network."
        raise InvalidInput(Problem.at(("refine",), needed))
    began = perf_counter()
    starts: list[Start] = []
    mask = None
    if network is not None:
        _require_time(options)
        projection = project(panel, network.grid)
        mask = projection.mask
        proposal = network.parameters(projection.iv[np.newaxis])[0]
        _require_time(options)
        starts.append(Start("network", proposal))
        options = replace(options, trusted=network.in_domain(proposal, mask))
    if given is not None:
        starts.append(Start("given", given))
    proposed = perf_counter()
    calibration = calibrate(panel, model, starts, options)
    if not (np.isfinite(calibration.parameters).all() and np.isfinite(calibration.model_iv).all()):
        raise ArithmeticError("The calibration ended in a number that is not finite.")
    refined = perf_counter()
    quotes = check_quotes(panel)
    # Over the expiries fitted: one too short for any of its quotes to count says nothing of the surface.
    surface = check_surface(model, calibration.parameters, calibration.panel.expiry)
    checked = perf_counter()
    return Assessment(
        panel=panel,
        calibration=calibration,
        quotes=quotes,
        surface=surface,
        out_of_domain=network is not None and not network.in_domain(calibration.parameters, mask),
        model_version=None if network is None else network.version,
        seconds=StageSeconds(proposed - began, refined - proposed, checked - refined),
    )


def _require_time(options: CalibrationOptions) -> None:
    if options.deadline is not None and perf_counter() >= options.deadline:
        raise NetworkTooLate("The deadline passed before the network had answered.")
