"""The manifest of an artefact: what a service needs to trust it, and what a person needs to make it again."""

import hashlib
import json
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from calibrant.network import nan_to_none
from training.domain import VISIBLE_DEVIATIONS, Domain
from training.networks import CnnTransformer
from training.panels import make_panels
from training.source import source_commit

_GOLDEN_SEED = 5
_GOLDEN_PANELS = 3


def build_manifest(
    *,
    name: str,
    release: int,
    file: str,
    model: bytes,
    network: CnnTransformer,
    domain: Domain,
    run: dict[str, Any],
    begun_by: dict[str, Any] | None,
    metrics: dict[str, Any],
    parity: float,
) -> dict[str, Any]:
    """Everything `manifest.json` holds.

    name      of the pricing model
    model     the bytes of the ONNX file
    run       the record that training wrote (run.json)
    begun_by  that of the run it went on from, None if it began anew
    metrics   what training.evaluate found
    parity    largest difference between torch and ONNX Runtime
    """
    low, high = domain.output_box()
    domain_low, domain_high = domain.sampled_box()
    return {
        "name": name,
        "version": release,
        "file": file,
        "sha256": hashlib.sha256(model).hexdigest(),
        "parameters": list(domain.parameters),
        "output_bounds": {"lower": low.tolist(), "upper": high.tolist(), "log_scaled": list(domain.log_scaled)},
        "training_domain": {
            "name": domain.name,
            "lower": domain_low.tolist(),
            "upper": domain_high.tolist(),
            "least_coverage": domain.least_coverage,
        },
        "grid": {
            "expiry": list(domain.expiry),
            "log_moneyness": list(domain.log_moneyness),
            "standardised": domain.standardised,
        },
        "input": {"iv": "float32 (batch, expiry, strike): decimal implied vols, NaN where missing"},
        "output": {"parameters": "float32 (batch, parameter)"},
        "normalisation": {
            "where": "inside the graph",
            "visible_deviations": VISIBLE_DEVIATIONS,
            **run["normalisation"],
        },
        "metrics": metrics,
        "golden": _golden(network, domain),
        "parity": parity,
        "source_commit": run["commit"],
        "export_commit": source_commit(),
        "created": {
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "torch": torch.__version__,
            **{package: version(package) for package in ("onnx", "onnxruntime", "numpy")},
            "data": run["data"],
            "validation": run["validation"],
            "options": run["options"],
            "epochs_run": len(run["history"]),
            "training_seconds": run["history"][-1]["seconds"],
            "begun_by": None if begun_by is None else _summary(begun_by),
        },
    }


def _summary(run: dict[str, Any]) -> dict[str, Any]:
    """Of the record of a run, what made its weights."""
    made = {name: run[name] for name in ("commit", "data", "options")}
    return made | {"epochs_run": len(run["history"]), "training_seconds": run["history"][-1]["seconds"]}


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """`manifest.json`, readable by people."""
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, allow_nan=False) + "\n")


def _golden(network: CnnTransformer, domain: Domain) -> dict[str, Any]:
    """Panels with and without missing quotes and torch's answers."""
    iv = make_panels(domain, _GOLDEN_SEED, 0, _GOLDEN_PANELS)["iv"]
    iv[1, ::3, ::2] = np.nan
    with torch.inference_mode():
        params = network(torch.from_numpy(iv)).numpy()
    return {"iv": nan_to_none(iv.astype(np.float64)), "parameters": params.astype(np.float64).tolist()}
