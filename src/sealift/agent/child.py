"""Work in a short-lived child: what it imports and allocates goes back to the system.

The parent polls and stays small; whoever verifies, signs or installs runs here. A child
may be killed at any instant: the journal and the store are made for that. It dies with
its parent, so that a restarted agent never meets a stray one. It says through a pipe
that it lives (``agent.life``), and the parent's watchdogs are fed only as long as it
does; a child that has hung for :data:`HUNG_SECONDS` is killed.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import struct
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.agent import life, log
from sealift.agent.signals import Signals
from sealift.agent.watchdog import Guard
from sealift.core.errors import SealiftError

if TYPE_CHECKING:
    from collections.abc import Callable

SUMMARY_LIMIT = 64 * 1024
"""Bytes a child may tell its parent."""

RESTART = 75
"""Exit status of an agent that wants a restart (EX_TEMPFAIL)."""

STOP_SECONDS = 60.0
"""How long a child that was asked to stop may take to reach the end of a step."""

HUNG_SECONDS = 600.0
"""How long a child may be silent beyond what it said. Whoever watches us acts sooner;
this is for boards on which nobody does."""

_CRASHED = 70
_SIGN = struct.Struct("<cI")  # one sign of life: what it says, and its seconds
_SOON = 1.0  # no two signs within this

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


def run(
    work: Callable[[Signals], Summary], signals: Signals, guard: Guard | None = None
) -> Ended:
    """Run ``work`` in a child and wait for it; a stop signal is passed on.

    ``work`` gets the child's own signals. It may raise ``SystemExit``; an error
    of ours becomes the status of its family. ``guard`` hears the child's signs of life.
    """
    reader, writer = os.pipe()
    leash, alive = os.pipe()
    signs, pulse = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    with signals.held():  # or a stop could reach the child before its own signals do
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            os.close(alive)
            os.close(signs)
            life.listen(_Pulse(pulse))
            _be_child(work, writer, leash)
    os.close(writer)
    os.close(leash)
    os.close(pulse)
    try:
        told = _listen(reader, _Nurse(pid, signs, guard), signals)
        _, code = os.waitpid(pid, 0)
    finally:
        os.close(reader)
        os.close(signs)
        os.close(alive)
    return Ended(os.waitstatus_to_exitcode(code), _summary(told))


def _listen(reader: int, nurse: _Nurse, signals: Signals) -> bytes:
    """What the child writes until it ends; on a stop signal it is told to end."""
    told = bytearray()
    while True:
        if signals.stopping:
            nurse.ask_to_end()
        wait = nurse.look()
        watched = [reader, signals.descriptor, *nurse.signs]
        ready, _, _ = select.select(watched, [], [], wait)
        if signals.descriptor in ready:
            signals.drain()
        if nurse.signs and nurse.signs[0] in ready:
            nurse.hear()
        if reader in ready:
            piece = os.read(reader, 4096)
            if not piece:
                return bytes(told)
            if len(told) < SUMMARY_LIMIT:
                told += piece


class _Pulse:
    """The child's half: a :class:`~sealift.agent.life.Listener` that writes signs."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe
        self._said = 0.0
        self._until = 0.0

    def lives(self, seconds: float) -> float | None:
        """Pass it on, unless the parent knows as much already."""
        now = time.monotonic()
        until = now + seconds
        if now - self._said >= _SOON or abs(until - self._until) > _SOON:
            self._said, self._until = now, until
            self._write(b"l", seconds)
        return None

    def trial(self, seconds: float) -> None:
        """Pass it on."""
        self._write(b"t", max(0.0, seconds))

    def settled(self) -> None:
        """Pass it on."""
        self._write(b"s", 0.0)

    def restarts(self) -> None:
        """Pass it on."""
        self._write(b"r", 0.0)

    def _write(self, what: bytes, seconds: float) -> None:
        with contextlib.suppress(OSError):  # full, or nobody is there any more
            os.write(self._pipe, _SIGN.pack(what, min(int(seconds) + 1, 1 << 31)))


class _Nurse:
    """The parent's half: hears the signs, has the watchdogs fed, ends what hangs."""

    def __init__(self, pid: int, signs: int, guard: Guard | None) -> None:
        self._pid = pid
        self._guard = guard or Guard((), time.monotonic)
        self._guard.lives(life.SILENCE_SECONDS)
        self._killing: float | None = None
        self.signs = [signs]

    def hear(self) -> None:
        """Take what the child said."""
        said = os.read(self.signs[0], 1024 * _SIGN.size)
        if not said:
            self.signs.clear()
        for what, seconds in _SIGN.iter_unpack(
            said[: len(said) // _SIGN.size * _SIGN.size]
        ):
            match what:
                case b"l":
                    self._guard.lives(seconds)
                case b"t":
                    self._guard.trial(seconds)
                case b"s":
                    self._guard.settled()
                case b"r":
                    self._guard.restarts()

    def ask_to_end(self) -> None:
        """A stop signal came; the first time counts."""
        if self._killing is None:
            self._killing = time.monotonic() + STOP_SECONDS
            _kill(self._pid, signal.SIGTERM)

    def look(self) -> float:
        """Feed, or end what hangs; seconds until the next look."""
        now, next_feeding = time.monotonic(), self._guard.tend()
        hangs_in = HUNG_SECONDS - self._guard.overdue
        waits = [hangs_in] if next_feeding is None else [hangs_in, next_feeding]
        if self._killing is not None:
            waits.append(self._killing - now)
        if hangs_in <= 0 or (self._killing is not None and now >= self._killing):
            log.write("error", "hang", pid=self._pid)
            _kill(self._pid, signal.SIGKILL)
            self._killing = now + STOP_SECONDS
            return STOP_SECONDS
        return max(0.0, min(waits))


def _kill(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _be_child(work: Callable[[Signals], Summary], writer: int, leash: int) -> None:
    """Never returns: whatever happens ends in ``_exit``, nothing of the parent's."""
    status = _CRASHED
    try:
        _die_with(leash)
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


def _die_with(leash: int) -> None:
    """Ask the kernel for SIGKILL when the other end of ``leash`` closes.

    Only the parent holds it, so it closes when the parent ends, however that happens.
    ``prctl`` would do as well, at the price of ``ctypes``: 3 MiB.
    """
    fcntl.fcntl(leash, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(leash, fcntl.F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(leash, fcntl.F_SETFL, os.O_ASYNC)
    if select.select([leash], [], [], 0)[0]:  # it ended before we asked
        os._exit(_CRASHED)


def _summary(told: bytes) -> Summary:
    try:
        found = json.loads(told)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
