"""Whose address counts behind a proxy."""

from typing import Any

import httpx
import pytest

from tests.service.process import Server


@pytest.mark.parametrize(("trusted", "second"), [("127.0.0.1", 422), (None, 429)])
def test_a_client_is_named_by_a_trusted_proxy_and_by_nobody_else(trusted: str | None, second: int) -> None:
    settings: dict[str, Any] = {} if trusted is None else {"trusted_proxies": trusted}
    server = Server(rate_limit=0.001, rate_burst=1, **settings)
    try:
        server.wait_ready()
        statuses = [
            httpx.post(f"{server.url}/v1/calibrate", json={}, headers={"X-Forwarded-For": address}).status_code
            for address in ("192.0.2.1", "192.0.2.2")
        ]
    finally:
        server.stop()
    assert statuses == [422, second]
