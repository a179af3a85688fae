"""The examples of the OpenAPI document: requests, and what a running service answers to them.

    PYTHONPATH=src:. python -m service.examples http://127.0.0.1:8000 > service/wire/examples.json
    PYTHONPATH=src:. python -m service.examples chain > service/console/index_chain.csv

The second is a chain that the console offers.
"""

import json
import math
import sys
from datetime import date
from typing import TYPE_CHECKING, Any

import numpy as np

from calibrant import price

from .routing import JSON

if TYPE_CHECKING:
    import httpx

SEED = 1
_PANEL: dict[str, Any] = {
    "expiry": [0.25, 0.25, 0.25, 0.25, 1.0, 1.0, 1.0, 1.0],
    "strike": [90, 95, 100, 105, 80, 90, 100, 110],
    "forward": 100.5,
    "bid_iv": [0.2552, 0.2307, 0.2072, 0.1876, 0.2637, 0.2384, 0.2144, None],
    "ask_iv": [0.2584, 0.2335, 0.2098, 0.1904, 0.2671, 0.2414, 0.2172, None],
}
_TENSORS = {
    "log_moneyness": [-0.11, -0.05, 0.0, 0.05, -0.22, -0.11, 0.0, 0.09],
    "expiry": _PANEL["expiry"],
    "iv": [0.2568, 0.2321, 0.2085, 0.189, 0.2654, 0.2399, 0.2158, None],
}
_SMILES = {
    "kind": "fx_pillars",
    "pair": "EURUSD",
    "spot": 1.1,
    "domestic_rate": 0.02,
    "foreign_rate": 0.01,
    "expiry": [0.0833, 0.25],
    "atm": [0.072, 0.075],
    "rr25": [-0.006, -0.008],
    "bf25": [0.002, 0.0022],
}
_CALIBRATION = {"id": "ABC", "as_of": "2026-01-02", "model": "heston", "quotes": _PANEL}
REQUESTS: dict[str, Any] = {
    "POST /v1/calibrate": _CALIBRATION,
    "POST /v1/calibrate/batch": {"panels": [_CALIBRATION, {"quotes": {**_PANEL, "forward": -1}}]},
    "POST /v1/price": {
        "model": "heston",
        "parameters": {"kappa": 2.0, "theta": 0.04, "xi": 0.5, "rho": -0.7, "v0": 0.05},
        "expiry": [0.5, 0.5],
        "log_moneyness": [-0.1, 0.0],
        "gradient": True,
    },
    "POST /v1/panel": {
        "as_of": "2026-01-02",
        "quotes": {
            "expiration": ["2026-04-02"] * 10,
            "type": ["C", "P"] * 5,
            "strike": [90, 90, 95, 95, 100, 100, 105, 105, 110, 110],
            "bid": [11.2, 0.75, 7.25, 1.7, 4.05, 3.4, 1.95, 6.2, 0.8, 9.95],
            "ask": [11.4, 0.85, 7.45, 1.8, 4.15, 3.5, 2.05, 6.4, 0.9, 10.15],
        },
    },
    "POST /v1/leverage": {"surface": _SMILES, "maturity": 0.25, "kappa": 1.5, "n_paths": 4096, "seed": 1},
    "POST /v1/one-touch": {
        "surface": _SMILES,
        "kappa": 1.5,
        "n_paths": 4096,
        "barriers": [{"level": 1.13, "direction": "up", "expiry": 0.25, "paid": "at_expiry", "kind": "one_touch"}],
        "model": "slv",
        "greeks": True,
    },
    "POST /v2/models/{model}/infer": {
        "inputs": [
            {"name": name, "datatype": "FP64", "shape": [8], "data": values} for name, values in _TENSORS.items()
        ]
    },
    "POST /v2/repository/index": {"ready": True},
}
_VERSIONED = "/v2/models/{model}/versions/{version}"


