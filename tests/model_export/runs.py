"""Training runs short enough for a test, with what a release asks of a run."""

import json
from pathlib import Path

from training.domain import PAPER
from training.generate import PanelSet, generate
from training.train import TrainOptions, train

SPREAD = {"median": 1.0, "mean": 2.0, "p90": 3.0, "p99": 4.0}
FOUND = {"n_panels": 7, "rmse_bp": SPREAD, "pearson": dict.fromkeys(PAPER.parameters, 0.5)}
METRICS = {"command": "python -m training.evaluate --run it", "networks": [{"inputs": {"clean": FOUND}}]}


def short_run(folder: Path, domain: str) -> Path:
    """Two epochs on 128 panels, and an evaluation.json."""
    for name, seed in (("data", 1), ("validation", 2)):
        generate(folder / name, PanelSet(domain=domain, seed=seed, count=128), say=lambda _: None)
    options = TrainOptions(epochs=2, cool_down=1, batch=32, warm_up=2, threads=1)
    train(folder / "data", folder / "validation", folder / "run", options, say=lambda _: None)
    (folder / "run" / "evaluation.json").write_text(json.dumps(METRICS))
    return folder / "run"
