import math

import numpy as np
import pytest

from benchmarks import paper_box
from calibrant.arrays import Matrix, Vector
from calibrant.black import implied_volatility, vega
from calibrant.calibration import Calibration, calibrate, calibration_steps
from calibrant.errors import InvalidInput
from calibrant.models import HESTON
from calibrant.options import CalibrationOptions, Effort, Prior, Refine, Start
from calibrant.panel import OptionPanel
from calibrant.quotes_csv import read_csv
from calibrant.steps import finish
from tests.exact_vols import exact_panel, exact_vols, noisy_panel, starts_nearby
from tests.shared import SHARED, needs_shared, published_values

REFINEMENTS: tuple[Refine, ...] = ("lm", "lbfgs")
TRUTH = np.array([2.0, 0.09, 0.6, -0.6, 0.05])
MANY = paper_box.draws(24, seed=51)
NEAR = starts_nearby(MANY, seed=52)
NAMES = HESTON.parameters


def _held(free: tuple[str, ...]) -> dict[str, float]:
    """Every other parameter at the truth."""
    return {name: float(value) for name, value in zip(NAMES, TRUTH, strict=True) if name not in free}


def _objective(fit: Calibration, params: Vector) -> float:
    """Weighted sum of squares, the mean weight one."""
    panel = fit.panel
    away = exact_vols(panel.log_moneyness, panel.expiry, params) - panel.mid
    return float(panel.weight / panel.weight.mean() @ (away * away))


def _jacobian(fit: Calibration) -> Matrix:
    """Derivatives of the vols by central differences through the accurate pricer, (n_params, n_quotes)."""
    rows = []
    for i, value in enumerate(fit.parameters):
        step = np.zeros(5)
        step[i] = 1e-4 * abs(value)
        up, down = (exact_vols(fit.panel.log_moneyness, fit.panel.expiry, fit.parameters + s * step) for s in (1, -1))
        rows.append((up - down) / (2.0 * step[i]))
    return np.array(rows)


@pytest.mark.parametrize("refine", REFINEMENTS)
@pytest.mark.parametrize("i", range(len(MANY)))
def test_noiseless_panels_are_recovered_from_starts_off_by_ten_percent(i: int, refine: Refine) -> None:
    fit = calibrate(exact_panel(MANY[i]), HESTON, [Start("network", NEAR[i])], CalibrationOptions(refine=refine))
    np.testing.assert_allclose(fit.parameters, MANY[i], rtol=1e-6)
    assert fit.status == "converged"
    assert fit.start == "network"
    assert fit.max_abs_bp < 1e-4


@pytest.mark.parametrize("i", range(len(MANY)))
def test_noiseless_panels_are_recovered_without_any_start(i: int) -> None:
    fit = calibrate(exact_panel(MANY[i]), HESTON, [])
    np.testing.assert_allclose(fit.parameters, MANY[i], rtol=1e-6)
    assert fit.start == "fallback"


@pytest.mark.parametrize("refine", REFINEMENTS)
def test_no_refinement_reports_the_start_itself(refine: Refine) -> None:
    panel = exact_panel(TRUTH)
    start = 1.1 * TRUTH
    fit = calibrate(panel, HESTON, [Start("network", start)], CalibrationOptions(refine="none"))
    np.testing.assert_array_equal(fit.parameters, start)
    assert fit.status == "network_only"
    assert fit.iterations == 0
    expected = exact_vols(fit.panel.log_moneyness, fit.panel.expiry, start) - fit.panel.mid
    assert fit.rmse_bp == pytest.approx(1e4 * np.sqrt(np.mean(expected**2)), rel=1e-6)
    refined = calibrate(panel, HESTON, [Start("network", start)], CalibrationOptions(refine=refine))
    assert refined.objective < 1e-6 * fit.objective


