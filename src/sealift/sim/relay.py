"""A link between a device and whatever stands at the server's address.

It passes bytes on without understanding them, counts those that reach the device, can
be slow, and can be turned to another server: what a network does, and who owns it.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

_PIECE = 16 * 1024
_SECONDS = 30.0


class Relay:
    """Listens on a free loopback port and passes every connection on.

    ``rate`` is the most bytes per second towards the device, 0 for as fast as it goes.
    ``received`` counts the bytes that went to the device, TLS and all.
    """

    def __init__(self) -> None:
        self.rate = 0
        self.received = 0
        self._target = 0
        self._open = True
        self._lock = threading.Lock()
        self._connected: set[socket.socket] = set()
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listening.getsockname()[1])

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open = False
        self.turn(0)
        # Closing alone would not wake the thread that accepts.
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()

    def turn(self, target: int) -> None:
        """Pass new connections to another port of this machine; old ones end."""
        with self._lock:
            self._target = target
            for device in self._connected:
                with contextlib.suppress(OSError):
                    device.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while self._open:
            try:
                device, _ = self._listening.accept()
            except OSError:
                return
            # What waits in a buffer is counted, and would be lost with the device.
            device.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _PIECE)
            threading.Thread(target=self._connect, args=[device], daemon=True).start()

    def _connect(self, device: socket.socket) -> None:
        with self._lock:
            self._connected.add(device)
            place = ("127.0.0.1", self._target)
        with (
            device,
            contextlib.suppress(OSError),
            socket.create_connection(place, _SECONDS) as server,
        ):
            up = threading.Thread(target=_pass, args=[device, server], daemon=True)
            up.start()
            _pass(server, device, self._count)
            up.join(_SECONDS)
        with self._lock:
            self._connected.discard(device)

    def _count(self, length: int) -> None:
        with self._lock:
            self.received += length
        if self.rate:
            time.sleep(length / self.rate)


def _pass(
    source: socket.socket,
    sink: socket.socket,
    count: Callable[[int], None] = lambda _: None,
) -> None:
    with contextlib.suppress(OSError):
        while piece := source.recv(_PIECE):
            sink.sendall(piece)
            count(len(piece))
    with contextlib.suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
