"""Arbitrage of surfaces: exact ones are free within the stated error, planted violations are found, the twin agrees."""

import itertools
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy.special import ndtri

from benchmarks.paper_box import EXPIRIES, draws, extreme_draws
from calibrant.arbitrage import (
    Verdict,
    check_price_surface,
    check_sampled_surface,
    check_surface,
    check_surface_steps,
    surface_caution,
)
from calibrant.arbitrage.accurate_look import N_LOOKED_AT, accurate_look
from calibrant.arbitrage.samples import BLOCK, GROUP, Sampler, plain_sampler, sample_row
from calibrant.arbitrage.surface import (
    PriceGrid,
    n_looked_at,
    price_grid,
    sampled_grid,
    surface_expiries,
    verdict_on,
)
from calibrant.arbitrage.surface_kernels import (
    FINEST,
    FIRST_STRIKES,
    LARGEST_ERROR,
    LOOK_RATIO,
    MAX_NODES,
    MOST_DETAIL,
    N_EXPIRIES,
    N_STRIKES,
    PERIODS,
    SPAN,
    TABLE_LEVELS,
    TABLE_NODES,
    TARGET_ERROR,
    WORK_SHAPE,
    count_on_grid,
    excess_of,
    invert_row,
    spacing_of,
    spread_expiries,
    turn_table,
)
from calibrant.arbitrage.surface_twin import TotalVariance, check_surface_in_vols, check_total_variance, durrleman
from calibrant.arbitrage.violations import BUTTERFLY, CALENDAR, KINDS, MAX_REPORTED
from calibrant.arrays import ComplexVector, Matrix, Vector
from calibrant.black import call_price, implied_volatility_from_time_value
from calibrant.errors import InvalidInput
from calibrant.models import HESTON
from calibrant.pricing.fourier import otm_values
from calibrant.steps import Steps, finish

PLANTED = 1e-6
# A variance that sits at zero: 2 kappa theta / xi^2 is 6e-7, and |phi| hardly decays.
HARDLY_DECAYING = (np.array([0.001, 0.02, 8.0, 0.4, 0.003]), np.array([0.1, 1.0]))
ORDINARY = np.array([2.0, 0.09, 0.6, -0.6, 0.06])
# Fitted to equity panels of years with and without stress: fast and violent, slow and violent, almost no correlation.
MARKET_LIKE = np.array(
    [
        [15.7, 0.0906, 3.36, -0.63, 0.163],
        [2.6, 0.05, 1.4, -0.79, 0.019],
        [0.5, 0.06, 1.2, -0.91, 0.01],
        [6.0, 0.02, 1.5, 0.31, 0.012],
        [1.2, 0.4, 2.0, 0.02, 0.9],
    ]
)


def errors_of(grid: PriceGrid, params: Vector, seed: int) -> tuple[float, float]:
    """The largest error of a price and of a growth on three random rows, by the accurate pricer."""
    rng = np.random.default_rng(seed)
    rows, columns = np.repeat(rng.choice(grid.expiry.size, 3, replace=False), 20), rng.integers(0, N_STRIKES, 60)
    k, expiry = grid.log_moneyness[rows, columns], grid.expiry[rows]
    interval = np.diff(grid.expiry, append=2.0 * grid.expiry[-1] - grid.expiry[-2])[rows]
    otm = np.where(k < 0.0, np.exp(k), 1.0) - grid.capped[rows, columns]
    gap = 1e-4 * expiry
    rise = otm_values(HESTON, k, expiry + gap, params) - otm_values(HESTON, k, expiry - gap, params)
    return (
        float(np.max(np.abs(otm - otm_values(HESTON, k, expiry, params)))),
        float(np.max(np.abs(grid.growth[rows, columns] - interval * rise / (2.0 * gap)))),
    )


def driven(steps: Steps[Verdict]) -> tuple[Verdict, int]:
    """The verdict, and how many steps it took beyond the first."""
    n_more = 0
    while True:
        try:
            next(steps)
        except StopIteration as ended:
            return ended.value, n_more
        n_more += 1


