"""Ask a running service to calibrate a panel: `python examples/client.py`, from the repository root."""

import json
from pathlib import Path

from calibrant.client import CalibrantError, Client

panel = json.loads(Path("examples/dax_20020705.json").read_text())

with Client("http://127.0.0.1:8000", deadline_ms=2000) as client:
    try:
        answer = client.calibrate(panel["quotes"], id=panel["id"])
    except CalibrantError as error:
        raise SystemExit(f"{error.code}: {error}") from error
    for name, value in answer.parameters.items():
        print(f"{name:6} {value:9.5f}")
    print(f"{answer.status}, {answer.fit.rmse_bp:.1f} bp, free of arbitrage: {answer.arbitrage.quotes.free}")
