"""Programs of the integrator, each with a deadline, and nothing that outlives it.

A program is a list, never a shell line. It gets the environment it is given and no
other, and a session of its own; at the deadline, and when it ended, the whole process
group is killed. Its output is cut short, never refused.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sealift.agent import life

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from subprocess import Popen

    from sealift.agent.ports import Clock

OUTPUT_MAX: Final = 64 * 1024
"""Bytes of output that are kept."""

_LOOK: Final = 0.1


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: its status, ``-signal``, or ``None`` at the deadline."""

    status: int | None
    output: bytes


def run(
    command: Sequence[str],
    environment: Mapping[str, str],
    *,
    deadline: float,
    clock: Clock,
    given: bytes = b"",
    errors: bool = True,
) -> Ended:
    """Run ``command`` with ``given`` as its input, for ``deadline`` seconds at most.

    The output holds what it wrote to standard output, and with ``errors`` what it wrote
    to standard error.

    Raises:
        OSError, ValueError: it cannot be started.
    """
    until = clock.monotonic() + deadline
    with life.within(deadline):
        process = _start(command, environment, given, errors=errors)
        try:
            output = _read(process, until, clock)
            status = _wait(process, until - clock.monotonic())
        finally:
            _kill(process)
    return Ended(status, output)


def _start(
    command: Sequence[str],
    environment: Mapping[str, str],
    given: bytes,
    *,
    errors: bool,
) -> Popen[bytes]:
    import subprocess  # only for who runs something: an idle agent does without

    with _input(given) as source:
        return subprocess.Popen(
            list(command),
            stdin=source,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT if errors else subprocess.DEVNULL,
            env=dict(environment),
            cwd="/",
            close_fds=True,
            start_new_session=True,
        )


@contextlib.contextmanager
def _input(given: bytes) -> Iterator[int]:
    """A file in memory: whoever does not read it cannot make us wait."""
    file = os.memfd_create("input", os.MFD_CLOEXEC)
    try:
        view = memoryview(given)
        while view:
            view = view[os.write(file, view) :]
        os.lseek(file, 0, os.SEEK_SET)
        yield file
    finally:
        os.close(file)


def _read(process: Popen[bytes], until: float, clock: Clock) -> bytes:
    """Output to its end or to the deadline; beyond a cap it is read and dropped."""
    stream = process.stdout
    assert stream is not None  # noqa: S101  the process was started with a pipe
    kept = bytearray()
    with selectors.DefaultSelector() as ready:
        ready.register(stream, selectors.EVENT_READ)
        while (left := until - clock.monotonic()) > 0:
            if ready.select(min(left, _LOOK)):
                piece = os.read(stream.fileno(), OUTPUT_MAX)
                if not piece:
                    break
                kept += piece[: max(0, OUTPUT_MAX - len(kept))]
            elif process.poll() is not None:
                break  # it ended; whoever still holds the pipe is not asked
    return bytes(kept)


def _wait(process: Popen[bytes], seconds: float) -> int | None:
    """The exit status; ``None`` if there is none in time."""
    from subprocess import TimeoutExpired

    try:
        return process.wait(max(0.0, seconds))
    except TimeoutExpired:
        return None


def _kill(process: Popen[bytes]) -> None:
    """End the group of the process, whatever is left of it, and reap the process."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
