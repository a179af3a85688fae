"""Bodies too large to be taken at a stretch."""

import asyncio

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from service.body import Turns, body_file_of, mapped


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


def test_a_client_that_hangs_up_while_others_go_first_is_noticed() -> None:
    async def give_way() -> None:
        await asyncio.sleep(0.0)

    with pytest.raises(ClientDisconnect):
        asyncio.run(body_file_of(request_of(piece(bytes(300_000)), {"type": "http.disconnect"}), Turns(give_way)))