def test_a_given_start_is_used_where_it_is_better_than_the_network_s() -> None:
    far, near = np.array([7.0, 0.4, 0.2, -0.1, 0.3]), 1.05 * TRUTH
    panel = exact_panel(TRUTH)
    assert calibrate(panel, HESTON, [Start("network", far), Start("given", near)]).start == "given"
    assert calibrate(panel, HESTON, [Start("network", near), Start("given", far)]).start == "network"


def test_a_misleading_start_is_overruled_by_those_read_off_the_surface() -> None:
    worst = np.array([60.0, 4.0, 0.001, 0.9999, 1e-4])
    fit = calibrate(noisy_panel(TRUTH, 53, 0.5), HESTON, [Start("network", worst, trusted=False)])
    assert fit.rmse_bp < 1.0
    assert fit.n_starts > 1


def test_a_poor_fit_is_in_doubt_whoever_proposed_it() -> None:
    panel = noisy_panel(TRUTH, 55, 100.0)
    assert calibrate(panel, HESTON, [Start("network", TRUTH)]).n_starts > 1


def test_a_proposal_can_be_left_alone_with_its_answer() -> None:
    worst = np.array([60.0, 4.0, 0.001, 0.9999, 1e-4])
    alone = Effort(second_opinion=False)
    panel = noisy_panel(TRUTH, 53, 0.5)
    fit = calibrate(panel, HESTON, [Start("network", worst, trusted=False)], effort=alone)
    assert (fit.start, fit.n_starts) == ("network", 1)
    assert calibrate(panel, HESTON, [], effort=alone).start == "fallback"


@pytest.mark.parametrize("refine", REFINEMENTS)
def test_an_optimum_on_a_bound_is_found_and_its_gradient_points_outward(refine: Refine) -> None:
    bounds = np.column_stack([HESTON.lower, HESTON.upper])
    bounds[0, 1], bounds[2, 1] = 1.5, 0.5
    fit = calibrate(exact_panel(TRUTH), HESTON, [], CalibrationOptions(refine=refine, bounds=bounds))
    assert fit.at_bounds == ("kappa", "xi")
    assert fit.parameters[0] == 1.5
    assert fit.parameters[2] == 0.5
    assert np.isnan(fit.standard_errors[[0, 2]]).all()
    assert np.isfinite(fit.standard_errors[[1, 3, 4]]).all()
    assert fit.message is not None
    assert "kappa, xi ended on a bound" in fit.message
    residual = exact_vols(fit.panel.log_moneyness, fit.panel.expiry, fit.parameters) - fit.panel.mid
    jacobian = _jacobian(fit)
    gradient = jacobian @ residual
    size = np.sqrt((jacobian * jacobian).sum(axis=1)) * np.linalg.norm(residual)
    # Karush-Kuhn-Tucker: downhill is outward on the two bounds, and nowhere else.
    assert (gradient[[0, 2]] / size[[0, 2]] < -1e-3).all()
    assert (np.abs(gradient[[1, 3, 4]]) / size[[1, 3, 4]] < 1e-6).all()


def test_bounds_that_are_not_reached_change_nothing() -> None:
    panel = noisy_panel(TRUTH, 54, 5.0)
    bounds = np.column_stack([0.3 * TRUTH, 3.0 * TRUTH])
    bounds[3] = -0.95, 0.0
    free = calibrate(panel, HESTON, [Start("given", TRUTH)])
    bounded = calibrate(panel, HESTON, [Start("given", TRUTH)], CalibrationOptions(bounds=bounds))
    np.testing.assert_allclose(bounded.parameters, free.parameters, rtol=1e-8)


