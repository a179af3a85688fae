"""What a process of the service has to say to its supervisor, and what that asks: one end of a channel."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable
from itertools import count

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
        self._channel = Channel(self._received, orphaned)
        self._questions = count(1)
        self._answers: dict[int, asyncio.Future[bytes]] = {}
        self._beats = count()
        self._tasks: set[asyncio.Future[None]] = set()

    async def open(self, descriptor: int) -> None:
        loop = asyncio.get_running_loop()
        await loop.create_connection(lambda: self._channel, sock=socket.socket(fileno=descriptor))
        self._beat()

    def say_started(self) -> None:
        """Say that start-up is over, and whether there is anything to serve: whether to accept is the supervisor's to
        say, since it knows of the others; so is whether what compiled the kernels gives way."""
        self._channel.send("started", self._core.loaded, self._core.n_compiled)

    def _beat(self) -> None:
        """Say that the event loop goes round, and the lanes; nothing else keeps the supervisor from replacing this."""
        scheduler = self._core.scheduler
        scheduler.watch()
        reason = scheduler.hanging()
        if reason is None:
            whole = next(self._beats) % _SNAPSHOT_EVERY == 0
            self._channel.send("beat", self._core.metrics.snapshot() if whole else None)
        else:
            log.error("%s", reason)
            self._channel.send("hanging", reason)
        asyncio.get_running_loop().call_later(BEAT, self._beat)

    def _received(self, message: Message) -> None:
        match message:
            case ("snapshot", question):
                self._channel.send("answer", question, self._core.observed())
            case ("reload", question):
                self._begin(self._reload(question))
            case ("accept", accepting) if self._accept is not None:
                self._begin(self._accept(accepting))
            case ("answer", question, text):
                waiting = self._answers.get(question)
                if waiting is not None and not waiting.done():
                    waiting.set_result(text)

    def _begin(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reload(self, question: int) -> None:
        self._channel.send("answer", question, await self._core.reload())
        if self._accept is not None:
            self.say_started()

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
