"""What a run leaves on disk, also when it is killed."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="the train extra is not installed")

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator  # noqa: E402

from training.penalties import PenaltyOptions  # noqa: E402
from training.train import train  # noqa: E402

from .small import OPTIONS, assert_same_weights, command, make_sets, python  # noqa: E402

# Many short steps, so that an epoch has a middle to be killed in.
CHARGED = replace(OPTIONS, epochs=3, cool_down=1, batch=2, penalty=PenaltyOptions(kind="paper", panels=1))


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_sets(tmp_path_factory.mktemp("sets"))


@pytest.fixture(scope="module")
def whole(sets: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "whole"
    train(*sets, out, CHARGED, say=lambda _: None)
    return out


def events(run: Path) -> dict[str, list[tuple[int, float]]]:
    """(step, value) of every tag, as TensorBoard shows them."""
    accumulator = EventAccumulator(str(run / "events"))
    accumulator.Reload()
    return {
        tag: [(event.step, event.value) for event in accumulator.Scalars(tag)] for tag in accumulator.Tags()["scalars"]
    }


def test_tensorboard_shows_the_history(whole: Path) -> None:
    history = json.loads((whole / "run.json").read_text())["history"]
    shown = events(whole)
    assert set(shown) == {
        *(f"training/{name}" for name in ("loss", "lambda", "learning_rate")),
        *(f"validation/{name}" for name in ("median_bp", "mean_bp", "p99_bp", "penalty", "seconds")),
        *(f"validation/pearson_{name}" for name in ("kappa", "theta", "xi", "rho", "v0")),
    }
    for tag, points in shown.items():
        values = [row[tag.split("/")[1]] for row in history]
        assert [step for step, _ in points] == [1, 2, 3]
        assert [value for _, value in points] == pytest.approx(values, rel=1e-6)


def test_a_run_killed_in_the_middle_of_an_epoch_ends_with_the_weights_of_an_uninterrupted_one(
    sets: tuple[Path, Path], whole: Path, tmp_path: Path
) -> None:
    words = python(*command(sets, tmp_path, CHARGED))
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as killed:
        assert killed.stdout is not None
        for line in killed.stdout:
            if line.startswith("epoch 2 step"):
                killed.kill()
                break
    assert killed.returncode == -9
    assert len(json.loads((tmp_path / "run.json").read_text())["history"]) == 1
    again = subprocess.run(words, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    assert again.stdout.startswith("resumed after epoch 1\n")
    assert_same_weights(tmp_path, whole)
    resumed, uninterrupted = (events(run)["training/loss"] for run in (tmp_path, whole))
    assert resumed == uninterrupted


def test_events_of_an_epoch_that_was_never_saved_are_void(sets: tuple[Path, Path], whole: Path, tmp_path: Path) -> None:
    train(*sets, tmp_path, CHARGED, stop_after=1, say=lambda _: None)
    after_one = (tmp_path / "checkpoint.pt").read_bytes()
    train(*sets, tmp_path, CHARGED, stop_after=2, say=lambda _: None)
    # As if the second epoch had been killed between its events and its checkpoint.
    (tmp_path / "checkpoint.pt").write_bytes(after_one)
    train(*sets, tmp_path, CHARGED, say=lambda _: None)
    assert events(tmp_path)["training/loss"] == events(whole)["training/loss"]
