"""Batches handed to another process and their answers back: what is lost, refused, hung up on, and who hears of it."""

import asyncio
import gc
import os
import select
import socket
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager
from time import perf_counter
from typing import BinaryIO

import pytest

from calibrant.errors import InvalidInput, Problem
from service.batches.answers import BatchAnswer, BatchContext, PanelBatch, Piece
from service.body import mapped, memory_file
from service.errors import DeadlineExpired, EngineFailed, InvalidRequest, NotReady, Overloaded, ServiceError, TooLarge
from service.jobs import handover
from service.jobs.handover import Handover, Inbox
from service.jobs.requests import Answering, Request

REQUEST = PanelBatch(BatchContext("a-request", 17.5, None), "application/json", "application/x-ndjson")
BODY = bytes(range(256)) * 1000


@asynccontextmanager
async def connected(answer: Answering) -> AsyncIterator[Handover]:
    inbox, outbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    before = len(os.listdir("/proc/self/fd"))
    at, elsewhere = Inbox(inbox, answer), Handover(outbox)
    at.open()
    try:
        yield elsewhere
        await until(lambda: len(os.listdir("/proc/self/fd")) == before)
    finally:
        await at.close()
        elsewhere.close()
        inbox.close()


@pytest.fixture
def no_collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is kept by a circle stays."""
    # What is logged is kept by pytest.
    monkeypatch.setattr(handover.log, "disabled", True)
    gc.disable()
    yield
    gc.enable()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30.0):
        while not condition():
            await asyncio.sleep(0.01)


async def asked(elsewhere: Handover, body: bytes = BODY, request: Request = REQUEST) -> BatchAnswer:
    with memory_file() as file:
        file.write(body)
        return await elsewhere.answer(request, file)


async def all_of_it(elsewhere: Handover) -> list[Piece]:
    return [piece async for piece in (await asked(elsewhere)).pieces]


async def first_of_it(elsewhere: Handover) -> list[Piece]:
    """And then nothing more."""
    async with aclosing((await asked(elsewhere)).pieces) as pieces:
        await anext(pieces)
        await asyncio.sleep(3600.0)
        return []


async def pieces_of(*pieces: Piece) -> AsyncGenerator[Piece, None]:
    for piece in pieces:
        yield piece


@pytest.mark.parametrize("body", [b"", b"x", BODY, BODY * 40])
def test_request_body_and_answer_arrive_whole(body: bytes) -> None:
    async def answer(request: Request, file: BinaryIO) -> BatchAnswer:
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
        (lambda: TooLarge("It is too large."), TooLarge("It is too large.")),
        (lambda: Overloaded("Full.", headers={"retry-after": "7"}), Overloaded("Full.", headers={"retry-after": "7"})),
        (lambda: InvalidRequest(PROBLEMS), InvalidRequest(PROBLEMS)),
        (lambda: InvalidInput(*PROBLEMS), InvalidRequest(PROBLEMS)),
        (
            lambda: ZeroDivisionError("secret"),
            EngineFailed("The service failed on this request; the cause is logged under"),
        ),
    ],
)
@pytest.mark.parametrize("begun", [False, True])
@pytest.mark.usefixtures("no_collector")
def test_a_refusal_is_the_same_here_and_keeps_nothing(
    raised: Callable[[], Exception], told: ServiceError, begun: bool
) -> None:
    async def fail(body: memoryview) -> AsyncGenerator[Piece, None]:
        assert body == BODY
        yield b"the first line"
        raise raised()

    async def answer(_: Request, file: BinaryIO) -> BatchAnswer:
        body = mapped(file)
        if not begun:
            raise raised()
        return BatchAnswer({}, fail(body))

    async def test() -> None:
        async with connected(answer) as elsewhere:
            with pytest.raises(ServiceError) as caught:
                await all_of_it(elsewhere)
            assert type(caught.value) is type(told)
            assert caught.value.detail.startswith(told.detail)
            assert (caught.value.headers, caught.value.problems) == (told.headers, told.problems)

    asyncio.run(test())


@pytest.mark.parametrize("when", ["before it has begun", "at work", "while it is not read"])
@pytest.mark.usefixtures("no_collector")
def test_a_client_that_hangs_up_ends_its_batch(when: str) -> None:
    ended, working = asyncio.Event(), asyncio.Event()

    async def work(body: memoryview) -> AsyncGenerator[Piece, None]:
        try:
            yield b"the first line"
            working.set()
            while when == "while it is not read":
                yield body
            await asyncio.sleep(3600.0)
        finally:
            ended.set()

    async def answer(_: Request, file: BinaryIO) -> BatchAnswer:
        if when == "before it has begun":
            return BatchAnswer({}, pieces_of(*[line async for line in work(mapped(file))]))
        return BatchAnswer({}, work(mapped(file)))

    async def test() -> None:
        async with connected(answer) as elsewhere:
            reading = first_of_it if when == "while it is not read" else all_of_it
            asking = asyncio.create_task(reading(elsewhere))
            await working.wait()
            await asyncio.sleep(0.1)
            asking.cancel()
            async with asyncio.timeout(30.0):
                await ended.wait()
            assert (await asyncio.gather(asking, return_exceptions=True))[0].__class__ is asyncio.CancelledError

    asyncio.run(test())


def test_an_answer_that_nobody_reads_waits_in_the_process_that_makes_it() -> None:
    made = 0

    async def much() -> AsyncGenerator[Piece, None]:
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
        elsewhere = Handover(outbox)

        async def end() -> None:
            await asyncio.to_thread(select.select, [inbox], [], [])
            _, descriptors, *_ = socket.recv_fds(inbox, 1000, 2)
            connection = socket.socket(fileno=descriptors[0])
            os.close(descriptors[1])
            if begun:
                connection.sendall(handover._HEADER.pack(b"t", 0))
                connection.sendall(handover._HEADER.pack(b"p", 1000) + b"half of it")
            connection.close()

        ending = asyncio.create_task(end())
        with pytest.raises(NotReady, match="has ended" if begun else "does not answer"):
            await asked(elsewhere)
        await ending
        elsewhere.close()
        inbox.close()

    asyncio.run(test())


def test_who_gave_a_deadline_does_not_wait_for_a_job_process_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "LATE", 0.3)

    async def hang(*_: object) -> BatchAnswer:
        await asyncio.sleep(3600.0)
        raise AssertionError

    async def test() -> None:
        async with connected(hang) as elsewhere:
            began = perf_counter()
            request = REQUEST._replace(asked=BatchContext("a-request", began, 200.0))
            with pytest.raises(DeadlineExpired, match="job process"):
                await asked(elsewhere, request=request)
            assert 0.5 <= perf_counter() - began < 5.0

    async def untaken() -> None:
        inbox, outbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        elsewhere = Handover(outbox)
        began = perf_counter()
        with pytest.raises(DeadlineExpired, match="taken"):
            await asked(elsewhere, request=REQUEST._replace(asked=BatchContext("a-request", began, 50.0)))
        assert perf_counter() - began < 5.0
        inbox.close()
        with pytest.raises(NotReady):
            await asked(elsewhere)
        elsewhere.close()

    asyncio.run(test())
    asyncio.run(untaken())


def test_a_batch_is_refused_where_nobody_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "TAKEN_WITHIN", 0.2)

    async def test() -> None:
        inbox, outbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        elsewhere = Handover(outbox)
        began = perf_counter()
        refusals = await asyncio.gather(*(asked(elsewhere) for _ in range(1000)), return_exceptions=True)
        assert perf_counter() - began < 10.0
        kinds = [type(refusal) for refusal in refusals]
        # The socket holds some, a descriptor each; of the others none waits.
        assert {NotReady, Overloaded} == set(kinds)
        assert kinds.count(NotReady) < 500

        # Who comes at last finds their connections closed, and the next batch gets its answer.
        monkeypatch.undo()

        async def answer(_: Request, body: BinaryIO) -> BatchAnswer:
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
        elsewhere.close()
        inbox.close()

    asyncio.run(test())
