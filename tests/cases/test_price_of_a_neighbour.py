"""A far strike was priced 1.5e-7, with a vol of 15.3, where a near one stood beside it: its value is below 1e-80."""

import json

import numpy as np

from service.engine import Engine
from service.wire import schema
from service.wire.jobs import price_job
from tests.shared import SHARED, needs_shared


@needs_shared
def test_a_far_strike_is_priced_by_itself() -> None:
    case = json.loads((SHARED / "cases" / "price_of_a_neighbour.json").read_text())
    engine = Engine({})
    for request in case["requests"]:
        together = engine.price(price_job(schema.PriceRequest(**request)))
        for i, (expiry, k) in enumerate(zip(request["expiry"], request["log_moneyness"], strict=True)):
            alone = engine.price(
                price_job(schema.PriceRequest(**{**request, "expiry": [expiry], "log_moneyness": [k]}))
            )
            for of_all, of_one in zip(together[:3], alone[:3], strict=True):
                np.testing.assert_array_equal(of_all[i], of_one[0])
        far = int(np.argmax(request["log_moneyness"]))
        assert 0.0 <= together.call[far] < 1e-80
        assert np.isnan(together.implied_vol[far])
        near = 1 - far
        assert together.implied_vol[near] > 0.0
