"""The agent's only loop: perform the duty, journal what came of it, again.

All decisions are in ``agent.machine``; here they meet the world. The journal is written
before anything builds on a state, so a duty cut short is simply performed again. One
machine per component, one journal for all. Nothing here knows a file, a socket or a
process: whoever composes the agent passes

* per component: an installer, a way to fill a slot, a way to restart, health checks;
* ``Outside``: poll, report, gate, the poll interval and a place for notices.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeAlias, assert_never

from sealift.agent import gate as gates
from sealift.agent import machine
from sealift.agent.machine import (
    Arming,
    Attempt,
    Booted,
    Confirming,
    Done,
    Failed,
    Idle,
    Instructed,
    Outcome,
    Rebooting,
    Reporting,
    Reverting,
    Staged,
    Staging,
    State,
    Superseded,
    Trial,
    Verdict,
    advance,
)
from sealift.agent.ports import Running
from sealift.core.errors import BootError, PolicyError, SealiftError, TransportError
from sealift.core.version import above

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sealift.agent.journal import Floors, Journal
    from sealift.agent.ports import Clock, Fill, Health, Installer
    from sealift.core.types import Artifact, Instruction


# ── what comes in ────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Component:
    """One updatable part of the device: an installer with a serial.

    ``fill`` makes the :class:`~sealift.agent.ports.Fill` for an order. ``restart``
    restarts what the component lives in; it may raise ``SystemExit`` or return while
    the restart is under way, then it is called again after ``Limits.restart_seconds``.
    ``factory`` is what the confirmed slot holds before the first update, if known.
    ``trial_seconds`` is how long a trial may last in one boot until it is healthy.
    """

    ecu_id: str
    installer: Installer
    fill: Callable[[Instruction], Fill]
    restart: Callable[[], None]
    health: Health
    factory: Artifact | None = None
    trial_seconds: float = 600.0


@dataclass(frozen=True, slots=True)
class AttemptResult:
    """One ended attempt, as the server is to learn it.

    ``id`` is the same however often the result is handed over; the receiver keeps one.
    ``installed`` is what the confirmed slot holds after the attempt.
    """

    id: str
    ecu_id: str
    order: Instruction
    verdict: Verdict
    stage: str
    code: str | None
    detail: str
    installed: Artifact | None


class Poll(Protocol):
    """Ask the server, verify, and say what the Director orders for this device *now*.

    Returns the whole present order, also when it has not changed, out of the stored
    verified metadata if need be: an order that was fetched, then lost in a power cut
    before it was journaled, has to come again. ``None`` says "the same as my last
    answer in this process". An entry for something already installed does no harm.

    Raises:
        SealiftError: no answer, or none that verifies. Nothing under way is touched.
    """

    def __call__(self) -> Sequence[Instruction] | None:
        """The whole present order, or "as before"."""
        ...


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
class Limits:
    """Times of the loop, in seconds."""

    fresh: float = 900.0
    """How old the last word of the Director may be when the switch is written."""
    retry: float = 30.0
    """The first pause after a hindrance; it doubles up to ``retry_max``."""
    retry_max: float = 3600.0
    restart_seconds: float = 60.0


@dataclass(frozen=True, slots=True)
class Outside:
    """Everything beyond the device's own parts. ``notice`` is for the log."""

    poll: Poll
    report: Report
    gate: Gate = field(default=lambda _order: gates.Open())
    interval: Callable[[], float] = field(default=lambda: 300.0)
    """Seconds until the next poll, as the server dictates, jitter included."""
    notice: Callable[[str, SealiftError], None] = field(
        default=lambda _ecu, _error: None
    )
    """``notice(ecu_id, error)``: something hinders, and will be tried again."""
    changed: Callable[[str, State], None] = field(default=lambda _ecu, _state: None)
    """``changed(ecu_id, state)``: a state was journaled."""
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class NotYet:
    """The state stands; look again after ``seconds``."""

    seconds: float


_Duty: TypeAlias = Outcome | NotYet


