"""`python -m service.health`: end with 0 if the service on this machine is ready, else with 1 and say why not.

For a container's health check, where there is no curl. It runs every few seconds beside the service, so it loads
nothing that it does not need, and takes address and scheme from the service's settings.
"""

import contextlib
import os
import socket
import ssl
import sys

PORT = 8000
"""Port of the service, where its settings name no other."""
PATIENCE = 2.0
"""Seconds."""
_REQUEST = b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


def asked(port: int, tls: bool) -> tuple[int, str]:
    """Status and body of what `/health/ready` answers.

    raises  OSError if nothing does, ValueError if that is not HTTP
    """
    with contextlib.ExitStack() as opened:
        connection = opened.enter_context(socket.create_connection(("127.0.0.1", port), PATIENCE))
        if tls:
            # The certificate bears the name that clients know; no secret is sent.
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            connection = opened.enter_context(context.wrap_socket(connection))
        connection.sendall(_REQUEST)
        head, _, body = b"".join(iter(lambda: connection.recv(65536), b"")).partition(b"\r\n\r\n")
    _, status, *_ = head.split(b" ", 2)
    return int(status), body.decode()


def main() -> int:
    port = int(os.environ.get("CALIBRANT_PORT", PORT))
    try:
        status, body = asked(port, tls="CALIBRANT_TLS_CERTIFICATE" in os.environ)
    except (OSError, ValueError) as error:
        print(f"No answer on port {port}: {error}")
        return 1
    print(body)
    return 0 if status == 200 else 1


if __name__ == "__main__":
    sys.exit(main())
