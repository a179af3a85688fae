"""The loop: resume, the schedule, the record."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed")

from training.evaluate import evaluate, iv_rmse_bp  # noqa: E402
from training.panels import make_panels  # noqa: E402
from training.train import learning_rate_at, load_network, to_tensors, train, validate  # noqa: E402

from .small import OPTIONS, make_sets  # noqa: E402


def quiet(_: str) -> None:
    """No progress lines in the tests' output."""


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def run(sets: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(*sets, out, OPTIONS, say=quiet)
    return out


def weights(run: Path) -> dict[str, Any]:
    saved: dict[str, Any] = torch.load(run / "checkpoint.pt", weights_only=True)["network"]
    return saved


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    sets: tuple[Path, Path], run: Path, tmp_path: Path, stop_after: int
) -> None:
    train(*sets, tmp_path, OPTIONS, stop_after=stop_after, say=quiet)
    resumed: list[str] = []
    train(*sets, tmp_path, OPTIONS, say=resumed.append)
    assert resumed[0] == f"resumed after epoch {stop_after}"
    expected = weights(run)
    for name, value in weights(tmp_path).items():
        assert torch.equal(value, expected[name]), name


def test_a_run_given_another_length_on_its_plateau_ends_as_if_it_had_had_it_from_the_start(
    sets: tuple[Path, Path], run: Path, tmp_path: Path
) -> None:
    longer = replace(OPTIONS, epochs=9, cool_down=3)
    train(*sets, tmp_path, longer, stop_after=2, say=quiet)
    train(*sets, tmp_path, OPTIONS, say=quiet)
    expected = weights(run)
    for name, value in weights(tmp_path).items():
        assert torch.equal(value, expected[name]), name


def test_a_run_with_other_settings_is_refused(sets: tuple[Path, Path], run: Path) -> None:
    for other in (replace(OPTIONS, seed=2), replace(OPTIONS, epochs=9)):
        with pytest.raises(ValueError, match="other settings"):
            train(*sets, run, other, say=quiet)


def test_training_learns_with_either_loss(sets: tuple[Path, Path], tmp_path: Path) -> None:
    for loss in ("metric", "plain"):
        train(*sets, tmp_path / loss, replace(OPTIONS, epochs=10, cool_down=3, loss=loss), say=quiet)
        history = json.loads((tmp_path / loss / "run.json").read_text())["history"]
        assert len(history) == 10
        assert history[-1]["loss"] < 0.75 * history[0]["loss"]


def test_early_stopping_ends_a_run_that_no_longer_improves(sets: tuple[Path, Path], tmp_path: Path) -> None:
    said: list[str] = []
    # Without a learning rate and with batch-norm frozen, no epoch is better than the first.
    options = replace(OPTIONS, epochs=12, cool_down=12, learning_rate=0.0, patience=2)
    train(*sets, tmp_path, options, say=said.append)
    assert "no better validation RMSE for 2 epochs" in said[-1]
    assert len(json.loads((tmp_path / "run.json").read_text())["history"]) == 3


def test_the_learning_rate_rises_holds_and_falls_to_zero() -> None:
    options = replace(OPTIONS, epochs=10, cool_down=4, warm_up=50)
    rates = [learning_rate_at(step, 100, options) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-3 / 50)
    assert set(rates[49:600]) == {1e-3}
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[600:]))
    assert rates[-1] < 1e-7


def test_a_loaded_network_answers_as_the_trained_one(sets: tuple[Path, Path], run: Path) -> None:
    network, domain = load_network(run)
    panels = make_panels(domain, 5, 0, 64)
    history = json.loads((run / "run.json").read_text())["history"]
    best = min(epoch["mean_bp"] for epoch in history)
    held_out = to_tensors(np.concatenate([make_panels(domain, 2, 0, 64)]), network)
    assert validate(network, held_out).mean_bp == pytest.approx(best, rel=1e-5)
    assert network(torch.from_numpy(panels["iv"])).shape == (64, 5)


def test_evaluation_measures_the_error_of_the_answers(run: Path) -> None:
    network, domain = load_network(run)
    found = evaluate(network, domain, seed=6, count=40)
    assert set(found) == {"clean", "noisy_masked"}
    assert found["clean"].n_panels == 40
    assert 0.0 < found["clean"].median_rmse_bp <= found["clean"].p90_rmse_bp <= found["clean"].p99_rmse_bp
    assert set(found["clean"].pearson) == {"kappa", "theta", "xi", "rho", "v0"}


def test_the_true_parameters_have_no_error_and_a_vol_shift_its_own_size() -> None:
    from training.domain import PAPER

    panels = make_panels(PAPER, 8, 0, 20)
    assert float(iv_rmse_bp(PAPER, panels["params"], panels["iv"]).max()) < 1e-3
    shifted = iv_rmse_bp(PAPER, panels["params"], panels["iv"] + np.float32(0.001))
    np.testing.assert_allclose(shifted, 10.0, rtol=0.02)
