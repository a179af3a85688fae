"""The service as it is run: `python -m service` with its workers, spoken to over sockets."""

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx

from tests.shared import ROOT


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Server:
    """A running service; `settings` as the environment names them, without the prefix."""

    def __init__(self, module: str = "service", log: Path | None = None, **settings: object) -> None:
        self.port = free_port()
        given = {f"CALIBRANT_{name.upper()}": str(value) for name, value in settings.items()}
        environment = {**os.environ, "CALIBRANT_PORT": str(self.port), "CALIBRANT_DRAIN_S": "0.2", **given}
        with open(log or os.devnull, "w") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", module], cwd=ROOT, env=environment, stderr=None if log is None else file
            )
        self.url = f"http://127.0.0.1:{self.port}"
        self.trusted: ssl.SSLContext | None = None

    def secure(self, trusted: ssl.SSLContext) -> None:
        """Speak to it by TLS from now on."""
        self.url, self.trusted = f"https://127.0.0.1:{self.port}", trusted

    def wait_ready(self, workers: int = 1, seconds: float = 300.0) -> None:
        """Until so many workers serve, and the job process; the port opens with the first."""
        self.until(lambda: self.metric("calibrant_ready") == workers, seconds)
        self.until(lambda: self.metric("calibrant_job_process_ready") == 1, seconds)

    def until(self, condition: Any, seconds: float = 30.0) -> None:
        end = time.monotonic() + seconds
        while True:
            assert self.process.poll() is None, "the server has ended"
            try:
                if condition():
                    return
            except httpx.TransportError:
                pass
            assert time.monotonic() < end, "the server did not get there in time"
            time.sleep(0.05)

    def metric(self, series: str) -> float:
        """The value of a series; 0 if there is none yet."""
        text = httpx.get(f"{self.url}/metrics", timeout=5.0, verify=self.trusted or True).text
        found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    def children(self) -> list[int]:
        """Process ids."""
        return list(map(int, Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()))

    def workers(self) -> list[int]:
        return [child for child in self.children() if "jobs" not in module_of(child)]

    def job_processes(self) -> list[int]:
        return [child for child in self.children() if "jobs" in module_of(child)]

    def resident_mib(self) -> float:
        """Of all processes but the supervisor."""
        pages = sum(int(Path(f"/proc/{child}/statm").read_text().split()[1]) for child in self.children())
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout=5.0)

    def exchange(self, sent: bytes) -> bytes:
        """Raw bytes out, whatever comes back until the server closes or falls silent."""
        with self.connect() as connection:
            connection.sendall(sent)
            return received(connection)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(30)

    def kill(self) -> None:
        """The workers end with their supervisor."""
        self.process.kill()
        self.process.wait()


def module_of(pid: int) -> str:
    """That a process of the service runs; none of one that has just ended."""
    try:
        _, _, module, *_ = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
    except (OSError, ValueError):
        return ""
    return module


def received(connection: socket.socket, seconds: float = 2.0) -> bytes:
    """What comes until the other end closes or falls silent for so long."""
    connection.settimeout(seconds)
    parts = []
    try:
        while chunk := connection.recv(65536):
            parts.append(chunk)
    except (TimeoutError, ConnectionResetError):
        pass
    return b"".join(parts)


def http_post(body: dict[str, Any], path: str = "/v1/calibrate") -> bytes:
    """A request as its bytes."""
    content = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content
