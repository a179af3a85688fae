"""The GPU's refinement, where there is no GPU: its functions compiled for the processor at full size, and its kernel in
numba's CUDA simulator at small size. The reference is `calibrate`."""

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest

from benchmarks import paper_box
from calibrant.arrays import Matrix
from calibrant.calibration import calibrate
from calibrant.fit_problem import fit_problem
from calibrant.gpu.heston_device import CHUNK, MAX_CHUNKS, implied_sd, time_value
from calibrant.gpu.heston_lm import CONVERGED, OUT_OF_ITERATIONS, SETTLED, TOO_SLOW
from calibrant.gpu.refine import Refined, refine
from calibrant.gpu.target import ON_GPU
from calibrant.models import HESTON, MODELS
from calibrant.models.model import Model
from calibrant.optimisers.objective import FINE, Problem, evaluate
from calibrant.options import CalibrationOptions, Effort, Prior, Start
from calibrant.panel import OptionPanel, identifiable
from tests.exact_vols import exact_panel, exact_vols, noisy_panel, starts_nearby
from tests.shared import ROOT


def problem_of(panel: OptionPanel, options: CalibrationOptions | None = None) -> Problem:
    return fit_problem(identifiable(panel), HESTON, options or CalibrationOptions())


def largest_relative(params: Matrix, expected: Matrix) -> float:
    return float(np.abs(params / expected - 1.0).max())


@pytest.fixture(scope="module")
def truth() -> Matrix:
    return paper_box.draws(30, seed=41)


@pytest.fixture(scope="module")
def panels(truth: Matrix) -> list[OptionPanel]:
    """Every second one with noise, and with gaps."""
    made = []
    for i, params in enumerate(truth):
        panel = noisy_panel(params, i, 5.0) if i % 2 else exact_panel(params)
        keep = np.random.default_rng(i).random(panel.n_quotes) < (0.9 if i % 2 else 1.1)
        made.append(
            OptionPanel.from_quotes(
                expiry=panel.expiry[keep], log_moneyness=panel.log_moneyness[keep], iv=panel.mid[keep]
            )
        )
    return made


@pytest.fixture(scope="module")
def starts(truth: Matrix) -> Matrix:
    return starts_nearby(truth, 42, 0.3)


@pytest.fixture(scope="module")
def refined(panels: list[OptionPanel], starts: Matrix) -> Refined:
    return refine([problem_of(panel) for panel in panels], starts)


def test_every_panel_ends_at_the_optimum_of_calibrate_to_1e_8(
    truth: Matrix, panels: list[OptionPanel], starts: Matrix, refined: Refined
) -> None:
    expected = [calibrate(p, HESTON, [Start("network", s)]) for p, s in zip(panels, starts, strict=True)]
    from_elsewhere = [
        calibrate(p, HESTON, [Start("network", 1.001 * t)]).parameters for p, t in zip(panels, truth, strict=True)
    ]
    assert (refined.outcome == CONVERGED).all()
    for params, fit, other in zip(refined.params, expected, from_elsewhere, strict=True):
        # In one of the thirty panels the CPU's own answer moves by 1.7e-8 with its start: to that it is known.
        assert largest_relative(params, fit.parameters) < 1e-8 + largest_relative(other, fit.parameters)
    noisy = slice(1, None, 2)
    objective = np.array([fit.objective for fit in expected])
    np.testing.assert_allclose(refined.objective[noisy], objective[noisy], rtol=1e-8)
    vols = np.concatenate([fit.model_iv for fit in expected])
    np.testing.assert_allclose(refined.model_vol, vols, rtol=0.0, atol=1e-10)