def test_grid_prices_are_exact_within_the_stated_error() -> None:
    for i, params in enumerate(np.vstack([ORDINARY, draws(4, seed=1), MARKET_LIKE])):
        grid = price_grid(HESTON, params, surface_expiries(EXPIRIES))
        price_error, growth_error = errors_of(grid, params, seed=i)
        assert grid.error.max() < 1.01e-8
        # A size is a difference of two prices, so its error is twice theirs; the growth is compared with differences.
        assert 2.0 * price_error <= grid.error.max()
        assert growth_error <= grid.error.max() + 1e-9


def test_one_hundred_exact_surfaces_of_the_papers_box_are_free() -> None:
    for params in draws(100, seed=2):
        verdict = check_surface(HESTON, params, EXPIRIES)
        assert verdict.free, (params, verdict)
        assert verdict.n_violations == 0
        assert verdict.numerical_error <= TARGET_ERROR


@pytest.mark.parametrize("quoted", [[0.02, 0.1, 1.0, 3.0], [0.0025], [1.0], [0.25, 10.0]])
def test_market_like_surfaces_are_free(quoted: list[float]) -> None:
    for params in MARKET_LIKE:
        verdict = check_surface(HESTON, params, np.array(quoted))
        assert verdict.free, (params, verdict)
        assert verdict.numerical_error <= TARGET_ERROR


def test_no_exact_surface_is_called_not_free_without_a_word() -> None:
    unknown, unverified = 0, 0
    for params, quoted in extreme_draws(300, seed=3):
        verdict, n_more = driven(check_surface_steps(HESTON, params, quoted))
        caution = surface_caution(verdict)
        assert verdict.free == (caution is None), (params, quoted, verdict)
        # What the check does not know itself the accurate pricer decides, an expiry a step.
        assert n_more <= N_LOOKED_AT
        unknown += n_more > 0
        if caution is None:
            assert verdict.n_violations == 0
            assert verdict.numerical_error <= LARGEST_ERROR
        else:
            assert caution.code == "surface_not_verified"
            assert verdict.unverified is not None
            assert verdict.unverified in caution.detail
            unverified += 1
    assert unknown >= 15
    assert unverified <= 3


def test_where_the_pricer_is_at_odds_with_itself_nothing_is_verified() -> None:
    # A "model" whose prices fall with expiry: what it says of them is listed, and not taken at its word.
    params, _ = HARDLY_DECAYING

    def shrinking(u: ComplexVector, expiry: float, params: Vector) -> ComplexVector:
        log_phi: ComplexVector = HESTON.log_characteristic(u, 1.0 / expiry, params)
        return log_phi

    def shrinking_variance(expiry: float, params: Vector) -> float:
        return HESTON.expected_variance(1.0 / expiry, params)

    backwards = replace(HESTON, name="backwards", log_characteristic=shrinking, expected_variance=shrinking_variance)
    verdict = finish(accurate_look(backwards, params, np.array([0.5, 1.0, 2.0]), 1e-5))
    assert not verdict.free
    assert {v.kind for v in verdict.violations} == {"calendar"}
    assert verdict.unverified is not None
    assert "at odds" in verdict.unverified
    assert surface_caution(verdict) is not None


def test_a_second_look_that_is_called_off_says_so() -> None:
    params, quoted = HARDLY_DECAYING
    verdict = finish(check_surface_steps(HESTON, params, quoted), lambda: True)
    assert not verdict.free
    assert verdict.unverified is not None
    assert "no time" in verdict.unverified
    whole = check_surface(HESTON, params, quoted)
    assert whole.free
    assert whole.unverified is None


def test_the_grid_spans_what_it_should() -> None:
    quoted = np.array([0.7, 0.1, 2.0, 0.1])
    expiry = surface_expiries(quoted)
    assert (expiry.size, N_STRIKES) == (N_EXPIRIES, 200) == (50, 200)
    assert expiry == pytest.approx(np.geomspace(0.05, 3.0, 50), rel=1e-13)
    for params in np.vstack([ORDINARY, MARKET_LIKE]):
        grid = price_grid(HESTON, params, expiry)
        at_the_money = otm_values(HESTON, np.zeros(50), expiry, params)
        deviation = 2.0 * ndtri(0.5 + 0.5 * at_the_money)
        reach = grid.log_moneyness[:, -1] / deviation
        assert np.all(reach >= SPAN * (1.0 - 1e-9))
        assert np.all(reach <= SPAN / FINEST * (1.0 + 1e-6))
        assert grid.log_moneyness[:, 0] == pytest.approx(-grid.log_moneyness[:, -1], rel=1e-12)
        assert grid.strike == pytest.approx(np.exp(grid.log_moneyness), rel=1e-13)


