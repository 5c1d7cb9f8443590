"""Real processes for a demonstration: each with a log, none left behind.

Programs are started the way a user starts them. Whoever leaves the ``with`` block, by
success, failure or Ctrl-C, leaves no process: what we started is ended politely, and
what it left behind in turn is adopted and ended too.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from sealift.core.errors import FailedTransferError, MissingToolError, OutcomeError

POLITE_SECONDS = 5.0
"""What a process gets between the request to end and SIGKILL."""

_RUN_SECONDS = 180.0
_PR_SET_CHILD_SUBREAPER = 36  # prctl(2)


@dataclass(frozen=True, slots=True)
class Finished:
    """A program that ended: what it was, its status and what it wrote."""

    argv: tuple[str, ...]
    status: int
    stdout: str
    stderr: str

    def json(self) -> Any:
        """Standard output as the JSON value it must be.

        Raises:
            OutcomeError: it is none.
        """
        try:
            return json.loads(self.stdout)
        except ValueError as error:
            raise OutcomeError(f"{self.shown} printed no JSON value") from error

    @property
    def shown(self) -> str:
        """The command line, short."""
        return " ".join([Path(self.argv[0]).name, *self.argv[1:]])


class Processes:
    """Starts programs below ``logs`` and ends every one of them at the end."""

    def __init__(self, logs: Path) -> None:
        self._logs = logs
        self._started: list[subprocess.Popen[bytes]] = []
        logs.mkdir(parents=True, exist_ok=True)

    def __enter__(self) -> Self:
        # Orphans of our children become ours instead of init's, so none gets away.
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with _undisturbed():
            for process in reversed(self._started):
                stop(process)
            _end_orphans()

    def run(
        self,
        *argv: str | Path,
        name: str = "commands",
        status: int | None = 0,
        seconds: float = _RUN_SECONDS,
    ) -> Finished:
        """Run a program to its end; what it wrote goes to the log ``name`` as well.

        Raises:
            OutcomeError: its status is another one than ``status``.
            FailedTransferError: it did not end in time.
        """
        words = tuple(map(str, argv))
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(),
            start_new_session=True,
        )
        self._started.append(process)
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired as error:
            stop(process)
            raise FailedTransferError(
                f"{' '.join(words[:3])} did not end within {seconds:.0f} s"
            ) from error
        self._started.remove(process)
        done = Finished(
            words, process.returncode, out.decode(errors="replace"), _text(err)
        )
        self._log(name, done)
        if status is not None and done.status != status:
            raise OutcomeError(
                f"{done.shown[:200]} ended with status {done.status}, not {status}: "
                f"{(done.stderr or done.stdout).strip()[-400:]}"
            )
        return done

    def start(self, name: str, *argv: str | Path) -> subprocess.Popen[bytes]:
        """Start a program that runs on; both its outputs go to the log ``name``."""
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                [str(word) for word in argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=environment(),
                start_new_session=True,
            )
        self._started.append(process)
        return process

    def log(self, name: str) -> Path:
        """Where the log ``name`` lies."""
        return self._logs / f"{name}.log"

    def _log(self, name: str, done: Finished) -> None:
        with self.log(name).open("a", encoding="utf-8") as log:
            log.write(f"$ {done.shown}\n{done.stdout}{done.stderr}")
            log.write(f"[status {done.status}]\n")


def stop(process: subprocess.Popen[bytes], how: int = signal.SIGTERM) -> int:
    """End a process and the group it leads; its exit status."""
    if process.poll() is None:
        _signal(process.pid, how)
        try:
            process.wait(POLITE_SECONDS)
        except subprocess.TimeoutExpired:
            _signal(process.pid, signal.SIGKILL)
    _signal(process.pid, signal.SIGKILL)
    return process.wait()


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """A second Ctrl-C waits: what was started is ended first."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, signal.SIG_IGN) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _signal(group: int, how: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, how)


def _end_orphans() -> None:
    """End what our processes left behind; a loop, since an orphan may have its own."""
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            for child in _children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
            time.sleep(0.01)


def _children() -> list[int]:
    listed = Path(f"/proc/self/task/{os.getpid()}/children")
    return [int(word) for word in listed.read_text("ascii").split()]


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """The environment of our programs: ours, with their directory first on PATH."""
    path = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    )
    return {**os.environ, "PATH": path, **(extra or {})}


def program(name: str) -> Path:
    """A program installed beside this Python.

    Raises:
        MissingToolError: it is not there.
    """
    found = Path(sys.executable).parent / name
    if not found.exists():
        raise MissingToolError(
            f"{name} is not installed beside {sys.executable}",
            hint="pip install 'sealift[sim]' into this environment",
        )
    return found


def free_ports(count: int) -> list[int]:
    """Loopback ports nobody listened on a moment ago."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def wait_for(
    ready: Callable[[], bool], what: str, *, seconds: float = 60.0, step: float = 0.05
) -> None:
    """Wait until ``ready``.

    Raises:
        FailedTransferError: it did not come true in time.
    """
    until = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > until:
            raise FailedTransferError(f"{what} did not happen within {seconds:.0f} s")
        time.sleep(step)


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
