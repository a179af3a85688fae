"""One worker process: `python -m service.worker SOCKET CHANNEL`, started by the supervisor with two descriptors."""

import asyncio
import logging
import resource
import signal
import socket
import sys
from itertools import count

import uvicorn
import uvloop

from . import logs
from .app import create_app
from .channel import Channel, Message
from .connections import Connection
from .server import Server
from .service import Service
from .settings import Settings

log = logging.getLogger("calibrant.service")

BEAT = 0.5
"""Seconds between two heartbeats."""
_SNAPSHOT_EVERY = 4
"""Heartbeats: what a worker that is killed has counted since is lost."""
_SCRAPE = 2.0


class Link:
    """The worker's end of the channel to its supervisor."""

    def __init__(self, service: Service, server: Server) -> None:
        self._service = service
        self._server = server
        self._channel = Channel(self._received, self._orphaned)
        self._questions = count(1)
        self._answers: dict[int, asyncio.Future[bytes]] = {}
        self._beats = count()
        self._tasks: set[asyncio.Task[None]] = set()

    async def open(self, descriptor: int) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self._channel, sock=socket.socket(fileno=descriptor))
        self._service.scrape = self.scrape
        self._beat()

    def _beat(self) -> None:
        """Say that the event loop goes round, and the lanes; nothing else keeps the supervisor from replacing this."""
        reason = self._service.scheduler.hanging()
        if reason is None:
            whole = next(self._beats) % _SNAPSHOT_EVERY == 0
            self._channel.send("beat", self._service.metrics.snapshot() if whole else None)
        else:
            log.error("%s", reason)
            self._channel.send("hanging", reason)
        asyncio.get_running_loop().call_later(BEAT, self._beat)

    def _received(self, message: Message) -> None:
        match message:
            case ("snapshot", question):
                self._channel.send("answer", question, self._service.observed())
            case ("reload", question):
                task = asyncio.get_running_loop().create_task(self._reload(question))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case ("answer", question, text):
                waiting = self._answers.get(question)
                if waiting is not None and not waiting.done():
                    waiting.set_result(text)

    async def _reload(self, question: int) -> None:
        self._channel.send("answer", question, await self._service.reload())

    async def scrape(self) -> bytes:
        """The metrics of all workers.

        raises  TimeoutError if the supervisor does not answer
        """
        question = next(self._questions)
        answer = self._answers[question] = asyncio.get_running_loop().create_future()
        self._channel.send("scrape", question)
        try:
            return await asyncio.wait_for(answer, _SCRAPE)
        finally:
            del self._answers[question]

    def _orphaned(self) -> None:
        """Without its supervisor a worker serves what it has and ends."""
        self._server.should_exit = True


async def serve(settings: Settings, service: Service, app: object, listener: socket.socket, channel: int) -> None:
    config = uvicorn.Config(
        app,  # type: ignore[arg-type]
        http=Connection,
        ws="none",
        lifespan="on",
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
    server = Server(config, service)
    link = Link(service, server)
    await link.open(channel)
    await server.serve([listener])


def main(arguments: list[str]) -> int:
    listener, channel = (int(argument) for argument in arguments)
    settings = Settings()
    # Its supervisor's business.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    # Every connection is a descriptor.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    app = create_app(settings)
    service: Service = app.state.service
    writer = logs.set_up(settings.log_level, settings.log_format, service.metrics.log_drops.inc)
    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(settings, service, app, socket.socket(fileno=listener), channel))
    finally:
        writer.close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
