"""Which optimum to refine: starts are refined on a sketch of the panel, and the distinct optima listed, best first.

A poor fit may have several optima, and no fit tells of itself whether there is a better one. Where the basins lie a few
dozen quotes say as well as thousands: the sketch has at most `_EXPIRIES` expiries and some `_QUOTES` quotes, each the
mean of its neighbours.

* A model of one factor has few starts: they race in one compiled call, each until it stands still or runs into an
  optimum that another one has found before. How often the best optimum is found, and what that costs, is measured by
  `benchmarks/optima.py`.
* A model of several factors has flat valleys, where who is behind may yet win: each start is refined by itself, until
  the best optimum has been found several times (Boender & Rinnooy Kan 1987): `benchmarks/market_models.py`.
"""

import math
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .arrays import BoolVector, IntVector, Matrix, Vector
from .black import otm_and_vega
from .compiled import careful
from .optimisers.levenberg_marquardt import levenberg_marquardt, memory_size
from .optimisers.objective import OUT_OF_ITERATIONS, ROUGH, Problem, evaluate
from .starts import N_KINDS, fill_surface_starts

_EXPIRIES = 8
_QUOTES = 32
_QUOTES_OF_MANY = 96
"""For a model of more than one factor."""
_LEAST_STRIKES = 4
_LOOKED_AT = 64
"""Candidates looked at in one piece of the work."""
_EXACT = (2.0 * ROUGH) ** 2
"""Of a quote: an optimum within the error of its prices is not looked for again."""
_FOUND = 5
"""Times that the best optimum is found before the search ends."""
_DESCENTS, _DESCENT = 40, 100
"""Starts that are refined at most, and evaluations of each."""
_ROUNDS = 14
_STRETCH = 3
"""Evaluations of a start in one round."""
_ALIKE = 0.01
"""Sum of squared differences of two fits, as a share of the best objective, within which they are one."""
_RESTING = 0.05
"""Share of its objective that a start gains in a round, below which it is about where it leads to."""
_PATIENCE, _HOPELESS = 2, 8.0
"""Times the best objective, beyond which a start is given up after so many rounds, unless it falls as fast as this."""
_FALLING = 0.7
_WORTH, _WORTH_OF_MANY = 1.03, 1.1
"""Times the best objective on the sketch up to which an optimum may be the best of the whole panel; of several factors
optima lie closer together."""


class Optimum(NamedTuple):
    """Where some of the starts lead, on the sketch."""

    params: Vector
    objective: float
    start: int
    """The first that led there, by its number."""


class _Racers(NamedTuple):
    """Starts on their way, a row each; all are filled."""

    ends: Matrix
    """(n_starts, n_params), where they are."""
    objectives: Vector
    before: Vector
    """Objectives a round ago."""
    leaders: IntVector
    """The first start that led there, or -1 where another end is the same."""
    going_on: BoolVector
    memory: Matrix
    """Of the optimiser."""
    model_vol: Matrix
    residual: Matrix
    jacobian: NDArray[np.float64]


def distinct_optima(
    problem: Problem, proposals: Matrix, candidates: Sequence[Matrix] | None = None
) -> Generator[float, bool, list[Optimum]]:
    """The optima worth refining, best first, a piece at a time: yields the quote-evaluations that a piece took, and
    ends with what is known so far when sent True.

    proposals   (n_proposals, n_params), inside the bounds: they count before the other starts
    candidates  families of starts, (n, n_params) each, likewise: their most promising take turns; None for starts read
                off the surface, which only a model of one variance factor has
    """
    if candidates is None:
        # In one compiled call: it takes no longer than a piece.
        ends, objectives, leaders, spent, n_quotes = _searched(problem, proposals)
        yield spent
        return _worth_refining(ends, objectives, leaders, n_quotes)
    small = sketch(problem)
    n_quotes = small.vol.size
    families = []
    for family in candidates:
        first = np.empty(len(family))
        for at in range(0, first.size, _LOOKED_AT):
            part = slice(at, at + _LOOKED_AT)
            _look(small, family[part], first[part])
            yield float(n_quotes * first[part].size)
        families.append(family[np.argsort(first, kind="stable")])
    found: list[_Found] = []
    for number, start in enumerate(chain(proposals, _in_turns(families))):
        if number == _DESCENTS + len(proposals):
            break
        end, model_vol = start.copy(), small.vol.copy()
        objective, evaluations = _descend(small, end, model_vol)
        _sort_in(small, found, _Found(Optimum(end, objective, number), model_vol))
        enough = yield float(n_quotes * evaluations)
        if enough or found[0].times >= _FOUND or found[0].optimum.objective <= _EXACT * n_quotes:
            break
    worth = _worth(_WORTH_OF_MANY, found[0].optimum.objective, n_quotes)
    return [each.optimum for each in found if each.optimum.objective <= worth]


def _in_turns(families: Sequence[Matrix]) -> Iterator[Vector]:
    """The first of each, then the second of each."""
    for together in zip_longest(*families):
        yield from (start for start in together if start is not None)


@dataclass(slots=True)
class _Found:
    """An optimum on the sketch, and how often it was found."""

    optimum: Optimum
    model_vol: Vector
    times: int = 1


