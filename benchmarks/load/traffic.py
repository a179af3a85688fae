"""Traffic of every kind that the metrics tell apart: good and bad requests, refusals, batches, panels out of domain."""

import json
import os
import random
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import cycle
from time import monotonic, sleep
from typing import Any

import httpx
import numpy as np

EXPIRIES = (0.1, 0.25, 0.5, 1.0, 1.5, 2.0)
MONEYNESS = (-0.2, -0.15, -0.1, -0.05, 0.0, 0.05, 0.1, 0.15)
RATE_LIMIT, RATE_BURST = 120, 30
"""Of each client."""
_CLIENTS = 2
_PAUSE = 0.01
"""Seconds between the answer to a client and its next request: a desk, not an attack."""

Body = Mapping[str, Any]


def settings(keys_file: Any) -> dict[str, Any]:
    """Of a service that can show everything: keys, a rate limit, audits, and little patience with slow clients."""
    return {
        "workers": 2,
        "api_keys": keys_file,
        "rate_limit": RATE_LIMIT,
        "rate_burst": RATE_BURST,
        "audit_share": 0.05,
        "header_timeout_s": 1.0,
        # The machine of the tests is shared: a thread may wait for longer than the 50 ms of a quoting path.
        "default_deadline_ms": 2000.0,
    }


