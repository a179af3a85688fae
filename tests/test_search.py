"""The race on a sketch finds the best optimum there is, however odd the panel and however it is written down."""

import numpy as np
import pytest

from benchmarks.odd_panels import odd_panels
from benchmarks.optima import WORSE, best_of_many
from calibrant.arrays import Matrix
from calibrant.calibration import calibrate
from calibrant.fit_problem import fit_problem
from calibrant.models import HESTON
from calibrant.optimisers.objective import Problem
from calibrant.options import CalibrationOptions, Effort, Refine, Start
from calibrant.panel import OptionPanel
from calibrant.search import Optimum, distinct_optima, sketch
from calibrant.starts import N_KINDS, surface_starts
from tests.exact_vols import exact_vols

ODD = list(odd_panels(80, seed=161))
TRUTH = np.array([2.0, 0.09, 0.6, -0.6, 0.05])
EXACT_VOL = 1e-9


def _dense(seed: int) -> OptionPanel:
    """Hundreds of quotes: smiles of their own making at up to 14 expiries, unevenly spaced strikes, some noise."""
    generator = np.random.default_rng([162, seed])
    expiries = np.sort(np.exp(generator.uniform(np.log(7 / 365), np.log(3.0), generator.integers(3, 15))))
    expiry, log_moneyness, iv = [], [], []
    for years in expiries:
        level = 0.2 * np.exp(0.3 * generator.standard_normal())
        z = np.sort(generator.normal(-0.3, 0.9, generator.integers(30, 60)).clip(-2.2, 2.2))
        smile = level * (1.0 - 0.08 * z + abs(generator.normal(0.02, 0.02)) * z * z)
        expiry.append(np.full(z.size, years))
        log_moneyness.append(z * level * np.sqrt(years))
        iv.append(smile * (1.0 + 0.01 * generator.standard_normal(z.size)))
    return OptionPanel.from_quotes(
        expiry=np.concatenate(expiry), log_moneyness=np.concatenate(log_moneyness), iv=np.concatenate(iv)
    )


@pytest.mark.parametrize("kind", dict.fromkeys(odd.kind for odd in ODD))
def test_no_start_leads_to_a_better_optimum_than_the_answer_of_an_odd_panel(kind: str) -> None:
    worse = []
    for i, odd in enumerate(ODD):
        if odd.kind == kind:
            answer, best = calibrate(odd.panel, HESTON, []), best_of_many(odd.panel, i)
            assert answer.status == "converged"
            if answer.objective > WORSE * max(best, odd.panel.n_quotes * EXACT_VOL**2):
                worse.append((i, answer.objective / best))
    assert worse == []


def test_a_start_that_leads_to_a_worse_optimum_is_overruled() -> None:
    led_astray, overruled = 0, 0
    for odd in ODD:
        answer = calibrate(odd.panel, HESTON, [])
        for start in surface_starts(fit_problem(odd.panel, HESTON, CalibrationOptions())):
            alone = calibrate(odd.panel, HESTON, [Start("network", start)], effort=Effort(second_opinion=False))
            if alone.rmse_bp > 15.0 and alone.objective > 1.01 * answer.objective:
                led_astray += 1
                asked = calibrate(odd.panel, HESTON, [Start("network", start)])
                overruled += asked.objective <= WORSE * answer.objective
    assert led_astray > 10
    assert overruled >= 0.95 * led_astray


@pytest.mark.parametrize("seed", range(12))
def test_on_hundreds_of_quotes_the_optimum_is_that_of_all_of_them(seed: int) -> None:
    panel = _dense(seed)
    assert panel.n_quotes > 90
    assert calibrate(panel, HESTON, []).objective <= WORSE * best_of_many(panel, seed)


def raced(problem: Problem, proposals: Matrix) -> tuple[list[Optimum], float]:
    """The optima that a race to its end finds, and the quote-evaluations that it took."""
    pieces = distinct_optima(problem, proposals)
    total = next(pieces)
    while True:
        try:
            total += pieces.send(False)
        except StopIteration as ended:
            return ended.value, total


@pytest.mark.parametrize("seed", range(12))
def test_a_sketch_keeps_the_optimum(seed: int) -> None:
    problem = fit_problem(_dense(seed), HESTON, CalibrationOptions())
    optima, _ = raced(problem, np.empty((0, 5)))
    fits = [
        calibrate(_dense(seed), HESTON, [Start("given", optimum.params)], effort=Effort(second_opinion=False)).objective
        for optimum in optima
    ]
    assert min(fits) <= WORSE * best_of_many(_dense(seed), seed)
    assert optima[0].objective == min(optimum.objective for optimum in optima)