@pytest.mark.parametrize("refine", REFINEMENTS)
@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_held_keeps_its_value_exactly_and_the_others_are_optimal(name: str, refine: Refine) -> None:
    i = NAMES.index(name)
    value = 1.1 * float(TRUTH[i])
    panel = exact_panel(TRUTH)
    fit = calibrate(panel, HESTON, [Start("network", TRUTH)], CalibrationOptions(refine=refine, fixed={name: value}))
    assert fit.parameters[i] == value
    assert name not in fit.at_bounds
    assert np.isnan(fit.standard_errors[i])
    others = [j for j in range(5) if j != i]
    assert np.isfinite(fit.standard_errors[others]).all()
    residual = exact_vols(panel.log_moneyness, panel.expiry, fit.parameters) - panel.mid
    jacobian = _jacobian(fit)[others]
    slope = jacobian @ residual / (np.sqrt((jacobian**2).sum(axis=1)) * np.linalg.norm(residual))
    assert np.abs(slope).max() < 1e-6


@pytest.mark.parametrize(
    ("bounds", "fixed", "pointer"),
    [
        ([[0.001, 61.0], [1e-4, 4], [0.001, 15], [-0.9999, 0.9999], [1e-4, 4]], None, "/bounds/kappa"),
        ([[0.001, 60.0], [1e-4, 4], [0.001, 15], [0.5, -0.5], [1e-4, 4]], None, "/bounds/rho"),
        (None, {"rho": 1.5}, "/fixed/rho"),
        (None, {"lam": 1.0}, "/fixed/lam"),
    ],
)
def test_contradictory_options_are_refused_where_they_stand(
    bounds: list[list[float]] | None, fixed: dict[str, float] | None, pointer: str
) -> None:
    options = CalibrationOptions(bounds=None if bounds is None else np.array(bounds), fixed=fixed)
    with pytest.raises(InvalidInput) as refused:
        calibrate(exact_panel(TRUTH), HESTON, [], options)
    assert refused.value.problems[0].pointer == pointer


@pytest.mark.parametrize("refine", REFINEMENTS)
def test_a_prior_pulls_as_bayes_formula_says_of_a_linear_model(refine: Refine) -> None:
    # Equal weights without spreads: the noise against which the prior is weighed is 10 bp a quote.
    panel = exact_panel(TRUTH)
    mean, deviation = TRUTH * (1.0 + 1e-4 * np.array([1.0, -1.0, 1.0, -1.0, 1.0])), 0.05 * np.abs(TRUTH)
    options = CalibrationOptions(refine=refine, prior=Prior(parameters=mean, standard_deviations=deviation))
    fit = calibrate(panel, HESTON, [Start("network", TRUTH)], options)
    jacobian = _jacobian(fit)
    information, prior = jacobian @ jacobian.T / (10e-4) ** 2, np.diag(deviation**-2.0)
    expected = np.linalg.solve(information + prior, information @ TRUTH + prior @ mean)
    np.testing.assert_allclose(fit.parameters - TRUTH, expected - TRUTH, rtol=2e-3, atol=1e-9)


def test_an_infinitely_wide_prior_says_nothing() -> None:
    panel = noisy_panel(TRUTH, 55, 5.0)
    prior = Prior(parameters=0.5 * TRUTH, standard_deviations=np.full(5, math.inf))
    with_prior = calibrate(panel, HESTON, [Start("network", TRUTH)], CalibrationOptions(prior=prior))
    np.testing.assert_array_equal(with_prior.parameters, calibrate(panel, HESTON, [Start("network", TRUTH)]).parameters)


@pytest.mark.parametrize("seed", [56, 57, 58])
def test_standard_errors_are_the_textbook_formula_with_derivatives_by_differences(seed: int) -> None:
    weight = np.random.default_rng(seed).uniform(0.1, 10.0, paper_box.EXPIRY.size)
    panel = noisy_panel(TRUTH, seed, 5.0, weight)
    fit = calibrate(panel, HESTON, [Start("network", TRUTH)])
    used = fit.panel
    jacobian = _jacobian(fit)
    variance = _objective(fit, fit.parameters) / (used.n_quotes - 5)
    relative = used.weight / used.weight.mean()
    covariance = variance * np.linalg.inv(jacobian @ (relative[:, None] * jacobian.T))
    errors = np.sqrt(np.diag(covariance))
    np.testing.assert_allclose(fit.standard_errors, errors, rtol=1e-5)
    np.testing.assert_allclose(fit.correlation, covariance / np.outer(errors, errors), rtol=1e-4, atol=1e-5)


