"""Where a calibration goes: from its proposals to the best optimum that it finds, a step at a time.

The first proposal is refined on the panel as it is. A good fit from inside a network's training domain is the answer;
any other is in doubt, whoever proposed it: real panels are fitted poorly as a rule, and no poor fit tells of itself
whether there is a better one. Then `search` refines other starts on a sketch of the panel, and what it finds besides is
refined too. Where a panel is large the race comes first, and only its winners are refined on all quotes.

A model of several factors has the optima of the models nested in it among its starts, found likewise.
"""

from collections.abc import Generator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np

from .arrays import IntVector, Matrix, Vector
from .fits import Fit, Method, judged, refined, room_again, room_for
from .layout import SIZES, VARIANCE
from .nesting import extended, neighbours, nested_in, spread_out
from .optimisers.levenberg_marquardt import memory_for
from .optimisers.newton import polish
from .optimisers.objective import CONVERGED, FINE, OUT_OF_ITERATIONS, SETTLED, evaluate
from .optimisers.objective import Problem as FitProblem
from .options import Effort, Refine, Start, StartName
from .robust import residual_thresholds
from .search import Optimum, distinct_optima
from .starts import N_KINDS, objective_at, surface_starts
from .steps import Progress, Steps

T = TypeVar("T")

_QUOTES_OF_A_BUDGET = 1000.0
_MAX_EVALUATIONS = 200
"""Of one refinement."""
_TRUSTED_RMSE = 10e-4
"""A fit this good from a start inside the training domain needs no second opinion."""
_EXACT_RMSE = 1e-5
"""A fit by several factors this good is the answer wherever it ends."""
_FAINT_RMSE, _NOISY_RMSE = 1e-4, 30e-4
"""Between these what looks like noise is taken for it; below, a false optimum may look like it."""
_PATTERN = 0.2
"""Correlation of neighbouring residuals beyond which a misfit is not noise. What 13 parameters leave of the noise of 80
quotes has -0.1 +- 0.1."""
_PAIRS = 30
"""Neighbours below which noise and pattern are not told apart."""
_SAME_OPTIMUM = 1e-6
_LARGE_PANEL = 120
"""Quotes from which on the race comes first: it costs what two or three evaluations of such a panel do."""
_STILL = 1e-5
"""Share of the objective that a step gains, below which a fit by several factors stands still."""
_NEIGHBOURS = 4
"""Of a network's start, that are tried where a fairly good fit by several factors is in doubt."""
_SPREAD_OUT = 100
"""Starts all over the parameters that are looked at for a model of several factors."""
_RESCALINGS = 6
_SAME_SCALE = 0.01


class Attempt(NamedTuple):
    """A start and where it led."""

    start: StartName
    fit: Fit


class Work:
    """The work of one calibration, counted so that where it ends depends on nothing but the request."""

    def __init__(self, n_quotes: int, n_factors: int, most: float) -> None:
        self._spent = 0.0
        self._limit = most * n_factors * max(1.0, n_quotes / _QUOTES_OF_A_BUDGET)
        self.ended = False
        """No more is to be spent: the budget is, or the driver has said that it is enough."""

    def step(self, quote_evaluations: float) -> Generator[Progress, bool, None]:
        """Count a step, and let the driver look up."""
        self._spent += quote_evaluations
        enough = yield Progress(self._spent, self._limit)
        self.ended = self.ended or enough is True or self._spent >= self._limit

    def through(self, pieces: Generator[float, bool, T]) -> Generator[Progress, bool, T]:
        """Count work that says itself what each of its pieces took; it is told when no more is to be spent."""
        spent = next(pieces)
        while True:
            yield from self.step(spent)
            try:
                spent = pieces.send(self.ended)
            except StopIteration as ended:
                result: T = ended.value
                return result


