"""What each duty of the machine does to the world: ``perform`` one, get its outcome.

No loop, no journal, no retries: ``agent.shell`` has those. A duty may be performed
again after any cut, and says by its outcome what it found; what went wrong it raises.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeAlias, assert_never

from sealift.agent import gate as gates
from sealift.agent.machine import (
    Active,
    Armed,
    Arming,
    Attempt,
    Booted,
    Confirming,
    Done,
    Failed,
    Outcome,
    Rebooting,
    Reporting,
    Reverting,
    Staged,
    Staging,
    Trial,
    Verdict,
    installed,
)
from sealift.agent.ports import Running
from sealift.core.errors import BootError
from sealift.core.version import above

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.agent.journal import Floors
    from sealift.agent.ports import Clock, Fill, Health, Installer, Moved
    from sealift.core.types import Artifact, Instruction


# ── what comes in ────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Component:
    """One updatable part of the device: an installer with a serial.

    ``fill(order, base)`` makes the :class:`~sealift.agent.ports.Fill` for an order;
    ``base`` is the image recorded in the running slot. ``moved`` tells how the image of
    an order came, ``clear`` removes what an attempt left behind once it is over.
    ``restart`` restarts what the component lives in; it may raise ``SystemExit`` or
    return while the restart is under way, then it is called again after
    ``Limits.restart_seconds``.
    ``factory`` looks what the confirmed slot holds before the first update; ``None`` is
    "unknown". It is asked once, and again only after an error.
    ``trial_seconds`` is how long a trial may last in one boot until it is healthy.
    ``on_board`` says that it is this device itself, whose hang a watchdog ends;
    ``settled`` is called whenever no trial of it is open.
    """

    ecu_id: str
    installer: Installer
    fill: Callable[[Instruction, Artifact | None], Fill]
    restart: Callable[[], None]
    health: Health
    factory: Callable[[], Artifact | None] | None = None
    trial_seconds: float = 600.0
    moved: Callable[[Instruction], Moved | None] = lambda _order: None
    clear: Callable[[], None] = lambda: None
    on_board: bool = True
    settled: Callable[[], None] = lambda: None


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """One ended attempt, as the server is to learn it.

    ``id`` is the same however often the result is handed over; the receiver keeps one.
    ``installed`` is what the confirmed slot holds after the attempt, ``moved`` how the
    image came, as far as it is known.
    """

    id: str
    ecu_id: str
    order: Instruction
    verdict: Verdict
    stage: str
    code: str | None
    detail: str
    installed: Artifact | None
    moved: Moved | None = None


class Report(Protocol):
    """Take a result into the outbox, durably, before returning (M12).

    Raises:
        SealiftError: it was not stored; it will be handed over again.
    """

    def __call__(self, result: AttemptResult, /) -> None:
        """Keep ``result``; one with a known ``id`` is the same result again."""
        ...


class Gate(Protocol):
    """Whether the switch may be written now; see ``agent.gate``."""

    def __call__(self, order: Instruction, /) -> gates.Decision:
        """Open, or closed for so many seconds."""
        ...


@dataclass(frozen=True, slots=True)
class Helpers:
    """What the duties need beside their component."""

    clock: Clock
    floors: Floors
    report: Report
    gate: Gate
    must_ask: Callable[[], bool]
    """Whether the Director's last word is too old to write the switch on; if so, a
    poll is due."""
    restart_seconds: float


@dataclass(frozen=True, slots=True)
class NotYet:
    """The state stands; look again after ``seconds``."""

    seconds: float


Found: TypeAlias = Outcome | NotYet


# ── the duties ───────────────────────────────────────────────────────────────────────
class Duties:
    """Performs the duty of any state but Idle, whose duty is the shell's poll."""

    def __init__(self, helpers: Helpers) -> None:
        self._helpers = helpers

    def perform(self, part: Component, state: Active) -> Found:
        """Do the one thing ``state`` asks for.

        Raises:
            SealiftError: what hindered it; what that means depends on the state.
        """
        match state:
            case Staging(attempt):
                fill = part.fill(attempt.order, attempt.base)
                part.installer.stage(attempt.order, attempt.slot, fill)
                return Done()
            case Staged(attempt):
                return self._wait(attempt.order)
            case Arming(attempt):
                return self._arm(part, attempt)
            case Rebooting():
                return self._restart(part, state)
            case Trial():
                return self._check(part, state)
            case Confirming(attempt):
                return self._confirm(part, attempt)
            case Reverting(attempt):
                return self._revert(part, attempt)
            case Reporting():
                return self._report(part, state)
            case _:
                assert_never(state)

    def _wait(self, order: Instruction) -> Found:
        """The gate; after a long wait the Director is asked once more before it."""
        if self._helpers.must_ask():
            return NotYet(0.0)
        decision = self._helpers.gate(order)
        if isinstance(decision, gates.Closed):
            return NotYet(max(1.0, decision.seconds))
        return Done()

    def _arm(self, part: Component, attempt: Attempt) -> Found:
        order = attempt.order
        probe = part.installer.probe()
        if probe.running is not attempt.home:
            return self._booted(part)
        above(order.artifact.release_counter, self._helpers.floors.floor(part.ecu_id))
        armed = part.installer.arm(order, attempt.slot)
        if isinstance(armed, Running):
            return self._booted(part)
        return Armed(armed.boot_id)

    def _restart(self, part: Component, state: Rebooting) -> Found:
        if part.installer.probe().boot_id != state.boot_id:
            return self._booted(part)
        part.restart()
        return NotYet(self._helpers.restart_seconds)

    def _check(self, part: Component, state: Trial) -> Found:
        probe = part.installer.probe()
        if probe.running is not state.attempt.slot or probe.boot_id != state.boot_id:
            return self._booted(part)
        if self._is_late(part, state):
            return Failed(BootError.code, "the trial's deadline passed")
        results = part.health.check(state.attempt.order)
        if sick := [result for result in results if not result.ok]:
            detail = "; ".join(f"{it.name}: {it.detail}" for it in sick)
            return Failed(BootError.code, f"health check failed: {detail}")
        if self._is_late(part, state):  # good news that came too late is none
            return Failed(BootError.code, "health was shown after the trial's deadline")
        return Done()

    def _is_late(self, part: Component, state: Trial) -> bool:
        return self._helpers.clock.monotonic() - state.since > part.trial_seconds

    def _confirm(self, part: Component, attempt: Attempt) -> Found:
        """Ask first which slot runs: the bold row of the table."""
        if part.installer.probe().running is not attempt.slot:
            return self._booted(part)
        part.installer.confirm(attempt.order, attempt.slot)
        return Done()

    def _revert(self, part: Component, attempt: Attempt) -> Found:
        """Back home, unless that would undercut the floor (D-04)."""
        elsewhere = part.installer.probe().running is not attempt.home
        floor = self._helpers.floors.floor(part.ecu_id)
        if elsewhere and attempt.base and attempt.base.release_counter < floor:
            detail = (
                f"slot {attempt.home} has release counter "
                f"{attempt.base.release_counter}, the floor is {floor}"
            )
            return Failed(BootError.code, f"the way back is refused: {detail}")
        if part.installer.revert(attempt.home):
            return Done()
        part.restart()
        return NotYet(self._helpers.restart_seconds)

    def _report(self, part: Component, state: Reporting) -> Found:
        """The floor first, a durable step of its own after the confirm (B10)."""
        attempt, result = state.attempt, state.result
        order = attempt.order
        if result.verdict is Verdict.SUCCEEDED:
            self._helpers.floors.raise_to(order.ecu_id, order.artifact.release_counter)
        self._helpers.report(
            AttemptResult(
                id=attempt.id,
                ecu_id=order.ecu_id,
                order=order,
                verdict=result.verdict,
                stage=result.stage,
                code=result.code,
                detail=result.detail,
                installed=installed(state),
                moved=part.moved(order),
            )
        )
        return Done()

    def _booted(self, part: Component) -> Booted:
        probe = part.installer.probe()
        return Booted(probe.running, probe.boot_id, self._helpers.clock.monotonic())
