"""What the agent takes from the process it is started in: next to nothing (D-12).

Variables that make the interpreter or the loader run foreign code are a reason to
start again without them, isolated. All others are dropped before anything reads them:
proxies, temporary directories, OpenSSL configuration, locale. No core is dumped.
"""

from __future__ import annotations

import contextlib
import io
import os
import resource
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
"""The whole environment of the agent and of everything it starts."""

_LOADER = ("LD_", "GLIBC_TUNABLES", "MALLOC_")


def tidy(arguments: list[str], known: Collection[str] = ()) -> None:
    """Make the surroundings ours; may start the program again in its own place.

    ``known`` are variables that were looked at already; the program started again gets
    them, too, to look at them in turn.
    """
    if any(map(_runs_code, os.environ)):
        again = [sys.executable, "-I", "-m", "sealift.agent", *arguments]
        kept = {name: os.environ[name] for name in known if name in os.environ}
        with contextlib.suppress(OSError):  # then go on with what can be dropped here
            os.execve(sys.executable, again, {**ENVIRONMENT, **kept})  # noqa: S606
    os.environ.clear()
    os.environ.update(ENVIRONMENT)
    os.umask(0o077)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # whatever the locale was
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def _runs_code(name: str) -> bool:
    """``-I`` keeps what is Python's out, but not what the loader has loaded before."""
    return name.startswith(_LOADER) or (
        name.startswith("PYTHON") and not sys.flags.isolated
    )
