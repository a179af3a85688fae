"""An open-loop load generator for a service on this machine.

    python -m benchmarks.load --port 8000 --rate 500 --seconds 10 --deadline-ms 50

It says how many of the requests it could send in time; below 95 % the run says nothing of the server and is void.
"""

import argparse
import json
import sys
from pathlib import Path

from .plan import Plan, Stream, post
from .running import LEAST_SENT, run, summary


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--rate", type=float, required=True, help="requests a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--deadline-ms", type=float, help="sent with each request, and what `in time` means")
    parser.add_argument("--connections", type=int, default=256)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--cores", type=int, nargs="*", default=(), help="cores for the generator")
    parser.add_argument("--arrivals", choices=("poisson", "even"), default="poisson")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--path", default="/v1/calibrate")
    parser.add_argument(
        "--body", type=Path, nargs="+", default=[Path("examples/dax_20020705.json")], help="JSON bodies, sent in turn"
    )
    given = parser.parse_args()
    headers = {} if given.deadline_ms is None else {"x_request_deadline_ms": f"{given.deadline_ms:g}"}
    stream = Stream(
        name="load",
        rate=given.rate,
        seconds=given.seconds,
        requests=tuple(post(given.path, path.read_bytes(), **headers) for path in given.body),
        connections=given.connections,
        arrivals=given.arrivals,
    )
    records = run(Plan(ports=(given.port,), streams=(stream,), seed=given.seed), given.cores, given.processes)
    found = summary(records, given.seconds, given.deadline_ms)
    print(json.dumps(found, indent=1))
    if found["void"]:
        print(f"VOID: less than {100 * LEAST_SENT:g} % of the requests could be sent in time.", file=sys.stderr)
    return 1 if found["void"] else 0


if __name__ == "__main__":
    sys.exit(main())
