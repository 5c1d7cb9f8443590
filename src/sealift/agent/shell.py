"""The agent's only loop: perform the duty, journal what came of it, again.

All decisions are in ``agent.machine``, all acts in ``agent.duties``; here they meet.
The journal is written before anything builds on a state, so a duty cut short is simply
performed again. One machine per component, one journal for all. Nothing here knows a
file, a socket or a process: whoever composes the agent passes

* per component: an installer, a way to fill a slot, a way to restart, health checks;
* ``Outside``: poll, report, gate, the poll interval and a place for notices.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from sealift.agent import gate as gates
from sealift.agent.duties import (
    AttemptResult,
    Component,
    Duties,
    Found,
    Gate,
    Helpers,
    NotYet,
    Report,
)
from sealift.agent.machine import (
    Active,
    Arming,
    Attempt,
    Confirming,
    Failed,
    Gone,
    Idle,
    Instructed,
    Offered,
    Outcome,
    Rebooting,
    Reporting,
    Reverting,
    Staged,
    Staging,
    State,
    Superseded,
    Trial,
    advance,
    offered,
    superseded,
    wants,
)
from sealift.agent.record import LostError
from sealift.core.errors import (
    NotFoundError,
    PolicyError,
    SealiftError,
    SlotTooSmallError,
    SpaceError,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from sealift.agent.journal import Floors, Journal
    from sealift.agent.ports import Clock
    from sealift.core.types import Instruction

__all__ = [
    "AttemptResult",
    "Component",
    "Gate",
    "Limits",
    "Outside",
    "Poll",
    "Report",
    "Shell",
]


# ── what comes in ────────────────────────────────────────────────────────────────────
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


# ── the loop ─────────────────────────────────────────────────────────────────────────
class Shell:
    """One device's machines and the loop that moves them.

    Raises:
        TrustAnchorError: others may write the journal; nothing of it is believed.
        StateError: it cannot be read now; whoever starts the agent starts it again. Or
        it is older than the device (D-15).
    """

    performs: type[Duties] = Duties

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
        self._duties = self.performs(
            Helpers(
                clock=clock,
                floors=floors,
                report=outside.report,
                gate=outside.gate,
                must_ask=self._must_ask,
                restart_seconds=self._limits.restart_seconds,
            )
        )
        self._states = self._resume()
        for ecu_id, state in self._states.items():
            if isinstance(state, Idle):
                self._clear(ecu_id)

    @property
    def states(self) -> Mapping[str, State]:
        """Every component's state, by ECU id."""
        return dict(self._states)

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

    def _must_ask(self) -> bool:
        """Whether nobody was asked for long, or never; the next poll is then due."""
        now = self._clock.monotonic()
        if self._asked_at is not None and now - self._asked_at <= self._limits.fresh:
            return False
        self._next_poll = now
        return True

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
            if order is None or not wants(state, order) or self._rests(ecu_id):
                return None
            return self._guarded(ecu_id, lambda: self._begin(ecu_id, state, order))
        if isinstance(state, Staging | Staged) and superseded(state, order):
            return Superseded("the Director orders something else by now")
        if isinstance(state, Staging) and order is not None and offered(state, order):
            return Offered(order)
        return None

    def _begin(self, ecu_id: str, state: Idle, order: Instruction) -> Found:
        probe = self._components[ecu_id].installer.probe()
        facts = (ecu_id, order.targets_sha256.hex(), order.artifact.sha256.hex())
        salt = (probe.boot_id, str(self._journal.sequence))
        digest = hashlib.sha256("\n".join(facts + salt).encode()).hexdigest()
        home = probe.running
        return Instructed(
            Attempt(digest[:32], order, home.other, home, state.installed)
        )

    # ── settling ─────────────────────────────────────────────────────────────────────
    def _settle(self, *kinds: type[Active]) -> None:
        """Move every component in one of these states until all of them wait.

        A restart takes the whole device with it, so others come to rest before it.
        """
        tried: set[str] = set()
        while waiting := [it for it in self._ready(kinds) if it[0] not in tried]:
            ecu_id, state = min(waiting, key=lambda it: _restarts(it[1]))
            if not self._step(ecu_id, state):
                tried.add(ecu_id)

    def _ready(self, kinds: tuple[type[Active], ...]) -> Iterator[tuple[str, Active]]:
        for ecu_id, state in self._states.items():
            if isinstance(state, kinds) and not self._rests(ecu_id):
                yield ecu_id, state

    def _rests(self, ecu_id: str) -> bool:
        now = self._clock.monotonic()
        return self._due.get(ecu_id, now) > now

    def _step(self, ecu_id: str, state: Active) -> bool:
        part = self._components[ecu_id]
        outcome = self._guarded(ecu_id, lambda: self._duties.perform(part, state))
        return outcome is not None and self._move(ecu_id, outcome)

    def _guarded(self, ecu_id: str, act: Callable[[], Found]) -> Outcome | None:
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
        if isinstance(state, Idle):
            self._clear(ecu_id)
        if isinstance(outcome, Gone) and isinstance(state, Staging):
            self._ask_anew(ecu_id, state)
        self._outside.changed(ecu_id, state)
        return True

    def _clear(self, ecu_id: str) -> None:
        """An attempt is over for good: nothing of it stays; at the next start if not
        now, so that its result is told with the same figures however often.
        """
        try:
            self._components[ecu_id].clear()
        except SealiftError as error:
            self._outside.notice(ecu_id, error)

    def _ask_anew(self, ecu_id: str, state: Staging) -> None:
        """A poll before the next try, after a pause that grows: offers take time."""
        pause = min(
            self._limits.retry * 2.0 ** (state.gone - 1), self._limits.retry_max
        )
        self._due[ecu_id] = self._clock.monotonic() + pause
        self._next_poll = min(self._next_poll, self._due[ecu_id])

    def _hindrance(self, ecu_id: str, error: SealiftError) -> Found:
        state = self._states[ecu_id]
        self._outside.notice(ecu_id, error)
        if isinstance(state, Staging) and _passes(error):
            return NotYet(self._back_off(ecu_id))
        if isinstance(state, Staging) and isinstance(error, NotFoundError):
            return Gone(error.code, error.message)
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
        except LostError as error:
            self._outside.notice("", error)
            kept = {}
        self._floors.agree(kept)
        states = {
            ecu: kept[ecu] if ecu in kept else self._first(part)
            for ecu, part in self._components.items()
        }
        self._floors.heed(states)
        return states

    def _first(self, part: Component) -> State:
        """What a component holds of which nothing is journaled; then it is journaled.

        Nobody can tell now: unknown, and asked again at the next start.
        """
        state = Idle()
        if part.factory is None:
            return state
        try:
            state = Idle(part.factory())
            self._journal.write(part.ecu_id, state)
        except SealiftError as error:
            self._outside.notice(part.ecu_id, error)
        return state


_COMMITTED: tuple[type[Active], ...] = (
    Arming,
    Rebooting,
    Trial,
    Confirming,
    Reverting,
    Reporting,
)
_ALL: tuple[type[Active], ...] = (Staging, Staged, *_COMMITTED)


def _restarts(state: State) -> bool:
    return isinstance(state, Rebooting | Reverting)


def _passes(error: SealiftError) -> bool:
    """Whether the same image may be staged later: network, budget, a full disk."""
    if isinstance(error, SlotTooSmallError):
        return False
    return isinstance(error, TransportError | PolicyError | SpaceError)


def _unexpected(error: Exception) -> SealiftError:
    return SealiftError(f"unexpected {type(error).__name__}: {error}"[:1000])
