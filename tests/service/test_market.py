"""Every real panel with strikes and forwards, each date apart, through the service."""

import csv
from collections.abc import Iterator
from itertools import groupby
from typing import Any

import numpy as np
import pytest

from service.wire.schema import CalibrateResponse
from tests.service.client import Client
from tests.shared import market_files, needs_shared

COLUMNS = {"expiry": "expiry_years", "strike": "strike", "forward": "forward"}
VOLS = {"iv": "mid_iv", "bid_iv": "bid_iv", "ask_iv": "ask_iv"}
# Strategy quotes of foreign-exchange markets: not vols.
STRATEGIES = {"rr", "bf", "ms"}


def requests() -> Iterator[Any]:
    """A request per panel and date, as a user would make it from the file."""
    for path in market_files():
        with path.open(encoding="utf-8") as file:
            rows = [
                row
                for row in csv.DictReader(file)
                if row["option_type"] not in STRATEGIES and all(row[column] for column in COLUMNS.values())
            ]
        for (underlying, as_of), group in groupby(rows, key=lambda row: (row["underlying"], row["as_of"])):
            panel = list(group)
            quotes: dict[str, Any] = {name: [float(row[column]) for row in panel] for name, column in COLUMNS.items()}
            quotes |= {
                name: [float(row[column]) if row[column] else None for row in panel] for name, column in VOLS.items()
            }
            yield pytest.param({"id": underlying, "as_of": as_of, "quotes": quotes}, id=f"{path.stem}-{as_of}")


@needs_shared
@pytest.mark.parametrize("request_", list(requests()))
def test_a_real_panel_is_calibrated(client: Client, request_: dict[str, Any]) -> None:
    response = client.post("/v1/calibrate", {**request_, "detail": True})
    assert response.status_code == 200, response.text
    answer = CalibrateResponse.model_validate_json(response.content)
    assert answer.status == "converged", answer.message
    assert answer.model_iv is not None
    quotes = request_["quotes"]
    assert answer.fit.n_quotes + len(answer.fit.excluded) == len(quotes["expiry"])
    # The errors told are those of the vols told.
    mid = [
        iv if iv is not None else None if bid is None or ask is None else 0.5 * (bid + ask)
        for iv, bid, ask in zip(quotes["iv"], quotes["bid_iv"], quotes["ask_iv"], strict=True)
    ]
    away_bp = [
        1e4 * (vol - m) for vol, m in zip(answer.model_iv, mid, strict=True) if vol is not None and m is not None
    ]
    assert len(away_bp) == answer.fit.n_quotes
    assert np.sqrt(np.mean(np.square(away_bp))) == pytest.approx(answer.fit.rmse_bp, rel=1e-9)
