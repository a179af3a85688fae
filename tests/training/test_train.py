"""The loop: resume, the schedule, the record."""

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed")

from training.augment import AugmentOptions  # noqa: E402
from training.held_out import validate  # noqa: E402
from training.loss import LossOptions  # noqa: E402
from training.networks import NetworkOptions  # noqa: E402
from training.panels import make_panels  # noqa: E402
from training.penalties import PenaltyOptions, penalty  # noqa: E402
from training.train import (  # noqa: E402
    TrainOptions,
    command_line,
    learning_rate_at,
    load_network,
    options_of,
    to_tensors,
    train,
)

from .small import OPTIONS, assert_same_weights, make_sets  # noqa: E402

CHARGED = replace(OPTIONS, penalty=PenaltyOptions(kind="paper", panels=3))


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


@pytest.fixture(scope="module")
def charged(sets: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "charged"
    train(*sets, out, CHARGED, say=quiet)
    return out


def history_of(run: Path) -> list[dict[str, float]]:
    history: list[dict[str, float]] = json.loads((run / "run.json").read_text())["history"]
    return history


@pytest.mark.parametrize("stop_after", [1, 3])
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    sets: tuple[Path, Path], run: Path, tmp_path: Path, stop_after: int
) -> None:
    train(*sets, tmp_path, OPTIONS, stop_after=stop_after, say=quiet)
    resumed: list[str] = []
    train(*sets, tmp_path, OPTIONS, say=resumed.append)
    assert resumed[0] == f"resumed after epoch {stop_after}"
    assert_same_weights(tmp_path, run)


def test_a_run_given_another_length_on_its_plateau_ends_as_if_it_had_had_it_from_the_start(
    sets: tuple[Path, Path], run: Path, tmp_path: Path
) -> None:
    longer = replace(OPTIONS, epochs=9, cool_down=3)
    train(*sets, tmp_path, longer, stop_after=2, say=quiet)
    train(*sets, tmp_path, OPTIONS, say=quiet)
    assert_same_weights(tmp_path, run)


def test_a_run_with_other_settings_is_refused(sets: tuple[Path, Path], run: Path) -> None:
    for other in (replace(OPTIONS, seed=2), replace(OPTIONS, epochs=9)):
        with pytest.raises(ValueError, match="other settings"):
            train(*sets, run, other, say=quiet)


def test_a_resumed_run_with_a_penalty_on_random_panels_ends_with_the_weights_of_an_uninterrupted_one(
    sets: tuple[Path, Path], charged: Path, tmp_path: Path
) -> None:
    train(*sets, tmp_path, CHARGED, stop_after=2, say=quiet)
    train(*sets, tmp_path, CHARGED, say=quiet)
    assert_same_weights(tmp_path, charged)
    assert [row["lambda"] for row in history_of(charged)] == pytest.approx([1000.0 * 0.96**i for i in range(4)])


@pytest.mark.parametrize("loss", ["price", "vega", "metric", "blend", "plain"])
def test_training_learns_with_every_loss(sets: tuple[Path, Path], tmp_path: Path, loss: str) -> None:
    train(*sets, tmp_path, replace(OPTIONS, epochs=10, cool_down=3, loss=LossOptions(name=loss)), say=quiet)
    history = history_of(tmp_path)
    assert len(history) == 10
    assert history[-1]["loss"] < 0.75 * history[0]["loss"]


