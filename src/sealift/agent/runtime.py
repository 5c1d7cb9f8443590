"""What a running agent leaves word of, on a tmpfs; nothing is raised.

The runtime file is for ``status``; nobody decides anything by it, so losing it costs
nothing. The settled file is for the trial's timer: once it is there, this start is no
trial. Losing that one costs a restart, and home comes up.
"""

from __future__ import annotations

import contextlib
import json
import os
from typing import TYPE_CHECKING

from sealift.agent.files import read_all

if TYPE_CHECKING:
    from sealift.agent.config import Config
    from sealift.agent.daemon import Facts

_LIMIT = 4096


def note(config: Config, facts: Facts) -> None:
    """Replace the file; readers see the old one or the new."""
    found = {
        "state": config.state,
        "pid": os.getpid(),
        "last_poll": facts.last_poll,
        "next_poll": facts.next_poll,
        "last_error": facts.last_error,
    }
    fresh = f"{config.runtime}.new"
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(OSError):
        descriptor = os.open(fresh, flags, 0o600)
        try:
            os.write(descriptor, json.dumps(found).encode())
        finally:
            os.close(descriptor)
        os.replace(fresh, config.runtime)


def is_settled(config: Config) -> bool:
    """Whether there is nothing to say, or it was said in this start already."""
    path = config.watchdog.settled
    return not path or os.path.lexists(path)


def settle(config: Config) -> None:
    """This start is no trial, or no longer one."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with contextlib.suppress(OSError):
        os.close(os.open(config.watchdog.settled, flags, 0o644))


def read(config: Config) -> dict[str, object] | None:
    """What the running agent left word of; ``None`` if none runs for this state."""
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(config.runtime, flags)
        try:
            found = json.loads(read_all(descriptor, _LIMIT))
        finally:
            os.close(descriptor)
        os.kill(int(found["pid"]), 0)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if found.get("state") == config.state else None
