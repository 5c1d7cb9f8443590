"""What a service manager is told: ready, what is done now, alive, stopping.

The protocol of systemd's ``sd_notify``: lines of ``NAME=value`` in one datagram to the
socket that ``NOTIFY_SOCKET`` names. We only send; nothing that comes back is read, and
a manager that does not listen stops nothing.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""The variables of the protocol."""

_ADDRESS_BYTES = 107
_SEND_SECONDS = 5.0
_LONGEST = 86_400.0


@dataclass(frozen=True, slots=True)
class Manager:
    """Who started us; ``address`` is a socket's, ``seconds`` its watchdog's, or 0."""

    address: str
    seconds: float = 0.0

    def tell(self, *lines: str) -> None:
        """Send ``lines`` in one datagram; nobody there is no error."""
        address = self.address
        if address.startswith("@"):
            address = "\0" + address[1:]
        with (
            contextlib.suppress(OSError),
            socket.socket(
                socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC
            ) as way,
        ):
            way.settimeout(_SEND_SECONDS)
            way.connect(address)
            way.send("\n".join(lines).encode())


def manager(environment: Mapping[str, str], pid: int) -> Manager | None:
    """Who wants to be told, by the variables the process ``pid`` was started with.

    Take it before ``surroundings.tidy`` drops them. A watchdog that is meant for
    another process (``WATCHDOG_PID``) is none.
    """
    address = environment.get("NOTIFY_SOCKET", "")
    if address[:1] not in {"/", "@"} or len(address.encode()) > _ADDRESS_BYTES:
        return None
    return Manager(address, _watchdog(environment, pid))


def _watchdog(environment: Mapping[str, str], pid: int) -> float:
    usec = environment.get("WATCHDOG_USEC", "")
    if environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return 0.0
    if not usec.isascii() or not usec.isdigit() or len(usec) > 20:
        return 0.0
    return min(int(usec) / 1e6, _LONGEST)
