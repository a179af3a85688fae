"""One worker process: `python -m service.worker SOCKET BATCHES CHANNEL`, descriptors that its supervisor gives it."""

import asyncio
import signal
import socket
import sys

import uvicorn
import uvloop

from . import logs
from .app import Application
from .connections import Connection
from .link import Link
from .processes import allow_many_descriptors
from .server import Server
from .settings import Settings


async def serve(app: Application, listener: socket.socket, channel: int) -> None:
    service, settings = app.service, app.service.settings
    config = uvicorn.Config(
        app,
        http=Connection,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        # By default uvicorn believes whoever comes from this machine.
        proxy_headers=settings.trusted_proxies is not None,
        forwarded_allow_ips=settings.trusted_proxies or "",
        timeout_keep_alive=settings.keep_alive_s,
        backlog=2048,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
    )
    server = Server(config, app)
    # Without its supervisor a worker serves what it has and ends.
    link = Link(service, orphaned=server.exit_soon, accept=server.accept)
    await link.open(channel)
    service.scrape = link.scrape
    server.begun = link.say_started
    await server.serve([listener])


def main(arguments: list[str]) -> int:
    listener, batches, channel = (int(argument) for argument in arguments)
    settings = Settings()
    # Its supervisor's business.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    allow_many_descriptors()
    app = Application(settings, socket.socket(fileno=batches))
    writer = logs.set_up(settings.log_level, settings.log_format, app.service.metrics.log_drops.inc)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(app, socket.socket(fileno=listener), channel))
    finally:
        writer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