def test_any_model_gives_the_same_surface_through_its_characteristic_function() -> None:
    nameless = replace(HESTON, name="the same without compiled samples", factors=())
    assert nameless.layout.size == 0
    for params in (ORDINARY, MARKET_LIKE[0]):
        fast = price_grid(HESTON, params, surface_expiries(EXPIRIES))
        slow = price_grid(nameless, params, surface_expiries(EXPIRIES))
        limit = fast.error + slow.error
        assert np.all(np.max(np.abs(fast.capped - slow.capped), axis=1) <= limit)
        assert np.all(np.max(np.abs(fast.growth - slow.growth), axis=1) <= limit)
        assert slow.error.max() < 1.01e-8
        assert check_surface(nameless, params, EXPIRIES).free
    verdict, n_more = driven(check_surface_steps(nameless, *HARDLY_DECAYING))
    assert verdict == check_surface(HESTON, *HARDLY_DECAYING)
    assert n_more == N_LOOKED_AT


def test_a_model_that_is_not_free_has_the_largest_of_its_violations_listed() -> None:
    def falling(u: ComplexVector, expiry: float, params: Vector) -> ComplexVector:
        # Lognormal, with a total variance that falls after a year.
        total_variance = 0.04 * expiry * math.exp(-expiry)
        log_phi: ComplexVector = (u * u + 1j * u) * complex(-0.5 * total_variance)
        return log_phi

    quoted = np.array([0.5, 2.0])
    verdict = check_surface(replace(HESTON, name="falling", factors=(), log_characteristic=falling), ORDINARY, quoted)
    assert not verdict.free
    assert verdict.unverified is None
    assert verdict.n_violations > len(verdict.violations) == MAX_REPORTED
    assert {v.kind for v in verdict.violations} == {"calendar"}
    assert all(v.expiry > 1.0 and v.expiry in surface_expiries(quoted) for v in verdict.violations)


def test_compiled_samples_are_those_of_the_readable_formula() -> None:
    plain = plain_sampler(HESTON, ORDINARY)
    fast, slow = np.empty((4, 8 * BLOCK)), np.empty((4, 8 * BLOCK))
    for expiry in (0.01, 0.5, 5.0):
        step = 0.4 / math.sqrt(0.09 * expiry)
        n, _, tail, rate_tail = sample_row(HESTON.layout, ORDINARY, expiry, step, 0.0, 0.1, 0, fast)
        again, _, slow_tail, slow_rate_tail = plain(expiry, step, 0.0, 0.1, slow)
        assert n == again == 8 * BLOCK
        assert fast[:2] == pytest.approx(slow[:2], abs=1e-13)
        assert fast[2:] == pytest.approx(slow[2:], abs=1e-10 / expiry)
        assert (tail, rate_tail) == pytest.approx((slow_tail, slow_rate_tail), rel=1e-4, abs=1e-14)


def test_how_many_nodes_are_expected_changes_no_sample_that_counts() -> None:
    for params in np.vstack([draws(5, seed=8), MARKET_LIKE]):
        step = 0.35 / math.sqrt(HESTON.expected_variance(0.5, params))
        one_by_one = np.empty((4, 1024))
        found = sample_row(HESTON.layout, params, 0.5, step, 1e-9, 0.05, 0, one_by_one)
        n = found[0]
        assert n % GROUP == 0
        for expected in (n - 1, n, n + 3, 1000, 5000):
            at_once = np.empty((4, 1024))
            assert sample_row(HESTON.layout, params, 0.5, step, 1e-9, 0.05, expected, at_once) == found
            assert np.array_equal(at_once[:, :n], one_by_one[:, :n])


