"""An assessed panel as the document that goes over the wire and that `calibrant calibrate --json` prints.

Plain dicts, lists, strings and numbers, with None for what is not known: JSON has no NaN.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from .arbitrage import Verdict, Violation
from .arrays import Vector
from .calibration import Calibration
from .panel import OptionPanel
from .pipeline import Assessment
from .quote_cautions import tallied


def calibration_report(
    assessment: Assessment,
    *,
    timing_us: Mapping[str, float],
    panel_id: str | None = None,
    as_of: str | None = None,
    detail: bool = False,
) -> dict[str, Any]:
    """The response of `POST /v1/calibrate`.

    timing_us  of `stages_us`
    detail     adds the correlation of the parameters and the model's vol of each quote
    """
    calibration, panel = assessment.calibration, assessment.panel
    names = calibration.model.parameters
    document: dict[str, Any] = {"model": calibration.model.name}
    if panel_id is not None:
        document["id"] = panel_id
    if as_of is not None:
        document["as_of"] = as_of
    document["parameters"] = dict(zip(names, calibration.parameters.tolist(), strict=True))
    document["standard_errors"] = dict(zip(names, numbers(calibration.standard_errors), strict=True))
    document["fit"] = {
        "rmse_bp": calibration.rmse_bp,
        "max_abs_bp": calibration.max_abs_bp,
        "mape_pct": calibration.mape_pct,
        "n_quotes": calibration.n_quotes,
        "excluded": exclusions(calibration),
    }
    document["feller_ratio"] = calibration.feller_ratio
    document["arbitrage"] = {
        "quotes": _verdict(assessment.quotes, panel),
        "surface": _verdict(assessment.surface, panel),
    }
    document["status"] = calibration.status
    if calibration.message is not None:
        document["message"] = calibration.message
    document["start"] = calibration.start
    document["iterations"] = calibration.iterations
    document["out_of_domain"] = assessment.out_of_domain
    document["at_bounds"] = list(calibration.at_bounds)
    if calibration.noise_bp is not None:
        document["noise_bp"] = calibration.noise_bp
    document["warnings"] = warnings(assessment)
    if detail:
        document["parameter_correlation"] = [numbers(row) for row in calibration.correlation]
        document["model_iv"] = _in_order_given(calibration)
    document["timing_us"] = dict(timing_us)
    document["model_version"] = assessment.model_version
    return document


def row_of(assessment: Assessment) -> dict[str, Any]:
    """The same as a row of a table: a number or a string a column, lists of names joined by semicolons."""
    calibration = assessment.calibration
    names = calibration.model.parameters
    return {
        "model": calibration.model.name,
        **dict(zip(names, calibration.parameters.tolist(), strict=True)),
        **dict(zip((f"{name}_error" for name in names), numbers(calibration.standard_errors), strict=True)),
        "rmse_bp": calibration.rmse_bp,
        "max_abs_bp": calibration.max_abs_bp,
        "mape_pct": calibration.mape_pct,
        "n_quotes": calibration.n_quotes,
        "n_excluded": len(calibration.excluded),
        "feller_ratio": calibration.feller_ratio,
        "quotes_free": assessment.quotes.free,
        "surface_free": assessment.surface.free,
        "status": calibration.status,
        "start": calibration.start,
        "iterations": calibration.iterations,
        "out_of_domain": assessment.out_of_domain,
        "at_bounds": ";".join(calibration.at_bounds),
        "warnings": ";".join(dict.fromkeys(caution.code for caution in assessment.cautions)),
        "message": calibration.message,
        "model_version": assessment.model_version,
    }


def exclusions(calibration: Calibration) -> list[dict[str, Any]]:
    """The quotes left out, as the answer lists them."""
    return [{"index": int(x.index), "reason": x.reason} for x in calibration.excluded]


def warnings(assessment: Assessment) -> list[dict[str, Any]]:
    """What a desk should look at, as the answer lists it."""
    return [caution.document() for caution in assessment.cautions]


def notes(assessment: Assessment) -> list[str]:
    """What a reader of the parameters should know besides, in sentences."""
    calibration = assessment.calibration
    sentences = [calibration.message] if calibration.message else []
    if assessment.out_of_domain:
        sentences.append("out_of_domain: No network was trained on panels, or on parameters, of this kind.")
    sentences += [f"{caution.code}: {caution.detail}" for caution in assessment.cautions]
    if calibration.excluded:
        sentences.append(f"Left out: {tallied(exclusion.reason for exclusion in calibration.excluded)}.")
    for subject, verdict in (("quotes", assessment.quotes), ("fitted surface", assessment.surface)):
        if not verdict.free:
            worst = verdict.violations[0] if verdict.violations else None
            size = f", the largest a {worst.kind} of {worst.size:.2g} of the forward" if worst else ""
            sentences.append(f"Arbitrage in the {subject}: {verdict.n_violations} violations{size}.")
    return sentences


def stages_us(**seconds: float) -> dict[str, float]:
    """Stages and their total in microseconds, to a tenth: what a clock resolves."""
    stages, total = {}, 0
    for stage, duration in seconds.items():
        tenths = round(1e7 * duration)
        stages[stage] = tenths / 10
        total += tenths
    stages["total"] = total / 10
    return stages


def numbers(values: Vector) -> list[float | None]:
    """For JSON: None where there is no number."""
    return [value if math.isfinite(value) else None for value in values.tolist()]


def _verdict(verdict: Verdict, panel: OptionPanel) -> dict[str, Any]:
    return {
        "free": verdict.free,
        "n_violations": verdict.n_violations,
        "violations": [
            {
                "kind": violation.kind,
                "expiry": violation.expiry,
                "strike": _strike(violation, panel),
                "size": violation.size,
            }
            for violation in verdict.violations
        ],
    }


def _strike(violation: Violation, panel: OptionPanel) -> float:
    """In the unit of the strikes given; K/F where log-moneyness was given.

    A fitted surface is checked between the quoted expiries too: there the log of the forward is linear, outside it is
    flat.
    """
    if panel.forward is None:
        forward = 1.0
    elif violation.quote is not None:
        forward = float(panel.forward[violation.quote])
    else:
        log_forwards = np.log(panel.forward[panel.offsets[:-1]])
        forward = math.exp(np.interp(violation.expiry, panel.expiries, log_forwards))
    return forward * math.exp(violation.log_moneyness)


def _in_order_given(calibration: Calibration) -> list[float | None]:
    """The model's vols in the order of the request, None for quotes that were left out."""
    vols = np.full(calibration.n_quotes + len(calibration.excluded), np.nan)
    vols[calibration.panel.index] = calibration.model_iv
    return numbers(vols)
