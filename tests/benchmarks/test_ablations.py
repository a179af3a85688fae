"""The grid of ablations: what differs, what is shared between processes, what is reported."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch", reason="the train extra is not installed")

from benchmarks.ablations import FULL, SHALLOW, common, markdown, penalty_of_truth, runs, summary, variants
from calibrant.arbitrage.paper_penalties import paper_penalties
from training.domain import PAPER
from training.evaluation.surfaces import otm, vols
from training.generate import PanelSet, generate
from training.held_out import PENALTY_PANELS
from training.panels import panel_parameters

NAMED = variants(common(10, 8))


def differences(name: str, base: str = FULL) -> dict[str, Any]:
    """Options in which a variant differs from another."""
    options, other = asdict(NAMED[name]), asdict(NAMED[base])
    return {key: value for key, value in options.items() if value != other[key]}


def record(mean_bp: list[float], seconds: float) -> dict[str, Any]:
    """A run whose other figures follow from its mean error."""
    history = [
        {
            "mean_bp": value,
            "median_bp": value / 2.0,
            "penalty": value / 100.0,
            "pearson_kappa": 1.0 - value / 100.0,
            "pearson_rho": 1.0 - value / 50.0,
            "seconds": seconds * (i + 1) / len(mean_bp),
        }
        for i, value in enumerate(mean_bp)
    ]
    return {"history": history}


def test_a_variant_differs_in_what_its_name_says_and_in_nothing_else() -> None:
    assert set(differences("one block")) == set(differences("no positions")) == {"network"}
    assert len(NAMED["one block"].network.channels) == 1
    assert not NAMED["no positions"].network.positions
    assert differences(SHALLOW) == {"architecture": "shallow"}
    for loss in ("metric", "plain", "vega"):
        assert set(differences(f"loss {loss}")) == {"loss"}
        assert NAMED[f"loss {loss}"].loss.name == loss
    assert set(differences("price, lambda 0")) == {"loss"}
    for weight in (1, 10, 100, 1000):
        name = f"price, lambda {weight}"
        assert set(differences(name, "price, lambda 0")) == {"penalty"}
        assert NAMED[name].penalty.weight(0) == weight
        assert NAMED[name].penalty.weight(2) == pytest.approx(weight * 0.96**2)
    assert NAMED["price, lambda 0"].penalty.weight(0) == 0.0


def test_the_parts_share_the_runs_without_a_gap_or_a_repetition() -> None:
    wanted = runs(NAMED, [1, 2, 3])
    names = [name for name, _ in wanted]
    assert len(set(names)) == len(names) == 3 * len(NAMED)
    parts = [names[part::2] for part in (0, 1)]
    assert sorted(parts[0] + parts[1]) == sorted(names)
    assert [options.seed for _, options in wanted] == [seed for seed in (1, 2, 3) for _ in NAMED]


def test_the_figures_are_those_of_the_best_epochs_with_their_spread_over_the_seeds() -> None:
    found = summary([record([30.0, 10.0, 20.0], 6.0), record([40.0, 16.0, 14.0], 8.0)])
    assert found["mean_bp"] == {"mean": pytest.approx(12.0), "sd": pytest.approx(np.std([10.0, 14.0], ddof=1))}
    assert found["median_bp"]["mean"] == pytest.approx(6.0)
    assert found["penalty"]["mean"] == pytest.approx(0.12)
    assert found["lowest_pearson"]["mean"] == pytest.approx(1.0 - 12.0 / 50.0)
    assert found["seconds"]["mean"] == pytest.approx(7.0)
    assert found["history"]["mean_bp"] == [[30.0, 10.0, 20.0], [40.0, 16.0, 14.0]]


def test_one_seed_has_no_spread() -> None:
    assert summary([record([30.0, 10.0], 6.0)])["mean_bp"] == {"mean": 10.0, "sd": 0.0}


def test_the_penalty_of_the_truth_is_that_of_the_exact_surfaces(tmp_path: Path) -> None:
    generate(tmp_path, PanelSet(domain="paper", seed=2, count=PENALTY_PANELS), say=lambda _: None)
    strikes, expiry = np.linspace(0.8, 1.2, 200), np.linspace(0.1, 2.0, 50)
    k = np.broadcast_to(np.log(strikes), (PENALTY_PANELS, 50, 200))
    surfaces = vols(otm(PAPER.model, panel_parameters(PAPER, 2, 0, PENALTY_PANELS), k, expiry), k, expiry)
    expected = np.mean([paper_penalties(surface, strikes, expiry).total for surface in surfaces])
    assert penalty_of_truth(tmp_path) == pytest.approx(expected, rel=1e-4)


def test_the_table_has_a_line_for_each_variant() -> None:
    found = summary([record([30.0, 10.0], 6.0), record([20.0, 14.0], 6.0)])
    result = {
        "command": "python -m benchmarks.ablations",
        "machine": "Machine: this.",
        "panels": 1024,
        "epochs": 2,
        "batch": 256,
        "validation_panels": 64,
        "seeds": [1, 2],
        "penalty_panels": 8,
        "penalty_of_truth": 1.25,
        "training_minutes": 1.0,
        "variants": dict.fromkeys(NAMED, found),
    }
    lines = markdown(result)
    for name in NAMED:
        assert any(line.startswith(f"| {name} | 6.0 ± 1.4 | 12.0 ± 2.8 |") for line in lines)
