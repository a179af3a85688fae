"""The service over the wire: what whole requests, and bytes that are none, get."""

import json
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.service.process import Server, http_post


def test_the_dax_panel_is_answered_over_the_wire(server: Server, dax: dict[str, Any]) -> None:
    with httpx.Client(base_url=server.url) as http:
        for _ in range(3):
            response = http.post("/v1/calibrate", json=dax)
            assert response.status_code == 200
            assert response.json()["status"] == "converged"
        assert http.get("/docs").status_code == 200


def test_many_clients_at_once_without_deadlines_are_all_answered(server: Server, dax: dict[str, Any]) -> None:
    columns = {name: column for name, column in dax["quotes"].items() if isinstance(column, list)}
    smiles = []
    for expiry in sorted(set(columns["expiry"])):
        rows = [i for i, t in enumerate(columns["expiry"]) if t == expiry]
        smiles.append({"quotes": {name: [column[i] for i in rows] for name, column in columns.items()}})
    bodies = [body for smile in smiles for body in (dax, smile)]
    numbers = iter(range(300))

    def send() -> list[int]:
        with httpx.Client(base_url=server.url, timeout=60.0) as http:
            return [http.post("/v1/calibrate", json=bodies[i % len(bodies)]).status_code for i in numbers]

    with ThreadPoolExecutor(32) as pool:
        statuses = [status for sent in [pool.submit(send) for _ in range(32)] for status in sent.result()]
    assert statuses == [200] * 300
    assert server.metric("calibrant_workers_ended_total") == 0


def test_prices_of_thousands_of_expiries_hold_nobody_up_and_end_with_their_client(
    server: Server, dax: dict[str, Any]
) -> None:
    parameters = {"kappa": 2.0, "theta": 0.05, "xi": 0.5, "rho": -0.7, "v0": 0.05}

    def prices(n: int) -> dict[str, Any]:
        return {"parameters": parameters, "expiry": [1e-3 * (i + 1) for i in range(n)], "log_moneyness": [0.0] * n}

    large = {"quotes": {name: column * 40 for name, column in dax["quotes"].items()}}
    held, gone = 'calibrant_lane_held_seconds{lane="background"}', "calibrant_client_disconnects_total"
    before = server.metric(gone)
    with server.connect() as asking:
        # Seconds of work.
        asking.sendall(http_post(prices(12_000), "/v1/price"))
        server.until(lambda: server.metric(held) > 0.0)
        # The first two on the lane where it is priced.
        for _ in range(3):
            for path, asked in (("/v1/price", prices(40)), ("/v1/calibrate", large), ("/v1/calibrate", dax)):
                answer = httpx.post(f"{server.url}{path}", json=asked, headers={"X-Request-Deadline-Ms": "5000"})
                assert answer.status_code == 200
                assert answer.json().get("status", "converged") == "converged"
        # That one is not answered yet, and goes before it is.
        asking.setblocking(False)
        with pytest.raises(BlockingIOError):
            asking.recv(1)
    server.until(lambda: server.metric(gone) == before + 1, 5.0)
    server.until(lambda: server.metric(held) == 0.0, 5.0)


def test_a_hundred_megabytes_are_refused_and_not_kept(server: Server) -> None:
    before = server.resident_mib()
    body = b" " * 100_000_000

    def chunks() -> Iterator[bytes]:
        for start in range(0, len(body), 1_000_000):
            yield body[start : start + 1_000_000]

    headers = {"content-type": "application/json"}
    for content in (body, chunks()):
        response = httpx.post(f"{server.url}/v1/calibrate", content=content, headers=headers, timeout=60.0)
        assert (response.status_code, response.json()["code"]) == (413, "too_large")
    assert server.resident_mib() - before < 30


def test_bytes_that_are_no_http_do_no_harm(server: Server, dax: dict[str, Any]) -> None:
    assert server.exchange(bytes(range(256))).startswith(b"HTTP/1.1 400")
    assert server.exchange(b"POST /v1/calibrate HTTP/1.1\r\nhost: x\r\ncontent-length: -5\r\n\r\n").startswith(
        b"HTTP/1.1 400"
    )
    assert httpx.post(f"{server.url}/v1/calibrate", json=dax).status_code == 200


def test_a_body_that_never_ends_does_not_stop_the_others(server: Server, dax: dict[str, Any]) -> None:
    body = json.dumps(dax).encode()
    head = "POST /v1/calibrate HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    with socket.create_connection(("127.0.0.1", server.port)) as stalled:
        stalled.sendall(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body[:-1])
        assert httpx.post(f"{server.url}/v1/calibrate", json=dax).status_code == 200
