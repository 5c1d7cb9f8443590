"""The reference board as a program: a loader, a watchdog, and whatever they start.

``python -m sealift.sim.board --dir DIR [options] -- PROGRAM ARGS`` does in a process
what a board does in hardware: it reads the loader's store in DIR, counts a trial's
attempt down before it starts anything, writes ``DIR/running`` with a fresh boot id,
starts PROGRAM, and goes round again when that exits with 75 ("restart wanted"), dies
while its slot is on trial, or has not confirmed when the watchdog's time is up. Every
other end of PROGRAM is the board's own end, with the same status.

SIGTERM and SIGINT switch the board off: PROGRAM gets them too, and is not started
again. A board that dies without a word takes PROGRAM with it, as power that fails does.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sealift.agent.boot.file import Started, choose, open_store, running_text
from sealift.core.errors import BootError, MissingToolError, SealiftError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from sealift.core.types import Slot

RESTART = 75
"""The exit status by which a program asks for a restart (``EX_TEMPFAIL``)."""
_LOOK_SECONDS = 0.1
_OFF = (signal.SIGTERM, signal.SIGINT)
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)  # loaded before any fork


@dataclass(frozen=True, slots=True)
class Settings:
    """How the board is built. ``watchdog``: seconds a slot on trial may take."""

    directory: str
    watchdog: float = 120.0
    counts: bool = True
    starts: int = 50
    """Starts after which the board gives up."""
    revive: bool = False
    """Whether death by a signal is a power cut, after which the board starts again."""


class Board:
    """A loader and a watchdog around one program."""

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._store = open_store(settings.directory)
        self._say = say
        self._child: subprocess.Popen[bytes] | None = None
        self._off: int | None = None

    def run(self, program: Sequence[str]) -> int:
        """Start ``program`` as often as it takes; its last exit status.

        From the main thread only, as signals are heard meanwhile.

        Raises:
            BootError: it was started too often. MissingToolError: it cannot be started.
            StateError, SpaceError: the loader's store cannot be used.
        """
        with self._hearing():
            return self._run(program)

    def _run(self, program: Sequence[str]) -> int:
        for number in range(1, self._settings.starts + 1):
            slot = self._load(number)
            status = self._supervise(slot, program)
            if self._off is not None or not self._again(status, slot):
                return status if status >= 0 else 128 - status
        raise BootError(
            f"started {self._settings.starts} times without coming to rest",
            hint="see the program's log; --starts raises the limit",
        )

    def _load(self, number: int) -> Slot:
        """Decide, count, and only then hand over (B4)."""
        store = self._store.read()
        for remark in self._store.remarks:
            self._say(remark)
        slot, after = choose(store, counts=self._settings.counts)
        if after != store:
            self._store.write(after)
        trial = f", on trial, {after.tries} left" if self._on_trial(slot) else ""
        self._say(f"start {number}: slot {slot}{trial}")
        started = Started(slot, f"{number}-{secrets.token_hex(8)}")
        _replace(self._settings.directory, "running", running_text(started))
        return slot

    def _supervise(self, slot: Slot, program: Sequence[str]) -> int:
        """Run ``program`` once; its exit status, or ``-signal``."""
        child = self._start(program)
        if child is None:
            return -(self._off or signal.SIGTERM)
        with child:
            bites = time.monotonic() + self._settings.watchdog
            while (status := _wait(child)) is None:
                if time.monotonic() > bites and self._on_trial(slot):
                    self._say(f"watchdog: slot {slot} did not confirm in time")
                    child.kill()
        self._child = None
        return status

    def _start(self, program: Sequence[str]) -> subprocess.Popen[bytes] | None:
        """Start it, unless we were switched off; no signal falls between the two."""
        board = os.getpid()
        signal.pthread_sigmask(signal.SIG_BLOCK, _OFF)
        try:
            if self._off is None:
                self._child = subprocess.Popen(
                    program,
                    preexec_fn=lambda: _be_powered_by(board),  # noqa: PLW1509 -- one thread
                )
        except OSError as error:
            raise MissingToolError(f"{program[0]}: {error.strerror}") from error
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _OFF)
        return self._child

    @contextlib.contextmanager
    def _hearing(self) -> Iterator[None]:
        before = {number: signal.signal(number, self._switch_off) for number in _OFF}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _switch_off(self, number: int, _: FrameType | None) -> None:
        self._off = number
        if self._child is not None:
            self._child.send_signal(number)

    def _again(self, status: int, slot: Slot) -> bool:
        if status == RESTART:
            return True
        if self._on_trial(slot):
            self._say(f"slot {slot} died on trial with status {status}")
            return True
        return self._settings.revive and status == -signal.SIGKILL

    def _on_trial(self, slot: Slot) -> bool:
        return slot is not self._store.read().default


def _wait(child: subprocess.Popen[bytes]) -> int | None:
    with contextlib.suppress(subprocess.TimeoutExpired):
        return child.wait(_LOOK_SECONDS)
    return None


def _be_powered_by(board: int) -> None:
    """In the new process: hear signals again, and die with the board."""
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _OFF)
    if os.getppid() != board:  # it died before we asked
        os._exit(128 + signal.SIGKILL)


def _replace(directory: str, name: str, data: bytes) -> None:
    """Write a file atomically and durably."""
    temporary = Path(directory, f"{name}.new")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(Path(directory, name))
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise BootError(f"{temporary}: {error.strerror}") from error


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the board; the exit status is the program's, or that of our own error."""
    found = _parser().parse_args(arguments)
    settings = Settings(
        directory=found.dir,
        watchdog=found.watchdog,
        counts=not found.no_counter,
        starts=found.starts,
        revive=found.revive,
    )
    try:
        return Board(settings, _say).run(found.program)
    except SealiftError as error:
        _say(f"error: {error.message} [{error.code}]")
        if error.hint:
            _say(f"hint: {error.hint}")
        return error.exit_status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sealift.sim.board")
    parser.add_argument("--dir", required=True, help="the loader's store")
    parser.add_argument("--watchdog", type=float, default=120.0, metavar="SECONDS")
    parser.add_argument(
        "--no-counter", action="store_true", help="a loader without attempt counter"
    )
    parser.add_argument("--starts", type=int, default=50, metavar="N")
    parser.add_argument(
        "--revive", action="store_true", help="start again after a SIGKILL"
    )
    parser.add_argument("program", nargs="+", help="-- PROGRAM ARGS")
    return parser


def _say(text: str) -> None:
    sys.stderr.write(f"board: {text}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    raise SystemExit(main())
