"""Which optimum to refine: a race of starts on a sketch of the panel, in one compiled call.

A poor fit may have several optima, and no fit tells of itself whether there is a better one. Where the basins lie a few
dozen quotes say as well as thousands: the sketch has at most `_EXPIRIES` expiries and some `_QUOTES` quotes, each the
mean of its neighbours. There every start is refined until it stands still or runs into an optimum that another one has
found before; what is left is a short list of distinct optima, best first. How often the best one of the panel is on it,
and what that costs, is measured by `benchmarks/optima.py`.
"""

import math
from typing import NamedTuple

import numpy as np

from .arrays import IntVector, Matrix, Vector
from .black import otm_and_vega
from .compiled import careful
from .optimisers.levenberg_marquardt import levenberg_marquardt, memory_size
from .optimisers.objective import OUT_OF_ITERATIONS, ROUGH, Problem, evaluate
from .starts import N_KINDS, fill_surface_starts

_EXPIRIES = 8
_QUOTES = 32
_QUOTES_OF_MANY = 64
"""For a model of more than one factor."""
_LEAST_STRIKES = 4
_QUICK_RACING, _RACING = 8, 64
"""Candidates that take part, of all that were looked at: at first, and where the answer is in doubt after that."""
_FEWEST = 32
"""Of many that take part the better half goes on after a round, down to so many."""
_ROUNDS = 14
_LONG_ROUNDS = 40
_STRETCH = 3
"""Evaluations of a start in one round."""
_ALIKE = 0.01
"""Sum of squared differences of two fits, as a share of the best objective, within which they are one."""
_RESTING = 0.05
"""Share of its objective that a start gains in a round, below which it is about where it leads to."""
_PATIENCE, _HOPELESS = 2, 8.0
"""Times the best objective, beyond which a start is given up after so many rounds, unless it falls as fast as this."""
_FALLING = 0.7
_WORTH = 1.03
"""Times the best objective on the sketch up to which an optimum may be the best of the whole panel."""


class Optimum(NamedTuple):
    """Where some of the starts lead, on the sketch."""

    params: Vector
    objective: float
    start: int
    """The first that led there, by its number."""


def distinct_optima(
    problem: Problem, proposals: Matrix, candidates: Matrix | None = None, thorough: bool = False
) -> tuple[list[Optimum], float]:
    """The optima worth refining, best first, and the quote-evaluations that finding them took.

    proposals   (n_proposals, n_params), inside the bounds: they count before the other starts
    candidates  (n, n_params), likewise, of which the most promising take part; None for starts read off the surface,
                which only a model of one variance factor has
    thorough    let more candidates take part, and for longer
    """
    if candidates is None:
        ends, objectives, leaders, work, n_quotes = _searched(problem, proposals)
    else:
        ends, objectives, leaders, work, n_quotes = _searched_among(problem, proposals, candidates, thorough)
    order = np.argsort(objectives, kind="stable").tolist()
    # An exact fit leaves nothing but rounding to tell optima apart.
    worth = _WORTH * float(objectives[order[0]]) + 1e-12 * n_quotes
    found = [
        (i, leader, objective)
        for i, leader, objective in zip(order, leaders[order].tolist(), objectives[order].tolist(), strict=True)
        if leader >= 0 and (objective <= worth or i == order[0])
    ]
    return [Optimum(ends[i], objective, leader) for i, leader, objective in found], work


def sketch(problem: Problem) -> Problem:
    """A problem of few quotes with its optima about where the whole one has them; the same one if it is small."""
    return Problem(*_sketch(problem))


@careful
def _searched(problem: Problem, proposals: Matrix) -> tuple[Matrix, Vector, IntVector, float, int]:
    """The race of the proposals and the starts read off the surface, on the sketch, of so many quotes."""
    n_proposals, n = proposals.shape
    starts = np.empty((n_proposals + N_KINDS, n))
    starts[:n_proposals] = proposals
    fill_surface_starts(problem, starts[n_proposals:])
    small = _sketch(problem)
    ends, objectives, leaders, work = _race(small, starts, _ROUNDS)
    return ends, objectives, leaders, work, small.vol.size


@careful
def _searched_among(
    problem: Problem, proposals: Matrix, candidates: Matrix, thorough: bool
) -> tuple[Matrix, Vector, IntVector, float, int]:
    """The race of the proposals and the best of many candidates, on the sketch."""
    small = _sketch(problem)
    n_quotes = small.vol.size
    first = np.empty(candidates.shape[0])
    nothing = np.empty((0, n_quotes))
    for i in range(first.size):
        first[i] = evaluate(candidates[i], small, ROUGH, small.vol.copy(), np.empty(n_quotes), nothing)
        if not np.isfinite(first[i]):
            first[i] = np.inf
    n_racing = min(_RACING if thorough else _QUICK_RACING, first.size)
    starts = np.concatenate((proposals, candidates[np.argsort(first)[:n_racing]]))
    ends, objectives, leaders, work = _race(small, starts, _LONG_ROUNDS if thorough else _ROUNDS)
    return ends, objectives, leaders, work + first.size * n_quotes, n_quotes


