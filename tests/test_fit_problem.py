"""A model without compiled factors, declared from its readable characteristic function alone: it prices, and no path
leads to the kernel of another model."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import paper_box
from calibrant.__main__ import main
from calibrant.calibration import calibrate
from calibrant.errors import InvalidInput
from calibrant.fit_problem import fit_problem
from calibrant.models import BATES, MODELS
from calibrant.options import CalibrationOptions, Start
from calibrant.pipeline import assess
from calibrant.pricing.fourier import call_prices
from tests.exact_vols import exact_panel
from tests.shared import ROOT

UNCOMPILED = replace(BATES, name="uncompiled", factors=())
SENTENCE = "`model` must be a model of compiled factors to be fitted: uncompiled can be priced only"
PARAMS = np.array([2.0, 0.06, 0.5, -0.6, 0.05, 0.4, -0.1, 0.1])


def test_a_model_without_compiled_factors_prices_as_its_characteristic_function_says() -> None:
    k, t = paper_box.LOG_MONEYNESS, paper_box.EXPIRY
    np.testing.assert_array_equal(call_prices(UNCOMPILED, k, t, PARAMS), call_prices(BATES, k, t, PARAMS))


@pytest.mark.parametrize("refine", ["lm", "lbfgs", "none"])
@pytest.mark.parametrize("starts", [[], [Start("given", PARAMS)]], ids=["unaided", "given"])
def test_it_is_refused_by_a_sentence_however_a_fit_is_asked_for(refine: str, starts: list[Start]) -> None:
    panel = exact_panel(paper_box.draws(1, seed=81)[0])
    options = CalibrationOptions(refine=refine)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match=SENTENCE):
        calibrate(panel, UNCOMPILED, starts, options)
    with pytest.raises(InvalidInput, match=SENTENCE):
        fit_problem(panel, UNCOMPILED, options)
    if refine != "none":
        # What the service and the command line call, here of a model without networks.
        with pytest.raises(InvalidInput, match=SENTENCE):
            assess(panel, UNCOMPILED, None, options)


def test_the_command_line_refuses_it_too(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(MODELS, "uncompiled", UNCOMPILED)
    quotes: Path = ROOT / "examples" / "dax_20020705.csv"
    assert main(["calibrate", str(quotes), "--model", "uncompiled"]) == 2
    said = capsys.readouterr()
    assert SENTENCE in said.err
    assert not said.out
