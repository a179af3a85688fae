"""A result as it is read: printed, tabulated, drawn."""

import json
import subprocess
import sys
from collections import defaultdict
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from matplotlib import pyplot
from matplotlib.text import Text

from calibrant import CalibrationResult, calibrate
from calibrant.arbitrage import check_quotes
from calibrant.arrays import Vector
from tests.shared import ROOT

pyplot.switch_backend("agg")
DAX = json.loads((ROOT / "examples" / "dax_20020705.json").read_text())["quotes"]


def smiles(n_expiries: int, n_strikes: int, forward: float | None = None, spread: float = 0.0) -> dict[str, Any]:
    t, k = np.meshgrid(np.geomspace(0.05, 3.0, n_expiries), np.linspace(-0.25, 0.2, n_strikes), indexing="ij")
    k = k * np.sqrt(t)
    mid = 0.2 - 0.1 * k / np.sqrt(t) + 0.1 * k**2 / t
    quotes = {"expiry": t.ravel(), "iv": mid.ravel()}
    if spread:
        quotes |= {"bid_iv": mid.ravel() - spread, "ask_iv": mid.ravel() + spread}
    if forward is None:
        return {**quotes, "log_moneyness": k.ravel()}
    return {**quotes, "strike": forward * np.exp(k.ravel()), "forward": forward}


PANELS: dict[str, dict[str, Any]] = {
    "the DAX": DAX,
    "one smile": smiles(1, 9, spread=0.01),
    "two smiles": smiles(2, 9, forward=1.1),
    "many smiles": smiles(23, 7, forward=61234.5, spread=0.004),
    "one strike": smiles(6, 1),
}


@pytest.fixture(scope="module")
def dax() -> CalibrationResult:
    return calibrate(DAX)


def test_a_result_prints_parameters_errors_fit_and_status(dax: CalibrationResult) -> None:
    first, *lines = repr(dax).splitlines()
    assert first == f"heston: {dax.status}, from the start `network`"
    for line, (name, value) in zip(lines, dax.parameters.items(), strict=False):
        said, number, _, error = line.split()
        assert said == name
        assert float(number) == pytest.approx(value, rel=1e-4)
        assert float(error) == pytest.approx(dax.standard_errors[name], rel=0.1)
    assert f"103 of 104 quotes fitted, root mean square error {dax.fit.rmse_bp:.2f} bp" in repr(dax)
    assert len(lines) < 12


def test_an_error_that_is_not_known_is_said_to_be_so() -> None:
    few = calibrate(smiles(1, 9))
    assert few.standard_errors["kappa"] is None
    assert "+- unknown" in repr(few)


def test_the_arbitrage_verdicts_are_those_of_the_checks(dax: CalibrationResult) -> None:
    verdict = check_quotes(dax.assessment.panel)
    assert dax.arbitrage.quotes.n_violations == verdict.n_violations == 6
    assert [v.size for v in dax.arbitrage.quotes.violations] == [v.size for v in verdict.violations]
    assert {v.strike for v in dax.arbitrage.quotes.violations} <= set(DAX["strike"])
    assert dax.arbitrage.surface.free
    assert not dax.arbitrage.free


def test_the_frame_of_quotes_is_joined_to_what_was_given_by_its_index(dax: CalibrationResult) -> None:
    frame = dax.to_frame("quotes")
    assert len(frame) == dax.fit.n_quotes
    assert 12 not in frame.index
    for column in ("expiry", "strike", "iv"):
        np.testing.assert_allclose(frame[column], np.array(DAX[column])[frame.index], rtol=1e-12)
    np.testing.assert_array_equal(frame.model_iv, dax.model_iv[frame.index])
    assert np.sqrt(np.mean(frame.error_bp**2)) == pytest.approx(dax.fit.rmse_bp)


def test_the_frame_of_parameters_has_their_errors_and_bounds(dax: CalibrationResult) -> None:
    frame = dax.to_frame()
    assert dict(frame.value) == dax.parameters
    assert dict(frame.standard_error) == dax.standard_errors
    assert (frame.lower < frame.value).all()
    assert (frame.value < frame.upper).all()


