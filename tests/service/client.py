"""A client of an application in the same process, without a socket."""

import asyncio
import json
from threading import Thread
from typing import Any

import httpx

from service.app import Application
from service.settings import Settings


class Client:
    """Sends requests to an application that runs on an event loop of its own, as under a server."""

    def __init__(self, settings: Settings) -> None:
        self.app = Application(settings)
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever)
        self._thread.start()
        self.run(self.app.service.start())
        transport = httpx.ASGITransport(self.app, raise_app_exceptions=False)
        self._http = httpx.AsyncClient(transport=transport, base_url="http://service")

    def close(self) -> None:
        self.run(self._http.aclose())
        self.run(self.app.service.stop())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def request(self, method: str, path: str, **kwargs: Any) -> httpx.Response:
        response: httpx.Response = self.run(self._http.request(method, path, timeout=120.0, **kwargs))
        return response

    def get(self, path: str) -> httpx.Response:
        return self.request("GET", path)

    def post(self, path: str, body: Any, **headers: str) -> httpx.Response:
        """`body` as JSON, or as it is if it is bytes; header names with underscores."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.request("POST", path, content=content, headers={"content-type": "application/json", **named})

    def calibrate(self, body: Any, **headers: str) -> dict[str, Any]:
        """The answer to a request that must be answered."""
        response = self.post("/v1/calibrate", body, **headers)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
