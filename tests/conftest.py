"""What every test runs under: no network beyond this machine."""

from __future__ import annotations

import ipaddress
import socket
from typing import Any

import pytest


class OutsideError(RuntimeError):
    """A test tried to reach another machine."""


def _stays_here(family: int, address: Any) -> bool:
    if family == socket.AF_UNIX:
        return True
    if family not in {socket.AF_INET, socket.AF_INET6}:
        return False
    host = address[0]
    if isinstance(host, bytes):
        host = host.decode()
    if host in {"", "localhost"}:
        return True
    try:
        return ipaddress.ip_address(host.split("%")[0]).is_loopback
    except ValueError:
        return False


@pytest.fixture(autouse=True)
def only_localhost(monkeypatch: pytest.MonkeyPatch) -> None:
    """Refuse every connection, datagram and look-up that would leave this machine."""

    def guard(name: str) -> None:
        real = getattr(socket.socket, name)

        def guarded(self: socket.socket, *args: Any) -> Any:
            # sendto(data, flags, address): the address is always the last one.
            if not _stays_here(self.family, args[-1]):
                raise OutsideError(f"{name} to {args[-1]!r}")
            return real(self, *args)

        monkeypatch.setattr(socket.socket, name, guarded)

    for name in ("connect", "connect_ex", "sendto"):
        guard(name)
    resolve = socket.getaddrinfo

    def getaddrinfo(host: Any, *args: Any, **kwargs: Any) -> Any:
        if host is not None and not _stays_here(socket.AF_INET, (host,)):
            raise OutsideError(f"look-up of {host!r}")
        return resolve(host, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