def test_five_quotes_give_parameters_without_errors_and_say_why() -> None:
    k, t = np.array([-0.2, 0.0, 0.2, -0.1, 0.1]), np.array([0.5, 0.5, 0.5, 1.5, 1.5])
    panel = OptionPanel.from_quotes(expiry=t, log_moneyness=k, iv=exact_vols(k, t, TRUTH))
    fit = calibrate(panel, HESTON, [Start("network", TRUTH)])
    assert np.isnan(fit.standard_errors).all()
    assert fit.message is not None
    assert "5 quotes leave nothing to tell the error of 5 parameters by" in fit.message
    assert np.isfinite(fit.parameters).all()


def test_one_expiry_is_said_not_to_identify_everything() -> None:
    k, t = np.linspace(-0.3, 0.3, 15), np.full(15, 0.5)
    vols = exact_vols(k, t, TRUTH) + 1e-3 * np.random.default_rng(59).standard_normal(15)
    fit = calibrate(OptionPanel.from_quotes(expiry=t, log_moneyness=k, iv=vols), HESTON, [])
    assert fit.message is not None
    assert "One expiry does not tell kappa and theta apart from v0." in fit.message


def test_an_imprecise_parameter_is_named_with_its_error() -> None:
    k, t = np.tile(np.linspace(-0.2, 0.2, 9), 2), np.repeat([0.1, 0.25], 9)
    vols = exact_vols(k, t, TRUTH) + 2e-3 * np.random.default_rng(63).standard_normal(18)
    fit = calibrate(OptionPanel.from_quotes(expiry=t, log_moneyness=k, iv=vols), HESTON, [])
    relative = fit.standard_errors / np.abs(fit.parameters)
    assert relative[0] > 0.5
    assert (relative[1:] < 0.5).all()
    assert fit.message == (
        f"The panel does not identify kappa ({100.0 * relative[0]:.0f} %): standard error in brackets."
    )


@pytest.mark.parametrize("refine", REFINEMENTS)
def test_the_order_of_the_quotes_does_not_change_a_bit(refine: Refine) -> None:
    panel = noisy_panel(TRUTH, 61, 20.0)
    order = np.random.default_rng(62).permutation(panel.n_quotes)
    shuffled = OptionPanel.from_quotes(
        expiry=panel.expiry[order], log_moneyness=panel.log_moneyness[order], iv=panel.mid[order]
    )
    options = CalibrationOptions(refine=refine)
    one, other = calibrate(panel, HESTON, [], options), calibrate(shuffled, HESTON, [], options)
    np.testing.assert_array_equal(one.parameters, other.parameters)
    np.testing.assert_array_equal(one.standard_errors, other.standard_errors)
    assert one.objective == other.objective


@pytest.mark.parametrize("refine", REFINEMENTS)
@pytest.mark.parametrize("noise_bp", [1.0, 30.0, 300.0])
def test_the_unit_of_strikes_and_forwards_does_not_matter(noise_bp: float, refine: Refine) -> None:
    vols = exact_vols(paper_box.LOG_MONEYNESS, paper_box.EXPIRY, TRUTH)
    vols = vols + 1e-4 * noise_bp * np.random.default_rng(63).standard_normal(vols.size)
    forward = 97.3 * np.exp(0.02 * paper_box.EXPIRY)
    strike = forward * np.exp(paper_box.LOG_MONEYNESS)
    one, other = (
        calibrate(
            OptionPanel.from_quotes(expiry=paper_box.EXPIRY, strike=unit * strike, forward=unit * forward, iv=vols),
            HESTON,
            [],
            CalibrationOptions(refine=refine),
        )
        for unit in (1.0, 1e3)
    )
    # A step that changes the residuals by 1e-8 of their size is none: kappa's error at 300 bp is its own size.
    np.testing.assert_allclose(other.parameters, one.parameters, rtol=1e-9 * max(noise_bp, 10.0))


