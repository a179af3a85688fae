"""The accurate pricer: any model, from its log characteristic function alone, each option with the error it has.

With s = iu and M(s) = E[(S_T/F)^s], an undiscounted option is an integral up the complex plane,

    I(a) = 1/(2 pi i) int_{a - i inf}^{a + i inf} M(s) e^{(1-s)k} / (s (s - 1)) ds,

the call for a > 1, the put for a < 0, and the call less one for 0 < a < 1 (Lewis 2001). Three choices make it accurate:

* Tilt. On the real axis the logarithm of the integrand is convex between its poles. At its minimum the path crosses a
  saddle: nothing oscillates there, the integral is as large as its integrand, and a far option keeps its digits however
  small it is (Lord & Kahl 2007). The minimum is looked for on a fixed ladder of tilts for each expiry.
* Bend. The path s(y) = a + b (sin w (cosh y - 1) + i cos w sinh y) leaves the saddle upwards and turns by the angle w
  to the side on which the integrand decays, so that what would oscillate dies out exponentially (Boyarchenko &
  Levendorskii 2019), or goes straight on where it would grow.
* Halving. The trapezoidal rule in y converges exponentially. Its step is halved until two results agree, and agreement
  counts only where the step resolves the integrand's turning, since aliases of two rules may coincide.

Tilt, angle, length and step of an option follow from the model, the expiry and its own strike: options that arrive at
the same ones share the characteristic function, and no option's price depends on the others in the request.

This is the transparent, slow twin of the compiled fit kernels: it answers `/v1/price` and is the judge of the tests. It
asks a model for its characteristic function and nothing else; the loops over options and nodes are `fourier_kernels`.
"""

import math
from collections.abc import Generator, Sequence
from functools import lru_cache
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from ..arrays import BoolVector, ComplexMatrix, ComplexVector, IntVector, Matrix, Vector
from ..errors import InvalidInput, Problem
from ..models.model import Model
from ..steps import Progress, Steps, finish
from .fourier_kernels import EPSILON, Nodes, Sums, add_nodes, chosen_rungs, inside, ordered_bends, saddle_scales, settle

UNSETTLED = 1e-10
"""Of the forward: an option known less well has no price."""

# Of the forward: an option known less well is worth another path.
_DOUBTFUL = 1e-11

# Tilts: distances from the pole in units of 1 / (standard deviation of the log-price), and those between the poles.
_RATIO = 1.16
_DISTANCES: Vector = 0.05 * np.array([_RATIO**i for i in range(64)])
_BETWEEN = 1.0 / (1.0 + np.exp(np.linspace(6.0, -6.0, 13)))
# An option leaves a rounder rung only for one that is this many e-folds better, so that neighbours share their nodes.
_SHARING = 1.0
# What the last rung before the end of the strip costs, in e-folds.
_LAST_RUNG = 3.0
_REFINEMENTS = 4
# Below these the tilts would overflow, and a time value is no number.
_LEAST_VARIANCE = 1e-200
_UNDERFLOW = -746.0
# Path: the angles in radians, and the lengths in y.
_ANGLES = (-0.3, 0.3, 0.0, -0.1, 0.1, -0.03, 0.03, -0.01, 0.01)
# Straight on, jumps of nearly one size neither grow nor fall; what turns does not die out, which costs nodes. The last
# angles lie between, for models that have such terms.
_DEARER = np.array([0.0, 0.0, 1.0, 0.2, 0.2, 0.5, 0.5, 0.7, 0.7])
_N_PLAIN = 3
_ENDS = np.array([3.5, 4.5, 6.0, 8.0, 11.0, 16.0, 25.0, 40.0])
_N_BENDS = len(_ANGLES) * _ENDS.size
# Rule: the first step in y, and how often it is tried.
_FIRST_STEP = 1.0 / 16.0
_HALVINGS = 10
# A step of the work: options looked at together, nodes, and nodes times options.
_BLOCK_OPTIONS = 256
_CHUNK_NODES = 256
_CHUNK_TERMS = 8192
# Nodes of a path come in whole vector registers, so that their numbers do not depend on which others there are.
_REGISTER = 8


def _rank(n: int, middle: int = 0) -> Vector:
    """What an option pays for a rung: nothing for every eighth, going outward from `middle`."""
    index = np.arange(n) - middle
    rank: Vector = _SHARING * ((index % 2 != 0).astype(float) + (index % 4 != 0) + (index % 8 != 0))
    return rank