def attempts_of(
    problem: FitProblem, proposals: Sequence[Start], refine: Refine, effort: Effort, begun: Fit | None, work: Work
) -> Steps[tuple[list[Attempt], int]]:
    """The fits of all optima that may be the best, as many of them as there is time for, one at least; and the starts
    that were tried."""
    n_quotes = problem.vol.size
    starts = list(proposals)
    if problem.noise_variance > 0.0:
        # Where the prior is narrow the optimum is beside its means, wherever the network starts.
        named = problem.prior_precision > 0.0
        starts += [s._replace(params=np.where(named, problem.prior_mean, s.params)) for s in proposals]
    attempts: list[Attempt] = []
    if starts and (begun is not None or not race_first(n_quotes, problem.lower.size, effort)):
        best = starts[0]
        if len(starts) > 1:
            best = min(starts, key=lambda s: objective_at(problem, _inside(s.params, problem)))
            yield from work.step(n_quotes * len(starts))
        attempts.append((yield from _refine(problem, best, refine, work, begun)))
        if work.ended or not (effort.second_opinion and in_doubt(attempts[0].fit, proposals, problem.offsets)):
            return attempts, 1
        if not _of_one_factor(problem.lower.size) and attempts[0].fit.quality.rmse <= _NOISY_RMSE:
            own = np.array([_inside(best.params, problem)])
            near = neighbours(problem, best.params, _NEIGHBOURS)
            for optimum in (yield from work.through(distinct_optima(problem, own, [near]))):
                attempts.append((yield from _refine(problem, Start(best.name, optimum.params), refine, work)))
            if work.ended or not in_doubt(best_of(attempts).fit, (), problem.offsets):
                return attempts, 1 + _NEIGHBOURS
        # Where it led stands in the race for where it began.
        starts = [Start(best.name, best_of(attempts).fit.params)]
    embedded, candidates = yield from _from_nested(problem, work)
    starts += [Start("fallback", params) for params in embedded]
    proposed = np.array([_inside(start.params, problem) for start in starts]).reshape(-1, problem.lower.size)
    optima = yield from work.through(distinct_optima(problem, proposed, candidates))
    for optimum in optima:
        if attempts and (work.ended or not _promises(problem, optimum, attempts[0].fit)):
            continue
        name = starts[optimum.start].name if optimum.start < len(starts) else "fallback"
        attempts.append((yield from _refine(problem, Start(name, optimum.params), refine, work)))
    lowest = min(attempt.fit.objective for attempt in attempts)
    for params in embedded:
        # A smaller model's optimum is one of this model's fits: the answer is never worse.
        if objective_at(problem, params) < lowest * (1.0 + _SAME_OPTIMUM) and not work.ended:
            attempts.append((yield from _refine(problem, Start("fallback", params), refine, work)))
    return attempts, len(starts) + (N_KINDS if candidates is None else sum(map(len, candidates)))


def _from_nested(problem: FitProblem, work: Work) -> Steps[tuple[list[Vector], list[Matrix] | None]]:
    """The optima of the models nested in this one, as its parameters, and starts from there; None without any."""
    if problem.layout.size == 1:
        return [], None
    embedded, candidates = [], []
    for nested in nested_in(problem):
        optimum = yield from _optimum(nested.problem, work)
        embedded.append(nested.embedded(optimum))
        candidates.append(extended(nested, problem, optimum))
    return embedded, [*candidates, spread_out(problem, _SPREAD_OUT)]


def _optimum(problem: FitProblem, work: Work) -> Steps[Vector]:
    """The best fit of a nested model, from nothing but the surface."""
    attempts, _ = yield from attempts_of(problem, [], "lm", Effort(), None, work)
    return best_of(attempts).fit.params


def _promises(problem: FitProblem, optimum: Optimum, first: Fit) -> bool:
    """Whether an optimum of the sketch may be better than the first fit: another, or one that came of it and left."""
    if optimum.start > 0:
        return True
    return objective_at(problem, optimum.params) < first.objective * (1.0 - _SAME_OPTIMUM)


def race_first(n_quotes: int, n_params: int, effort: Effort) -> bool:
    """Whether a panel is too large to be refined from a start that may turn out to be the wrong one; the search of
    several factors costs more than that."""
    return effort.second_opinion and n_quotes >= _LARGE_PANEL and _of_one_factor(n_params)


def best_of(attempts: Sequence[Attempt]) -> Attempt:
    """Of starts that lead to one optimum the first is named, whatever the rounding of the last digits says."""
    best = attempts[0]
    for attempt in attempts:
        if attempt.fit.objective < best.fit.objective * (1.0 - _SAME_OPTIMUM):
            best = attempt
    return best


def _inside(params: Vector, problem: FitProblem) -> Vector:
    """A copy inside the bounds."""
    return np.minimum(np.maximum(params, problem.lower), problem.upper)


def unrefined(problem: FitProblem, proposals: Sequence[Start]) -> Attempt:
    start = proposals[0] if proposals else Start("fallback", surface_starts(problem)[0])
    params, arrays = _inside(start.params, problem), room_for(problem)
    objective = float(evaluate(params, problem, FINE, *arrays))
    memory = memory_for(params.size)
    return Attempt(start.name, judged(problem, params, objective, 0, OUT_OF_ITERATIONS, memory, arrays))


def _refine(
    problem: FitProblem,
    start: Start,
    refine: Refine,
    work: Work,
    begun: Fit | None = None,
) -> Steps[Attempt]:
    """L-BFGS, where it is asked for, and in any case Levenberg-Marquardt: only that has all digits."""
    at: Vector | Fit = start.params
    done = 0
    if refine == "lbfgs":
        fit = yield from _descended(problem, at, "lbfgs", work)
        if work.ended:
            return Attempt(start.name, fit)
        at, done = fit.params, fit.evaluations
    if begun is not None:
        at = begun
    fit = yield from _descended(problem, at, "lm", work)
    return Attempt(start.name, fit._replace(evaluations=done + fit.evaluations))