def test_the_table_turns_nodes_as_cosines_and_sines_do() -> None:
    # Within the table, beyond its nodes, and with a period beyond it.
    cases = ((0, 24), (6, TABLE_NODES), (3, TABLE_NODES + 40), (TABLE_LEVELS, 32))
    for n_strikes, (level, n) in itertools.product((FIRST_STRIKES, N_STRIKES), cases):
        places, centre, table = turn_table(n_strikes)
        scale, interval = 0.3, 0.1
        step = 2.0 * math.pi / (PERIODS[level] * scale)
        samples = np.empty((4, MAX_NODES))
        samples[:, :n] = np.random.default_rng(level).standard_normal((4, n))
        x = step * np.arange(n)
        weight = step / (math.pi * (x * x + 0.25))
        weight[0] *= 0.5
        k = scale * spacing_of(n_strikes) * (np.arange(n_strikes) - 0.5 * (n_strikes - 1))
        turns = np.exp(-1j * np.outer(k, x))
        images = 1.0 / math.expm1(0.5 * PERIODS[level] * scale)
        even_odd = np.exp(0.5 * k) * (turns @ (weight * (samples[0, :n] + 1j * samples[1, :n]))).real
        rates = np.exp(0.5 * k) * (turns @ (weight * (samples[2, :n] + 1j * samples[3, :n]))).real
        strike, capped, growth = np.empty((3, n_strikes))
        tables = places, centre, table, np.empty(WORK_SHAPE)
        invert_row(samples, n, 0.0, 0.0, 0.0, scale, interval, level, *tables, strike, capped, growth)
        assert capped == pytest.approx(even_odd - images * (1.0 + np.exp(k)), abs=1e-11)
        assert growth == pytest.approx(-interval * rates, abs=1e-11)


def test_the_tail_bound_holds() -> None:
    for params in np.vstack([draws(10, seed=4), MARKET_LIKE]):
        for expiry in (0.05, 0.5, 3.0):
            step = 0.35 / math.sqrt(HESTON.expected_variance(expiry, params))
            few, many = np.empty((4, 4096)), np.empty((4, 4096))
            n, _, tail, rate_tail = sample_row(HESTON.layout, params, expiry, step, 1e-7, 0.05, 0, few)
            sample_row(HESTON.layout, params, expiry, step, -1.0, 0.05, 0, many)
            x = step * np.arange(4096)
            weight = step / (math.pi * (x * x + 0.25))
            left_out = weight[n:] * np.hypot(many[0, n:], many[1, n:])
            rate_left_out = weight[n:] * np.hypot(many[2, n:], many[3, n:])
            assert left_out.sum() <= tail
            assert rate_left_out.sum() <= rate_tail


def test_parameters_that_are_no_numbers_are_refused() -> None:
    for bad in (np.array([2.0, 0.09, np.nan, -0.6, 0.06]), np.array([2.0, 0.09, 0.6])):
        with pytest.raises(InvalidInput, match="`parameters` must be 5 finite numbers"):
            check_surface(HESTON, bad, EXPIRIES)


@pytest.mark.parametrize("bad", [[0.5, np.nan], [np.inf, 0.5], [0.5, 0.0], []])
def test_expiries_that_no_option_has_are_refused(bad: list[float]) -> None:
    with pytest.raises(InvalidInput, match="`expiry` must be finite numbers > 0"):
        check_surface(HESTON, ORDINARY, np.array(bad))


def test_what_is_no_characteristic_function_is_not_called_free() -> None:
    def twice_too_large(
        expiry: float, step: float, target: float, interval: float, samples: Matrix
    ) -> tuple[int, float, float, float]:
        samples[:] = 0.0
        samples[0] = 2.0
        return samples.shape[1], 0.0, 0.0, 0.0

    with np.errstate(invalid="ignore"):
        verdict = check_sampled_surface(twice_too_large, np.array([0.5, 1.0]))
    assert not verdict.free
    assert not verdict.numerical_error <= LARGEST_ERROR


# -- Planted in the characteristic function: a lognormal surface of vol 20 % and something that no model has. --


def lognormal_phi(x: Vector, total_variance: float) -> Vector:
    return np.exp(-0.5 * total_variance * (x * x + 0.25))


