"""The inputs of `shared/cases` on which fits, their errors or their search fell short, and the right answers."""

import json
from typing import Any

import numpy as np
import pytest

from calibrant.arrays import Vector
from calibrant.calibration import Calibration, calibrate
from calibrant.models import HESTON
from calibrant.options import CalibrationOptions, Loss, Prior, Start
from calibrant.panel import OptionPanel
from calibrant.pipeline import assess
from calibrant.release import Release, released
from tests.shared import ROOT, SHARED, needs_shared

pytestmark = needs_shared

NAMES = HESTON.parameters


def case(name: str) -> Any:
    return json.loads((SHARED / "cases" / f"{name}.json").read_text())


@pytest.fixture(scope="module")
def release() -> Release:
    return released(ROOT / "networks", "heston")


def answer(release: Release, request: dict[str, Any], *, trusted: bool = True, loss: Loss = "squared") -> Calibration:
    """As the service answers it."""
    panel = OptionPanel.from_quotes(
        **{name: values for name, values in request["quotes"].items() if values is not None}
    )
    prior = request.get("prior")
    asked = CalibrationOptions(
        refine=request.get("refine", "lm"),
        fixed=request.get("fixed"),
        loss=loss,
        prior=prior
        and Prior(
            parameters=np.array([prior["parameters"].get(name, 0.0) for name in NAMES]),
            standard_deviations=np.array([prior["standard_deviations"].get(name, np.inf) for name in NAMES]),
        ),
    )
    if not trusted:
        return calibrate(panel, HESTON, [Start("network", p.params, False) for p in release.propose(panel)], asked)
    return assess(panel, HESTON, release, asked).calibration


def errors_of(fit: Calibration) -> dict[str, float]:
    return dict(zip(NAMES, fit.standard_errors.tolist(), strict=True))


def expected(values: dict[str, float]) -> Vector:
    return np.array([values[name] for name in NAMES if name in values])


def test_errors_beside_a_bound_are_not_conditional_on_it(release: Release) -> None:
    of = case("bound_errors_short_dated")
    fit = answer(release, of["request"])
    assert "theta" in fit.at_bounds
    assert errors_of(fit)["kappa"] >= of["expected"]["standard_error_kappa_at_least"]
    assert np.isnan(errors_of(fit)["theta"])


def test_a_far_wing_at_an_absurd_vol_does_not_stop_the_search(release: Release) -> None:
    of = case("far_wing_spy_20150105")
    fit = answer(release, of["request"])
    assert fit.status == "converged"
    assert fit.rmse_bp <= of["expected"]["rmse_bp_at_most"]
    # Its own vols are those of the accurate pricer.
    from calibrant.black import implied_volatility_from_time_value
    from calibrant.pricing.fourier import otm_values

    panel = fit.panel
    values = otm_values(HESTON, panel.log_moneyness, panel.expiry, fit.parameters)
    exact = implied_volatility_from_time_value(values, panel.log_moneyness, panel.expiry).volatility
    known = np.isfinite(exact)
    np.testing.assert_allclose(fit.model_iv[known], exact[known], rtol=0.0, atol=1e-5)


@pytest.mark.parametrize("refine", ["lm", "lbfgs"])
def test_with_every_parameter_held_there_is_an_answer(release: Release, refine: str) -> None:
    request = case("fixed_all_lbfgs")["request"]
    fit = answer(release, {**request, "refine": refine})
    assert dict(zip(NAMES, fit.parameters.tolist(), strict=True)) == request["fixed"]
    assert np.isnan(fit.standard_errors).all()


@pytest.mark.parametrize("i", range(3))
def test_held_parameters_and_priors_count_for_what_they_are(release: Release, i: int) -> None:
    of = case("fixed_degrees_of_freedom")["cases"][i]
    fit, right = answer(release, of["request"]), of["expected"]
    found = errors_of(fit)
    wanted = right["standard_errors"]
    np.testing.assert_allclose([found[name] for name in wanted], list(wanted.values()), rtol=2e-3)
    if "parameters" in right:
        np.testing.assert_allclose(fit.parameters, expected(right["parameters"]), rtol=1e-4)
        assert fit.noise_bp == pytest.approx(right["noise_bp"])
    assert fit.message is None or ("`fixed`" not in fit.message and "`prior`" not in fit.message)


