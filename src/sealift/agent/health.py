"""The checks that earn a confirm: commands of the integrator, each with a deadline.

A check passes if its command ends with status 0 in time. Everything else fails it: a
missing program, a signal, a hang. Commands are lists, never shell lines; they get a
clean environment, no input, and their output is cut short. At the deadline the whole
process group is killed, so a check cannot leave anything behind that outlives it.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sealift.agent.ports import CheckResult
from sealift.agent.surroundings import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from subprocess import Popen

    from sealift.agent.ports import Clock
    from sealift.core.types import Instruction

__all__ = ["CommandCheck", "CommandHealth"]

DETAIL_MAX: Final = 1000
"""Characters of output that are kept for the report."""

_OUTPUT_MAX: Final = 64 * 1024
_LOOK: Final = 0.1


@dataclass(frozen=True, slots=True)
class CommandCheck:
    """One check: a program by its absolute path with arguments, and its seconds."""

    name: str
    command: tuple[str, ...]
    deadline: float


class CommandHealth:
    """:class:`~sealift.agent.ports.Health` over commands, one after the other.

    Each command finds what it checks in its environment: ``SEALIFT_ECU``,
    ``SEALIFT_VERSION``, ``SEALIFT_IMAGE_SHA256``. No check at all passes: that the
    slot booted and the agent runs is then all that is asked.
    """

    def __init__(self, checks: Sequence[CommandCheck], clock: Clock) -> None:
        self._checks = tuple(checks)
        self._clock = clock

    def check(self, order: Instruction) -> Sequence[CheckResult]:
        """Run every check within its deadline; a hang counts as a failure."""
        environment = {
            **ENVIRONMENT,
            "SEALIFT_ECU": order.ecu_id,
            "SEALIFT_VERSION": order.artifact.version,
            "SEALIFT_IMAGE_SHA256": order.artifact.sha256.hex(),
        }
        return [self._run(check, environment) for check in self._checks]

    def _run(self, check: CommandCheck, environment: Mapping[str, str]) -> CheckResult:
        until = self._clock.monotonic() + check.deadline
        try:
            process = _start(check.command, environment)
        except (OSError, ValueError) as error:
            return CheckResult(check.name, ok=False, detail=_cut(f"no start: {error}"))
        try:
            output = self._read(process, until)
            status = self._wait(process, until)
        finally:
            _kill(process)
        if status is None:
            why = f"no end within {check.deadline:g} s"
            return CheckResult(check.name, ok=False, detail=_cut(f"{why}\n{output}"))
        if status:
            why = f"status {status}" if status > 0 else f"signal {-status}"
            return CheckResult(check.name, ok=False, detail=_cut(f"{why}\n{output}"))
        return CheckResult(check.name, ok=True, detail=_cut(output))

    def _read(self, process: Popen[bytes], until: float) -> str:
        """Output to its end or to the deadline; beyond a cap it is read and dropped."""
        stream = process.stdout
        assert stream is not None  # noqa: S101  the process was started with a pipe
        kept = bytearray()
        with selectors.DefaultSelector() as ready:
            ready.register(stream, selectors.EVENT_READ)
            while (left := until - self._clock.monotonic()) > 0:
                if ready.select(min(left, _LOOK)):
                    piece = os.read(stream.fileno(), _OUTPUT_MAX)
                    if not piece:
                        break
                    kept += piece[: max(0, _OUTPUT_MAX - len(kept))]
                elif process.poll() is not None:
                    break  # it ended; whoever still holds the pipe is not asked
        return kept.decode(errors="replace")

    def _wait(self, process: Popen[bytes], until: float) -> int | None:
        """The exit status; ``None`` if there is none at the deadline."""
        from subprocess import TimeoutExpired

        try:
            return process.wait(max(0.0, until - self._clock.monotonic()))
        except TimeoutExpired:
            return None


def _start(command: Sequence[str], environment: Mapping[str, str]) -> Popen[bytes]:
    import subprocess  # only in a trial: an idle agent does without

    return subprocess.Popen(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(environment),
        cwd="/",
        close_fds=True,
        start_new_session=True,
    )


def _kill(process: Popen[bytes]) -> None:
    """End the group of the process, whatever is left of it, and reap the process."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _cut(text: str) -> str:
    """Printable, and no longer than a report may carry."""
    clean = "".join(c if c.isprintable() or c == "\n" else "�" for c in text.strip())
    return clean[:DETAIL_MAX]
