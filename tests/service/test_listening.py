"""A socket that takes no more connections gives those it holds."""

import socket
import sys
from collections.abc import Callable

import pytest

from service.listening import bound, hear, refuse_connections, require_hops

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can")


@pytest.mark.parametrize("refuse", [refuse_connections, require_hops])
def test_a_socket_that_refuses_still_gives_those_it_holds(refuse: Callable[[socket.socket], None]) -> None:
    with bound("127.0.0.1", 0) as listener:
        listener.listen(8)
        with socket.create_connection(listener.getsockname()) as before:
            before.sendall(b"sent")
            refuse(listener)
            with socket.socket() as after:
                after.settimeout(0.2)
                with pytest.raises(TimeoutError):
                    after.connect(listener.getsockname())
            accepted, _ = listener.accept()
            with accepted:
                assert accepted.recv(4) == b"sent"
                before.sendall(b"more")
                accepted.settimeout(2.0)
                # What holds for the listening socket does not for a connection made before.
                assert accepted.recv(4) == b"more"


def test_a_connection_made_meanwhile_is_heard_again() -> None:
    with bound("127.0.0.1", 0) as listener:
        listener.listen(8)
        with socket.create_connection(listener.getsockname()) as client:
            accepted, _ = listener.accept()
            with accepted:
                # What it inherits if the last packet of its making comes after the refusal.
                require_hops(accepted)
                accepted.settimeout(0.2)
                client.sendall(b"sent")
                with pytest.raises(TimeoutError):
                    accepted.recv(4)
                hear(accepted)
                accepted.settimeout(5.0)
                assert accepted.recv(4) == b"sent"


def test_an_address_that_is_taken_is_refused() -> None:
    with bound("127.0.0.1", 0) as listener:
        listener.listen()
        with pytest.raises(OSError, match="in use"):
            bound("127.0.0.1", listener.getsockname()[1])