def collected(http: "httpx.Client", paths: dict[str, Any]) -> dict[str, Any]:
    """`EXAMPLES` of `service.openapi`, of a service that wants no key; `paths` of its document."""
    version = http.get("/v2/models/heston").raise_for_status().json()["versions"][0]
    batch = "POST /v1/calibrate/batch"
    later = http.post(
        "/v1/calibrate/batch", json=REQUESTS[batch], headers={"prefer": "respond-async"}
    ).raise_for_status()
    filled = {"{model}": "heston", "{version}": version, "{id}": later.json()["id"]}

    def sent(name: str, body: Any, **headers: str) -> "httpx.Response":
        method, path = name.split()
        for parameter, value in filled.items():
            path = path.replace(parameter, value)
        return http.request(method, path, json=body, headers=headers)

    found: dict[str, Any] = {}
    # The end of a job last, which makes it unknown.
    operations = [f"{method.upper()} {path}" for path, methods in paths.items() for method in methods]
    for name in sorted(operations, key=lambda name: name.startswith("DELETE")):
        body = REQUESTS.get(name.replace(_VERSIONED, "/v2/models/{model}"))
        response = sent(name, body).raise_for_status()
        media_type = response.headers["content-type"].partition(";")[0]
        answer = {media_type: few(response.json()) if media_type == JSON else shortened(response.text)}
        found[name] = {"answer": answer} if body is None else {"request": {JSON: body}, "answer": answer}
    lines = "application/x-ndjson"
    found[batch]["answer"][lines] = sent(batch, REQUESTS[batch], accept=lines).text
    bad = {"quotes": {**_PANEL, "strike": [-90, *_PANEL["strike"][1:]]}}
    return {
        **dict(sorted(found.items())),
        "accepted": later.json(),
        "problem": {
            "v1": http.post("/v1/calibrate", json=bad).json(),
            "v2": http.post("/v2/models/sabr/infer", json=REQUESTS["POST /v2/models/{model}/infer"]).json(),
        },
    }


def few(document: Any, most: int = 10) -> Any:
    """The same with the first of each long list: the grid of a leverage has thousands of numbers."""
    if isinstance(document, dict):
        return {name: few(value) for name, value in document.items()}
    return [few(value) for value in document[:most]] if isinstance(document, list) else document


def shortened(text: str, most: int = 600) -> str:
    """Its first lines: metrics have hundreds."""
    return text if len(text) <= most else text[:most].rpartition("\n")[0] + "\n"


def chain() -> str:
    """A chain as an exchange shows it, of a Heston model's prices: calls and puts with spreads, no bid far out."""
    spot, rate, dividends = 5000.0, 0.04, 0.015
    model = {"kappa": 2.0, "theta": 0.045, "xi": 0.9, "rho": -0.7, "v0": 0.028}
    noise = np.random.default_rng(SEED)
    lines = ["quote_date,expiration,type,strike,bid,ask,spot"]
    quoted = date(2026, 1, 2)
    for expiration in ("2026-02-20", "2026-03-20", "2026-06-19", "2026-12-18", "2027-12-17"):
        years = (date.fromisoformat(expiration) - quoted).days / 365
        forward, discount = spot * math.exp((rate - dividends) * years), math.exp(-rate * years)
        reach = 0.5 * math.sqrt(years)
        strikes = np.unique(25.0 * np.round(forward * np.exp(np.linspace(-1.5 * reach, reach, 25)) / 25.0))
        prices = price("heston", model, expiry=np.full(strikes.size, years), log_moneyness=np.log(strikes / forward))
        for side, column in (("C", prices.call), ("P", prices.put)):
            for strike, unit in zip(strikes, column, strict=True):
                middle = unit * forward * discount
                half = max(0.05, 0.004 * middle) * noise.uniform(0.8, 1.2)
                bid, ask = max(0.0, math.floor(20.0 * (middle - half)) / 20.0), math.ceil(20.0 * (middle + half)) / 20.0
                lines.append(f"{quoted},{expiration},{side},{strike:g},{bid:.2f},{ask:.2f},{spot:g}")
    return "\n".join(lines) + "\n"


def main(url: str) -> None:
    if url == "chain":
        print(chain(), end="")
        return
    # Only whoever makes them anew needs it.
    import httpx

    with httpx.Client(base_url=url, timeout=60.0) as http:
        examples = collected(http, http.get("/openapi.json").raise_for_status().json()["paths"])
    json.dump(examples, sys.stdout, ensure_ascii=False, separators=(",", ":"))
    print()


if __name__ == "__main__":
    main(*sys.argv[1:])
