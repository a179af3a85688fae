"""Starts of many panels made better on the GPU, before the processor judges and reports each panel by itself.

What decides an answer (which start is better, whether a second opinion is wanted, error bars, messages) stays in
`calibrate`, for one panel as for thousands. It begins at the optimum instead of near it, and ends after the two or
three evaluations that confirm it.
"""

from collections.abc import Sequence

import numpy as np

from ..errors import InvalidInput
from ..fit_problem import fit_problem
from ..models.model import Model
from ..optimisers.objective import Problem
from ..options import CalibrationOptions
from ..panel import OptionPanel, identifiable
from ..release import Proposal
from .heston_lm import CONVERGED, SETTLED
from .refine import refine


def sharpen(
    model: Model,
    panels: Sequence[OptionPanel],
    proposals: Sequence[Sequence[Proposal]],
    options: Sequence[CalibrationOptions],
) -> list[list[Proposal]]:
    """The networks' proposals, the first of each panel moved to the optimum it leads to.

    model                       Heston: the only one that the GPU refines
    panels, proposals, options  one of each a panel
    returns  proposals as they came where there are none, where no `lm` refinement is asked for, where the panel allows
             no calibration (`calibrate` says why), and where the GPU did not get there
    raises   ValueError if it is another model, and there is something to refine
    """
    sharpened = [list(of_panel) for of_panel in proposals]
    asked: list[int] = []
    problems: list[Problem] = []
    for i, panel in enumerate(panels):
        if not proposals[i] or options[i].refine != "lm" or options[i].loss != "squared":
            continue
        try:
            problems.append(fit_problem(identifiable(panel), model, options[i]))
        except InvalidInput:
            continue
        asked.append(i)
    if not asked:
        return sharpened
    found = refine(problems, np.array([proposals[i][0].params for i in asked]))
    for at, i in enumerate(asked):
        # Settled: a poor fit near its minimum, as most of the market's are; `calibrate` gives it its last digits.
        if found.outcome[at] in (CONVERGED, SETTLED):
            sharpened[i][0] = sharpened[i][0]._replace(params=found.params[at])
    return sharpened