_RANKS = np.concatenate((_rank(_DISTANCES.size), _rank(_DISTANCES.size), _rank(_BETWEEN.size, _BETWEEN.size // 2)))


class PricingError(ArithmeticError):
    """The integral did not settle: no price is better than a wrong one."""


class Values(NamedTuple):
    """Options priced, undiscounted, in units of the forward."""

    time_value: Vector
    """(n_quotes,) of the out-of-the-money option: the put where log_moneyness < 0, else the call; 0 to min(1, e^k)."""
    error: Vector
    """(n_quotes,) what `time_value` may be off by: how far the last two rules differ, and the rounding."""
    gradient: Matrix
    """(n_params, n_quotes) derivatives by the parameters, the same for call and put; (0, n_quotes) where not asked."""


def otm_values(model: Model, log_moneyness: Vector, expiry: Vector, params: Vector) -> Vector:
    """Values of the out-of-the-money options: the put where log_moneyness < 0, else the call.

    log_moneyness  (n_quotes,), log(strike / forward)
    expiry         (n_quotes,), years, > 0
    params         (n_params,)
    returns        (n_quotes,), undiscounted, in units of the forward, from 0 to min(1, strike / forward)
    error          < 1e-14 over the admissible bounds, and as a rule < 1e-12 of a small value; `Values.error` states
                   each option's (test_every_value_is_as_good_as_its_stated_error)
    raises         InvalidInput for a shape or value that is no option; PricingError if an integral does not settle
    """
    return _settled(model, log_moneyness, expiry, params, with_gradient=False).time_value


def call_prices(model: Model, log_moneyness: Vector, expiry: Vector, params: Vector) -> Vector:
    """Call prices; arguments, units and errors as `otm_values`."""
    return otm_values(model, log_moneyness, expiry, params) + np.maximum(-np.expm1(log_moneyness), 0.0)


def call_prices_and_gradient(
    model: Model, log_moneyness: Vector, expiry: Vector, params: Vector
) -> tuple[Vector, Matrix]:
    """Call prices and their derivatives by the parameters, (n_params, n_quotes); by parity those of the puts too."""
    values = _settled(model, log_moneyness, expiry, params, with_gradient=True)
    return values.time_value + np.maximum(-np.expm1(log_moneyness), 0.0), values.gradient


def _settled(model: Model, log_moneyness: Vector, expiry: Vector, params: Vector, *, with_gradient: bool) -> Values:
    values = finish(value_steps(model, log_moneyness, expiry, params, with_gradient=with_gradient))
    if not np.all(values.error <= UNSETTLED):
        worst = int(np.argmax(values.error))
        raise PricingError(
            f"The price of {model.name} with {dict(zip(model.parameters, np.asarray(params).tolist(), strict=True))} "
            f"at log-moneyness {log_moneyness[worst]} and expiry {expiry[worst]} is known to "
            f"{values.error[worst]:.1e} of the forward only."
        )
    return values


def value_steps(
    model: Model, log_moneyness: Vector, expiry: Vector, params: Vector, *, with_gradient: bool = False
) -> Steps[Values]:
    """Time values, their errors and gradient, in steps of about a millisecond: `Progress` counts options priced.

    Arguments as `otm_values`; nothing is raised for an option that does not settle: its error says so.
    """
    k, t, p = (np.asarray(x, dtype=np.float64) for x in (log_moneyness, expiry, params))
    require_options(model, k, t, p)
    values = Values(np.zeros(k.size), np.zeros(k.size), np.zeros((model.n_params if with_gradient else 0, k.size)))
    order = np.argsort(t, kind="stable")
    ends = np.flatnonzero(np.diff(t[order], append=np.inf)) + 1
    first = 0
    for end in ends.tolist():
        for done in _price_expiry(model, float(t[order[first]]), p, k, order[first:end], values):
            yield Progress(first + done, k.size)
        first = end
    return values


def require_options(model: Model, k: Vector, t: Vector, p: Vector) -> None:
    """raises  InvalidInput for a shape or value that is no option of the model"""
    if k.ndim != 1 or k.shape != t.shape:
        raise InvalidInput(Problem.at(("expiry",), f"must be as long as `log_moneyness` {k.shape}, but is {t.shape}."))
    for name, values, good in (
        ("log_moneyness", k, np.isfinite(k)),
        ("expiry", t, np.isfinite(t) & (t > 0.0)),
    ):
        if not good.all():
            i = int(np.argmin(good))
            raise InvalidInput(
                Problem.at((name, i), f"must be a finite number, and an expiry > 0, but is {values[i]}.")
            )
    if p.shape != (model.n_params,) or not np.isfinite(p).all():
        raise InvalidInput(
            Problem.at(("parameters",), f"must be {model.n_params} finite numbers, but is {p.tolist()}.")
        )


class _Rungs(NamedTuple):
    """Tilts a of one expiry inside the strip of finite moments, ascending, and what is known of M there."""

    tilt: Vector
    log_moment: Vector
    log_width: Vector
    """What turns the logarithm of the height M e^{(1-a)k} into that of the area of the integrand's saddle."""
    width: Vector
    """Scale of the paths, b."""
    rank: Vector
    """What an option pays for the rung: less for rounder ones."""
    open: tuple[float, float]
    """The nearest tilts looked at that lie outside the strip, below and above."""


def _log_moments(model: Model, tilt: Vector, expiry: float, params: Vector) -> ComplexVector:
    with np.errstate(all="ignore"):
        return model.log_characteristic(-1j * tilt, expiry, params)


def _with_scale(tilt: Vector, log_moment: Vector, rank: Vector, outside: tuple[float, float]) -> _Rungs:
    """Rungs with the integrand's scale. The last one before the end of the strip is dear."""
    width, log_width = saddle_scales(tilt, log_moment, *outside)
    rank = rank.copy()
    for last, end in ((0, outside[0]), (-1, outside[1])):
        if math.isfinite(end):
            rank[last] += _LAST_RUNG
    return _Rungs(tilt, log_moment, log_width, width, rank, outside)


def _ladder(model: Model, expiry: float, params: Vector, sd: float) -> _Rungs:
    """The tilts that every option of the expiry may choose from."""
    far = _DISTANCES / sd
    n = far.size
    tilt = np.concatenate((-far, 1.0 + far, _BETWEEN))
    moment = _log_moments(model, tilt, expiry, params)
    below, above = inside(far, moment[: 2 * n].reshape(2, n)).tolist()
    kept = np.concatenate((np.arange(below - 1, -1, -1), np.arange(2 * n, tilt.size), np.arange(n, n + above)))
    outside = (-far[below] if below < n else -math.inf, 1.0 + far[above] if above < n else math.inf)
    return _with_scale(tilt[kept], moment.real[kept].astype(np.float64), _RANKS[kept], outside)


def finite_moments(model: Model, expiry: float, params: Vector) -> tuple[Vector, Vector]:
    """Exponents s inside the strip of finite moments, ascending, and log E[(S_T/F)^s] there."""
    rungs = _ladder(model, expiry, params, math.sqrt(model.expected_variance(expiry, params)))
    return rungs.tilt, rungs.log_moment


def envelope(model: Model, u: Vector, expiry: float, params: Vector) -> Vector:
    """|E[(S_T/F)^{iu}]| on the real line, or what it may rise to again between two turns of a term."""
    with np.errstate(all="ignore"):
        log_phi = model.log_characteristic(u + 0j, expiry, params)
        height: Vector = np.exp(log_phi.real + _rise(_log_terms(model, 1j * u, expiry, params)))
    return np.where(np.isnan(height), 1.0, np.minimum(height, 1.0))


def _refined(model: Model, expiry: float, params: Vector, rungs: _Rungs, up: bool) -> _Rungs:
    """More rungs beyond the last one: nearer to the end of the strip, or further out where none was met."""
    for _ in range(_REFINEMENTS):
        last, inner, pole = (-1, -2, 1.0) if up else (0, 1, 0.0)
        start, outside = float(rungs.tilt[last]), rungs.open[up]
        if math.isinf(outside):
            more = pole + (start - pole) * _RATIO ** np.arange(1.0, 33.0)
        else:
            more = start + (outside - start) * np.arange(1.0, 16.0) / 16.0
        moment = _log_moments(model, more, expiry, params)
        # The last rung goes with the new ones, so that they are held against the slope that leads to it.
        distance: Vector = np.abs(np.concatenate(([start], more)) - rungs.tilt[inner])
        risen = np.concatenate(([rungs.log_moment[last]], moment)) - rungs.log_moment[inner]
        n = max(int(inside(distance, risen[np.newaxis])[0]) - 1, 0)
        ends = [*rungs.open]
        if n < more.size:
            ends[up] = float(more[n])
        added, value, rank = more[:n], moment.real[:n].astype(np.float64), _rank(n)
        if up:
            tilt, log_moment = np.concatenate((rungs.tilt, added)), np.concatenate((rungs.log_moment, value))
            ranks = np.concatenate((rungs.rank, rank))
        else:
            tilt = np.concatenate((added[::-1], rungs.tilt))
            log_moment = np.concatenate((value[::-1], rungs.log_moment))
            ranks = np.concatenate((rank[::-1], rungs.rank))
        rungs = _with_scale(tilt, log_moment, ranks, (ends[0], ends[1]))
    return rungs


class _Path(NamedTuple):
    """Where an option is integrated: options with the same path share the nodes."""

    tilt: float
    log_moment: float
    log_width: float
    width: float
    angle: int
    end: float


def _path(rungs: _Rungs, rung: int, bend: int) -> _Path:
    tilt, log_moment, log_width, width = (
        float(of_rungs[rung]) for of_rungs in (rungs.tilt, rungs.log_moment, rungs.log_width, rungs.width)
    )
    angle, end = divmod(bend, _ENDS.size)
    return _Path(tilt, log_moment, log_width, width, angle, float(_ENDS[end]))


def _chosen(rungs: _Rungs, k: Vector) -> tuple[IntVector, IntVector, Vector]:
    return chosen_rungs(rungs.tilt, rungs.log_moment, rungs.log_width, rungs.rank, k)


def _price_expiry(
    model: Model, expiry: float, params: Vector, log_moneyness: Vector, chosen: IntVector, values: Values
) -> Generator[int, None, None]:
    """Fill the options `chosen`, which have one expiry; yields how many are done, after each step."""
    variance = model.expected_variance(expiry, params)
    if not variance >= _LEAST_VARIANCE:
        # Time values lie between zero and the deviation.
        values.error[chosen] = math.sqrt(max(variance, 0.0))
        yield chosen.size
        return
    rungs = _ladder(model, expiry, params, math.sqrt(variance))
    refined: dict[int, _Rungs] = {}
    yield 0
    for first in range(0, chosen.size, _BLOCK_OPTIONS):
        block = chosen[first : first + _BLOCK_OPTIONS]
        k = log_moneyness[block]
        rung, edge, bound = _chosen(rungs, k)
        for side in (0, 1, -1):
            those = np.flatnonzero(edge == side)
            if not those.size:
                continue
            if side and side not in refined:
                refined[side] = _refined(model, expiry, params, rungs, side > 0)
                yield first
            on = refined[side] if side else rungs
            if side:
                rung[those], _, bound[those] = _chosen(on, k[those])
            options = _Options(k[those], block[those], rung[those], bound[those])
            for _ in _price_block(model, expiry, params, on, options, values):
                yield first
        yield first + block.size


class _Options(NamedTuple):
    """Options of one expiry, on one ladder."""

    k: Vector
    place: IntVector
    """Among all of the request."""
    rung: IntVector
    bound: Vector
    """Logarithm of an upper bound of the time value."""

    def of(self, chosen: BoolVector) -> "_Options":
        return _Options(self.k[chosen], self.place[chosen], self.rung[chosen], self.bound[chosen])


def _price_block(
    model: Model, expiry: float, params: Vector, rungs: _Rungs, options: _Options, values: Values
) -> Generator[None, None, None]:
    """Fill the options."""
    alive = options.bound > _UNDERFLOW
    if not alive.all():
        options = options.of(alive)
    k, place, rung, bound = options
    n_params = values.gradient.shape[0]
    result, off = np.zeros((1 + n_params, k.size)), np.full(k.size, np.inf)
    used, on = np.unique(rung, return_inverse=True)
    bends = _bends(model, expiry, params, rungs, used, on, k)
    yield
    for choice in bends.T:
        # What a bend looked at in a few points was wrong about, or lost in a peak between them, is tried on the next.
        left = np.flatnonzero(off > _DOUBTFUL)
        if not left.size:
            break
        groups = _grouped((rung * _N_BENDS + choice)[left])
        paths = [_path(rungs, *divmod(code, _N_BENDS)) for code, _ in groups]
        known, so_far = off[left], result[:, left]
        yield from _integrate(model, expiry, params, paths, [left[at] for _, at in groups], k, result, off)
        worse = ~(off[left] < known)
        off[left[worse]], result[:, left[worse]] = known[worse], so_far[:, worse]
    settle(result[0], off, rungs.tilt[rung], k, bound, place, values.time_value, values.error)
    values.gradient[:, place] = result[1:]


def _grouped(codes: IntVector) -> list[tuple[int, IntVector]]:
    """The codes that occur, ascending, each with where."""
    return [(code, np.flatnonzero(codes == code)) for code in sorted(set(codes.tolist()))]


@lru_cache(maxsize=256)
def _unit_path(angle: int, end: float, halving: int) -> tuple[ComplexVector, ComplexVector, int]:
    """(s(y) - a) / b and (ds/dy / i) / b at the nodes that a halving of the step adds, at all for the first; and how
    many these are, since the last one may be there several times.

    angle     index into `_ANGLES`
    halving   0 for the first step; -1 for the points of `_ENDS`
    """
    step = _FIRST_STEP * 0.5**halving
    if halving < 0:
        y = _ENDS
    elif halving == 0:
        y = step * np.arange(round(end / step) + 1)
    else:
        y = step * np.arange(1, round(end / step), 2)
    n = y.size
    y = np.concatenate((y, np.full(-n % _REGISTER, y[-1])))
    sine, cosine = math.sin(_ANGLES[angle]), math.cos(_ANGLES[angle])
    half, sinh, cosh = np.sinh(0.5 * y), np.sinh(y), np.cosh(y)
    return 2.0 * sine * half * half + 1j * cosine * sinh, cosine * cosh - 1j * sine * sinh, n


_ALL_AHEAD, _ALL_SLOPE = (
    np.concatenate([_unit_path(angle, 0.0, -1)[part] for angle in range(len(_ANGLES))]) for part in (0, 1)
)


def _bends(
    model: Model, expiry: float, params: Vector, rungs: _Rungs, used: IntVector, on: IntVector, k: Vector
) -> IntVector:
    """How each option's path may bend, (n_quotes, n_angles), the best first: the index into `_ANGLES` times the number
    of `_ENDS`, plus the index of the one where its integrand has become negligible.

    used  the rungs that options are on, looked at in one call: each takes a whole number of vector registers, so that
          its numbers do not depend on which others there are
    on    (n_quotes,) each option's place among them

    Which side an option prefers depends on more than its sign, since M itself turns: so all are looked at. What counts
    is the length, and the growth before the decay, for that is lost in rounding.
    """
    n_angles = len(_ANGLES) if model.log_terms else _N_PLAIN
    looked_at = slice(n_angles * _ENDS.size)
    tilt = rungs.tilt[used][:, np.newaxis]
    ahead = rungs.width[used][:, np.newaxis] * _ALL_AHEAD[looked_at]
    s = tilt + ahead
    with np.errstate(all="ignore"):
        log_phi = model.log_characteristic(-1j * s.reshape(-1), expiry, params).reshape(s.shape)
        size = log_phi.real - rungs.log_moment[used][:, np.newaxis]
        size = size + np.log(np.abs(_ALL_SLOPE[looked_at] * (tilt * (tilt - 1.0)) / (s * (s - 1.0))))
        size = size + _rise(_log_terms(model, s.reshape(-1), expiry, params)).reshape(s.shape)
    return ordered_bends(size, np.ascontiguousarray(ahead.real), on, k, _ENDS, _DEARER[:n_angles])


def _log_terms(model: Model, s: ComplexVector, expiry: float, params: Vector) -> ComplexMatrix:
    """(n_terms, n_s) of `Model.log_terms`."""
    terms = np.empty((len(model.log_terms), s.size), np.complex128)
    for row, log_term in zip(terms, model.log_terms, strict=True):
        row[:] = log_term(-1j * s, expiry, params)
    return terms


def _rise(log_terms: ComplexMatrix) -> Vector:
    """By how much log |M| may rise again where its terms have turned: |term| - Re term."""
    rise: Vector = (np.exp(log_terms.real) * (1.0 - np.cos(log_terms.imag))).sum(axis=0)
    return rise


def _at_nodes(
    model: Model, expiry: float, params: Vector, paths: Sequence[_Path], halving: int, n_params: int
) -> Generator[None, None, tuple[Nodes, list[tuple[int, int]]]]:
    """What is known at the nodes of the paths, one behind the other, and where those of each begin and end."""
    units = [_unit_path(path.angle, path.end, halving) for path in paths]
    sizes = [ahead.size for ahead, _, _ in units]
    ends = list(accumulate(sizes))
    spans = [(end - size, end - size + n) for end, size, (_, _, n) in zip(ends, sizes, units, strict=True)]
    of_paths = np.array(
        [(path.tilt, path.width, path.width * math.exp(-path.log_width), path.log_moment) for path in paths]
    )
    tilt, width, poles, log_moment = np.repeat(of_paths, sizes, axis=0).T
    all_ahead = width * np.concatenate([ahead for ahead, _, _ in units])
    all_slope = poles * np.concatenate([slope for _, slope, _ in units])
    pieces = []
    for first in range(0, all_ahead.size, _CHUNK_NODES):
        part = slice(first, first + _CHUNK_NODES)
        ahead = all_ahead[part]
        s = tilt[part] + ahead
        with np.errstate(all="ignore"):
            if n_params:
                log_phi, by_parameter = model.log_characteristic_gradient(-1j * s, expiry, params)
            else:
                log_phi = model.log_characteristic(-1j * s, expiry, params)
                by_parameter = np.empty((0, s.size), dtype=np.complex128)
            log_phi = log_phi - log_moment[part]
            logarithm = log_phi + np.log(all_slope[part] / s / (s - 1.0))
            log_terms = _log_terms(model, s, expiry, params)
            rise = _rise(log_terms)
        lost = ~np.isfinite(logarithm)
        if n_params:
            lost |= ~np.isfinite(by_parameter).all(axis=0)
        if lost.any():
            # Nothing where it has underflowed. What is no number may be anything: that is never resolved.
            nothing = logarithm.real == -np.inf
            logarithm[lost] = np.where(nothing[lost], -np.inf, 0.0)
            log_phi[lost] = np.where(nothing[lost], 0.0, 1j * np.inf)
            by_parameter[:, lost], rise[lost] = 0.0, 0.0
        phase: Vector = np.ascontiguousarray(log_phi.imag)
        # Of one layout whatever the model gives, since for another one the kernels would be compiled anew.
        pieces.append(Nodes(ahead, logarithm, phase, np.ascontiguousarray(by_parameter), log_terms, rise))
        yield
    if len(pieces) == 1:
        return pieces[0], spans
    return Nodes(*(np.concatenate(parts, axis=-1) for parts in zip(*pieces, strict=True))), spans


def _integrate(
    model: Model,
    expiry: float,
    params: Vector,
    paths: Sequence[_Path],
    members: Sequence[IntVector],
    k: Vector,
    result: Matrix,
    off: Vector,
) -> Generator[None, None, None]:
    """The integrals I of the options on each path, `members`, and their derivatives into `result`, (1 + n_params,
    n_quotes); into `off` what the first may be off by, infinite where it is not known.
    """
    sums = Sums(*(np.empty(result.shape) for _ in range(3)), *(np.empty(k.size) for _ in range(3)))
    left = list(zip(paths, members, strict=True))
    for halving in range(_HALVINGS):
        nodes, spans = yield from _at_nodes(model, expiry, params, [path for path, _ in left], halving, len(result) - 1)
        still, terms = [], 0
        for (path, those), (begin, end) in zip(left, spans, strict=True):
            rows = max(1, _CHUNK_TERMS // (end - begin))
            unsettled = []
            for first in range(0, those.size, rows):
                part = those[first : first + rows]
                # On a path that bends to the wrong side the sums overflow, and are judged by that.
                unsettled.append(add_nodes(nodes, begin, end, k, part, _FIRST_STEP * 0.5**halving, halving > 0, sums))
                terms += part.size * (end - begin)
                if terms >= _CHUNK_TERMS:
                    terms = 0
                    yield
            more = unsettled[0] if len(unsettled) == 1 else np.concatenate(unsettled)
            if more.size:
                still.append((path, more))
        left = still
        if not left:
            break
    with np.errstate(all="ignore"):
        for path, those in zip(paths, members, strict=True):
            moneyness = (1.0 - path.tilt) * k[those]
            scale = np.exp(path.log_moment + path.log_width + moneyness) / math.pi
            rounding = EPSILON * (512.0 + 32.0 * (abs(path.log_moment) + np.abs(moneyness)))
            result[:, those] = scale * sums.now[:, those]
            off[those] = scale * (sums.off[those] + rounding * sums.size[those])
