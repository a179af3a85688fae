"""Ask a running service to calibrate a panel: `python examples/client.py [URL]`."""

import json
import sys
from pathlib import Path

from calibrant.client import CalibrantError, Client

panel = json.loads(Path(__file__).with_name("dax_20020705.json").read_text())
url = sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000"

with Client(url, deadline_ms=2000) as client:
    try:
        answer = client.calibrate(panel["quotes"], id=panel["id"])
    except CalibrantError as error:
        sys.exit(f"{error.code}: {error}")
    for name, value in answer.parameters.items():
        print(f"{name:6} {value:9.5f}")
    print(f"{answer.status}, {answer.fit.rmse_bp:.1f} bp, free of arbitrage: {answer.arbitrage.quotes.free}")