def test_a_panel_s_answer_does_not_depend_on_its_company(
    panels: list[OptionPanel], starts: Matrix, refined: Refined, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = refine([problem_of(panels[7])], starts[7:8])
    np.testing.assert_array_equal(alone.params[0], refined.params[7])
    monkeypatch.setattr("calibrant.gpu.refine.PANELS_AT_A_TIME", 4)
    in_parts = refine([problem_of(panel) for panel in panels[:10]], starts[:10])
    np.testing.assert_array_equal(in_parts.params, refined.params[:10])


def test_vols_are_those_of_the_cpu_kernel_s_last_digits(truth: Matrix) -> None:
    """Errors by count of nodes: chunks until the tail is small are never fewer nodes than the CPU kernel takes."""
    for params in paper_box.admissible_draws(25, seed=43):
        expiry = np.repeat([0.05, 0.4, 2.0], 7)
        root = np.sqrt(np.repeat([HESTON.expected_variance(t, params) for t in (0.05, 0.4, 2.0)], 7))
        k = np.tile(np.linspace(-1.5, 1.5, 7), 3) * root
        vols = exact_vols(k, expiry, params)
        if not np.isfinite(vols).all():
            continue
        problem = problem_of(OptionPanel.from_quotes(expiry=expiry, log_moneyness=k, iv=vols))
        found = refine([problem], params[np.newaxis], max_evaluations=1)
        if found.outcome[0] == TOO_SLOW:
            continue
        assert found.outcome[0] == OUT_OF_ITERATIONS
        n = problem.vol.size
        on_cpu = problem.vol.copy()
        evaluate(params, problem, FINE, on_cpu, np.empty(n), np.empty((0, n)))
        # Both within FINE at the quote of the least vega.
        np.testing.assert_allclose(found.model_vol, on_cpu, rtol=0.0, atol=4.0 * FINE)


def test_a_fit_too_poor_for_gauss_newton_to_end_is_given_back_as_settled(truth: Matrix) -> None:
    panel = noisy_panel(truth[5], 3, 300.0)
    found = refine([problem_of(panel)], truth[5:6])
    expected = calibrate(panel, HESTON, [Start("network", truth[5])], effort=Effort(second_opinion=False))
    assert found.outcome[0] == SETTLED
    assert found.objective[0] == pytest.approx(expected.objective, rel=1e-6)


def test_an_expiry_that_decays_too_slowly_goes_back_to_the_cpu() -> None:
    slow = np.array([0.5, 0.0004, 6.0, 0.2, 0.0003])
    k = np.linspace(-0.01, 0.01, 5)
    panel = OptionPanel.from_quotes(expiry=np.full(5, 7 / 365), log_moneyness=k, iv=np.full(5, 0.02))
    found = refine([problem_of(panel), problem_of(exact_panel(paper_box.draws(1, seed=3)[0]))],
                   np.stack([slow, paper_box.draws(1, seed=3)[0]]))  # fmt: skip
    assert found.outcome[0] == TOO_SLOW
    assert found.outcome[1] == CONVERGED
    assert CHUNK * MAX_CHUNKS == 1536


def test_bounds_held_parameters_and_priors_are_those_of_calibrate(truth: Matrix) -> None:
    params = truth[5]
    panel = noisy_panel(params, 3, 2.0)
    free = calibrate(panel, HESTON, [Start("network", params)])
    bounds = np.column_stack([HESTON.lower, HESTON.upper])
    bounds[2, 1] = 0.99 * params[2]
    for options in (
        CalibrationOptions(bounds=bounds),
        CalibrationOptions(fixed={"kappa": 0.97 * params[0]}),
        CalibrationOptions(prior=Prior(parameters=0.97 * params, standard_deviations=np.full(5, 0.01))),
    ):
        start = np.clip(params * [1.1, 0.9, 0.8, 1.0, 1.1], bounds[:, 0], bounds[:, 1])
        expected = calibrate(panel, HESTON, [Start("network", start)], options, effort=Effort(second_opinion=False))
        found = refine([problem_of(panel, options)], start[np.newaxis])
        assert largest_relative(expected.parameters, free.parameters) > 1e-4, "it matters"
        assert found.outcome[0] == CONVERGED
        assert largest_relative(found.params[0], expected.parameters) < 1e-8
        assert found.objective[0] == pytest.approx(expected.objective, rel=1e-9)


@pytest.mark.skipif(ON_GPU, reason="on a GPU these are functions of the GPU, which kernels alone can call")
def test_implied_vols_are_inverted_from_any_guess() -> None:
    for k in (-2.0, -0.3, -1e-3, 0.0, 0.05, 1.0):
        for sd in (0.01, 0.05, 0.3, 1.5):
            value = time_value(k, sd)
            if value < 1e-12:
                continue
            for guess in (1e-9, 0.5 * sd, 3.0 * sd, 8.0):
                # The value's own rounding, 1e-16, over its density is all that is left.
                assert implied_sd(k, value, guess) == pytest.approx(sd, rel=1e-13 + 1e-14 / value * sd)


def test_starts_of_another_number_are_refused(panels: list[OptionPanel], starts: Matrix) -> None:
    with pytest.raises(ValueError, match=r"`starts` must be \(1, 5\)"):
        refine([problem_of(panels[0])], starts)
    with pytest.raises(ValueError, match="at least one panel"):
        refine([], starts[:0])


@pytest.mark.parametrize("model", [model for model in MODELS.values() if model is not HESTON], ids=lambda m: m.name)
def test_a_panel_of_another_model_is_refused_with_a_sentence(panels: list[OptionPanel], model: Model) -> None:
    other = fit_problem(identifiable(panels[0]), model, CalibrationOptions())
    with pytest.raises(ValueError, match="The GPU refines Heston only: other models"):
        refine([problem_of(panels[1]), other], np.zeros((2, 5)))


def simulate(panels: list[dict[str, Any]], starts: Matrix, threads: int) -> dict[str, Any]:
    asked = {"panels": panels, "starts": starts.tolist(), "threads": threads, "max_evaluations": 60}
    run = subprocess.run(
        [sys.executable, "-m", "tests.gpu.simulated"],
        cwd=ROOT,
        env={**os.environ, "NUMBA_ENABLE_CUDASIM": "1"},
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    found: dict[str, Any] = json.loads(run.stdout)
    return found


def test_the_kernel_itself_with_its_threads_and_barriers_ends_there_too() -> None:
    truth = np.array([[2.0, 0.06, 0.5, -0.6, 0.04], [1.2, 0.09, 0.4, -0.3, 0.05]])
    expiry, k = np.repeat([0.5, 1.5], 4), np.tile([-0.2, -0.05, 0.05, 0.2], 2)
    panels = [
        {"expiry": expiry.tolist(), "log_moneyness": k.tolist(), "iv": exact_vols(k, expiry, p).tolist()} for p in truth
    ]
    # The second panel is smaller, so that blocks differ in their loops.
    panels[1] = {name: values[:7] for name, values in panels[1].items()}
    starts = truth * [1.03, 0.98, 1.02, 1.01, 1.01]
    found = simulate(panels, starts, threads=5)
    assert found["outcome"] == [CONVERGED, CONVERGED]
    twin = refine(
        [
            problem_of(OptionPanel.from_quotes(expiry=p["expiry"], log_moneyness=p["log_moneyness"], iv=p["iv"]))
            for p in panels
        ],
        starts,
        60,
    )
    np.testing.assert_allclose(found["params"], twin.params, rtol=1e-9)
    assert largest_relative(np.array(found["params"]), truth) < 1e-8
