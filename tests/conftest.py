"""What every test runs under: no network beyond this machine, no skip in CI."""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

# Machines that run many tests at once are slow for reasons a test cannot know.
settings.register_profile(
    "sealift",
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    print_blob=True,
)
settings.load_profile("sealift")

# A shell starts what runs in the background deaf to Ctrl-C, and that is inherited: the
# programs that tests interrupt would not hear it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

IN_CI = os.environ.get("CI", "").lower() in {"1", "true"}


def _refuse_skip(report: pytest.TestReport | pytest.CollectReport) -> None:
    if IN_CI and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"skipped, and in CI nothing is missing: {report.longrepr}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[
    None, pytest.TestReport, pytest.TestReport
]:
    """A laptop may lack something and say so; in CI that is a failure."""
    report = yield
    _refuse_skip(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[
    None, pytest.CollectReport, pytest.CollectReport
]:
    """The same for a module that skips itself whole."""
    report = yield
    _refuse_skip(report)
    return report


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
