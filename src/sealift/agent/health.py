"""The checks that earn a confirm: commands of the integrator, each with a deadline.

A check passes if its command ends with status 0 in time. Everything else fails it: a
missing program, a signal, a hang. Commands are lists, never shell lines; they get a
clean environment, no input, and their output is cut short. At the deadline the whole
process group is killed, so a check cannot leave anything behind that outlives it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sealift.agent import command
from sealift.agent.ports import CheckResult
from sealift.agent.surroundings import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sealift.agent.ports import Clock
    from sealift.core.types import Instruction

__all__ = ["CommandCheck", "CommandHealth"]

DETAIL_MAX: Final = 1000
"""Characters of output that are kept for the report."""


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
        try:
            ended = command.run(
                check.command, environment, deadline=check.deadline, clock=self._clock
            )
        except (OSError, ValueError) as error:
            return CheckResult(check.name, ok=False, detail=_cut(f"no start: {error}"))
        output = ended.output.decode(errors="replace")
        if ended.status is None:
            why = f"no end within {check.deadline:g} s"
            return CheckResult(check.name, ok=False, detail=_cut(f"{why}\n{output}"))
        if ended.status:
            kind = "status" if ended.status > 0 else "signal"
            why = f"{kind} {abs(ended.status)}"
            return CheckResult(check.name, ok=False, detail=_cut(f"{why}\n{output}"))
        return CheckResult(check.name, ok=True, detail=_cut(output))


def _cut(text: str) -> str:
    """Printable, and no longer than a report may carry."""
    clean = "".join(c if c.isprintable() or c == "\n" else "�" for c in text.strip())
    return clean[:DETAIL_MAX]