def _descended(problem: FitProblem, at: Vector | Fit, method: Method, work: Work) -> Steps[Fit]:
    """A descent from a start, or on from where one stands, to its end or to `_MAX_EVALUATIONS`."""
    fit = at if isinstance(at, Fit) else refined(problem, at, method)
    yield from work.step(fit.evaluations * problem.vol.size)
    settled = False
    while not (work.ended or settled) and fit.outcome == OUT_OF_ITERATIONS and fit.evaluations < _MAX_EVALUATIONS:
        before = fit
        fit = refined(problem, fit, method)
        yield from work.step((fit.evaluations - before.evaluations) * problem.vol.size)
        settled = not _of_one_factor(fit.params.size) and _stands_still(before, fit)
    if fit.outcome == OUT_OF_ITERATIONS:
        arrays = fit.model_vol, fit.residual, fit.jacobian
        outcome = SETTLED if settled else fit.outcome
        fit = judged(problem, fit.params, fit.objective, fit.evaluations, outcome, fit.memory, arrays)
    return fit


def _stands_still(before: Fit, fit: Fit) -> bool:
    """Whether a step of a refinement, of twenty evaluations or so, was for nothing: all that goes on is a crawl along a
    valley of several factors, at the objective's sixth digit or at a hundredth of a basis point."""
    return (
        fit.objective >= (1.0 - _STILL) * before.objective
        or fit.objective <= fit.model_vol.size * (0.1 * _EXACT_RMSE) ** 2
    )


def rescaled(problem: FitProblem, best: Attempt, refine: Refine, work: Work) -> Steps[tuple[FitProblem, Attempt]]:
    """Huber's loss with the scale of the fit's own residuals: the two are found in turns."""
    before = 0.0
    for _ in range(_RESCALINGS):
        if work.ended:
            break
        thresholds = residual_thresholds(best.fit, problem)
        problem = problem._replace(huber=thresholds)
        best = yield from _refine(problem, Start(best.start, best.fit.params), refine, work)
        scale = float(thresholds[0])
        if abs(scale - before) <= _SAME_SCALE * before:
            break
        before = scale
    return problem, best


def polished(fit: Fit, problem: FitProblem) -> Fit:
    """The fit with all its digits; where there are no more to be had, as it was."""
    params, arrays = fit.params.copy(), room_again(fit)
    objective, evaluations, outcome = polish(params, problem, *arrays)
    if outcome != CONVERGED and fit.outcome != SETTLED:
        outcome = fit.outcome
    return judged(problem, params, objective, fit.evaluations + evaluations, outcome, fit.memory, arrays)


def ended_well(fit: Fit) -> bool:
    """Whether there are no digits left worth looking for; of several factors quotes tell fewer than of one."""
    return fit.outcome == CONVERGED or (fit.outcome == SETTLED and not _of_one_factor(fit.params.size))


def _of_one_factor(n_params: int) -> bool:
    return n_params == SIZES[VARIANCE]


def in_doubt(fit: Fit, proposals: Sequence[Start], offsets: IntVector) -> bool:
    """Whether an answer wants a second opinion. It uses nothing but the request and the fit.

    offsets  (n_expiries + 1,), where the quotes of each expiry begin
    """
    several = not _of_one_factor(fit.params.size)
    poor = _TRUSTED_RMSE
    if several and _is_noise(fit.residual, offsets):
        poor = _NOISY_RMSE
    if not all(start.trusted for start in proposals) or fit.n_unknown > 0 or fit.quality.rmse > poor:
        return True
    # A prior far from where the fit is has as much to say of other optima as quotes have.
    if fit.objective > fit.model_vol.size * poor**2:
        return True
    if several:
        # One of them may well end on a bound, and the last digits of a flat valley are nobody's business.
        return fit.quality.rmse > _EXACT_RMSE and (poor == _TRUSTED_RMSE or fit.quality.rmse <= _FAINT_RMSE)
    return fit.outcome not in (CONVERGED, SETTLED) or fit.n_on_bound > 0


def _is_noise(residual: Vector, offsets: IntVector) -> bool:
    """Whether the misfit does not go on from strike to strike, as that of a wrong model or optimum does."""
    ahead = residual[:-1] * residual[1:]
    ahead[offsets[1:-1] - 1] = 0.0
    pairs = ahead.size - offsets.size + 2
    return pairs >= _PAIRS and float(ahead.sum()) <= _PATTERN * float(residual @ residual)
