"""Feeds that send something for want of a quote: that quote is left out, named, and the rest calibrated."""

import json
from typing import Any

import pytest

from calibrant.errors import InvalidInput
from calibrant.models import HESTON
from calibrant.options import CalibrationOptions
from calibrant.panel import OptionPanel
from calibrant.pipeline import assess
from calibrant.quotes_csv import read_csv
from calibrant.release import released
from calibrant.report import calibration_report
from service.wire.jobs import calibration_job
from service.wire.schema import CalibrateRequest
from tests.shared import ROOT, SHARED, needs_shared

CASES = SHARED / "cases"
pytestmark = needs_shared


def answered(request: dict[str, Any]) -> dict[str, Any]:
    """What the service answers a request, without the service."""
    asked = CalibrateRequest.model_validate_json(json.dumps(request))
    job = calibration_job(asked, None)
    assessment = assess(job.panel, job.model, released(ROOT / "networks", job.model.name), job.options, job.given)
    return calibration_report(assessment, timing_us={})


def codes(panel: OptionPanel) -> set[str]:
    return {caution.code for caution in panel.cautions}


def test_a_feeds_mark_for_no_bid_costs_its_quote_alone() -> None:
    case = json.loads((CASES / "no_bid_spx_20230607.json").read_text())
    answer, expected = answered(case["request"]), case["expected"]
    assert [left_out["index"] for left_out in answer["fit"]["excluded"]] == [0]
    assert answer["fit"]["excluded"][0]["reason"] == "no bid: its vol is zero, and no iv"
    assert answer["fit"]["n_quotes"] == expected["n_quotes"]
    assert answer["parameters"] == pytest.approx(expected["parameters"], rel=1e-5)
    assert answer["fit"]["rmse_bp"] == pytest.approx(expected["rmse_bp"], rel=1e-7)
    assert "many_quotes_excluded" not in {warning["code"] for warning in answer["warnings"]}


def test_units_mistaken_are_in_the_warnings() -> None:
    case = json.loads((CASES / "unit_slips.json").read_text())
    percent, days = (answered({**request, "refine": "none"}) for request in case["requests"])
    assert "vols_look_like_percent" in {warning["code"] for warning in percent["warnings"]}
    assert "expiries_look_like_days" in {warning["code"] for warning in days["warnings"]}


@pytest.mark.parametrize("factor", [42.94 / 0.25, 100.0])
def test_vols_that_can_only_be_percent_are_refused_with_the_unit(factor: float) -> None:
    smile = [factor * vol for vol in (0.25, 0.23, 0.22)]
    with pytest.raises(InvalidInput, match=r"Vols are decimals: 0.25 for 25 %"):
        answered({"quotes": {"expiry": [0.5] * 3, "log_moneyness": [-0.1, 0.0, 0.1], "iv": smile}})


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("00_right", set()),
        ("18_zero_bid", set()),
        ("23_expired", set()),
    ],
)
def test_a_file_raises_the_doubt_that_it_deserves(file: str, expected: set[str]) -> None:
    ((_, panel),) = read_csv(CASES / "files" / f"{file}.csv")
    assert codes(panel) == expected


@pytest.mark.parametrize(
    ("file", "reason"), [("18_zero_bid", "no bid: its vol is zero, and no iv"), ("23_expired", "expired")]
)
def test_rows_that_say_nothing_leave_the_answer_of_the_right_file(file: str, reason: str) -> None:
    ((_, right),) = read_csv(CASES / "files" / "00_right.csv")
    ((_, panel),) = read_csv(CASES / "files" / f"{file}.csv")
    assert {exclusion.reason for exclusion in panel.excluded} == {reason}
    assert panel.n_quotes + len(panel.excluded) == right.n_quotes
    release = released(ROOT / "networks", HESTON.name)
    fits = [assess(each, HESTON, release, CalibrationOptions()).calibration for each in (right, panel)]
    # A tenth of the quotes fewer, at a misfit of 52 bp.
    assert fits[1].parameters == pytest.approx(fits[0].parameters, rel=0.05)
