"""The link of the demo: passes on, counts, brakes, and can be turned."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from sealift.sim.relay import Relay


@contextmanager
def answering(word: bytes) -> Iterator[int]:
    """A server that says one word to whoever writes a line."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                peer, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=talk, args=[peer], daemon=True).start()

    def talk(peer: socket.socket) -> None:
        with peer:
            while peer.recv(100):
                peer.sendall(word)

    threading.Thread(target=serve, daemon=True).start()
    try:
        yield int(listening.getsockname()[1])
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()


def connected(relay: Relay) -> socket.socket:
    return socket.create_connection(("127.0.0.1", relay.port), 10)


def ask(device: socket.socket, length: int) -> bytes:
    device.sendall(b"?\n")
    came = b""
    while len(came) < length and (piece := device.recv(length)):
        came += piece
    return came


def test_what_passes_to_the_device_is_counted() -> None:
    """Bytes arrive unchanged in both directions, and those that came are counted."""
    with answering(b"word") as port, Relay() as relay:
        relay.turn(port)
        with connected(relay) as device:
            assert ask(device, 4) + ask(device, 4) == b"wordword"
            until = time.monotonic() + 10
            while relay.received != 8 and time.monotonic() < until:
                time.sleep(0.01)
            assert relay.received == 8


def test_turning_ends_what_was_connected() -> None:
    """After the turn an old connection is gone, and a new one meets the new server."""
    with answering(b"good") as good, answering(b"evil") as evil, Relay() as relay:
        relay.turn(good)
        with connected(relay) as device:
            assert ask(device, 4) == b"good"
            relay.turn(evil)
            assert device.recv(1) == b""
        with connected(relay) as device:
            assert ask(device, 4) == b"evil"


def test_a_slow_link_is_slow() -> None:
    """Below its rate nothing arrives faster."""
    with answering(bytes(100_000)) as port, Relay() as relay:
        relay.turn(port)
        relay.rate = 200_000
        with connected(relay) as device:
            began = time.monotonic()
            assert len(ask(device, 100_000)) == 100_000
            # The last piece is not waited for.
            assert time.monotonic() - began > 0.3


def test_a_server_that_is_not_there_ends_the_connection() -> None:
    """Nobody at the target: the device sees an end, not a hang."""
    with Relay() as relay, connected(relay) as device:
        device.settimeout(10)
        assert device.recv(1) == b""