@pytest.mark.parametrize("i", range(12))
@pytest.mark.parametrize("refine", ["lm", "lbfgs"])
def test_the_better_optimum_is_found(release: Release, i: int, refine: str) -> None:
    of = case("local_optima")["cases"][i]
    if "request" not in of or "better" not in of:
        pytest.fail("the file has another shape")
    fit = answer(release, {**of["request"], "refine": refine})
    started = answer(release, {**of["request"], "refine": "lm"}, trusted=False)
    assert fit.objective <= started.objective * 1.001
    if "better_rmse_bp" in of:
        assert fit.rmse_bp <= of["better_rmse_bp"] * 1.0005


def test_equal_weights_and_no_weights_are_one_request(release: Release) -> None:
    of = case("prior_weights")
    without, equal = (answer(release, request) for request in of["requests"])
    np.testing.assert_array_equal(without.parameters, equal.parameters)
    np.testing.assert_array_equal(without.standard_errors, equal.standard_errors)
    right = of["expected"]["both requests"]
    np.testing.assert_allclose(without.parameters, expected(right["parameters"]), rtol=1e-5)
    np.testing.assert_allclose(without.standard_errors, expected(right["standard_errors"]), rtol=1e-4)
    assert without.rmse_bp == pytest.approx(right["rmse_bp"], rel=1e-4)


@pytest.mark.parametrize("refine", ["lm", "lbfgs"])
def test_one_expiry_is_fitted_to_what_it_determines(release: Release, refine: str) -> None:
    of = case("one_expiry_es_15d")
    fit = answer(release, {**of["request"], "refine": refine})
    assert fit.status == "converged"
    assert fit.rmse_bp == pytest.approx(of["expected"]["rmse_bp"], rel=1e-6)
    fit = answer(release, {**case("one_expiry_sp500_1m")["request"], "refine": refine})
    assert fit.rmse_bp == pytest.approx(86.0296, rel=1e-5)


def test_outliers_are_named(release: Release) -> None:
    fit = answer(release, case("outlier_490_percent")["request"])
    (stale,) = [caution for caution in fit.cautions if caution.code == "stale_quotes_suspected"]
    assert stale.indices == (0,)


def test_a_stale_wing_is_named_and_does_not_lead_astray(release: Release) -> None:
    request = case("stale_wing_gbpusd")["request"]
    fit = answer(release, request)
    (stale,) = [caution for caution in fit.cautions if caution.code == "stale_quotes_suspected"]
    (place,) = stale.indices
    quotes = request["quotes"]
    others = [i for i, t in enumerate(quotes["expiry"]) if t == quotes["expiry"][place] and i != place]
    assert quotes["iv"][place] > 1.6 * max(quotes["iv"][i] for i in others)
    robust = answer(release, request, loss="huber")
    kept = {name: [v for i, v in enumerate(values) if i != place] for name, values in quotes.items()}
    without = answer(release, {**request, "quotes": kept})
    # Huber's loss is nearly blind to it.
    assert np.abs(robust.parameters / without.parameters - 1.0).max() < 0.2


@pytest.mark.parametrize(("name", "rmse_bp"), [("slow_bound_eurusd_20160205", 262.500), ("slow_lbfgs_400", 97.027)])
@pytest.mark.parametrize("refine", ["lm", "lbfgs"])
def test_what_took_seconds_is_answered_in_a_few_evaluations(
    release: Release, name: str, rmse_bp: float, refine: str
) -> None:
    fit = answer(release, {**case(name)["request"], "refine": refine})
    assert fit.status == "converged"
    assert fit.rmse_bp <= rmse_bp * 1.0001
