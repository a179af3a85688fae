"""Bodies too large to be taken at a stretch."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import BinaryIO

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from service.body import Turns, body_file_of, mapped, memory_file
from service.endpoints.batch import _in_turn


def request_of(*messages: Message) -> Request:
    waiting = iter(messages)

    async def receive() -> Message:
        return next(waiting)

    return Request({"type": "http", "method": "POST", "headers": []}, receive)


def piece(content: bytes, more: bool = True) -> Message:
    return {"type": "http.request", "body": content, "more_body": more}


@pytest.mark.parametrize(("size", "times"), [(100, 0), (249_999, 0), (250_000, 1), (60_000, 4)])
def test_others_go_first_after_each_quarter_of_a_megabyte(size: int, times: int) -> None:
    n = 1 if times < 2 else 20
    pieces = [bytes([i]) * size for i in range(n)]
    given_way = 0

    async def give_way() -> None:
        nonlocal given_way
        given_way += 1

    async def test() -> bytes:
        with await body_file_of(request_of(*map(piece, pieces), piece(b"", more=False)), Turns(give_way)) as file:
            return bytes(mapped(file))

    assert asyncio.run(test()) == b"".join(pieces)
    assert given_way == times


@pytest.mark.parametrize("waits", [False, True])
def test_the_body_of_a_client_that_hangs_up_is_given_up(waits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    files: list[BinaryIO] = []

    def kept() -> BinaryIO:
        files.append(memory_file())
        return files[-1]

    async def give_way() -> None:
        if waits:
            await asyncio.sleep(3600.0)

    async def test() -> None:
        request = request_of(piece(bytes(300_000)), {"type": "http.disconnect"})
        reading = asyncio.create_task(body_file_of(request, Turns(give_way)))
        await asyncio.sleep(0.05)
        # As the server does when it hears of it.
        reading.cancel()
        await reading

    monkeypatch.setattr("service.body.memory_file", kept)
    with pytest.raises(asyncio.CancelledError if waits else ClientDisconnect):
        asyncio.run(test())
    assert [file.closed for file in files] == [True]


def test_an_answer_goes_out_in_turn_too_and_ends_where_it_is_broken_off() -> None:
    given_way = 0
    ended = False

    async def give_way() -> None:
        nonlocal given_way
        given_way += 1

    async def pieces() -> AsyncGenerator[bytes, None]:
        nonlocal ended
        try:
            for _ in range(5):
                yield bytes(130_000)
        finally:
            ended = True

    async def sent(n: int) -> int:
        async with aclosing(_in_turn(pieces(), Turns(give_way))) as answer:
            lengths = []
            async for part in answer:
                lengths.append(len(part))
                if len(lengths) == n:
                    break
        return sum(lengths)

    assert asyncio.run(sent(10)) == 650_000
    assert given_way == 2
    ended = False
    assert asyncio.run(sent(1)) == 130_000
    assert ended