@careful
def _sketch(problem: Problem) -> Problem:
    n_expiries = problem.expiries.size
    quotes = _QUOTES if problem.lower.size <= 5 else _QUOTES_OF_MANY
    if problem.vol.size <= quotes + _LEAST_STRIKES and n_expiries <= _EXPIRIES:
        return problem
    m = min(n_expiries, _EXPIRIES)
    most = max(quotes // m, _LEAST_STRIKES)
    size = m * most
    expiries, least_vega = np.empty(m), np.empty(m)
    offsets = np.zeros(m + 1, np.int64)
    log_moneyness, vol, weight, root_expiry = np.zeros(size), np.zeros(size), np.zeros(size), np.empty(size)
    linear = 0.0
    at = 0
    for i in range(m):
        # Evenly by their place among the expiries, the first and the last included.
        e = round(i * (n_expiries - 1) / (m - 1)) if m > 1 else 0
        expiries[i] = problem.expiries[e]
        first, last = problem.offsets[e], problem.offsets[e + 1]
        width = problem.log_moneyness[last - 1] - problem.log_moneyness[first]
        count = last - first
        place = -1.0
        for q in range(first, last):
            # Half by their number and half by where they lie: neither the crowd at the money nor the wings alone.
            reached = (q - first) / count
            if width > 0.0:
                reached = 0.5 * reached + 0.5 * (problem.log_moneyness[q] - problem.log_moneyness[first]) / width
            bucket = math.floor(reached * min(most, count) * (1.0 - 1e-9))
            if bucket != place:
                place = bucket
                at += 1
            share = problem.root_weight[q] ** 2
            log_moneyness[at - 1] += share * problem.log_moneyness[q]
            vol[at - 1] += share * problem.vol[q]
            weight[at - 1] += share
            root_expiry[at - 1] = problem.root_expiry[q]
        for j in range(offsets[i], at):
            log_moneyness[j] /= weight[j]
            vol[j] /= weight[j]
        offsets[i + 1] = at
        vega = np.empty(at - offsets[i])
        otm_and_vega(
            log_moneyness[offsets[i] : at],
            vol[offsets[i] : at] * root_expiry[offsets[i] : at],
            np.empty(vega.size),
            vega,
        )
        least_vega[i] = vega.min() * root_expiry[at - 1]
    # Against a prior the quotes weigh as much as all of them did; Huber's threshold is about one vol for all of them.
    total = 0.0
    for q in range(problem.vol.size):
        total += problem.root_weight[q] ** 2
        linear += problem.huber[q] / problem.root_weight[q]
    linear /= problem.vol.size
    root_weight = np.sqrt(weight[:at] * (total / weight[:at].sum()))
    return Problem(
        problem.layout,
        expiries,
        offsets,
        log_moneyness[:at],
        vol[:at],
        root_weight,
        root_expiry[:at],
        least_vega,
        problem.lower,
        problem.upper,
        problem.prior_mean,
        problem.prior_precision,
        linear * root_weight,
        problem.noise_variance,
    )


@careful
def _race(problem: Problem, starts: Matrix, rounds: int) -> tuple[Matrix, Vector, IntVector, float]:
    """Where the starts lead: all take a few steps in turns, those that come to fit alike go on as one.

    returns  (n_starts, n_params) ends; their objectives; the first start that led there, or -1 where another end is the
             same; quote-evaluations spent
    """
    n_starts, n = starts.shape
    n_quotes = problem.vol.size
    ends = starts.copy()
    objectives = np.empty(n_starts)
    leaders = np.arange(n_starts)
    going_on = np.ones(n_starts, np.bool_)
    memory = np.zeros((n_starts, memory_size(n)))
    model_vol, residual = np.empty((n_starts, n_quotes)), np.empty((n_starts, n_quotes))
    jacobian = np.empty((n_starts, n, n_quotes))
    before = np.full(n_starts, np.inf)
    evaluations = 0
    for i in range(n_starts):
        model_vol[i] = problem.vol
    for round_ in range(rounds):
        for i in range(n_starts):
            if leaders[i] < 0 or not going_on[i]:
                continue
            objectives[i], more, outcome = levenberg_marquardt(
                ends[i], problem, _STRETCH, False, memory[i], model_vol[i], residual[i], jacobian[i]
            )
            evaluations += more
            going_on[i] = outcome == OUT_OF_ITERATIONS
        # The better of two that fit alike goes on, by the name of the first.
        order = np.argsort(objectives)
        best = objectives[order[0]]
        # One that still descends may only be passing by, and one whose steps were all refused has not set out.
        resting = ((objectives < before) & (before - objectives <= _RESTING * before)) | ~going_on
        falling = objectives < _FALLING * before
        before[:] = objectives
        for place in range(n_starts):
            i = order[place]
            if leaders[i] < 0:
                continue
            for after in range(place + 1, n_starts):
                j = order[after]
                if leaders[j] >= 0 and resting[j] and _one_fit(problem, model_vol[i], model_vol[j], _ALIKE * best):
                    leaders[i] = min(leaders[i], leaders[j])
                    leaders[j] = -1
            if place >= max(_FEWEST, n_starts >> (round_ + 1)) and not falling[i]:
                going_on[i] = False
            if round_ >= _PATIENCE and not falling[i] and objectives[i] > _HOPELESS * best + 1e-10 * n_quotes:
                going_on[i] = False
        if not (going_on & (leaders >= 0)).any():
            break
    return ends, objectives, leaders, evaluations * n_quotes


@careful
def _one_fit(problem: Problem, model_vol: Vector, other: Vector, allowed: float) -> bool:
    """Whether two fits say the same of the quotes: parameters may differ, where the quotes do not tell them apart."""
    apart = 0.0
    for q in range(model_vol.size):
        apart += (problem.root_weight[q] * (model_vol[q] - other[q])) ** 2
    return apart <= allowed + 1e-10 * model_vol.size
