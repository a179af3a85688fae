"""HTTPS."""

import shutil
import ssl
import subprocess
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.service.process import Server


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not there to make a certificate")
def test_with_a_certificate_https_is_spoken(tmp_path: Path, dax: dict[str, Any]) -> None:
    certificate, key = tmp_path / "certificate.pem", tmp_path / "key.pem"
    made = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost")
    names = ("-addext", "subjectAltName=IP:127.0.0.1")
    files = ("-keyout", str(key), "-out", str(certificate))
    subprocess.run(["openssl", *made, *names, *files], check=True, capture_output=True)
    server = Server(tls_certificate=certificate, tls_key=key, default_deadline_ms=60_000)
    server.url = server.url.replace("http://", "https://")
    trusted = ssl.create_default_context(cafile=str(certificate))
    try:
        with httpx.Client(base_url=server.url, verify=trusted) as http:
            server.until(lambda: http.get("/health/ready").status_code == 200, 300.0)
            assert http.post("/v1/calibrate", json=dax).json()["status"] == "converged"
        # Who speaks plainly gets nothing.
        assert b"200" not in server.exchange(b"GET /health/live HTTP/1.1\r\nhost: x\r\n\r\n")
    finally:
        server.kill()
