import json
from pathlib import Path

import numpy as np
import pytest
import torch

from calibrant.arrays import Vector
from calibrant.black import call_price, put_price
from calibrant.models import DOUBLE_HESTON_JUMP
from training.domain import Domain
from training.paper_hybrid import targets
from training.paper_hybrid.lbfgs import AUTHORS, START, PaperLbfgs, _Descent, calibrate, relative_errors
from training.paper_hybrid.network import PaperNetwork, features_of_calls, normal, scaling_of
from training.paper_hybrid.scenarios import (
    EXPIRIES,
    REALISTIC,
    SCENARIOS,
    STRIKES,
    call_prices,
    draw,
    noisy,
    panels,
    quotes,
)
from training.paper_hybrid.train import PaperTraining, Stage, answers, load_network, train

K, T = quotes()
SMALL = PaperTraining(
    scenarios=600,
    first=Stage(epochs=2, batch=128, learning_rate=1e-3, patience=5, slow_down=5),
    second=Stage(epochs=2, batch=2, learning_rate=1e-5, patience=5, slow_down=5),
    measured=4,
)


@pytest.mark.parametrize("domain", [SCENARIOS, REALISTIC], ids=lambda domain: domain.name)
def test_scenarios_keep_feller_their_boxes_and_the_faster_factor_first(domain: Domain) -> None:
    params = draw(domain, 1, 500)
    low, high = domain.sampled_box()
    # Of the two factors' boxes together, since the faster is the first.
    for i in range(13):
        both = [i, i + 5] if i < 5 else [i - 5, i] if i < 10 else [i]
        assert np.all(params[:, i] >= low[both].min() - 1e-12)
        assert np.all(params[:, i] <= high[both].max() + 1e-12)
    assert np.all(params[:, 0] >= params[:, 5])
    for first in (0, 5):
        kappa, theta, xi = params[:, first], params[:, first + 1], params[:, first + 2]
        assert np.all(2.0 * kappa * theta >= xi**2 * (1.0 - 1e-12))
    np.testing.assert_array_equal(draw(domain, 1, 3), params[:3])


def test_the_ten_features_are_those_of_the_text() -> None:
    vols = panels(draw(REALISTIC, 2, 1))[0]
    matrix, constant = features_of_calls()
    features = call_prices(vols[np.newaxis])[0] @ matrix + constant
    at_the_money = []
    for e, years in enumerate(EXPIRIES):
        call = [float(call_price(np.log(s), years, vols[e, j])) for j, s in enumerate(STRIKES)]
        put = float(put_price(np.log(0.95), years, vols[e, 1]))
        wanted = [call[2], call[3] - put, call[0] - 2.0 * call[2] + call[4]]
        np.testing.assert_allclose(features[3 * e : 3 * e + 3], wanted, rtol=0.0, atol=1e-14)
        at_the_money.append(call[2])
    assert features[9] == pytest.approx(at_the_money[2] - at_the_money[0], abs=1e-14)


@pytest.mark.parametrize("feller", ["share", "penalty"])
def test_the_gradient_of_the_loss_is_that_of_its_differences(feller: str) -> None:
    call = call_prices(panels(draw(REALISTIC, 3, 1)))[0]
    descent = _Descent(K, T, call, PaperLbfgs(feller=feller))  # type: ignore[arg-type]
    # Beyond Feller for one factor, so that the penalty has a slope.
    x = descent.variables_of(START * np.array([1.1, 0.9, 1.2, 1.0, 1.3, 0.8, 1.1, 1.3, 0.9, 1.0, 1.2, 1.1, 0.9]))
    _, gradient = descent.loss_and_gradient(x)
    step = 1e-6
    for i in range(x.size):
        there = np.arange(x.size) == i
        slope = (descent.loss(x + step * there) - descent.loss(x - step * there)) / (2.0 * step)
        assert gradient[i] == pytest.approx(slope, rel=1e-5, abs=1e-7 * np.abs(gradient).max() + 1e-9), i


def test_the_authors_first_start_lies_on_the_kink_of_their_penalty_and_no_descent_leaves_it() -> None:
    assert 2.0 * START[5] * START[6] == pytest.approx(START[7] ** 2, rel=1e-12)
    call = call_prices(panels(draw(REALISTIC, 4, 1)))[0]
    stuck = calibrate(K, T, call, START, AUTHORS)
    free = calibrate(K, T, call, START)
    at_start = np.abs(relative_errors(K, T, call, START)).mean()
    assert np.abs(relative_errors(K, T, call, stuck.params)).mean() > 0.5 * at_start
    assert np.abs(relative_errors(K, T, call, free.params)).mean() < 0.01 * at_start
    for first in (0, 5):
        assert 2.0 * free.params[first] * free.params[first + 1] >= free.params[first + 2] ** 2 * (1.0 - 1e-12)