@pytest.mark.parametrize("name", PANELS)
def test_a_picture_has_every_quote_the_fit_and_no_label_upon_another(name: str) -> None:
    found = calibrate(PANELS[name], fixed={"kappa": 2.0, "xi": 0.5} if name == "one strike" else None)
    axes = found.plot()
    figure = axes[0].figure
    try:
        figure.canvas.draw()
        assert len(axes) == found.assessment.panel.expiries.size
        drawn: dict[str, list[Vector]] = defaultdict(list)
        for ax in axes:
            for line in ax.lines:
                drawn[str(line.get_label())].append(np.asarray(line.get_ydata(), np.float64))
        assert np.concatenate(drawn["quotes"]).size == found.fit.n_quotes
        left_out = np.concatenate(drawn.get("left out", [np.empty(0)])).size
        assert found.fit.n_quotes + left_out == found.assessment.panel.n_quotes
        # The line is the model: at the quotes as well, within what one between 61 points may miss.
        fitted = dict(zip(found.panel.index.tolist(), 100.0 * found.assessment.calibration.model_iv, strict=True))
        drawn_panel = found.assessment.panel
        for ax, first, last in zip(axes, drawn_panel.offsets[:-1], drawn_panel.offsets[1:], strict=True):
            lines = {line.get_label(): np.asarray(line.get_xydata(), np.float64).T for line in ax.lines}
            quotes = [i for i in drawn_panel.index[first:last].tolist() if i in fitted]
            at = np.interp(lines["quotes"][0], *lines["fit"])
            np.testing.assert_allclose(at, [fitted[i] for i in quotes], atol=0.1)
        assert overlapping(figure) == []
        words = {text.get_text() for text in texts(figure)}
        assert "implied volatility (%)" in words
        assert ("strike" if "strike" in PANELS[name] else "log(strike / forward)") in words
        assert ("bid to ask" in words) == ("bid_iv" in PANELS[name])
    finally:
        pyplot.close("all")


def texts(figure: Any) -> list[Text]:
    """What is written: of the ticks those within their axis, the others are not drawn."""
    unseen = set()
    for ax in figure.axes:
        for axis in (ax.xaxis, ax.yaxis):
            low, high = sorted(axis.get_view_interval())
            unseen |= {tick.label1 for tick in axis.get_major_ticks() if not low <= tick.get_loc() <= high}
    return [text for text in figure.findobj(Text) if text not in unseen and text.get_visible() and text.get_text()]


def overlapping(figure: Any) -> list[tuple[str, str]]:
    """Pairs of texts that touch, and texts that leave the figure."""
    written = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    cut = [
        (text, "the edge")
        for text, box in written
        if not all(map(figure.bbox.contains, *zip(box.min, box.max, strict=True)))
    ]
    return cut + [(a, b) for (a, first), (b, second) in combinations(written, 2) if first.overlaps(second)]


def test_a_picture_leaves_matplotlib_as_it_was_set_up() -> None:
    # A notebook sets it up as the first figure is made, and shows no more figures if that is undone.
    code = (
        "import os; os.environ['MPLBACKEND'] = 'module://tests.setting_up'\n"
        "import sys; sys.path.insert(0, '.')\n"
        "import json; from calibrant import calibrate\n"
        "calibrate(json.load(open('examples/dax_20020705.json'))['quotes']).plot()\n"
        "import matplotlib; print(matplotlib.is_interactive(), matplotlib.rcParams['figure.dpi'])"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True", "123.0"]


@pytest.mark.parametrize(("package", "method"), [("pandas", "to_frame"), ("matplotlib", "plot")])
def test_without_a_package_its_name_is_told(
    package: str, method: str, dax: CalibrationResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, "calibrant.plotting", raising=False)
    with pytest.raises(ImportError, match=rf"`{method}` needs {package}: pip install 'calibrant\[notebook\]'"):
        getattr(dax, method)()
