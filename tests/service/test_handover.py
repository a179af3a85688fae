"""Batches handed to another process and their answers back: what is lost, refused, hung up on, and who hears of it."""

import asyncio
import os
import select
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from time import perf_counter
from typing import BinaryIO

import pytest

from calibrant.errors import InvalidInput, Problem
from service.batches import handover
from service.batches.answers import Asked, BatchAnswer, BatchRequest, PanelBatch, Piece
from service.batches.handover import BatchesElsewhere, Inbox
from service.body import mapped, memory_file
from service.errors import EngineFailed, InvalidRequest, NotReady, Overloaded, ServiceError, TooLarge

REQUEST = PanelBatch(Asked("a-request", 17.5, 50.0), "application/json", "application/x-ndjson")
BODY = bytes(range(256)) * 1000

Answering = Callable[[BatchRequest, BinaryIO], Awaitable[BatchAnswer]]


@asynccontextmanager
async def connected(answer: Answering) -> AsyncIterator[BatchesElsewhere]:
    inbox, outbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    before = len(os.listdir("/proc/self/fd"))
    at, elsewhere = Inbox(inbox, answer), BatchesElsewhere(outbox)
    at.open()
    try:
        yield elsewhere
        await until(lambda: len(os.listdir("/proc/self/fd")) == before)
    finally:
        await at.close()
        elsewhere.stop()
        inbox.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30.0):
        while not condition():
            await asyncio.sleep(0.01)


async def asked(elsewhere: BatchesElsewhere, body: bytes = BODY) -> BatchAnswer:
    with memory_file() as file:
        file.write(body)
        return await elsewhere.answer(REQUEST, file)


async def all_of_it(elsewhere: BatchesElsewhere) -> list[Piece]:
    return [piece async for piece in (await asked(elsewhere)).pieces]


async def pieces_of(*pieces: Piece) -> AsyncIterator[Piece]:
    for piece in pieces:
        yield piece


@pytest.mark.parametrize("body", [b"", b"x", BODY, BODY * 40])
def test_request_body_and_answer_arrive_whole(body: bytes) -> None:
    async def answer(request: BatchRequest, file: BinaryIO) -> BatchAnswer:
        assert request == REQUEST
        whole = mapped(file)
        return BatchAnswer({"content-length": str(len(whole))}, pieces_of(whole[:1000], b"", whole[1000:]))

    async def test() -> None:
        async with connected(answer) as elsewhere:
            head, pieces = await asked(elsewhere, body)
            assert head == {"content-length": str(len(body))}
            assert b"".join([piece async for piece in pieces]) == body

    asyncio.run(test())


PROBLEMS = [Problem(("panels", 3), "`panels[3]` must be good.")]


@pytest.mark.parametrize(
    ("raised", "told"),
    [
        (TooLarge("It is too large."), TooLarge("It is too large.")),
        (Overloaded("Full.", headers={"retry-after": "7"}), Overloaded("Full.", headers={"retry-after": "7"})),
        (InvalidRequest(PROBLEMS), InvalidRequest(PROBLEMS)),
        (InvalidInput(*PROBLEMS), InvalidRequest(PROBLEMS)),
        (ZeroDivisionError("secret"), EngineFailed("The service failed on this request; the cause is logged under")),
    ],
)
@pytest.mark.parametrize("begun", [False, True])
def test_a_refusal_is_the_same_here(raised: Exception, told: ServiceError, begun: bool) -> None:
    async def fail() -> AsyncIterator[Piece]:
        yield b"the first line"
        raise raised

    async def answer(*_: object) -> BatchAnswer:
        if not begun:
            raise raised
        return BatchAnswer({}, fail())

    async def test() -> None:
        async with connected(answer) as elsewhere:
            with pytest.raises(ServiceError) as caught:
                await all_of_it(elsewhere)
            assert type(caught.value) is type(told)
            assert caught.value.detail.startswith(told.detail)
            assert (caught.value.headers, caught.value.problems) == (told.headers, told.problems)

    asyncio.run(test())


@pytest.mark.parametrize("begun", [False, True])
def test_a_client_that_hangs_up_ends_its_batch(begun: bool) -> None:
    ended, working = asyncio.Event(), asyncio.Event()

    async def work() -> AsyncIterator[Piece]:
        try:
            yield b"the first line"
            working.set()
            await asyncio.sleep(3600.0)
        finally:
            ended.set()

    async def answer(*_: object) -> BatchAnswer:
        if begun:
            return BatchAnswer({}, work())
        return BatchAnswer({}, pieces_of(*[line async for line in work()]))

    async def test() -> None:
        async with connected(answer) as elsewhere:
            asking = asyncio.create_task(all_of_it(elsewhere))
            await working.wait()
            asking.cancel()
            async with asyncio.timeout(30.0):
                await ended.wait()
            assert (await asyncio.gather(asking, return_exceptions=True))[0].__class__ is asyncio.CancelledError

    asyncio.run(test())


def test_an_answer_that_nobody_reads_waits_in_the_process_that_makes_it() -> None:
    made = 0

    async def much() -> AsyncIterator[Piece]:
        nonlocal made
        for _ in range(1000):
            made += 1
            yield bytes(100_000)

    async def answer(*_: object) -> BatchAnswer:
        return BatchAnswer({}, much())

    async def test() -> None:
        async with connected(answer) as elsewhere:
            _, pieces = await asked(elsewhere)
            await asyncio.sleep(0.5)
            assert made < 50
            assert sum([len(piece) async for piece in pieces]) == 100_000_000

    asyncio.run(test())


@pytest.mark.parametrize("begun", [False, True])
def test_an_answer_that_ends_early_is_none(begun: bool) -> None:
    """The process ends: the kernel closes what it had open."""

    async def test() -> None:
        inbox, outbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        elsewhere = BatchesElsewhere(outbox)

        async def end() -> None:
            await asyncio.to_thread(select.select, [inbox], [], [])
            _, descriptors, *_ = socket.recv_fds(inbox, 1000, 2)
            connection = socket.socket(fileno=descriptors[0])
            os.close(descriptors[1])
            if begun:
                connection.sendall(handover._HEADER.pack(b"p", 1000) + b"half of it")
            connection.close()

        ending = asyncio.create_task(end())
        with pytest.raises(NotReady, match="has ended"):
            await asked(elsewhere)
        await ending
        elsewhere.stop()
        inbox.close()

    asyncio.run(test())


def test_a_batch_is_refused_where_nobody_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "TAKEN_WITHIN", 0.2)

    async def test() -> None:
        inbox, outbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        elsewhere = BatchesElsewhere(outbox)
        began = perf_counter()
        refusals = await asyncio.gather(*(asked(elsewhere) for _ in range(1000)), return_exceptions=True)
        assert perf_counter() - began < 10.0
        kinds = [type(refusal) for refusal in refusals]
        # The socket holds a few; of the others none waits.
        assert {NotReady, Overloaded} == set(kinds)
        assert kinds.count(NotReady) < 500

        # Who comes at last finds their connections closed, and the next batch gets its answer.
        monkeypatch.undo()

        async def answer(_: BatchRequest, body: BinaryIO) -> BatchAnswer:
            return BatchAnswer({}, pieces_of(mapped(body)[:3]))

        at = Inbox(inbox, answer)
        at.open()
        await until(lambda: not at._tasks)
        while True:
            try:
                _, pieces = await asked(elsewhere)
                break
            except Overloaded:
                await asyncio.sleep(0.01)
        assert [piece async for piece in pieces] == [BODY[:3]]
        await at.close()
        elsewhere.stop()
        inbox.close()

    asyncio.run(test())