def planted_sampler(
    vol: float, bump: "Bump | None" = None, rate: float | None = None, rate_bump: "Bump | None" = None
) -> Sampler:
    """Samples of a lognormal surface, plus a bump of no mass and no forward, in it or in what it grows by in a year, or
    with another rate of total variance; as many as their tails ask for."""

    def sample(
        expiry: float, step: float, target: float, interval: float, samples: Matrix
    ) -> tuple[int, float, float, float]:
        x = step * np.arange(min(samples.shape[1], 512), dtype=np.float64)
        total_variance = vol * vol * expiry
        phi = lognormal_phi(x, total_variance).astype(np.complex128)
        growth = -0.5 * (x * x + 0.25) * phi * (vol * vol if rate is None else rate)
        if bump is not None:
            phi += bump.transform(x, math.sqrt(total_variance))
        if rate_bump is not None:
            growth += rate_bump.transform(x, math.sqrt(total_variance))
        samples[:, : x.size] = phi.real, phi.imag, growth.real, growth.imag
        weight = step / (math.pi * (x * x + 0.25))
        left_out, rate_left_out = (np.append(np.cumsum((weight * np.abs(f))[::-1])[::-1], 0.0) for f in (phi, growth))
        n = int(np.argmax(np.maximum(left_out, interval * rate_left_out) <= target))
        n = min(n + GROUP - n % GROUP, x.size)
        return n, 1e-15, float(left_out[n]), float(rate_left_out[n])

    return sample


class Bump:
    """Three narrow Gaussians: `mass` is taken out of the density at the first place, and put back at the other two.

    No mass in all, and no forward: what is left of the model is a martingale. Lengths in standard deviations.
    """

    def __init__(self, mass: float, places: tuple[float, float, float], width: float = 0.15) -> None:
        self.mass, self.places, self.width = mass, np.array(places), width

    def weights(self, sd: float) -> Vector:
        """(3,), with sum 0 and sum weight e^{place} = 0."""
        levels = np.vstack([np.ones(3), np.exp(sd * self.places)])
        back: Vector = np.linalg.solve(levels[:, 1:], self.mass * levels[:, 0])
        return np.concatenate([[-self.mass], back])

    def transform(self, x: Vector, sd: float) -> ComplexVector:
        """E[exp(iu X)] of it at u = x - i/2."""
        u = x - 0.5j
        phases = np.exp(1j * np.outer(u, sd * self.places))
        total: ComplexVector = (phases @ self.weights(sd)) * np.exp(-0.5 * (sd * self.width * u) ** 2)
        return total


EXPIRY = np.geomspace(0.25, 1.0, 6)
STEP = 2.0 * SPAN / (N_STRIKES - 1)


def test_a_lognormal_surface_is_free() -> None:
    verdict = check_sampled_surface(planted_sampler(0.2), EXPIRY)
    assert verdict == Verdict(True, 0, (), verdict.numerical_error)
    assert verdict.numerical_error <= TARGET_ERROR


@pytest.mark.parametrize("place", [-2.8, -2.0, 2.1, 2.9])
def test_a_planted_negative_density_is_a_butterfly_of_its_size(place: float) -> None:
    width = 0.15
    sd = 0.2 * np.sqrt(EXPIRY)[:, None]
    near = place + np.linspace(-0.2, 0.2, 81)
    # A butterfly over one step of strikes: density x strike x step^2 / 2, the density being that of the log-price.
    spread = 0.5 * sd * np.exp(near * sd) * STEP**2
    lognormal = np.exp(-0.5 * (near + 0.5 * sd) ** 2) / math.sqrt(2.0 * math.pi)
    taken = float(np.max((lognormal + PLANTED / spread)[:, 40]))
    sizes = np.max(spread * (taken * np.exp(-0.5 * ((near - place) / width) ** 2) - lognormal), axis=1)
    bump = Bump(taken * width * math.sqrt(2.0 * math.pi), (place, place - 0.7, place + 0.7), width)
    verdict = check_sampled_surface(planted_sampler(0.2, bump), EXPIRY)
    assert verdict.numerical_error <= TARGET_ERROR
    assert {v.kind for v in verdict.violations} == {"butterfly"}
    worst = verdict.violations[0]
    assert PLANTED < worst.size < 6.0 * PLANTED
    # Averaged over a step of strikes, and the bump widens the step by a few percent.
    assert worst.size == pytest.approx(sizes.max(), rel=0.07)
    row = int(np.flatnonzero(worst.expiry == EXPIRY)[0])
    assert sizes[row] == pytest.approx(sizes.max(), rel=0.02)
    assert worst.log_moneyness == pytest.approx(place * sd[row, 0], abs=0.1 * sd[row, 0])