@pytest.mark.parametrize(
    "changed",
    [{"architecture": "shallow"}, {"architecture": "compact"}, {"precision": "bfloat16"}, {"precision": "float16"}],
    ids=["shallow", "compact", "bfloat16", "float16"],
)
def test_training_learns_with_the_baseline_and_in_mixed_precision_and_resumes_exactly(
    sets: tuple[Path, Path], tmp_path: Path, changed: dict[str, str]
) -> None:
    options = replace(OPTIONS, epoch_panels=64, epochs=6, **changed)  # type: ignore[arg-type]
    train(*sets, tmp_path / "whole", options, say=quiet)
    train(*sets, tmp_path / "cut", options, stop_after=3, say=quiet)
    train(*sets, tmp_path / "cut", options, say=quiet)
    assert_same_weights(tmp_path / "cut", tmp_path / "whole")
    history = history_of(tmp_path / "whole")
    assert history[-1]["loss"] < 0.9 * history[0]["loss"]
    network, domain = load_network(tmp_path / "whole")
    held_out = to_tensors(make_panels(domain, 2, 0, 64), network)
    best = min(row["mean_bp"] for row in history)
    assert validate(network, held_out, domain.model).mean_bp == pytest.approx(best, rel=1e-5)


def test_a_run_goes_on_from_the_network_of_another_and_scales_its_input_as_that_one_does(
    sets: tuple[Path, Path], run: Path, tmp_path: Path
) -> None:
    standing_still = replace(OPTIONS, begun_by=str(run), learning_rate=0.0, augmentation=AugmentOptions(clean=1.0))
    # On other panels, whose own mean and deviation would be others.
    train(sets[1], sets[0], tmp_path / "same", replace(standing_still, epoch_panels=None, epochs=1), say=quiet)
    (before, _), (after, _) = load_network(run), load_network(tmp_path / "same")
    for name, value in before.state_dict().items():
        # Batch-norm follows the panels that it sees, whatever the learning rate.
        if "running" not in name and "batches" not in name:
            assert torch.equal(after.state_dict()[name], value), name
    whole, cut = replace(OPTIONS, begun_by=str(run)), tmp_path / "cut"
    train(*sets, tmp_path / "whole", whole, say=quiet)
    assert history_of(tmp_path / "whole")[0]["loss"] < history_of(run)[0]["loss"]
    train(*sets, cut, whole, stop_after=2, say=quiet)
    train(*sets, cut, whole, say=quiet)
    assert_same_weights(cut, tmp_path / "whole")
    with pytest.raises(ValueError, match="'cnn_transformer' for the domain 'paper', and not a 'compact'"):
        train(*sets, tmp_path / "other", replace(whole, architecture="compact"), say=quiet)


def test_a_penalty_changes_the_weights_if_and_only_if_it_has_a_weight(
    sets: tuple[Path, Path], run: Path, charged: Path, tmp_path: Path
) -> None:
    train(*sets, tmp_path, replace(CHARGED, penalty=PenaltyOptions(kind="paper", lambda0=0.0)), say=quiet)
    assert_same_weights(tmp_path, run)
    with pytest.raises(AssertionError):
        assert_same_weights(charged, run)


