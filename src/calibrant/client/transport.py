"""How httpx is set up, for both clients.

Its defaults fit a browser: five seconds for an idle connection, twenty kept of a hundred, so that a burst opens and
closes eighty. Its time limits are per operation, so the deadline of a call is the business of `patience`.
"""

import httpx

_IDLE_S = 30.0
"""Below the service's 75 s: the client should be the one to close an idle connection, or a request meets its end."""
_CONNECT_S = 5.0


def limits(connections: int) -> httpx.Limits:
    return httpx.Limits(max_connections=connections, max_keepalive_connections=connections, keepalive_expiry=_IDLE_S)


def timeouts(seconds: float) -> httpx.Timeout:
    return httpx.Timeout(seconds, connect=min(seconds, _CONNECT_S))
