"""Messages between the supervisor and a worker."""

import asyncio
import socket
from typing import Any

import pytest

from service.channel import Channel, Message


async def echoed(what: str) -> str:
    """What an end answers."""
    if what == "nothing":
        await asyncio.sleep(3600.0)
    return what


async def pair() -> tuple[Channel, Channel, list[Message], list[str]]:
    """Two ends; what the second receives, and who has lost the other."""
    ours, theirs = socket.socketpair()
    received: list[Message] = []
    lost: list[str] = []
    loop = asyncio.get_running_loop()
    _, first = await loop.create_connection(
        lambda: Channel(received.append, lambda: lost.append("first"), echoed), sock=ours
    )
    _, second = await loop.create_connection(
        lambda: Channel(received.append, lambda: lost.append("second"), echoed), sock=theirs
    )
    return first, second, received, lost


async def until(condition: Any) -> None:
    async with asyncio.timeout(5.0):
        while not condition():
            await asyncio.sleep(0.001)


def test_messages_arrive_whole_and_in_order() -> None:
    async def exchange() -> None:
        first, second, received, _ = await pair()
        sent: list[Message] = [("beat", None), ("noise", 7, b"x" * 3_000_000), ("beat", {"c": {(): [1.0]}})]
        for message in sent:
            first.tell(*message)
        await until(lambda: len(received) == 3)
        assert received == sent
        first.close()
        second.close()

    asyncio.run(exchange())


def test_a_message_in_pieces_is_one_message() -> None:
    received: list[Message] = []
    pieces: list[bytes] = []

    class Wire(asyncio.Transport):
        def write(self, data: Any) -> None:
            pieces.append(bytes(data))

        def get_write_buffer_size(self) -> int:
            return 0

    end = Channel(received.append, lambda: None, echoed)
    end.connection_made(Wire())
    end.tell("a", 1)
    end.tell("b", [2.0])
    for i in range(len(whole := b"".join(pieces))):
        end.data_received(whole[i : i + 1])
    assert received == [("a", 1), ("b", [2.0])]


def test_an_end_that_does_not_read_is_sent_no_more_than_fits() -> None:
    async def flood() -> None:
        first, second, received, _ = await pair()
        assert second._transport is not None
        second._transport.pause_reading()
        await asyncio.sleep(0)
        for _ in range(100):
            first.tell("noise", b"x" * 1_000_000)
        assert first._transport is not None
        assert first._transport.get_write_buffer_size() < 8_000_000
        assert received == []
        first.close()
        second.close()

    asyncio.run(flood())


def test_either_end_gets_its_own_answers_and_waits_for_none_that_does_not_come() -> None:
    async def exchange() -> None:
        first, second, received, _ = await pair()
        asked = [end.ask(f"{end}{i}", 5.0) for i in range(20) for end in (first, second)]
        assert await asyncio.gather(*asked) == [f"{end}{i}" for i in range(20) for end in (first, second)]
        with pytest.raises(TimeoutError):
            await first.ask("nothing", 0.05)
        assert received == []
        first.close()
        second.close()

    asyncio.run(exchange())


def test_the_loss_of_the_other_end_is_told() -> None:
    async def lose() -> None:
        first, second, _, lost = await pair()
        second.close()
        await until(lambda: "first" in lost)
        first.tell("beat", None)

    asyncio.run(lose())
