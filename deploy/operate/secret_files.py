"""The files of deploy/secrets, made where they are missing.

The folder is its owner's alone. The files in it are for everyone to read: Docker mounts each into a container that has
a user of its own, and without Swarm it changes neither owner nor mode.
"""

import json
import re
import secrets
import socket
import subprocess
import tempfile
from pathlib import Path

from .stack import Failure, Stack

_KEYS = {"client_key": ("calibrate", "batch", "price"), "metrics_key": ("metrics",)}
"""File of a key, and what the key is good for. The service has the hashes, in `api_keys`."""
_DAYS = 825


def make_missing(stack: Stack, image: str) -> list[str]:
    """Make the files that are missing; what was made, a line each.

    image   of the service
    raises  Failure if one cannot be made
    """
    folder = stack.folder / "secrets"
    folder.mkdir(mode=0o700, exist_ok=True)
    made = []
    if not (folder / "tls").exists():
        names = stack.setting("CALIBRANT_NAMES", f"localhost,127.0.0.1,{socket.gethostname()}").split(",")
        certificate, key = self_signed(names)
        _write(folder / "certificate.pem", certificate)
        _write(folder / "tls", certificate + key)
        made.append(f"secrets/tls: a self-signed certificate for {', '.join(names)}; trust secrets/certificate.pem")
    if not (folder / "api_keys").exists():
        keys: dict[str, object] = {}
        for name, scopes in _KEYS.items():
            key, entry = api_key(image, name, scopes)
            _write(folder / name, key)
            keys |= entry
        _write(folder / "api_keys", json.dumps(keys, indent=1) + "\n")
        made.append("secrets/client_key: a key for clients; secrets/metrics_key: Prometheus's")
    if not (folder / "grafana_password").exists():
        _write(folder / "grafana_password", secrets.token_urlsafe(18))
        made.append("secrets/grafana_password: of Grafana's user `admin`")
    return made


def _write(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o644)


def api_key(image: str, name: str, scopes: tuple[str, ...]) -> tuple[str, dict[str, object]]:
    """A key, and the entry that the service keeps of it, made by the service itself."""
    command = ["docker", "run", "--rm", "--entrypoint", "python", image, "-m", "service.auth", name, *scopes]
    done = subprocess.run(command, capture_output=True, text=True)
    key = re.search(r"(\S+)\s*$", done.stderr)
    if done.returncode or key is None:
        raise Failure(f"{image} cannot make a key: {done.stderr.strip()}")
    entry: dict[str, object] = json.loads(done.stdout)
    return key[1], entry


def self_signed(names: list[str]) -> tuple[str, str]:
    """A certificate for these host names and addresses, and its private key, both PEM."""
    subject = ",".join(f"IP:{name}" if re.fullmatch(r"[0-9.]+|.*:.*", name) else f"DNS:{name}" for name in names)
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = Path(folder, "certificate"), Path(folder, "key")
        command = [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", str(_DAYS), "-subj", f"/CN={names[0]}", "-addext", f"subjectAltName={subject}"),
            *("-out", str(certificate), "-keyout", str(key)),
        ]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except OSError as error:
            raise Failure(f"`openssl` cannot be run ({error}): put certificate and key into secrets/tls.") from None
        if done.returncode:
            raise Failure(f"`openssl` makes no certificate: {done.stderr.strip()}")
        return certificate.read_text(), key.read_text()
