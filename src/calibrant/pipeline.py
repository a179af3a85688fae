"""From a panel to everything that is said about it: the network's start, the refinement, both arbitrage verdicts.

What the service does for a request and the command line for a file.
"""

from collections.abc import Sequence
from dataclasses import replace
from time import perf_counter
from typing import NamedTuple

import numpy as np

from .arbitrage import Verdict, check_quotes, check_surface
from .arrays import Vector
from .calibrate import Calibration, CalibrationOptions, Start, calibrate
from .errors import InvalidInput, Problem
from .models.model import Model
from .panel import OptionPanel
from .release import Proposal, Release


class StageSeconds(NamedTuple):
    """How long each stage took."""

    network: float
    """Projection onto a network's grid and the network itself."""
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
    """The answer, or the panel, is not of the kind that any network was trained on; False without networks."""
    model_version: str | None
    """Of the networks; None without."""
    seconds: StageSeconds


class NetworkTooLate(TimeoutError):
    """The deadline passed before the network had answered: there is not even a start to give back."""


def assess(
    panel: OptionPanel,
    model: Model,
    release: Release | None,
    options: CalibrationOptions | None = None,
    given: Vector | None = None,
    proposals: list[Proposal] | None = None,
) -> Assessment:
    """Calibrate a panel and check it for arbitrage.

    release    its networks propose the start; None leaves that to the starts read off the surface
    given      parameters to start from as well
    proposals  what the release says to the panel, if it was asked before
    raises     InvalidInput if the panel or an option allows no calibration; NetworkTooLate; ArithmeticError if the
               result holds a number that is not finite
    """
    options = options or CalibrationOptions()
    if panel.n_quotes < 2:
        raise InvalidInput(Problem.at(("quotes",), "must hold at least two usable quotes, but holds one."))
    if release is None and options.refine == "none":
        needed = "must be lm or lbfgs, since `none` asks for a network's answer and there is no network."
        raise InvalidInput(Problem.at(("refine",), needed))
    began = perf_counter()
    if release is not None:
        _require_time(options)
        if proposals is None:
            proposals = release.propose(panel)
            _require_time(options)
    proposals = proposals or []
    starts, options = starting_from(proposals, options)
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
        out_of_domain=release is not None
        and not any(proposal.in_domain(calibration.parameters) for proposal in proposals),
        model_version=None if release is None else release.version,
        seconds=StageSeconds(proposed - began, refined - proposed, checked - refined),
    )


def starting_from(
    proposals: Sequence[Proposal], options: CalibrationOptions | None = None
) -> tuple[list[Start], CalibrationOptions]:
    """The starts that the networks propose, and the options with what is known of how far to trust them."""
    options = options or CalibrationOptions()
    if not proposals:
        return [], options
    trusted = any(proposal.trusted for proposal in proposals)
    domain = proposals[-1].network.misfit_domain
    starts = [Start("network", proposal.params) for proposal in proposals]
    if trusted == options.trusted and domain is options.domain:
        return starts, options
    return starts, replace(options, trusted=trusted, domain=domain)


def _require_time(options: CalibrationOptions) -> None:
    if options.deadline is not None and perf_counter() >= options.deadline:
        raise NetworkTooLate("The deadline passed before the network had answered.")
