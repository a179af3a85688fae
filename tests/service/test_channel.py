"""Messages between the supervisor and a worker."""

import asyncio
import socket
from typing import Any

from service.channel import Channel, Message


async def pair() -> tuple[Channel, Channel, list[Message], list[str]]:
    """Two ends; what the second receives, and who has lost the other."""
    ours, theirs = socket.socketpair()
    received: list[Message] = []
    lost: list[str] = []
    loop = asyncio.get_running_loop()
    _, first = await loop.create_connection(lambda: Channel(received.append, lambda: lost.append("first")), sock=ours)
    _, second = await loop.create_connection(
        lambda: Channel(received.append, lambda: lost.append("second")), sock=theirs
    )
    return first, second, received, lost


async def until(condition: Any) -> None:
    async with asyncio.timeout(5.0):
        while not condition():
            await asyncio.sleep(0.001)


def test_messages_arrive_whole_and_in_order() -> None:
    async def exchange() -> None:
        first, second, received, _ = await pair()
        sent: list[Message] = [("beat", None), ("answer", 7, b"x" * 3_000_000), ("beat", {"c": {(): [1.0]}})]
        for message in sent:
            first.send(*message)
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

    end = Channel(received.append, lambda: None)
    end.connection_made(Wire())
    end.send("a", 1)
    end.send("b", [2.0])
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
            first.send("answer", b"x" * 1_000_000)
        assert first._transport is not None
        assert first._transport.get_write_buffer_size() < 8_000_000
        assert received == []
        first.close()
        second.close()

    asyncio.run(flood())


def test_the_loss_of_the_other_end_is_told() -> None:
    async def lose() -> None:
        first, second, _, lost = await pair()
        second.close()
        await until(lambda: "first" in lost)
        first.send("beat", None)

    asyncio.run(lose())
