"""What a process of the service has to say to its supervisor, and what that asks: one end of a channel."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

from .channel import Channel, Message
from .core import Core

log = logging.getLogger("calibrant.service")

BEAT = 0.5
"""Seconds between two heartbeats."""
_SNAPSHOT_EVERY = 4
"""Heartbeats: what a process that is killed has counted since is lost."""
_SCRAPE = 2.0


class Link:
    def __init__(
        self, core: Core, orphaned: Callable[[], None], accept: Callable[[bool], Awaitable[None]] | None = None
    ) -> None:
        """
        orphaned  is called when the supervisor has gone
        accept    takes connections or leaves them to others, as the supervisor says; None where none are taken
        """
        self._core = core
        self._accept = accept
        self._channel = Channel(self._told, orphaned, self._asked)
        self._beats = count()
        self._accepting: set[asyncio.Future[None]] = set()

    async def open(self, descriptor: int) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self._channel, sock=socket.socket(fileno=descriptor))
        self._beat()

    def say_started(self) -> None:
        """Say that start-up is over, and whether there is anything to serve: whether to accept is the supervisor's to
        say, since it knows of the others; so is whether what compiled the kernels gives way."""
        self._channel.tell("started", self._core.loaded, self._core.n_compiled)

    async def scrape(self) -> bytes:
        """The metrics of all processes.

        raises  TimeoutError if the supervisor does not answer
        """
        exposition: bytes = await self._channel.ask("scrape", _SCRAPE)
        return exposition

    def _beat(self) -> None:
        """Say that the event loop goes round, and the lanes; nothing else keeps the supervisor from replacing this."""
        scheduler = self._core.scheduler
        scheduler.watch()
        reason = scheduler.hanging()
        if reason is None:
            whole = next(self._beats) % _SNAPSHOT_EVERY == 0
            self._channel.tell("beat", self._core.metrics.snapshot() if whole else None)
        else:
            log.error("%s", reason)
            self._channel.tell("hanging", reason)
        asyncio.get_running_loop().call_later(BEAT, self._beat)

    def _told(self, message: Message) -> None:
        if self._accept is not None:
            (_, accepting) = message
            task = asyncio.ensure_future(self._accept(accepting))
            self._accepting.add(task)
            task.add_done_callback(self._accepting.discard)

    async def _asked(self, what: str) -> Any:
        if what == "snapshot":
            return self._core.observed()
        said = await self._core.reload()
        if self._accept is not None:
            self.say_started()
        return said