def test_a_planted_falling_variance_is_a_calendar_violation_of_its_size() -> None:
    # The call at the money loses n(d1) dsqrt(w) a year: a rate of w that makes 1e-6 of the longest interval.
    sd = 0.2 * np.sqrt(EXPIRY)
    interval = np.diff(EXPIRY, append=2.0 * EXPIRY[-1] - EXPIRY[-2])
    by_rate = interval * np.exp(-0.125 * sd**2) / math.sqrt(2.0 * math.pi) / (2.0 * sd)
    rate = -PLANTED / float(by_rate.max())
    verdict = check_sampled_surface(planted_sampler(0.2, rate=rate), EXPIRY)
    assert {v.kind for v in verdict.violations} == {"calendar"}
    worst = verdict.violations[0]
    assert worst.size == pytest.approx(PLANTED, rel=1e-2)
    assert worst.expiry == EXPIRY[np.argmax(by_rate)]
    assert abs(worst.log_moneyness) < 0.05


@pytest.mark.parametrize(("side", "kind"), [(1.0, "vertical"), (-1.0, "butterfly")])
def test_a_planted_wing_is_found(side: float, kind: str) -> None:
    # Beyond the last strike less mass than none, though the option there is worth something: the digital is negative on
    # the right, the digital in units of the asset on the left. A wing steeper than Lee's bound amounts to that.
    sd = 0.2 * np.sqrt(EXPIRY)
    places = (side * 5.6, side * 8.0, 0.0)
    mass = 4.0 * PLANTED / (STEP * float(sd.min()))
    verdict = check_sampled_surface(planted_sampler(0.2, Bump(mass, places)), EXPIRY)
    assert verdict.numerical_error <= TARGET_ERROR
    grid_ends = [v for v in verdict.violations if v.kind == kind and abs(v.log_moneyness) >= 5.0 * 0.2 * v.expiry**0.5]
    assert grid_ends
    for found in grid_ends:
        deviation = 0.2 * math.sqrt(found.expiry)
        weights = Bump(mass, places).weights(deviation)[:2]
        if side < 0.0:
            weights = weights * np.exp(deviation * np.array(places[:2]))
        # One step of strikes, up from the second last on the right; on the left in units of the strike.
        gap = STEP * abs(found.log_moneyness) / SPAN * (math.exp(found.log_moneyness) if side > 0.0 else 1.0)
        assert found.size == pytest.approx(-weights.sum() * gap, rel=0.1)
        assert found.size > 0.5 * PLANTED


def test_a_first_look_misses_nothing_that_the_dense_grid_finds() -> None:
    rng = np.random.default_rng(4)
    found = 0
    for i in range(300):
        place, gap = rng.uniform(-4.5, 4.5), rng.uniform(0.3, 1.5)
        width = math.exp(rng.uniform(math.log(0.15), math.log(0.8)))
        # About as much as there is, so that the sizes are those that are hard to see.
        mass = math.exp(-0.5 * place * place) * width * 10.0 ** rng.uniform(-0.5, 1.0)
        bump = Bump(mass, (place, place - gap, place + gap), width)
        sampler = planted_sampler(0.2, bump) if i % 2 else planted_sampler(0.2, rate_bump=bump)
        first = sampled_grid(sampler, EXPIRY, FIRST_STRIKES)
        if first.detail.max() > MOST_DETAIL:
            continue
        dense = check_sampled_surface(sampler, EXPIRY)
        missed = count_on_grid(first.capped, first.growth, first.strike, first.error, True)
        assert dense.free or missed > 0, (place, gap, width, mass, dense)
        found += not dense.free
    assert found >= 60


def test_no_two_expiries_of_a_look_are_far_apart() -> None:
    rng = np.random.default_rng(5)
    for _ in range(200):
        shortest, longest = np.sort(np.exp(rng.uniform(math.log(1.0 / 365.0), math.log(50.0), 2))).tolist()
        expiry = spread_expiries(shortest, longest, n_looked_at(shortest, longest))
        assert expiry[[0, -1]] == pytest.approx([0.5 * shortest, 1.5 * longest], rel=1e-12)
        assert np.all(np.diff(np.log(expiry)) <= math.log(LOOK_RATIO) * (1.0 + 1e-9))


