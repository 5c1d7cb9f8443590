"""Work in a short-lived child: what it imports and allocates goes back to the system.

The parent polls and stays small; whoever verifies, signs or installs runs here. A child
may be killed at any instant: the journal and the store are made for that. It dies with
its parent, so that a restarted agent never meets a stray one.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.agent import log
from sealift.agent.signals import Signals
from sealift.core.errors import SealiftError

if TYPE_CHECKING:
    from collections.abc import Callable

SUMMARY_LIMIT = 64 * 1024
"""Bytes a child may tell its parent."""

RESTART = 75
"""Exit status of an agent that wants a restart (EX_TEMPFAIL)."""

STOP_SECONDS = 60.0
"""How long a child that was asked to stop may take to reach the end of a step."""

_CRASHED = 70

Summary = dict[str, object]


@dataclass(frozen=True, slots=True)
class Ended:
    """How a child ended: its exit status, or ``-signal``, and what it told."""

    status: int
    summary: Summary

    @property
    def whole(self) -> bool:
        """Whether it came to its own end, rather than being killed or failing."""
        return self.status in {0, RESTART}


def run(work: Callable[[Signals], Summary], signals: Signals) -> Ended:
    """Run ``work`` in a child and wait for it; a stop signal is passed on.

    ``work`` gets the child's own signals. It may raise ``SystemExit``; an error
    of ours becomes the status of its family.
    """
    reader, writer = os.pipe()
    life, alive = os.pipe()
    with signals.held():  # or a stop could reach the child before its own signals do
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            os.close(alive)
            _be_child(work, writer, life)
    os.close(writer)
    os.close(life)
    try:
        told = _listen(reader, pid, signals)
        _, code = os.waitpid(pid, 0)
    finally:
        os.close(reader)
        os.close(alive)
    return Ended(os.waitstatus_to_exitcode(code), _summary(told))


def _listen(reader: int, pid: int, signals: Signals) -> bytes:
    """What the child writes until it ends; on a stop signal it is told to end."""
    told, patience = bytearray(), None
    while True:
        if signals.stopping and patience is None:
            patience = STOP_SECONDS
            _kill(pid, signal.SIGTERM)
        ready, _, _ = select.select([reader, signals.descriptor], [], [], patience)
        if not ready:
            _kill(pid, signal.SIGKILL)
            patience = None if patience is None else STOP_SECONDS
        if signals.descriptor in ready:
            signals.drain()
        if reader in ready:
            piece = os.read(reader, 4096)
            if not piece:
                return bytes(told)
            if len(told) < SUMMARY_LIMIT:
                told += piece


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _be_child(work: Callable[[Signals], Summary], writer: int, life: int) -> None:
    """Never returns: whatever happens ends in ``_exit``, nothing of the parent's."""
    status = _CRASHED
    try:
        _die_with(life)
        own = Signals()
        _tell(writer, work(own))
        status = 0
    except SystemExit as request:
        status = request.code if isinstance(request.code, int) else 0
    except SealiftError as error:
        log.failed("cycle", error)
        _tell(writer, {"error": error.code})
        status = error.exit_status
    except BaseException as error:  # noqa: BLE001 -- no traceback reaches a user
        log.write("error", "crash", kind=type(error).__name__, message=str(error))
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        os._exit(status)


def _tell(writer: int, told: Summary) -> None:
    with contextlib.suppress(OSError):  # nobody listens any more
        os.write(writer, json.dumps(told).encode()[:SUMMARY_LIMIT])


def _die_with(life: int) -> None:
    """Ask the kernel for SIGKILL when the other end of ``life`` closes.

    Only the parent holds it, so it closes when the parent ends, however that happens.
    ``prctl`` would do as well, at the price of ``ctypes``: 3 MiB.
    """
    fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(life, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(life, fcntl.F_SETFL, os.O_ASYNC)
    if select.select([life], [], [], 0)[0]:  # it ended before we asked
        os._exit(_CRASHED)


def _summary(told: bytes) -> Summary:
    try:
        found = json.loads(told)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