def test_a_quote_given_twice_counts_twice() -> None:
    panel = noisy_panel(TRUTH, 64, 20.0)
    twice = np.append(np.arange(panel.n_quotes), 17)
    doubled = OptionPanel.from_quotes(
        expiry=panel.expiry[twice], log_moneyness=panel.log_moneyness[twice], iv=panel.mid[twice]
    )
    weight = np.ones(panel.n_quotes)
    weight[17] = 2.0
    weighted = OptionPanel.from_quotes(
        expiry=panel.expiry, log_moneyness=panel.log_moneyness, iv=panel.mid, weight=weight
    )
    start = [Start("network", TRUTH)]
    with_duplicate = calibrate(doubled, HESTON, start)
    assert with_duplicate.n_quotes == panel.n_quotes + 1
    np.testing.assert_allclose(with_duplicate.parameters, calibrate(weighted, HESTON, start).parameters, rtol=1e-8)
    assert np.abs(with_duplicate.parameters / calibrate(panel, HESTON, start).parameters - 1.0).max() > 1e-6


@pytest.mark.parametrize("refine", REFINEMENTS)
def test_work_that_is_told_enough_gives_the_best_so_far_and_says_so(refine: Refine) -> None:
    options = CalibrationOptions(refine=refine)
    # Far enough for one slice of the refinement not to finish.
    start = np.array([50.0, 3.0, 0.01, 0.99, 2e-4])
    fit = finish(
        calibration_steps(noisy_panel(TRUTH, 65, 300.0), HESTON, [Start("network", start)], options), lambda: True
    )
    assert fit.status == "budget_exhausted"
    assert fit.message is not None
    assert "budget" in fit.message
    assert np.isfinite(fit.parameters).all()
    assert (fit.parameters >= HESTON.lower).all()
    assert (fit.parameters <= HESTON.upper).all()
    assert fit.objective <= _objective(fit, start) * (1.0 + 1e-6)


def test_no_second_opinion_is_begun_once_it_is_enough() -> None:
    # A poor fit from near its optimum: one slice finishes it, but it wants a second opinion.
    panel = noisy_panel(TRUTH, 65, 300.0)
    settled = calibrate(panel, HESTON, [Start("network", TRUTH)])
    assert settled.n_starts > 1
    fit = finish(calibration_steps(panel, HESTON, [Start("network", settled.parameters)]), lambda: True)
    assert fit.n_starts == 1
    assert fit.status == "budget_exhausted"


def test_how_the_steps_are_driven_changes_nothing() -> None:
    panel = noisy_panel(TRUTH, 66, 1.0)
    start = [Start("network", 1.1 * TRUTH)]
    driven = finish(calibration_steps(panel, HESTON, start), lambda: False)
    np.testing.assert_array_equal(driven.parameters, calibrate(panel, HESTON, start).parameters)


def test_a_budget_of_work_ends_the_search_at_the_same_place_each_time() -> None:
    panel = noisy_panel(TRUTH, 65, 300.0)
    small = Effort(max_work=10.0 * panel.n_quotes)
    fit, again = (calibrate(panel, HESTON, [], effort=small) for _ in range(2))
    assert fit.status == "budget_exhausted"
    np.testing.assert_array_equal(fit.parameters, again.parameters)


EVERY_WAY = {
    "plain": CalibrationOptions(),
    "lbfgs": CalibrationOptions(refine="lbfgs"),
    "fixed": CalibrationOptions(fixed={"kappa": 3.0}),
    "prior": CalibrationOptions(prior=Prior(parameters=1.1 * TRUTH, standard_deviations=0.1 * np.abs(TRUTH))),
    "huber": CalibrationOptions(loss="huber"),
}


