"""The library as it is imported: names, arguments, answers; and that it is the service's answer in another form."""

import dataclasses
import json
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import calibrant
from calibrant import InvalidInput, OptionPanel, Prices, calibrate, models, price, read_csv, result
from calibrant.client import results as answers
from calibrant.models import MODELS, Model
from calibrant.network import ArtefactError
from calibrant.release import FOLDER_VARIABLE, networks_folder, release_in_reach
from service.engine import Engine
from service.wire.documents import calibration_document
from service.wire.jobs import calibration_job
from service.wire.json import decode
from service.wire.schema import CalibrateRequest
from tests.shared import ROOT

DAX = json.loads((ROOT / "examples" / "dax_20020705.json").read_text())["quotes"]
FRAME = pd.read_csv(ROOT / "examples" / "dax_20020705.csv")


def run(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


# Names ----------------------------------------------------------------------------------------------------------------


def test_importing_calibrant_loads_nothing_until_a_name_is_used() -> None:
    code = (
        "import sys, calibrant; print(sorted({'numpy', 'numba', 'scipy', 'pandas', 'matplotlib'} & set(sys.modules)))"
    )
    assert run(code).strip() == "[]"


def test_every_name_is_there_and_listed() -> None:
    for name in calibrant.__all__:
        assert getattr(calibrant, name) is not None
        assert name in dir(calibrant)
    with pytest.raises(AttributeError, match="no attribute 'calibrat'"):
        getattr(calibrant, "calibrat")  # noqa: B009


# The service's answer -------------------------------------------------------------------------------------------------

ASKED: dict[str, dict[str, Any]] = {
    "plain": {},
    "fixed": {"fixed": {"kappa": 5, "rho": -0.5}},
    "bounds": {"bounds": {"kappa": [0.1, 10.0], "xi": [0.05, 2.0]}},
    "start": {"start": {"kappa": 1.0, "theta": 0.1, "xi": 1.0, "rho": -0.3, "v0": 0.2}},
    "prior": {"prior": {"parameters": {"kappa": 3.0}, "standard_deviations": {"kappa": 0.5}, "noise_bp": 100.0}},
    "huber": {"loss": "huber"},
    "lbfgs": {"refine": "lbfgs", "exclude": [3, 50]},
    "network": {"refine": "none"},
}


@pytest.mark.parametrize("asked", ASKED.values(), ids=ASKED.keys())
def test_the_answer_is_the_services(asked: dict[str, Any]) -> None:
    request = decode(json.dumps({"quotes": DAX, **asked, "detail": True}).encode(), CalibrateRequest)
    release = release_in_reach(MODELS["heston"])
    assert release is not None
    assessment = Engine({"heston": release}).calibrate(calibration_job(request, None))
    of_service = calibration_document(request, assessment, {})
    of_library = calibrate(DAX, **asked).to_dict(detail=True)
    assert of_library.pop("timing_us").keys() == {"decode", "queue", "network", "refine", "diagnostics", "total"}
    of_service.pop("timing_us")
    assert of_library == of_service
    assert json.loads(json.dumps(of_library, allow_nan=False)) == of_library


def test_a_result_has_the_fields_of_the_clients_answer() -> None:
    found = calibrate(DAX)
    echoed = {"id", "as_of", "request_id"}
    for field in dataclasses.fields(answers.Calibration):
        assert field.name in echoed or hasattr(found, field.name), field.name
    for of_client, of_library in (
        (answers.Fit, result.Fit),
        (answers.Verdict, result.Verdict),
        (answers.Violation, result.Violation),
        (answers.Arbitrage, result.Arbitrage),
    ):
        assert tuple(field.name for field in dataclasses.fields(of_client)) == of_library._fields
    fields = {field.name for field in dataclasses.fields(answers.Prices)} - {"model", "request_id"}
    assert fields == set(Prices._fields)


def test_panels_in_threads_get_the_answers_that_they_get_alone() -> None:
    panels = [FRAME[FRAME.expiry_years > cut] for cut in (0.0, 0.1, 0.2, 0.4)] * 3
    alone = [calibrate(panel).parameters for panel in panels]
    with ThreadPoolExecutor(4) as pool:
        assert [found.parameters for found in pool.map(calibrate, panels)] == alone


# Quotes ---------------------------------------------------------------------------------------------------------------


def test_quotes_are_the_same_in_whatever_they_come() -> None:
    ((_, panel),) = read_csv(ROOT / "examples" / "dax_20020705.csv")
    columns = {"expiry": FRAME.expiry_years, "strike": FRAME.strike, "forward": FRAME.forward, "iv": FRAME.mid_iv}
    forms: list[Any] = [
        panel,
        DAX,
        FRAME,
        columns,
        pd.DataFrame(columns).assign(remark="x"),
        pd.DataFrame(columns).convert_dtypes(),
        {name: tuple(values) for name, values in columns.items()} | {"bid_iv": None},
        OptionPanel.from_quotes(**{name: values.to_numpy() for name, values in columns.items()}),
    ]
    first, *others = [calibrate(form).parameters for form in forms]
    for other in others:
        assert other == first


def test_a_missing_vol_is_missing_whatever_marks_it() -> None:
    marks = [None, np.nan, float("nan"), pd.NA]
    for mark in marks:
        found = calibrate({**DAX, "iv": [mark, *DAX["iv"][1:]]})
        assert found.fit.excluded[0].reason == "missing quote"
        assert np.isnan(found.model_iv[0])
    frame = FRAME.astype({"mid_iv": "Float64"})
    frame.loc[0, "mid_iv"] = pd.NA
    assert calibrate(frame).fit.excluded[0].reason == "missing quote"


def test_a_frame_of_several_panels_is_refused() -> None:
    two = pd.concat([FRAME, FRAME.assign(as_of="2002-07-08")])
    with pytest.raises(InvalidInput, match=r"`quotes.as_of` must be the same for all quotes"):
        calibrate(two)
    assert len([calibrate(panel) for _, panel in two.groupby(["underlying", "as_of"])]) == 2


# Refusals -------------------------------------------------------------------------------------------------------------

REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"quotes": 3}, "`quotes` must be an OptionPanel"),
    ({"quotes": None}, "`quotes` must be"),
    ({"quotes": {"quotes": DAX}}, "`quotes.quotes` is a whole panel"),
    ({"quotes": {**DAX, "vol": DAX["iv"]}}, "`quotes.vol` is not a column"),
    ({"quotes": {k: v for k, v in DAX.items() if k != "expiry"}}, "`quotes.expiry` is required"),
    ({"quotes": {**DAX, "iv": ["high"] * 104}}, "`quotes.iv` must be numbers"),
    ({"quotes": {**DAX, "iv": [str(iv) for iv in DAX["iv"]]}}, "`quotes.iv` must be numbers"),
    ({"quotes": {**DAX, "iv": [True] * 104}}, "`quotes.iv` must be numbers"),
    ({"quotes": {**DAX, "expiry": np.full(104, "2002-10-05", "M8[D]")}}, "`quotes.expiry` must be numbers"),
    ({"quotes": {**DAX, "expiry": DAX["expiry"][:-1]}}, "`quotes.strike` must have as many values"),
    ({"quotes": {**DAX, "strike": [-1.0, *DAX["strike"][1:]]}}, r"`quotes.strike[0]` must be a finite number > 0"),
    ({"quotes": FRAME.assign(expiry=1.0)}, "`quotes.expiry` must be one column"),
    ({"quotes": FRAME.drop(columns="forward")}, "`quotes.forward` must be given with `strike`"),
    ({"exclude": ["a"]}, "`exclude` must be a list of positions"),
    ({"exclude": [104]}, "`exclude[0]` must be the position of a quote"),
    ({"model": "hesten"}, "`model` must be one of 'heston'"),
    ({"model": 3}, "`model` must be one of"),
    ({"refine": "fast"}, "`refine` must be one of 'lm', 'lbfgs', 'none', but is 'fast'"),
    ({"loss": []}, "`loss` must be one of"),
    ({"fixed": {"kapa": 1.0}}, "`fixed.kapa` is not a parameter of heston"),
    ({"fixed": {"kappa": "1"}}, "`fixed.kappa` must be a finite number, but is '1'"),
    ({"fixed": {"kappa": 1e9}}, "`fixed.kappa` must be within"),
    ({"fixed": [1.0]}, "`fixed` must be a mapping"),
    ({"bounds": {"kappa": 1.0}}, "`bounds.kappa` must be a pair of numbers"),
    ({"bounds": {"kappa": (2.0, 1.0)}}, "`bounds.kappa` must be a rising pair"),
    ({"bounds": {"kappa": (None, 1.0)}}, "`bounds.kappa` must be a pair of numbers"),
    ({"start": {"kappa": 1.0}}, "`start.theta` is required, but is absent"),
    ({"start": (1.0, 0.1)}, "`start` must be a mapping"),
    ({"prior": {"kappa": 1.0}}, "`prior.kappa` is not a field of a prior"),
    ({"prior": {"parameters": {"kappa": 1.0}}}, "`prior.standard_deviations` is required"),
    ({"prior": {"parameters": 1.0, "standard_deviations": {}}}, "`prior.parameters` must be a mapping"),
    (
        {"prior": {"parameters": {"kappa": 1.0}, "standard_deviations": {"xi": 1.0}}},
        "`prior.standard_deviations.kappa` is required",
    ),
    (
        {"prior": {"parameters": {"kappa": 1.0}, "standard_deviations": {"kappa": 1.0}, "noise_bp": "x"}},
        "`prior.noise_bp` must be within",
    ),
]