# -- Planted in a grid of prices. --


def flat_prices() -> tuple[Vector, Vector, Matrix]:
    """200 strikes, 50 expiries, vol 20 %."""
    k, expiry = np.linspace(-0.8, 0.8, 200), np.geomspace(0.05, 3.0, 50)
    return k, expiry, np.array([call_price(k, np.full(200, t), np.full(200, 0.2)) for t in expiry])


def test_flat_prices_are_free() -> None:
    assert check_price_surface(*flat_prices()).free


def planted_in_prices(kind: str) -> tuple[Matrix, str, int, int]:
    """(prices, kind found, its row, its column)"""
    k, _, call = flat_prices()
    strike = np.exp(k)
    if kind == "butterfly":
        low = (strike[121] - strike[120]) / (strike[121] - strike[119])
        call[20, 120] = low * call[20, 119] + (1.0 - low) * call[20, 121] + PLANTED
        return call, kind, 20, 120
    if kind == "calendar":
        call[31] = call[30]
        call[31, 90] -= PLANTED
        return call, kind, 30, 90
    if kind == "vertical":
        call[49, 199] = call[49, 198] + PLANTED
        return call, kind, 49, 199
    if kind == "left wing":
        put = (call[49, 1] - 1.0 + strike[1]) * strike[0] / strike[1]
        call[49, 0] = put + PLANTED + 1.0 - strike[0]
        return call, "butterfly", 49, 0
    assert kind == "bounds"
    call[0, 0] = 1.0 - strike[0] - PLANTED
    return call, kind, 0, 0


@pytest.mark.parametrize("planted", ["butterfly", "calendar", "vertical", "left wing", "bounds"])
def test_a_violation_planted_in_prices_is_found(planted: str) -> None:
    k, expiry, _ = flat_prices()
    call, kind, row, column = planted_in_prices(planted)
    verdict = check_price_surface(k, expiry, call)
    found = [v for v in verdict.violations if (v.kind, v.expiry, v.log_moneyness) == (kind, expiry[row], k[column])]
    assert len(found) == 1, verdict
    assert found[0].size == pytest.approx(PLANTED, rel=1e-6)
    # Only the call below its intrinsic value covers others too.
    assert verdict.n_violations == 1 or planted == "bounds"


def test_prices_that_are_no_grid_are_refused() -> None:
    k, expiry, call = flat_prices()
    for bad, name in (
        ((k[::-1], expiry, call), "log_moneyness"),
        ((k, np.append(expiry[:-1], np.inf), call), "expiry"),
        ((k, expiry, call[:, 1:]), "call"),
        ((k, expiry, np.where(call > 0.5, np.nan, call)), "call"),
    ):
        with pytest.raises(InvalidInput, match=f"`{name}` must be"):
            check_price_surface(*bad)


# -- The twin in vol space. --


def svi(k: Vector, expiry: float, a: float, b: float, rho: float, m: float, sigma: float) -> Vector:
    """Raw SVI, scaled with the expiry (Gatheral & Jacquier 2014, section 3)."""
    w: Vector = expiry * (a + b * (rho * (k - m) + np.sqrt((k - m) ** 2 + sigma**2)))
    return w


VOGT = {"a": -0.0410, "b": 0.1331, "rho": 0.3060, "m": 0.3586, "sigma": 0.4153}


def test_durrlemans_condition_fails_where_prices_are_not_convex() -> None:
    # Axel Vogt's example (Gatheral & Jacquier 2014, example 3.1): vols that look harmless, with a butterfly.
    k = np.linspace(-1.5, 1.5, 1001)
    step = k[1] - k[0]
    w = svi(k, 1.0, **VOGT)
    g = durrleman(k[1:-1], w[1:-1], (w[2:] - w[:-2]) / (2.0 * step), (w[2:] - 2.0 * w[1:-1] + w[:-2]) / step**2)
    call = call_price(k, np.ones(1001), np.sqrt(w))
    strike = np.exp(k)
    slope = np.diff(call) / np.diff(strike)
    clear = np.abs(g) > 1e-3
    assert np.array_equal((g < 0.0)[clear], (np.diff(slope) < 0.0)[clear])
    assert 100 < np.count_nonzero(g < 0.0) < 500
    verdict = check_price_surface(k, np.ones(1), call[None, :])
    assert not verdict.free
    assert all(v.log_moneyness >= k[1:-1][g < 0.0].min() - step for v in verdict.violations)