def _sort_in(problem: Problem, found: list[_Found], new: _Found) -> None:
    """Count an optimum that was found before, by the name of its first start, or add it; the best comes first."""
    best = min(new.optimum.objective, found[0].optimum.objective if found else math.inf)
    for each in found:
        if _one_fit(problem, each.model_vol, new.model_vol, _ALIKE * best):
            each.times += 1
            if new.optimum.objective < each.optimum.objective:
                each.optimum, each.model_vol = new.optimum._replace(start=each.optimum.start), new.model_vol
            break
    else:
        found.append(new)
    found.sort(key=lambda each: each.optimum.objective)


def _worth_refining(ends: Matrix, objectives: Vector, leaders: IntVector, n_quotes: int) -> list[Optimum]:
    order = np.argsort(objectives, kind="stable").tolist()
    worth = _worth(_WORTH, float(objectives[order[0]]), n_quotes)
    return [
        Optimum(ends[i], objective, leader)
        for i, leader, objective in zip(order, leaders[order].tolist(), objectives[order].tolist(), strict=True)
        if leader >= 0 and (objective <= worth or i == order[0])
    ]


def _worth(times: float, best: float, n_quotes: int) -> float:
    """Objective on the sketch up to which an optimum may be the best; an exact fit leaves nothing but rounding."""
    return times * best + 1e-12 * n_quotes


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
    ends, objectives, leaders, work = _race(small, starts)
    return ends, objectives, leaders, work, small.vol.size


@careful
def _look(problem: Problem, candidates: Matrix, objectives: Vector) -> None:
    """Fill the objectives of starts, infinite where they are no number."""
    n_quotes = problem.vol.size
    nothing = np.empty((0, n_quotes))
    for i in range(objectives.size):
        found = evaluate(candidates[i], problem, ROUGH, problem.vol.copy(), np.empty(n_quotes), nothing)
        objectives[i] = found if np.isfinite(found) else np.inf


@careful
def _descend(problem: Problem, params: Vector, model_vol: Vector) -> tuple[float, int]:
    """The objective where a start leads to, and the evaluations that took; `params` and `model_vol` are moved there."""
    n, n_quotes = params.size, problem.vol.size
    memory, residual, jacobian = np.zeros(memory_size(n)), np.empty(n_quotes), np.empty((n, n_quotes))
    objective, evaluations, _ = levenberg_marquardt(
        params, problem, _DESCENT, False, memory, model_vol, residual, jacobian
    )
    return objective, evaluations


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
def _race(problem: Problem, starts: Matrix) -> tuple[Matrix, Vector, IntVector, float]:
    """Where the starts lead: all take a few steps in turns, those that come to fit alike go on as one.

    returns  ends, objectives and leaders of `_Racers`; quote-evaluations spent
    """
    racers = _set_out(problem, starts)
    evaluations = 0
    for round_ in range(_ROUNDS):
        evaluations += _run(problem, racers)
        if not _compare(problem, racers, round_):
            break
    return racers.ends, racers.objectives, racers.leaders, float(evaluations * problem.vol.size)


@careful
def _set_out(problem: Problem, starts: Matrix) -> _Racers:
    n_starts, n = starts.shape
    n_quotes = problem.vol.size
    model_vol = np.empty((n_starts, n_quotes))
    for i in range(n_starts):
        model_vol[i] = problem.vol
    return _Racers(
        starts.copy(),
        np.full(n_starts, np.inf),
        np.full(n_starts, np.inf),
        np.arange(n_starts),
        np.ones(n_starts, np.bool_),
        np.zeros((n_starts, memory_size(n))),
        model_vol,
        np.empty((n_starts, n_quotes)),
        np.empty((n_starts, n, n_quotes)),
    )


@careful
def _run(problem: Problem, racers: _Racers) -> int:
    """A few steps of each; returns the evaluations."""
    evaluations = 0
    for i in range(racers.leaders.size):
        if racers.leaders[i] < 0 or not racers.going_on[i]:
            continue
        racers.objectives[i], more, outcome = levenberg_marquardt(
            racers.ends[i],
            problem,
            _STRETCH,
            False,
            racers.memory[i],
            racers.model_vol[i],
            racers.residual[i],
            racers.jacobian[i],
        )
        evaluations += more
        racers.going_on[i] = outcome == OUT_OF_ITERATIONS
    return evaluations


@careful
def _compare(problem: Problem, racers: _Racers, round_: int) -> bool:
    """After a round: the better of two that fit alike goes on, by the name of the first, and who is far behind does
    not; returns whether anybody does."""
    objectives, before, leaders, going_on = racers.objectives, racers.before, racers.leaders, racers.going_on
    n_starts, n_quotes = objectives.size, problem.vol.size
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
            alike = leaders[j] >= 0 and resting[j]
            if alike and _one_fit(problem, racers.model_vol[i], racers.model_vol[j], _ALIKE * best):
                leaders[i] = min(leaders[i], leaders[j])
                leaders[j] = -1
        far_behind = round_ >= _PATIENCE and objectives[i] > _HOPELESS * best + 1e-10 * n_quotes
        if far_behind and not falling[i]:
            going_on[i] = False
    return bool((going_on & (leaders >= 0)).any())


@careful
def _one_fit(problem: Problem, model_vol: Vector, other: Vector, allowed: float) -> bool:
    """Whether two fits say the same of the quotes: parameters may differ, where the quotes do not tell them apart."""
    apart = 0.0
    for q in range(model_vol.size):
        apart += (problem.root_weight[q] * (model_vol[q] - other[q])) ** 2
    return apart <= allowed + 1e-10 * model_vol.size