# ── the loop ─────────────────────────────────────────────────────────────────────────
class Shell:
    """One device's machines and the loop that moves them."""

    def __init__(
        self,
        components: Sequence[Component],
        journal: Journal,
        floors: Floors,
        clock: Clock,
        outside: Outside,
    ) -> None:
        self._components = {part.ecu_id: part for part in components}
        self._journal = journal
        self._floors = floors
        self._clock = clock
        self._outside = outside
        self._limits = outside.limits
        self._orders: dict[str, Instruction] | None = None
        self._asked_at: float | None = None
        self._next_poll = float("-inf")
        self._due: dict[str, float] = {}
        self._hindered: dict[str, int] = {}
        self._states = self._resume()

    @property
    def states(self) -> Mapping[str, State]:
        """Every component's state, by ECU id."""
        return dict(self._states)

    @property
    def installed(self) -> Mapping[str, Artifact | None]:
        """What every component's confirmed slot holds, for the manifest."""
        return {ecu: _installed(state) for ecu, state in self._states.items()}

    def run(self, pause: Callable[[float], object]) -> None:
        """Go on for ever; ``pause`` waits so many seconds, or less when hinted."""
        while True:
            pause(self.once())

    def once(self) -> float:
        """Settle, poll if it is time, settle; seconds until something may be due.

        What is past the point of no return goes first: a trial is confirmed or given up
        before anybody talks to a server.
        """
        self._settle(*_COMMITTED)
        while True:
            if self._clock.monotonic() >= self._next_poll:
                self._poll()
            self._hear()
            self._settle(*_ALL)
            rest = self._rest()
            if rest > 0 and not self._hear():
                return rest

    def _poll(self) -> None:
        """Ask the server; a hindrance is a notice, and a poll all the same."""
        self._asked_at = self._clock.monotonic()
        self._next_poll = self._asked_at + max(1.0, self._outside.interval())
        try:
            orders = self._outside.poll()
        except SealiftError as error:
            self._outside.notice("", error)
        except Exception as error:  # noqa: BLE001 -- nothing may end the loop
            self._outside.notice("", _unexpected(error))
        else:
            if orders is not None:
                self._orders = {order.ecu_id: order for order in orders}

    # ── orders ───────────────────────────────────────────────────────────────────────
    def _hear(self) -> bool:
        """Bring every component the Director's last word; ``True`` if one moved."""
        if self._orders is None:
            return False
        moved = False
        for ecu_id in self._components:
            outcome = self._heard(ecu_id, self._orders.get(ecu_id))
            moved |= outcome is not None and self._move(ecu_id, outcome)
        return moved

    def _heard(self, ecu_id: str, order: Instruction | None) -> Outcome | None:
        state = self._states[ecu_id]
        if isinstance(state, Idle):
            if order is None or not machine.wants(state, order) or self._rests(ecu_id):
                return None
            return self._guarded(ecu_id, lambda: self._begin(ecu_id, state, order))
        if isinstance(state, Staging | Staged) and machine.superseded(state, order):
            return Superseded("the Director orders something else by now")
        return None

    def _begin(self, ecu_id: str, state: Idle, order: Instruction) -> _Duty:
        probe = self._components[ecu_id].installer.probe()
        facts = (ecu_id, order.targets_sha256.hex(), order.artifact.sha256.hex())
        salt = (probe.boot_id, str(self._journal.sequence))
        digest = hashlib.sha256("\n".join(facts + salt).encode()).hexdigest()
        home = probe.running
        return Instructed(
            Attempt(digest[:32], order, home.other, home, state.installed)
        )

    # ── settling ─────────────────────────────────────────────────────────────────────
    def _settle(self, *kinds: type[State]) -> None:
        """Move every component in one of these states until all of them wait.

        A restart takes the whole device with it, so others come to rest before it.
        """
        tried: set[str] = set()
        while waiting := [it for it in self._ready(kinds) if it not in tried]:
            ecu_id = min(waiting, key=lambda it: _restarts(self._states[it]))
            if not self._step(ecu_id):
                tried.add(ecu_id)

    def _ready(self, kinds: tuple[type[State], ...]) -> Iterator[str]:
        for ecu_id, state in self._states.items():
            if isinstance(state, kinds) and not self._rests(ecu_id):
                yield ecu_id

    def _rests(self, ecu_id: str) -> bool:
        now = self._clock.monotonic()
        return self._due.get(ecu_id, now) > now

    def _step(self, ecu_id: str) -> bool:
        state = self._states[ecu_id]
        outcome = self._guarded(ecu_id, lambda: self._perform(ecu_id, state))
        return outcome is not None and self._move(ecu_id, outcome)

    def _guarded(self, ecu_id: str, act: Callable[[], _Duty]) -> Outcome | None:
        """Perform; an error is an outcome where the state has one, else a pause."""
        try:
            found = act()
        except SealiftError as error:
            found = self._hindrance(ecu_id, error)
        except Exception as error:  # noqa: BLE001 -- no error may leave a half-done state
            found = self._hindrance(ecu_id, _unexpected(error))
        if isinstance(found, NotYet):
            self._due[ecu_id] = self._clock.monotonic() + found.seconds
            return None
        return found

    def _move(self, ecu_id: str, outcome: Outcome) -> bool:
        """Journal what came of a duty; only then is it so. ``False``: not journaled."""
        state = advance(self._states[ecu_id], outcome)
        try:
            self._journal.write(ecu_id, state)
        except SealiftError as error:
            self._outside.notice(ecu_id, error)
            self._due[ecu_id] = self._clock.monotonic() + self._back_off(ecu_id)
            return False
        self._states[ecu_id] = state
        self._due.pop(ecu_id, None)
        self._hindered.pop(ecu_id, None)
        if isinstance(state, Idle) and state.installed is not None:
            self._floors.known(ecu_id, state.installed.release_counter)
        self._outside.changed(ecu_id, state)
        return True

    def _hindrance(self, ecu_id: str, error: SealiftError) -> _Duty:
        state = self._states[ecu_id]
        self._outside.notice(ecu_id, error)
        if isinstance(state, Staging) and isinstance(
            error, TransportError | PolicyError
        ):
            return NotYet(self._back_off(ecu_id))
        if isinstance(state, Staging | Staged | Arming | Trial | Confirming):
            return Failed(error.code, error.message)
        return NotYet(self._back_off(ecu_id))

    def _back_off(self, ecu_id: str) -> float:
        times = self._hindered.get(ecu_id, 0)
        self._hindered[ecu_id] = times + 1
        return min(self._limits.retry * 2.0 ** min(times, 20), self._limits.retry_max)

    def _rest(self) -> float:
        """Seconds until the next poll or the next component that is due."""
        now = self._clock.monotonic()
        due = [at for at in self._due.values() if at > now]
        return max(0.0, min([self._next_poll, *due]) - now)

    def _resume(self) -> dict[str, State]:
        """The journaled states; a journal that is lost starts anew, and says so.

        The device keeps what it runs. If that is a slot on trial, the loader takes the
        device home by itself, and until then the installer refuses to touch the other
        slot; nothing is installed, confirmed or armed on the word of garbage.
        """
        try:
            kept = dict(self._journal.read())
        except SealiftError as error:
            self._outside.notice("", error)
            kept = {}
        fresh = {ecu: Idle(part.factory) for ecu, part in self._components.items()}
        states = {ecu: kept.get(ecu, idle) for ecu, idle in fresh.items()}
        for ecu_id, state in states.items():
            if (installed := _installed(state)) is not None:
                self._floors.known(ecu_id, installed.release_counter)
        return states

    # ── duties ───────────────────────────────────────────────────────────────────────
    def _perform(self, ecu_id: str, state: State) -> _Duty:
        part = self._components[ecu_id]
        match state:
            case Idle():
                return NotYet(self._outside.interval())
            case Staging(attempt):
                part.installer.stage(
                    attempt.order, attempt.slot, part.fill(attempt.order)
                )
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
                return self._report(state)
            case _:
                assert_never(state)

    def _wait(self, order: Instruction) -> _Duty:
        """The gate; after a long wait the Director is asked once more before it."""
        now = self._clock.monotonic()
        if self._asked_at is None or now - self._asked_at > self._limits.fresh:
            self._next_poll = now
            return NotYet(0.0)
        decision = self._outside.gate(order)
        if isinstance(decision, gates.Closed):
            return NotYet(max(1.0, decision.seconds))
        return Done()

    def _arm(self, part: Component, attempt: Attempt) -> _Duty:
        order = attempt.order
        probe = part.installer.probe()
        if probe.running is not attempt.home:
            return self._booted(part)
        above(order.artifact.release_counter, self._floors.floor(part.ecu_id))
        armed = part.installer.arm(order, attempt.slot)
        if isinstance(armed, Running):
            return self._booted(part)
        return machine.Armed(armed.boot_id)

    def _restart(self, part: Component, state: Rebooting) -> _Duty:
        if part.installer.probe().boot_id != state.boot_id:
            return self._booted(part)
        part.restart()
        return NotYet(self._limits.restart_seconds)

    def _check(self, part: Component, state: Trial) -> _Duty:
        probe = part.installer.probe()
        if probe.running is not state.attempt.slot or probe.boot_id != state.boot_id:
            return self._booted(part)
        if self._clock.monotonic() - state.since > part.trial_seconds:
            return Failed(BootError.code, "the trial's deadline passed")
        results = part.health.check(state.attempt.order)
        if sick := [result for result in results if not result.ok]:
            detail = "; ".join(f"{it.name}: {it.detail}" for it in sick)
            return Failed(BootError.code, f"health check failed: {detail}")
        return Done()

    def _confirm(self, part: Component, attempt: Attempt) -> _Duty:
        """Ask first which slot runs: the bold row of the table."""
        if part.installer.probe().running is not attempt.slot:
            return self._booted(part)
        part.installer.confirm(attempt.order, attempt.slot)
        return Done()

    def _revert(self, part: Component, attempt: Attempt) -> _Duty:
        """Back home, unless that would undercut the floor (D-04)."""
        elsewhere = part.installer.probe().running is not attempt.home
        floor = self._floors.floor(part.ecu_id)
        if elsewhere and attempt.base and attempt.base.release_counter < floor:
            detail = (
                f"slot {attempt.home} has release counter "
                f"{attempt.base.release_counter}, the floor is {floor}"
            )
            return Failed(BootError.code, f"the way back is refused: {detail}")
        if part.installer.revert(attempt.home):
            return Done()
        part.restart()
        return NotYet(self._limits.restart_seconds)

    def _report(self, state: Reporting) -> _Duty:
        """The floor first, a durable step of its own after the confirm (B10)."""
        attempt, result = state.attempt, state.result
        order = attempt.order
        if result.verdict is Verdict.SUCCEEDED:
            self._floors.raise_to(order.ecu_id, order.artifact.release_counter)
        self._outside.report(
            AttemptResult(
                id=attempt.id,
                ecu_id=order.ecu_id,
                order=order,
                verdict=result.verdict,
                stage=result.stage,
                code=result.code,
                detail=result.detail,
                installed=_installed(state),
            )
        )
        return Done()

    def _booted(self, part: Component) -> Booted:
        probe = part.installer.probe()
        return Booted(probe.running, probe.boot_id, self._clock.monotonic())


_COMMITTED: tuple[type[State], ...] = (
    Arming,
    Rebooting,
    Trial,
    Confirming,
    Reverting,
    Reporting,
)
_ALL: tuple[type[State], ...] = (Staging, Staged, *_COMMITTED)


def _restarts(state: State) -> bool:
    return isinstance(state, Rebooting | Reverting)


def _installed(state: State) -> Artifact | None:
    """What the confirmed slot holds in this state."""
    if isinstance(state, Idle):
        return state.installed
    if isinstance(state, Reporting) and state.result.verdict is Verdict.SUCCEEDED:
        return state.attempt.order.artifact
    return state.attempt.base


def _unexpected(error: Exception) -> SealiftError:
    return SealiftError(f"unexpected {type(error).__name__}: {error}"[:1000])