@pytest.mark.parametrize(
    ("surface", "kinds"),
    [
        (lambda k, t: svi(k, t, **VOGT), {"butterfly"}),
        (lambda k, t: svi(k, t, a=0.02, b=0.1, rho=-0.4, m=0.0, sigma=0.2), set()),
        (lambda k, t: np.full(k.size, 0.04 * math.exp(-0.1 * t)), {"calendar"}),
        (lambda k, t: svi(k, t, a=0.04, b=1.05, rho=0.99, m=0.9, sigma=0.02), {"vertical", "butterfly"}),
        (lambda k, t: svi(k, t, a=0.04, b=1.05, rho=-0.99, m=-0.9, sigma=0.02), {"butterfly"}),
    ],
)
def test_the_twin_names_what_is_wrong(surface: TotalVariance, kinds: set[str]) -> None:
    verdict = check_total_variance(surface, np.array([0.9, 1.0, 1.1]))
    assert {v.kind for v in verdict.violations} == kinds
    assert verdict.free == (not kinds)


def test_both_checks_find_exact_surfaces_free() -> None:
    fast, slow = check_surface(HESTON, ORDINARY, EXPIRIES), check_surface_in_vols(HESTON, ORDINARY, EXPIRIES)
    assert fast.free
    assert slow.free
    assert slow.numerical_error < 1e-6


def test_both_checks_measure_the_same_sizes() -> None:
    # The sizes are negative everywhere, being those of no violation, but they are computed in two unrelated ways.
    expiry = np.array([0.3, 0.5, 0.8])
    grid = price_grid(HESTON, ORDINARY, expiry)
    excess = np.empty((3, len(KINDS), N_STRIKES))
    excess_of(grid.capped, grid.growth, grid.strike, excess)
    k, years = grid.log_moneyness[1], 0.5
    interval = expiry[2] - expiry[1]
    step = k[1] - k[0]

    def total_variance(k: Vector, years: float) -> Vector:
        expiries = np.full(k.size, years)
        values = otm_values(HESTON, k, expiries, ORDINARY)
        return implied_volatility_from_time_value(values, k, expiries).volatility ** 2 * years

    near = slice(40, 160)
    w = total_variance(k[near], years)
    h = 1e-3
    above, below = total_variance(k[near] + h, years), total_variance(k[near] - h, years)
    g = durrleman(k[near], w, (above - below) / (2.0 * h), (above - 2.0 * w + below) / h**2)
    d1 = -k[near] / np.sqrt(w) + 0.5 * np.sqrt(w)
    by_w = np.exp(-0.5 * d1**2) / (2.0 * np.sqrt(2.0 * math.pi * w))
    assert excess[1, BUTTERFLY, near] == pytest.approx(-g * by_w * step**2, rel=1e-2)
    gap = 1e-4
    growth = (total_variance(k[near], years + gap) - total_variance(k[near], years - gap)) / (2.0 * gap)
    assert excess[1, CALENDAR, near] == pytest.approx(-interval * growth * by_w, rel=1e-5)


def test_a_verdict_of_a_damaged_grid_names_the_place() -> None:
    grid = price_grid(HESTON, ORDINARY, surface_expiries(EXPIRIES))
    assert verdict_on(grid).free
    # What wrong numbers would look like: one price off by a little more than the butterfly there is worth.
    spread = np.empty((50, len(KINDS), N_STRIKES))
    excess_of(grid.capped, grid.growth, grid.strike, spread)
    damaged = grid.capped.copy()
    damaged[17, 130] += spread[17, BUTTERFLY, 130] - PLANTED
    verdict = verdict_on(grid._replace(capped=damaged))
    worst = next(v for v in verdict.violations if v.kind == "butterfly")
    assert (worst.expiry, worst.log_moneyness) == (grid.expiry[17], grid.log_moneyness[17, 130])
    assert worst.size == pytest.approx(PLANTED, rel=1e-6)