@pytest.mark.parametrize("seed", range(12))
def test_a_sketch_is_small_and_keeps_the_weight_and_the_mean_of_every_expiry_it_has(seed: int) -> None:
    problem = fit_problem(_dense(seed), HESTON, CalibrationOptions())
    small = sketch(problem)
    assert small.expiries.size == min(problem.expiries.size, 8)
    assert small.vol.size <= 40
    assert (small.root_weight**2).sum() == pytest.approx((problem.root_weight**2).sum(), rel=1e-12)
    shares = []
    assert (small.expiries[0], small.expiries[-1]) == (problem.expiries[0], problem.expiries[-1])
    for i, years in enumerate(small.expiries):
        e = int(np.searchsorted(problem.expiries, years))
        few = slice(small.offsets[i], small.offsets[i + 1])
        many = slice(problem.offsets[e], problem.offsets[e + 1])
        weight, weights = small.root_weight[few] ** 2, problem.root_weight[many] ** 2
        shares.append(weight.sum() / weights.sum())
        for sketched, whole in ((small.vol, problem.vol), (small.log_moneyness, problem.log_moneyness)):
            mean = np.average(sketched[few], weights=weight)
            assert mean == pytest.approx(np.average(whole[many], weights=weights), rel=1e-9, abs=1e-12)
        assert (np.diff(small.log_moneyness[few]) > 0.0).all()
    np.testing.assert_allclose(shares, shares[0], rtol=1e-12)


def test_a_small_problem_is_its_own_sketch() -> None:
    problem = fit_problem(ODD[0].panel, HESTON, CalibrationOptions())
    assert problem.vol.size <= 36
    for kept, value in zip(sketch(problem), problem, strict=True):
        np.testing.assert_array_equal(kept, value)


def test_starts_that_lead_to_one_optimum_are_one() -> None:
    k, t = np.tile(np.linspace(-0.2, 0.2, 9), 4), np.repeat([0.1, 0.5, 1.0, 2.0], 9)
    panel = OptionPanel.from_quotes(expiry=t, log_moneyness=k, iv=exact_vols(k, t, TRUTH))
    problem = fit_problem(panel, HESTON, CalibrationOptions())
    nearby = TRUTH * (1.0 + 0.1 * np.random.default_rng(163).uniform(-1.0, 1.0, (6, 5)))
    optima, spent = raced(problem, nearby)
    assert len(optima) == 1
    assert optima[0].start == 0
    assert spent >= (6 + N_KINDS) * 32
    np.testing.assert_allclose(optima[0].params, TRUTH, rtol=0.01)


def _rewritten(panel: OptionPanel, seed: int) -> tuple[OptionPanel, OptionPanel]:
    """The same quotes in another order, and by strikes in another unit."""
    order = np.random.default_rng(seed).permutation(panel.n_quotes)
    shuffled = OptionPanel.from_quotes(
        expiry=panel.expiry[order], log_moneyness=panel.log_moneyness[order], iv=panel.mid[order]
    )
    forward = 4321.7 * np.exp(0.03 * panel.expiry)
    in_strikes = OptionPanel.from_quotes(
        expiry=panel.expiry, strike=forward * np.exp(panel.log_moneyness), forward=forward, iv=panel.mid
    )
    return shuffled, in_strikes


@pytest.mark.parametrize("i", range(len(ODD)))
def test_neither_the_order_of_the_quotes_nor_the_unit_of_strikes_changes_the_answer(i: int) -> None:
    panel = ODD[i].panel
    answer = calibrate(panel, HESTON, [])
    shuffled, in_strikes = (calibrate(each, HESTON, []) for each in _rewritten(panel, i))
    np.testing.assert_array_equal(shuffled.parameters, answer.parameters)
    assert in_strikes.objective == pytest.approx(answer.objective, rel=1e-7, abs=panel.n_quotes * EXACT_VOL**2)
    assert in_strikes.at_bounds == answer.at_bounds


@pytest.mark.parametrize("refine", ["lm", "lbfgs"])
def test_a_budget_ends_the_search_at_the_same_place_and_more_of_it_is_never_worse(refine: Refine) -> None:
    for odd in ODD[::8]:
        before = np.inf
        for evaluations in (5.0, 20.0, 80.0, 320.0, 5000.0):
            options = CalibrationOptions(refine=refine)
            effort = Effort(max_work=evaluations * odd.panel.n_quotes)
            fit, again = (calibrate(odd.panel, HESTON, [], options, effort=effort) for _ in range(2))
            np.testing.assert_array_equal(fit.parameters, again.parameters)
            assert (fit.status, fit.n_starts, fit.iterations) == (again.status, again.n_starts, again.iterations)
            assert np.isfinite(fit.parameters).all()
            # Vols of steps on the way are good to 0.01 bp.
            assert fit.objective <= before * (1.0 + 1e-4)
            before = fit.objective
        assert fit.status == "converged"
