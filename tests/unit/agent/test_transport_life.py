"""A peer that is slow is no hang, and a peer that drips does not make one."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from sealift.agent import life
from sealift.agent.transport import HttpsTransport, wire
from sealift.core.errors import FailedTransferError
from tests.tls_server import Files, Pki, TlsServer
from tests.unit.agent.system_clock import SystemClock


@pytest.fixture(scope="module")
def pki(tmp_path_factory: pytest.TempPathFactory) -> Pki:
    return Pki(tmp_path_factory.mktemp("pki"))


@dataclass
class Heard:
    """Who listens for signs of life."""

    at: list[float] = field(default_factory=list)

    def lives(self, seconds: float) -> float | None:
        self.at.append(time.monotonic())
        return None

    def trial(self, seconds: float) -> None: ...

    def settled(self) -> None: ...

    def restarts(self) -> None: ...


@pytest.fixture
def heard() -> Iterator[Heard]:
    found = Heard()
    life.listen(found)
    yield found
    life.listen(None)


@contextlib.contextmanager
def dripping() -> Iterator[int]:
    """Accepts, and sends a byte of a TLS record ten times a second, for ever."""
    over = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                peer, _ = listener.accept()
                with peer:
                    peer.sendall(b"\x16\x03\x03\x3f\xff\x02")
                    while not over.wait(0.1):
                        peer.sendall(b"\0")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            over.set()
            thread.join()


def test_a_handshake_that_drips_ends_in_its_time(
    pki: Pki, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One time for all of it, whatever comes meanwhile; and it shows life till then."""
    monkeypatch.setattr(wire, "_CONNECT", 1.0)
    monkeypatch.setattr(wire, "_SLICE", 0.05)
    with dripping() as port:
        way = HttpsTransport(
            f"https://localhost:{port}", pki.files(), SystemClock(), floor=lambda: 0.0
        )
        began = time.monotonic()
        with pytest.raises(FailedTransferError):
            way.get("x", limit=10)
        assert 0.9 < time.monotonic() - began < 20
    assert len(heard.at) > 5


def test_the_next_address_is_tried_when_one_does_not_answer(
    pki: Pki, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name with several addresses, of which the first is dead."""
    with socket.create_server(("127.0.0.1", 0)) as dead:
        closed = dead.getsockname()
    with TlsServer(pki, Files({"/base/x": b"here"})) as server:
        port = int(server.url.rsplit(":", 1)[1])
        kind = (socket.AF_INET, socket.SOCK_STREAM, 0, "")
        monkeypatch.setattr(
            socket,
            "getaddrinfo",
            lambda *_, **__: [(*kind, closed), (*kind, ("127.0.0.1", port))],
        )
        way = HttpsTransport(
            server.url + "/base", pki.files(), SystemClock(), floor=lambda: 0.0
        )
        assert way.get("x", limit=10).body == b"here"
        way.close()
    assert heard.at
