"""The shipped proxy, run by Debian's haproxy: what it lets through, whatever way a path is written."""

import http.client
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from time import monotonic, sleep
from urllib.parse import quote, unquote

import pytest

from deploy.tests.watched import proxy_configuration, started
from tests.service.process import free_port

REACHED: list[str] = []
"""Paths that came through, as the service reads them."""


class Replica(BaseHTTPRequestHandler):
    """Answers everything, and keeps the path as the service would read it: decoded, once."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0].partition("#")[0])
        if path != "/health/ready":
            REACHED.append(path)
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port for clients."""
    folder = tmp_path_factory.mktemp("proxy")
    replica = ThreadingHTTPServer(("127.0.0.1", 0), Replica)
    serving = Thread(target=replica.serve_forever)
    serving.start()
    public = free_port()
    configuration = proxy_configuration(folder, replica.server_address[1], free_port(), public)
    try:
        with started("haproxy", "-f", str(configuration), log=folder / "haproxy.log"):
            end = monotonic() + 20.0
            while status(public, "/v1/models") != 200:
                assert monotonic() < end, (folder / "haproxy.log").read_text()
                sleep(0.1)
            yield public
    finally:
        replica.shutdown()
        replica.server_close()
        serving.join()


def status(port: int, target: str) -> int:
    """Of a request for a target, sent as it is written here; 0 while nobody answers."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5.0)
    try:
        connection.putrequest("GET", target, skip_host=True)
        connection.putheader("host", "x")
        connection.endheaders()
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def written(path: str) -> list[str]:
    """Ways to write a path that end up as it once they are decoded, or nearly so."""
    letters = [f"/{path[1 : i + 1]}%{ord(c):02x}{path[i + 2 :]}" for i, c in enumerate(path[1:])]
    whole = "/" + "".join(f"%{ord(c):02X}" for c in path[1:])
    around = [f"{path}/", f"/{path}", f"/.{path}", f"/%2e{path}", f"{path}#a", f"{path};a", f"http://x{path}"]
    inside = [f"/v1/..{path}", f"/v1/%2e%2e{path}", f"/v1%2f..{path}", f"/v2/..%2f{path[1:]}", "/v1/" + quote(path)]
    return [path, f"{path}?a=b", whole, quote(path, safe=""), *letters, *around, *inside]


def test_no_way_of_writing_it_leads_to_the_metrics(proxy: int) -> None:
    REACHED.clear()
    for target in written("/metrics"):
        assert status(proxy, target) in (200, 400, 404), target
    assert "/metrics" not in REACHED


def test_what_is_for_clients_comes_through(proxy: int) -> None:
    REACHED.clear()
    asked = ["/v1/calibrate", "/v1/models", "/v2", "/v2/health/live", "/health/live", "/docs", "/openapi.json"]
    asked += ["/", "/console", "/console/main.js"]
    assert [status(proxy, path) for path in asked] == [200] * len(asked)
    assert asked == REACHED