@pytest.mark.parametrize("way", EVERY_WAY)
@pytest.mark.parametrize("seed", range(6))
def test_weights_of_one_are_no_weights_digit_for_digit(seed: int, way: str) -> None:
    one, other = (
        calibrate(noisy_panel(TRUTH, 200 + seed, noise_bp, weight), HESTON, [Start("network", TRUTH)], EVERY_WAY[way])
        for noise_bp in (5.0 + 20.0 * (seed % 2),)
        for weight in (None, np.ones(paper_box.EXPIRY.size))
    )
    np.testing.assert_array_equal(other.parameters, one.parameters)
    np.testing.assert_array_equal(other.standard_errors, one.standard_errors)
    np.testing.assert_array_equal(other.correlation, one.correlation)
    assert (other.objective, other.noise_bp, other.message) == (one.objective, one.noise_bp, one.message)


@pytest.mark.parametrize("way", EVERY_WAY)
@pytest.mark.parametrize("factor", [1e-6, 7.0, 1e6])
def test_a_common_factor_of_the_weights_changes_nothing(factor: float, way: str) -> None:
    weight = np.random.default_rng(67).uniform(0.1, 10.0, paper_box.EXPIRY.size)
    start = [Start("network", TRUTH)]
    one, other = (
        calibrate(noisy_panel(TRUTH, 68, 20.0, f * weight), HESTON, start, EVERY_WAY[way]) for f in (1.0, factor)
    )
    np.testing.assert_allclose(other.parameters, one.parameters, rtol=1e-9)
    np.testing.assert_allclose(other.standard_errors, one.standard_errors, rtol=1e-7)
    assert other.objective == pytest.approx(one.objective, rel=1e-7)


def test_the_objective_is_the_weighted_sum_of_squared_vol_differences() -> None:
    weight = np.random.default_rng(69).uniform(0.1, 10.0, paper_box.EXPIRY.size)
    fit = calibrate(noisy_panel(TRUTH, 70, 20.0, weight), HESTON, [Start("network", TRUTH)])
    assert fit.objective == pytest.approx(_objective(fit, fit.parameters), rel=1e-8)
    vols = exact_vols(fit.panel.log_moneyness, fit.panel.expiry, fit.parameters)
    np.testing.assert_allclose(fit.model_iv, vols, atol=1e-9)
    away_bp = 1e4 * (vols - fit.panel.mid)
    assert fit.rmse_bp == pytest.approx(np.sqrt(np.mean(away_bp**2)), rel=1e-6)
    assert fit.max_abs_bp == pytest.approx(np.abs(away_bp).max(), rel=1e-6)
    assert fit.mape_pct == pytest.approx(100.0 * np.mean(np.abs(vols / fit.panel.mid - 1.0)), rel=1e-6)
    kappa, theta, xi = fit.parameters[:3]
    assert fit.feller_ratio == pytest.approx(2.0 * kappa * theta / xi**2)


def test_far_quotes_without_vega_are_left_out_and_do_not_move_the_fit() -> None:
    panel = noisy_panel(TRUTH, 71, 5.0)
    far = OptionPanel.from_quotes(
        expiry=np.append(panel.expiry, 0.1),
        log_moneyness=np.append(panel.log_moneyness, 1.5),
        iv=np.append(panel.mid, 0.4),
    )
    assert vega(np.array([1.5]), np.array([0.1]), np.array([0.4]))[0] < 1e-3
    fit = calibrate(far, HESTON, [Start("network", TRUTH)])
    assert [exclusion.index for exclusion in fit.excluded] == [panel.n_quotes]
    np.testing.assert_array_equal(fit.parameters, calibrate(panel, HESTON, [Start("network", TRUTH)]).parameters)


