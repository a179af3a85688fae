"""The socket that connections come in by, and how it stops taking them without losing one.

Closing a socket resets the connections that wait in it, though their requests may have been sent. So the kernel is told
to drop what asks for a connection, a moment before: those made already are still accepted, and who asks in vain asks
again after a second, when the socket is closed and refuses it: then nothing was sent. Only Linux can.
"""

import ctypes
import socket
import struct
import sys

_SO_ATTACH_FILTER = 26
_BPF_RETURN = 6
_LEAST_HOPS = {socket.AF_INET: (socket.IPPROTO_IP, 21), socket.AF_INET6: (socket.IPPROTO_IPV6, 73)}
"""IP_MINTTL and IPV6_MINHOPCOUNT: packets with fewer hops left are dropped."""
_ALL_HOPS = 255
"""No system sends with so many but a router."""


def bound(host: str, port: int) -> socket.socket:
    """A socket with that address, not yet listening.

    raises  OSError if it is taken
    """
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError:
        listener.close()
        raise
    return listener


def refuse_connections(listener: socket.socket) -> None:
    """Have the kernel drop what asks for a connection; those made already can still be accepted."""
    if sys.platform != "linux":
        return
    # A filter of one instruction that lets no byte of a packet pass.
    instruction = ctypes.create_string_buffer(struct.pack("HBBI", _BPF_RETURN, 0, 0, 0))
    program = struct.pack("HP", 1, ctypes.addressof(instruction))
    try:
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
    except PermissionError:
        # Some kernels keep filters for root.
        require_hops(listener)


def require_hops(listener: socket.socket) -> None:
    """The same by another way: what comes from anywhere has too few hops left."""
    level, option = _LEAST_HOPS[listener.family]
    listener.setsockopt(level, option, _ALL_HOPS)


def hear(connection: socket.socket) -> None:
    """Undo on a connection what `require_hops` may have done to the socket that it came by, while it was being made."""
    if sys.platform == "linux" and connection.family in _LEAST_HOPS:
        level, option = _LEAST_HOPS[connection.family]
        connection.setsockopt(level, option, 0)