@pytest.mark.parametrize(("asked", "told"), REFUSED, ids=[told for _, told in REFUSED])
def test_what_cannot_be_meant_is_refused_by_its_name(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        calibrate(**{"quotes": DAX, **asked})
    assert told in str(refused.value)
    assert refused.value.problems[0].path[0] == next(iter(asked))


def test_exclude_belongs_where_a_panel_is_made() -> None:
    ((_, panel),) = read_csv(ROOT / "examples" / "dax_20020705.csv")
    with pytest.raises(InvalidInput, match=r"`exclude` must be given when a panel is made"):
        calibrate(panel, exclude=[1])


NO_NUMBERS = st.one_of(
    st.none(), st.booleans(), st.text(), st.binary(), st.sampled_from([np.nan, np.inf, -np.inf]), st.complex_numbers(),
    st.lists(st.floats()), st.dictionaries(st.text(), st.floats()), st.dates(),
)  # fmt: skip
NAMES = st.sampled_from(MODELS["heston"].parameters)
PARAMETERS = {"kappa": 2.0, "theta": 0.04, "xi": 0.5, "rho": -0.7, "v0": 0.05}


@settings(max_examples=150, deadline=None, derandomize=True)
@given(argument=st.sampled_from(["fixed", "start", "bounds", "prior", "parameters"]), name=NAMES, value=NO_NUMBERS)
def test_no_value_that_is_no_number_passes_for_one(argument: str, name: str, value: object) -> None:
    bad: Mapping[str, Any] = {**PARAMETERS, name: value}
    asked: dict[str, Any] = {argument: bad}
    if argument == "prior":
        asked = {"prior": {"parameters": bad, "standard_deviations": dict.fromkeys(PARAMETERS, 1.0)}}
    if argument == "bounds":
        asked = {"bounds": {name: (value, 1.0)}}
    with pytest.raises(InvalidInput) as refused:
        price("heston", expiry=1.0, log_moneyness=0.0, **asked) if argument == "parameters" else calibrate(DAX, **asked)
    assert {problem.path[0] for problem in refused.value.problems} == {argument}
    assert all(name in problem.path for problem in refused.value.problems)


# Networks -------------------------------------------------------------------------------------------------------------


def test_without_onnx_runtime_calibrations_start_from_the_surface(monkeypatch: pytest.MonkeyPatch) -> None:
    with_network = calibrate(DAX)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    without = calibrate(DAX)
    assert (with_network.start, without.start) == ("network", "fallback")
    assert without.model_version is None
    assert without.parameters == pytest.approx(with_network.parameters, rel=1e-6)


def test_a_model_without_a_network_is_fitted_from_the_surface(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert calibrate(DAX).start == "fallback"
    with pytest.raises(InvalidInput, match="`refine` must be lm or lbfgs"):
        calibrate(DAX, refine="none")


def test_a_folder_of_networks_that_is_not_there_is_no_folder_without_networks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(ArtefactError, match=f"`{FOLDER_VARIABLE}` must name a folder"):
        calibrate(DAX)


def test_the_networks_of_the_checkout_are_found_from_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FOLDER_VARIABLE, raising=False)
    monkeypatch.chdir(tmp_path)
    assert networks_folder() == ROOT / "networks"


# Prices ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS.keys())
def test_prices_are_broadcast_and_their_gradient_is_the_slope(model: Model) -> None:
    rng = np.random.default_rng(51)
    middle = dict(zip(model.parameters, model.lower + 0.05 * (model.upper - model.lower), strict=True))
    expiry, k = rng.uniform(0.2, 2.0, (3, 1)), rng.uniform(-0.3, 0.3, 4)
    found = price(model.name, middle, expiry, k, gradient=True)
    assert found.gradient is not None
    assert found.call.shape == found.implied_vol.shape == (3, 4)
    np.testing.assert_allclose(found.call - found.put, np.broadcast_to(-np.expm1(k), (3, 4)), atol=1e-12)
    for name, by in found.gradient.items():
        step = 1e-4 * middle[name]
        up, down = (price(model, {**middle, name: middle[name] + s}, expiry, k).call for s in (step, -step))
        np.testing.assert_allclose(by, (up - down) / (2.0 * step), rtol=1e-4, atol=1e-6)


def test_a_strike_is_its_log_moneyness() -> None:
    strikes = np.array([80.0, 100.0, 130.0])
    by_strike = price(models.HESTON, PARAMETERS, 0.5, strike=strikes, forward=100.0)
    by_moneyness = price("heston", PARAMETERS, 0.5, np.log(strikes / 100.0))
    np.testing.assert_array_equal(by_strike.call, by_moneyness.call)
    assert price("heston", PARAMETERS, 0.5, 0.0).call.shape == ()


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({}, "`strike` must be given"),
        ({"strike": 100.0}, "`forward` must be given"),
        ({"log_moneyness": 0.0, "forward": 100.0}, "`log_moneyness` must be given alone"),
        ({"strike": -100.0, "forward": 100.0}, "`strike` must be finite numbers > 0"),
        ({"log_moneyness": "0"}, "`log_moneyness` must be numbers"),
        ({"log_moneyness": [0.0, np.nan]}, "`log_moneyness[1]` must lie within"),
        ({"log_moneyness": [0.0, 0.1], "expiry": [1.0, 2.0, 3.0]}, "must broadcast"),
        ({"log_moneyness": 0.0, "expiry": -1.0}, "`expiry[0]` must be > 0"),
        ({"log_moneyness": [], "expiry": []}, "`expiry` must hold at least one option"),
        ({"log_moneyness": 0.0, "gradient": 1}, "`gradient` must be True or False"),
        ({"log_moneyness": 0.0, "parameters": {**PARAMETERS, "rho": 2.0}}, "`parameters.rho` must be within"),
        ({"log_moneyness": 0.0, "parameters": {"rho": 0.0}}, "`parameters.kappa` is required"),
    ],
)
def test_options_that_have_no_price_are_refused_by_name(asked: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        price(**{"model": "heston", "parameters": PARAMETERS, "expiry": 1.0, **asked})
    assert told in str(refused.value)