def test_history_holds_the_penalty_and_the_correlations_without_a_penalty_too(
    sets: tuple[Path, Path], run: Path
) -> None:
    network, domain = load_network(run)
    panels = make_panels(domain, 2, 0, 64)
    with torch.inference_mode():
        answers = network(torch.from_numpy(panels["iv"])).double()
    history = history_of(run)
    best = min(history, key=lambda row: row["mean_bp"])
    assert best["lambda"] == 0.0
    assert best["penalty"] == pytest.approx(float(penalty(answers, "paper")), rel=1e-3, abs=1e-9)
    for i, name in enumerate(domain.parameters):
        expected = np.corrcoef(answers[:, i].numpy(), panels["params"][:, i])[0, 1]
        assert best[f"pearson_{name}"] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"loss": LossOptions(name="vols")}, "`loss` must be one of"),
        ({"penalty": PenaltyOptions(kind="soft")}, "`penalty` must be one of"),
        ({"precision": "float8"}, "`precision` must be one of"),
        ({"architecture": "deep"}, "`architecture` must be one of"),
    ],
)
def test_an_unknown_name_is_refused(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(OPTIONS, **changed)


def test_a_batch_larger_than_an_epoch_is_refused(sets: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="at most the 128 panels of an epoch, but is 256"):
        train(*sets, tmp_path, replace(OPTIONS, batch=256), say=quiet)


def test_the_command_line_reaches_every_option_that_is_studied() -> None:
    line = (
        "--data a --validation b --out c --loss blend --blend-floor-bp 30 --blend-plain 200 --penalty arbitrage "
        "--lambda0 10 --penalty-panels 256 --blocks 1 --no-positions --network shallow --precision bfloat16 --seed 3 "
        "--batch 128 --epochs 7 --epoch-panels 1024 --cool-down 3 --warm-up 9 --patience 4 --threads 1 "
        "--learning-rate 0.002 --no-freeze-norm --clean 0.25 --cropped 0.1"
    )
    assert options_of(command_line().parse_args(line.split())) == TrainOptions(
        loss=LossOptions(name="blend", blend_floor_bp=30.0, blend_plain=200.0),
        penalty=PenaltyOptions(kind="arbitrage", lambda0=10.0, panels=256),
        network=NetworkOptions(channels=(8,), strides=((2, 2),), positions=False),
        architecture="shallow",
        precision="bfloat16",
        seed=3,
        batch=128,
        epochs=7,
        epoch_panels=1024,
        cool_down=3,
        warm_up=9,
        patience=4,
        threads=1,
        learning_rate=0.002,
        freeze_norm=False,
        augmentation=AugmentOptions(clean=0.25, cropped=0.1),
    )
    nothing_set = options_of(command_line().parse_args(["--data", "a", "--validation", "b", "--out", "c"]))
    assert nothing_set == TrainOptions()


def test_one_block_without_positions_trains_and_loads(sets: tuple[Path, Path], tmp_path: Path) -> None:
    options = replace(OPTIONS, epochs=1, network=NetworkOptions(channels=(8,), strides=((2, 2),), positions=False))
    train(*sets, tmp_path, options, say=quiet)
    network, _ = load_network(tmp_path)
    assert len(network.blocks) == 1
    assert network.positions.shape == (20, 128)
    assert not network.positions.any()


def test_early_stopping_ends_a_run_that_no_longer_improves(sets: tuple[Path, Path], tmp_path: Path) -> None:
    said: list[str] = []
    # Without a learning rate and with batch-norm frozen, no epoch is better than the first.
    options = replace(OPTIONS, epochs=12, cool_down=12, learning_rate=0.0, patience=2)
    train(*sets, tmp_path, options, say=said.append)
    assert "no better validation RMSE for 2 epochs" in said[-1]
    assert len(history_of(tmp_path)) == 3


def test_the_learning_rate_rises_holds_and_falls_to_zero() -> None:
    options = replace(OPTIONS, epochs=10, cool_down=4, warm_up=50)
    rates = [learning_rate_at(step, 100, options) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-3 / 50)
    assert set(rates[49:600]) == {1e-3}
    assert all(later < earlier for earlier, later in itertools.pairwise(rates[600:]))
    assert rates[-1] < 1e-7


def test_a_loaded_network_answers_as_the_trained_one(sets: tuple[Path, Path], run: Path) -> None:
    network, domain = load_network(run)
    best = min(epoch["mean_bp"] for epoch in history_of(run))
    held_out = to_tensors(make_panels(domain, 2, 0, 64), network)
    assert validate(network, held_out, domain.model).mean_bp == pytest.approx(best, rel=1e-5)
    assert network(torch.from_numpy(make_panels(domain, 5, 0, 64)["iv"])).shape == (64, 5)


def test_training_leaves_the_smallest_numbers_as_they_were(sets: tuple[Path, Path], tmp_path: Path) -> None:
    train(*sets, tmp_path, replace(OPTIONS, epochs=1, cool_down=1), say=quiet)
    assert (np.array([1e-310]) * 0.5 > 0.0).all()
    assert float((torch.tensor([1e-310], dtype=torch.float64) * 0.5)[0]) > 0.0