def test_the_normal_distribution_function_is_met_to_double_precision() -> None:
    x = torch.linspace(-9.0, 9.0, 2001, dtype=torch.float64)
    torch.testing.assert_close(normal(x), torch.special.ndtr(x), rtol=0.0, atol=1e-15)


def _network() -> PaperNetwork:
    params = draw(SCENARIOS, 5, 300)
    torch.manual_seed(5)
    return PaperNetwork(scaling_of(panels(params), params)).eval()


def test_the_network_has_the_layers_of_the_paper() -> None:
    layers = [type(layer).__name__ for layer in _network().layers]
    hidden = ["Linear", "ReLU", "BatchNorm1d"]
    assert layers == [*hidden, *hidden, "Dropout", *hidden, "Linear", "ReLU", "Linear"]
    widths = [layer.out_features for layer in _network().layers if isinstance(layer, torch.nn.Linear)]
    assert widths == [512, 256, 128, 64, 13]


def test_answers_stay_inside_the_boxes_and_a_missing_quote_counts_as_the_mean() -> None:
    network = _network()
    last = network.layers[-1]
    assert isinstance(last, torch.nn.Linear)
    last.weight.data *= 1e4
    rng = np.random.default_rng(6)
    params = answers(network, rng.uniform(0.01, 3.0, (50, 3, 5)))
    low, high = SCENARIOS.output_box()
    assert np.all(params >= low * (1.0 - 1e-6) - 1e-6 * (low < 0.0))
    assert np.all(params <= high * (1.0 + 1e-6))
    one = rng.uniform(0.1, 0.3, (1, 3, 5))
    gap, filled = one.copy(), one.copy()
    gap[0, 1, 2], filled[0, 1, 2] = np.nan, float(network.node_vol[1, 2])
    np.testing.assert_allclose(answers(network, gap), answers(network, filled), rtol=1e-5)


def test_noise_is_two_per_cent_of_the_out_of_the_money_price() -> None:
    iv = panels(draw(REALISTIC, 7, 200))
    off = call_prices(noisy(iv, 8)) - call_prices(iv)
    value = call_prices(iv) - np.maximum(-np.expm1(K), 0.0)
    assert np.std(off / value) == pytest.approx(0.02, rel=0.05)


def test_calibrations_go_on_where_they_were_killed_and_do_not_depend_on_it(tmp_path: Path) -> None:
    whole, torn = tmp_path / "whole.jsonl", tmp_path / "torn.jsonl"
    said: list[str] = []
    targets.make_all(whole, 3, seed=9, say=said.append)
    assert said
    assert "3/3" in said[-1]
    lines = whole.read_text().splitlines()
    torn.write_text(lines[1] + "\n" + lines[0][:40])
    targets.make_all(torn, 3, seed=9, say=said.append)
    for left, right in zip(targets.load(whole), targets.load(torn), strict=True):
        np.testing.assert_array_equal(left, right)
    for other in ({"seed": 10}, {"seed": 9, "drawn": True}):
        with pytest.raises(ValueError, match="another seed"):
            targets.make_all(whole, 3, **other)  # type: ignore[arg-type]
    for iv, params in zip(*targets.load(whole), strict=True):
        errors: Vector = relative_errors(K, T, call_prices(iv[np.newaxis])[0], params)
        # The noise is all that is left.
        assert np.sqrt(np.mean(errors**2)) < 0.03
        assert np.all(params >= np.maximum(DOUBLE_HESTON_JUMP.lower, -1.0))


def test_both_stages_run_and_the_second_goes_on_from_the_first(tmp_path: Path) -> None:
    calibrated = tmp_path / "targets.jsonl"
    params = draw(REALISTIC, 11, 10)
    counts = {"seed": 1, "drawn": False, "loss": 0.0, "iterations": 1, "evaluations": 1}
    records = [
        counts | {"index": i, "iv": iv.tolist(), "parameters": p.tolist()}
        for i, (iv, p) in enumerate(zip(panels(params), params, strict=True))
    ]
    calibrated.write_text("".join(json.dumps(record) + "\n" for record in records))
    said: list[str] = []
    train(tmp_path / "run", None, SMALL, said.append)
    n_first = len(said)
    assert not (tmp_path / "run" / "run.json").exists()
    network = train(tmp_path / "run", calibrated, SMALL, said.append)
    # The first stage is not run again.
    assert sum("scenarios" in line for line in said) == 1
    assert len(said) - n_first <= 3
    loaded, record = load_network(tmp_path / "run")
    iv = panels(params)
    np.testing.assert_array_equal(answers(loaded, iv), answers(network, iv))
    assert record["calibrations"] == 10
    assert set(record["price_error_percent"]) == set(record["history"]) == {"first", "second"}
    other = PaperTraining(scenarios=700, first=SMALL.first, second=SMALL.second, measured=4)
    with pytest.raises(ValueError, match="other options"):
        train(tmp_path / "run", calibrated, other)