@needs_shared
@pytest.mark.parametrize("refine", REFINEMENTS)
def test_dax_of_5_july_2002_reaches_the_published_sum_of_squares(refine: Refine) -> None:
    # Sepp's panel as QuantLib's testDAXCalibration has it, with QuantLib's day count.
    dax = published_values()["dax"]
    years = np.array(dax["T_quantlib"])
    forward = dax["S"] * np.exp(np.array(dax["zero"]) * years)
    vols = np.array(dax["iv"])  # (n_strikes, n_expiries)
    panel = OptionPanel.from_quotes(
        expiry=np.broadcast_to(years, vols.shape).ravel(),
        strike=np.repeat(np.array(dax["strikes"], np.float64), years.size),
        forward=np.broadcast_to(forward, vols.shape).ravel(),
        iv=vols.ravel(),
    )
    fit = calibrate(panel, HESTON, [], CalibrationOptions(refine=refine))
    assert fit.n_quotes == vols.size
    assert 1e4 * fit.objective == pytest.approx(dax["heston_sse_volpts2"], abs=0.1)
    published = dax["heston_fit"]
    expected = [published[name] for name in ("kappa", "theta", "sigma", "rho", "v0")]
    np.testing.assert_allclose(fit.parameters, expected, rtol=1e-3)


@needs_shared
@pytest.mark.parametrize("refine", REFINEMENTS)
def test_cui_s_published_panel_gives_its_parameters_back_from_its_start(refine: Refine) -> None:
    # Cui, del Bano Rollin & Germano 2017, the panel of their program.
    cui = published_values()["cui"]
    strike, years = np.array(cui["K"]), np.array(cui["T"])
    forward, discount = np.exp(cui["r"] * years), np.exp(-cui["r"] * years)
    k = np.log(strike / forward)
    vols = implied_volatility(np.array(cui["calls"]) / (discount * forward), k, years).volatility
    start, truth = (
        np.array([cui[key][name] for name in ("kappa", "theta", "sigma", "rho", "v0")]) for key in ("start", "true")
    )
    panel = OptionPanel.from_quotes(expiry=years, log_moneyness=k, iv=vols)
    fit = calibrate(panel, HESTON, [Start("given", start)], CalibrationOptions(refine=refine))
    np.testing.assert_allclose(fit.parameters, truth, rtol=1e-5)


@needs_shared
@pytest.mark.parametrize(
    ("file", "date"),
    [
        ("dax_20020705_quantlib", "2002-07-05"),
        ("sse50etf_2015_2024", "2016-08-01"),
        ("sse50etf_2015_2024", "2017-02-23"),
    ],
)
def test_both_optimisers_end_on_the_same_digits_however_poor_the_fit(file: str, date: str) -> None:
    # Fits of 60 bp and more, most of them on a bound: there Gauss-Newton alone stops short of the digits.
    (panel,) = (panel for label, panel in read_csv(SHARED / "market" / f"{file}.csv") if label.endswith(date))
    lm, lbfgs = (calibrate(panel, HESTON, [], CalibrationOptions(refine=refine)) for refine in REFINEMENTS)
    assert lm.rmse_bp > 50.0
    np.testing.assert_allclose(lbfgs.parameters, lm.parameters, rtol=1e-7, atol=1e-8)
    assert lbfgs.at_bounds == lm.at_bounds


@needs_shared
@pytest.mark.parametrize(("file", "date"), [("spxw_20170316_aqfed", "2017"), ("amd_20251022_barchart", "2025")])
def test_both_optimisers_end_on_the_same_fit_of_one_expiry(file: str, date: str) -> None:
    # One smile tells three numbers: the parameters may differ along the other two, the fit does not.
    (panel,) = (panel for label, panel in read_csv(SHARED / "market" / f"{file}.csv") if date in label)
    lm, lbfgs = (calibrate(panel, HESTON, [], CalibrationOptions(refine=refine)) for refine in REFINEMENTS)
    assert lbfgs.rmse_bp == pytest.approx(lm.rmse_bp, rel=1e-6)
    np.testing.assert_allclose(lbfgs.model_iv, lm.model_iv, rtol=0.0, atol=1e-6 * lm.rmse_bp)
