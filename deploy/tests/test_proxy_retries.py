"""The proxy as it is configured, by haproxy on this machine, before replicas that do what dying ones do."""

import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import monotonic, sleep

import httpx

from tests.shared import ROOT

CONFIGURATION = ROOT / "deploy" / "proxy" / "haproxy.cfg"


class Replica(ThreadingHTTPServer):
    """Ready; and either answers what it is asked, or closes the connection as if its worker had been killed."""

    def __init__(self, dies: bool) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.dies = dies
        self.asked = 0

    @contextmanager
    def running(self) -> Iterator["Replica"]:
        thread = Thread(target=self.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield self
        finally:
            self.shutdown()
            thread.join()
            self.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Replica

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.server.asked += 1
        if self.server.dies:
            self.close_connection = True
        else:
            self._answer()

    def _answer(self) -> None:
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def proxied(replicas: list[Replica], folder: Path) -> Iterator[str]:
    """The address of the proxy before them: its own configuration, but for TLS and Docker's names."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    servers = "\n".join(f"    server replica{i} 127.0.0.1:{replica.server_port}" for i, replica in enumerate(replicas))
    text = CONFIGURATION.read_text()
    for pattern, given in (
        (r"^resolvers docker\n(?:^    .*\n)+", ""),
        (r"^    bind :8443 .*$", f"    bind 127.0.0.1:{port}"),
        (r"^    server-template .*$", servers),
        (r"^frontend inside\n(?:^    .*\n)+", ""),
    ):
        text, found = re.subn(pattern, given, text, flags=re.MULTILINE)
        assert found == 1, pattern
    file = folder / "haproxy.cfg"
    file.write_text(text)
    process = subprocess.Popen(["haproxy", "-db", "-f", str(file)], stdout=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        end = monotonic() + 30.0
        while not _ready(url):
            assert process.poll() is None
            assert monotonic() < end, "the proxy did not get ready"
            sleep(0.1)
        yield url
    finally:
        process.terminate()
        process.wait()


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", timeout=5.0).status_code == 200
    except httpx.TransportError:
        return False


def test_what_ends_every_replica_that_has_it_reaches_two_of_them(tmp_path: Path) -> None:
    with ExitStack() as stack:
        replicas = [stack.enter_context(Replica(dies=True).running()) for _ in range(6)]
        url = stack.enter_context(proxied(replicas, tmp_path))
        answer = httpx.post(f"{url}/v1/calibrate", content=b"{}", timeout=30.0)
        assert (answer.status_code, answer.json()["code"], answer.headers["retry-after"]) == (503, "not_ready", "1")
        assert sorted(replica.asked for replica in replicas) == [0, 0, 0, 0, 1, 1]


def test_what_one_replica_leaves_unanswered_another_answers(tmp_path: Path) -> None:
    with ExitStack() as stack:
        dying, sound = (stack.enter_context(Replica(dies=dies).running()) for dies in (True, False))
        url = stack.enter_context(proxied([dying, sound], tmp_path))
        with httpx.Client(base_url=url, timeout=30.0) as client:
            assert [client.post("/v1/calibrate", content=b"{}").status_code for _ in range(8)] == [200] * 8
        assert dying.asked > 0
        assert sound.asked == 8
