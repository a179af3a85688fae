"""From a panel to everything that is said about it: the network's start, the refinement, both arbitrage verdicts.

What the service does for a request and the command line for a file.
"""

import math
from collections.abc import Generator, Sequence
from time import perf_counter
from typing import NamedTuple, TypeVar

from .arbitrage import Verdict, check_quotes, check_surface_steps, surface_caution
from .arrays import Vector
from .calibration import Calibration, begin, calibration_steps
from .caution import Caution
from .errors import InvalidInput, Problem
from .fits import Fit
from .group import PanelGroup
from .models.model import Model
from .options import CalibrationOptions, Effort, Start
from .panel import OptionPanel
from .release import Proposal, Release
from .steps import Progress, Steps, finish

T = TypeVar("T")


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
    """Its part of what was done for a group of panels included."""
    cautions: tuple[Caution, ...] = ()
    """What a desk should look at: the `warnings` of the answer."""


class Begun(NamedTuple):
    """What was done for a panel together with others."""

    proposals: list[Proposal]
    """Of the release."""
    fit: Fit | None
    """Of `calibration.begin`."""
    network: float
    """Seconds, its part of what the networks took for all."""
    refine: float
    """The same of the refinement."""


class NetworkTooLate(TimeoutError):
    """The deadline passed before the network had answered: there is not even a start to give back."""


def assess(
    panel: OptionPanel,
    model: Model,
    release: Release | None,
    options: CalibrationOptions | None = None,
    given: Vector | None = None,
    begun: Begun | None = None,
    effort: Effort | None = None,
) -> Assessment:
    """Calibrate a panel and check it for arbitrage.

    release    its networks propose the start; None leaves that to the starts read off the surface
    given      parameters to start from as well
    begun      of `begin_all`, if the panel was among others there
    raises     InvalidInput if the panel or an option allows no calibration; ArithmeticError if the result holds a
               number that is not finite
    """
    return finish(assessment_steps(panel, model, release, options, given, begun, effort))


def assessment_steps(
    panel: OptionPanel,
    model: Model,
    release: Release | None,
    options: CalibrationOptions | None = None,
    given: Vector | None = None,
    begun: Begun | None = None,
    effort: Effort | None = None,
) -> Steps[Assessment]:
    """`assess`, a step at a time.

    raises  NetworkTooLate if told that it is enough before the network has answered
    """
    options = options or CalibrationOptions()
    if release is None and options.refine == "none":
        needed = "must be lm or lbfgs, since `none` asks for a network's answer and there is no network."
        raise InvalidInput(Problem.at(("refine",), needed))
    network, refine, diagnostics = (0.0, 0.0, 0.0) if begun is None else (begun.network, begun.refine, 0.0)
    proposals: list[Proposal] = []
    if begun is not None:
        proposals = begun.proposals
    elif release is not None:
        yield from _go_on()
        began = perf_counter()
        proposals = release.propose(panel)
        network += perf_counter() - began
    if release is not None:
        yield from _go_on()
    starts = starting_from(proposals, given)
    calibrating = calibration_steps(panel, model, starts, options, None if begun is None else begun.fit, effort)
    calibration, seconds = yield from _timed(calibrating)
    refine += seconds
    # The root mean square is finite only if every model vol is.
    if not (math.isfinite(calibration.rmse_bp) and all(map(math.isfinite, calibration.parameters.tolist()))):
        raise ArithmeticError("The calibration ended in a number that is not finite.")
    began = perf_counter()
    quotes = check_quotes(panel)
    diagnostics += perf_counter() - began
    # Over the expiries fitted: one too short for any of its quotes to count says nothing of the surface.
    checking = check_surface_steps(model, calibration.parameters, calibration.panel.expiries)
    surface, seconds = yield from _timed(checking)
    diagnostics += seconds
    unsure = surface_caution(surface)
    return Assessment(
        panel=panel,
        calibration=calibration,
        quotes=quotes,
        surface=surface,
        out_of_domain=release is not None
        and not any(proposal.in_domain(calibration.parameters) for proposal in proposals),
        model_version=None if release is None else release.version,
        seconds=StageSeconds(network, refine, diagnostics),
        cautions=(*panel.cautions, *calibration.cautions, *(() if unsure is None else (unsure,))),
    )


def _timed(steps: Steps[T]) -> Steps[tuple[T, float]]:
    """The result, and the seconds that the steps took: the clock runs while a step does, and not between two."""
    seconds = 0.0
    enough: bool | None = None
    while True:
        began = perf_counter()
        try:
            progress = next(steps) if enough is None else steps.send(enough)
        except StopIteration as ended:
            return ended.value, seconds + perf_counter() - began
        seconds += perf_counter() - began
        enough = (yield progress) is True


def _go_on() -> Generator[Progress, bool, None]:
    """A step before there is anything to give back."""
    if (yield Progress(0.0, 0.0)) is True:
        raise NetworkTooLate("The deadline passed before the network had answered.")


def begin_all(
    panels: Sequence[OptionPanel],
    model: Model,
    release: Release,
    options: Sequence[CalibrationOptions],
    given: Sequence[Vector | None],
    refine: bool = True,
) -> list[Begun]:
    """What can be done for many panels together: each network asked once, and the first refinement of all of them in
    one compiled call, so that threads which share the panels of a batch do not wait for each other's interpreter.

    panels          one or more
    options, given  of each panel, as `assess` takes them
    refine          False leaves the refinement out
    """
    began = perf_counter()
    group = PanelGroup(panels)
    proposals = release.propose_all(group)
    asked = perf_counter()
    fits: list[Fit | None] = [None] * len(panels)
    if refine:
        starts = [
            proposed[0].params if len(proposed) == 1 and start is None else None
            for proposed, start in zip(proposals, given, strict=True)
        ]
        fits = begin(group, model, starts, options)
    seconds = (asked - began) / len(panels), (perf_counter() - asked) / len(panels)
    return [Begun(*of_panel, *seconds) for of_panel in zip(proposals, fits, strict=True)]


def starting_from(proposals: Sequence[Proposal], given: Vector | None = None) -> list[Start]:
    """The starts of a panel, and how far to trust them.

    given  parameters to start from besides those that the networks propose
    """
    trusted = not proposals or any(proposal.trusted for proposal in proposals)
    starts = [Start("network", proposal.params, trusted) for proposal in proposals]
    if given is not None:
        starts.append(Start("given", given, trusted))
    return starts