class Traffic:
    """Sends requests to a server for so many seconds, and counts what came back."""

    def __init__(self, url: str, supervisor: int, keys: Mapping[str, str], odd_pause: float) -> None:
        """
        supervisor  process id of the service's parent, which is told to load the networks anew
        keys        by client: `desk` sends good requests, `greedy` more than it may, `odd` all the rest
        odd_pause   seconds between two requests of `odd`
        """
        self._url = url
        self._supervisor = supervisor
        self._keys = keys
        self._odd_pause = odd_pause
        self._until = 0.0
        self.answered = 0
        """Good calibrations answered 200, by the count of those that sent them."""

    def run(self, seconds: float) -> None:
        panels = self._panels()
        self._until = monotonic() + seconds
        work: list[Callable[[], int]] = [partial(self._desk, panels[i::_CLIENTS]) for i in range(_CLIENTS)]
        work += [self._greedy, partial(self._odd, panels)]
        with ThreadPoolExecutor(len(work)) as pool:
            self.answered = sum(future.result() for future in [pool.submit(one) for one in work])

    def _client(self, name: str) -> httpx.Client:
        headers = {"authorization": f"Bearer {self._keys[name]}"}
        return httpx.Client(base_url=self._url, headers=headers, timeout=30.0)

    def _panels(self) -> list[Body]:
        """Panels of the accurate pricer, which `/v1/price` is, with half a basis point of noise."""
        rng = np.random.default_rng(7)
        expiry, log_moneyness = (axis.ravel().tolist() for axis in np.meshgrid(EXPIRIES, MONEYNESS, indexing="ij"))
        panels: list[Body] = []
        with self._client("odd") as client:
            for _ in range(40):
                kappa, theta, xi, rho, v0 = rng.uniform([0.5, 0.02, 0.2, -0.9, 0.02], [5.0, 0.12, 0.8, -0.2, 0.12])
                body = {
                    "model": "heston",
                    "parameters": {"kappa": kappa, "theta": theta, "xi": xi, "rho": rho, "v0": v0},
                    "expiry": expiry,
                    "log_moneyness": log_moneyness,
                }
                answer = client.post("/v1/price", json=body)
                answer.raise_for_status()
                vols = [None if iv is None else iv + 0.5e-4 * rng.normal() for iv in answer.json()["implied_vol"]]
                panels.append({"quotes": {"expiry": expiry, "log_moneyness": log_moneyness, "iv": vols}})
        return panels

    def _desk(self, panels: list[Body]) -> int:
        """A client that calibrates one panel after the other; how many of them were answered."""
        answered = 0
        with self._client("desk") as client:
            for panel in cycle(panels):
                if monotonic() > self._until:
                    return answered
                answered += client.post("/v1/calibrate", json=panel).status_code == 200
                sleep(_PAUSE)
        raise AssertionError("no panels")

    def _greedy(self) -> int:
        """Now and then more requests at once than one client may make."""
        with self._client("greedy") as client:
            while monotonic() < self._until:
                for _ in range(3 * RATE_BURST):
                    client.post("/v1/price", content=b"{}", headers={"content-type": "application/json"})
                sleep(max(2.0, 40.0 * self._odd_pause))
        return 0

    def _odd(self, panels: list[Body]) -> int:
        """Everything else, in turn; how many good calibrations were among them."""
        answered = 0
        with self._client("odd") as client:
            for number, ask in enumerate(cycle(self._oddities(panels))):
                if monotonic() > self._until:
                    return answered
                response = ask(client)
                answered += (
                    response is not None and response.status_code == 200 and response.url.path == "/v1/calibrate"
                )
                if number % 40 == 39:
                    # The networks are loaded anew.
                    os.kill(self._supervisor, signal.SIGHUP)
                sleep(self._odd_pause)
        raise AssertionError("no requests")

    def _oddities(self, panels: list[Body]) -> list[Callable[[httpx.Client], httpx.Response | None]]:
        good = panels[0]["quotes"]
        calibrate = "/v1/calibrate"

        def post(path: str, body: Any, **headers: str) -> Callable[[httpx.Client], httpx.Response]:
            return lambda client: client.post(path, json=body, headers=headers)

        def with_vols(vols: Iterator[float]) -> Body:
            return {"quotes": {**good, "iv": list(vols)}}

        def hang_up(client: httpx.Client) -> None:
            self._hang_up({"panels": panels * 20})

        infer = {
            "inputs": [
                {"name": name, "shape": [len(good[name])], "datatype": "FP64", "data": good[name]}
                for name in ("log_moneyness", "expiry", "iv")
            ]
        }
        return [
            # Vols far above what the network was trained on.
            post(calibrate, with_vols(1.5 + 0.5 * m * m for m in good["log_moneyness"])),
            # Total variance that falls with time, a smile with a spike, and noise of two vols.
            post(calibrate, with_vols(0.3 / (1.0 + expiry) ** 2 for expiry in good["expiry"])),
            post(calibrate, with_vols(0.2 + (0.2 if i % 8 == 3 else 0.0) for i in range(len(good["expiry"])))),
            post(calibrate, with_vols(0.2 + random.Random(i).gauss(0.0, 0.02) for i in range(len(good["expiry"])))),
            post(calibrate, {**panels[1], "refine": "none"}),
            post(calibrate, {**panels[2], "refine": "lbfgs"}),
            post(calibrate, {**panels[3], "budget_ms": 1.0}),
            post(calibrate, with_vols(-0.2 for _ in good["expiry"])),
            lambda client: self._rush(client, panels[0]),
            post("/v1/calibrate/batch", {"panels": panels[:8]}),
            post("/v1/calibrate/batch", {"panels": [*panels, {"quotes": {"expiry": []}}]}),
            post("/v2/models/heston/infer", infer),
            lambda client: client.get("/nothing"),
            lambda client: client.get("/health/ready"),
            lambda client: client.post(calibrate, json=panels[0], headers={"authorization": "Bearer nobody"}),
            self._dawdle,
            hang_up,
        ]

    def _rush(self, client: httpx.Client, panel: Body) -> None:
        """Several at once that want their answer sooner than can be: some are let in and expire, some are refused."""
        headers = {"x-request-deadline-ms": "0.01", "authorization": client.headers["authorization"]}

        def ask(_: int) -> None:
            httpx.post(f"{self._url}/v1/calibrate", json=panel, headers=headers, timeout=30.0)

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(ask, range(16)))

    def _dawdle(self, client: httpx.Client) -> None:
        """Begin a request and never end it: the server closes the connection."""
        with self._connect() as connection, suppress(ConnectionResetError):
            connection.sendall(b"POST /v1/calibrate HTTP/1.1\r\n")
            connection.settimeout(30.0)
            connection.recv(1)

    def _hang_up(self, body: Body) -> None:
        """Ask for much and be gone."""
        content = json.dumps(body).encode()
        head = (
            "POST /v1/calibrate/batch HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            f"authorization: Bearer {self._keys['odd']}\r\ncontent-length: {len(content)}\r\n\r\n"
        )
        with self._connect() as connection:
            connection.sendall(head.encode() + content)
            sleep(0.05)
            connection.shutdown(socket.SHUT_RDWR)

    def _connect(self) -> socket.socket:
        url = httpx.URL(self._url)
        return socket.create_connection((url.host, url.port or 80), timeout=5.0)
