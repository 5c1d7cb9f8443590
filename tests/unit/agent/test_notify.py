"""The service manager's protocol, over real sockets of both kinds."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from sealift.agent.notify import Manager, manager


@contextlib.contextmanager
def _listening(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(10)
        yield listener


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_lines_arrive_in_one_datagram(tmp_path: Path, kind: str) -> None:
    """``@`` in front stands for the zero byte of an abstract address."""
    name = f"sealift-test-{os.getpid()}"
    bound, told = (
        (f"{tmp_path}/notify", f"{tmp_path}/notify")
        if kind == "path"
        else (f"\0{name}", f"@{name}")
    )
    with _listening(bound) as listener:
        found = manager({"NOTIFY_SOCKET": told}, 1)
        assert found is not None
        found.tell("READY=1", "STATUS=started")
        assert listener.recv(1000) == b"READY=1\nSTATUS=started"


def test_nobody_there_is_no_error(tmp_path: Path) -> None:
    """A manager that went away stops nothing."""
    Manager(str(tmp_path / "nowhere")).tell("WATCHDOG=1")


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, 0.0),
        ({"WATCHDOG_USEC": "180000000"}, 180.0),
        ({"WATCHDOG_USEC": "180000000", "WATCHDOG_PID": "7"}, 180.0),
        ({"WATCHDOG_USEC": "180000000", "WATCHDOG_PID": "8"}, 0.0),
        ({"WATCHDOG_USEC": "0"}, 0.0),
        ({"WATCHDOG_USEC": "-5"}, 0.0),
        ({"WATCHDOG_USEC": "٣"}, 0.0),
        ({"WATCHDOG_USEC": "9" * 30}, 0.0),
        ({"WATCHDOG_USEC": "9" * 19}, 86_400.0),
    ],
)
def test_the_watchdog_is_ours_only_if_it_says_so(
    environment: dict[str, str], seconds: float
) -> None:
    """``WATCHDOG_PID`` names another process: then it is none of our business."""
    found = manager({"NOTIFY_SOCKET": "/run/x", **environment}, 7)
    assert found == Manager("/run/x", seconds)


@pytest.mark.parametrize("address", ["", "relative", "vsock:2:1", "/" + "x" * 107])
def test_other_addresses_are_no_manager(address: str) -> None:
    """What is neither a path nor abstract is not written to."""
    assert manager({"NOTIFY_SOCKET": address}, 1) is None
