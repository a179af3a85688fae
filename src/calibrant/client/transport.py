"""How httpx is used, by both clients: its transports, without the client around them.

What `httpx.Client` adds (cookies, redirects, proxies and keys from the environment, merging of addresses) has no use
here, and without it a request takes 0.5 ms of this process and not 0.8 (httpx 0.28). And its defaults fit a browser:
five seconds for an idle connection, twenty kept of a hundred, so that a burst opens and closes eighty. Time limits are
per operation; the deadline of a call is the business of `patience`.
"""

from importlib.metadata import version
from typing import Final

import httpx

from .steps import Send

_COMMON: Final = {"user-agent": f"calibrant/{version('calibrant')}", "accept-encoding": "identity"}
_IDLE_S: Final = 30.0
"""Below the service's 75 s: the client should be the one to close an idle connection, or a request meets its end."""
_CONNECT_S: Final = 5.0


def limits(connections: int) -> httpx.Limits:
    return httpx.Limits(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=_IDLE_S)


class Requests:
    """Makes the requests to one service."""

    def __init__(self, base_url: str) -> None:
        """raises  ValueError if that is no address of HTTP"""
        try:
            base = httpx.URL(base_url)
        except httpx.InvalidURL as error:
            raise ValueError(f"`base_url` must be an address, but is {base_url!r}: {error}.") from None
        if base.scheme not in ("http", "https") or not base.host:
            raise ValueError(f"`base_url` must begin with http:// or https:// and a host, but is {base_url!r}.")
        self._base = base
        self._urls: dict[str, httpx.URL] = {}

    def made(self, step: Send) -> httpx.Request:
        url = self._urls.get(step.path)
        if url is None:
            url = self._base.copy_with(raw_path=self._base.raw_path.rstrip(b"/") + step.path.encode())
            # Not those of jobs, of which there is no end.
            if not step.path.startswith("/v1/jobs/"):
                self._urls[step.path] = url
        seconds = step.timeout
        timeout = {"connect": min(seconds, _CONNECT_S), "read": seconds, "write": seconds, "pool": seconds}
        return httpx.Request(
            step.method,
            url,
            headers={**_COMMON, **step.headers},
            content=step.content,
            extensions={"timeout": timeout},
        )
