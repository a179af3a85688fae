"""The document that answers a calibration."""

import json

import numpy as np
import pytest

from calibrant.arbitrage import Verdict, Violation
from calibrant.models import HESTON
from calibrant.panel import OptionPanel
from calibrant.pipeline import Assessment, assess
from calibrant.report import calibration_report, stages_us

EXPIRY = [0.25, 0.25, 0.25, 0.25, 1.0, 1.0, 1.0, 1.0]
FORWARD = [100.0] * 4 + [104.0] * 4
STRIKE = [90.0, 97.0, 104.0, 111.0, 92.0, 100.0, 108.0, 116.0]
IV = [0.25, 0.22, 0.21, 0.2, 0.24, 0.23, 0.22, 0.21]


def assessed(iv: list[float | None], **quotes: object) -> Assessment:
    given = {"strike": STRIKE, "forward": FORWARD} | quotes
    return assess(OptionPanel.from_quotes(expiry=EXPIRY, iv=iv, **given), HESTON, None)  # type: ignore[arg-type]


def test_a_report_is_json_without_nan() -> None:
    # Five usable quotes: no standard error exists.
    report = calibration_report(assessed([*IV[:2], None, None, *IV[4:7], None]), timing_us={}, detail=True)
    assert report["standard_errors"] == dict.fromkeys(HESTON.parameters)
    assert report["parameter_correlation"] == [[None] * 5] * 5
    assert [vol is None for vol in report["model_iv"]] == [False, False, True, True, False, False, False, True]
    assert [excluded["index"] for excluded in report["fit"]["excluded"]] == [2, 3, 7]
    json.dumps(report, allow_nan=False)


def test_identity_and_detail_appear_only_when_asked_for() -> None:
    assessment = assessed([*IV])
    plain = calibration_report(assessment, timing_us={})
    full = calibration_report(assessment, timing_us={}, panel_id="x", as_of="y", detail=True)
    assert set(full) - set(plain) == {"id", "as_of", "parameter_correlation", "model_iv"}
    assert {name: full[name] for name in plain} == plain


def test_a_violation_of_a_quote_names_the_strike_given() -> None:
    report = calibration_report(assessed([*IV[:6], 0.32, IV[7]]), timing_us={})
    quotes = report["arbitrage"]["quotes"]
    assert not quotes["free"]
    worst = quotes["violations"][0]
    assert (worst["kind"], worst["expiry"]) == ("butterfly", 1.0)
    assert worst["strike"] == pytest.approx(108.0, rel=1e-14)


def test_without_forwards_a_strike_is_a_multiple_of_the_forward() -> None:
    moneyness = np.log(np.array(STRIKE) / np.array(FORWARD))
    assessment = assessed([*IV[:6], 0.32, IV[7]], strike=None, forward=None, log_moneyness=moneyness)
    worst = calibration_report(assessment, timing_us={})["arbitrage"]["quotes"]["violations"][0]
    assert worst["strike"] == pytest.approx(108.0 / 104.0, rel=1e-14)


BETWEEN = 100.0 ** (2 / 3) * 104.0 ** (1 / 3)


@pytest.mark.parametrize(
    ("expiry", "forward"), [(0.1, 100.0), (0.25, 100.0), (0.5, BETWEEN), (1.0, 104.0), (3.0, 104.0)]
)
def test_a_violation_of_the_surface_names_a_strike_on_the_forward_curve(expiry: float, forward: float) -> None:
    found = Violation(kind="calendar", expiry=expiry, log_moneyness=0.1, size=1e-5, quote=None)
    verdict = Verdict(free=False, n_violations=1, violations=(found,), numerical_error=1e-9)
    report = calibration_report(assessed([*IV])._replace(surface=verdict), timing_us={})
    (violation,) = report["arbitrage"]["surface"]["violations"]
    assert violation["strike"] == pytest.approx(forward * np.exp(0.1), rel=1e-12)
    assert (violation["kind"], violation["expiry"], violation["size"]) == ("calendar", expiry, 1e-5)


def test_the_total_time_is_that_of_the_stages() -> None:
    assert stages_us(decode=2e-5, refine=1.8004e-4) == {"decode": 20.0, "refine": 180.0, "total": 200.0}
