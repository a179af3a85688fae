"""Results as the documents that answer requests: plain dicts, as `schema` describes them."""

from collections.abc import Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from calibrant.arrays import Vector
from calibrant.models import MODELS
from calibrant.models.model import Model
from calibrant.network import Manifest
from calibrant.pipeline import Assessment
from calibrant.prices import Prices
from calibrant.report import calibration_report, numbers, stages_us

from ..engine import Engine, PriceJob
from . import schema


class Echo(NamedTuple):
    """What of a request shapes its answer, where its format has no place for that."""

    id: str | None = None
    as_of: str | None = None
    detail: bool = False


Echoed: TypeAlias = schema.CalibrateRequest | Echo


def calibration_document(asked: Echoed, assessment: Assessment, stages: Mapping[str, float]) -> dict[str, Any]:
    """`schema.CalibrateResponse`; `stages` in seconds."""
    return calibration_report(
        assessment,
        timing_us=stages_us(**stages),
        panel_id=asked.id,
        as_of=asked.as_of,
        detail=asked.detail,
    )


def price_document(job: PriceJob, prices: Prices) -> dict[str, Any]:
    """`schema.PriceResponse`."""
    document: dict[str, Any] = {
        "model": job.model.name,
        "call": prices.call.tolist(),
        "put": prices.put.tolist(),
        "implied_vol": numbers(prices.implied_vol),
    }
    if prices.gradient is not None:
        document["gradient"] = {name: values.tolist() for name, values in prices.gradient.items()}
    return document


def models_document(engine: Engine) -> dict[str, Any]:
    """`schema.ModelsResponse`."""
    listed = []
    for name, model in MODELS.items():
        release = engine.releases.get(name)
        networks = [] if release is None else [_network(model, network.manifest) for network in release.networks]
        listed.append(
            {
                "model": name,
                "model_version": None if release is None else release.version,
                "parameters": list(model.parameters),
                "admissible_bounds": _boxed(model.parameters, model.lower, model.upper),
                # Of the widest.
                "training_domain": networks[-1]["training_domain"] if networks else None,
                "networks": networks,
            }
        )
    return {"models": listed}


def serving_document(engine: Engine) -> dict[str, Any]:
    """What each model is served on."""
    return {
        name: {"starts": "surface", "model_version": None, "provider": None}
        if release is None
        else {"starts": "network", "model_version": release.version, "provider": release.provider}
        for name, release in ((name, engine.releases.get(name)) for name in MODELS)
    }


def _network(model: Model, manifest: Manifest) -> dict[str, Any]:
    return {
        "domain": manifest.domain,
        "training_domain": _boxed(model.parameters, manifest.domain_lower, manifest.domain_upper),
        "grid": {
            "expiry": manifest.grid.expiry.tolist(),
            "log_moneyness": manifest.grid.log_moneyness.tolist(),
            "standardised": manifest.grid.standardised,
        },
    }


def _boxed(names: tuple[str, ...], lower: Vector, upper: Vector) -> dict[str, list[float]]:
    return dict(zip(names, np.column_stack((lower, upper)).tolist(), strict=True))
