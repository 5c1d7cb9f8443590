"""One full cycle: resume, report, check, install, report. For a short-lived process.

The order is that of uptane.md 6.3: what a cut left behind is brought to its end first,
without any network (trial, health, confirm); then the manifest goes out (P1), then the
metadata is fetched (P3), then images (P4); and whatever came of it is stored as a
report before it is sent (M12).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sealift.agent import gate, history, life, log, machine, power
from sealift.agent.machine import Idle, Rebooting, Reporting, Staged, Staging, Trial
from sealift.agent.renewal import Outcome
from sealift.agent.report import Ended, News
from sealift.agent.shell import Outside, Shell
from sealift.core.errors import AuthRequiredError, SealiftError, TransportError
from sealift.core.reports import Result

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from sealift.agent.child import Summary
    from sealift.agent.journal import Floors, Journal
    from sealift.agent.machine import State
    from sealift.agent.outbox import Outbox
    from sealift.agent.ports import Answer, Clock, Fill, Moved, Storage, Transport
    from sealift.agent.report import Reporter
    from sealift.agent.shell import AttemptResult, Component
    from sealift.agent.trust import Verifier
    from sealift.core.types import Artifact, Instruction

LINGER_SECONDS = 5.0
"""A pause up to this long is waited for; a longer one ends the process."""

_NO_POLL = 10 * 86_400.0


class Stoppable:
    """A transport that looks for a stop signal between any two pieces.

    ``check`` raises ``SystemExit``; a piece that arrived is written before it is asked.
    """

    def __init__(self, way: Transport, check: Callable[[], None]) -> None:
        self._way = way
        self._check = check

    def get(self, path: str, *, limit: int, etag: str | None = None) -> Answer:
        """As the port says."""
        self._check()
        return self._way.get(path, limit=limit, etag=etag)

    def stream(
        self, path: str, *, start: int, stop: int, length: int, drop_max: int
    ) -> Iterator[bytes]:
        """As the port says."""
        pieces = self._way.stream(
            path, start=start, stop=stop, length=length, drop_max=drop_max
        )
        for piece in pieces:
            yield piece
            self._check()

    def put(self, path: str, body: bytes, *, limit: int) -> bytes:
        """As the port says."""
        self._check()
        return self._way.put(path, body, limit=limit)


@dataclass(frozen=True, slots=True)
class Parts:
    """What one cycle is made of. ``check`` is asked between two durable steps."""

    component: Component
    journal: Journal
    floors: Floors
    storage: Storage
    way: Transport
    verifier: Verifier
    reporter: Reporter
    outbox: Outbox
    clock: Clock
    policy: gate.Policy
    check: Callable[[], None]
    laden: Callable[[], bool] = lambda: False
    """Whether this process holds so much that a slot is better filled by another."""
    renew: Callable[[datetime, bool], Outcome] = lambda _now, _troubled: Outcome()
    """Bring the next certificate into use, where it is time."""


class _LeaveToNextError(BaseException):
    """What is to be done next is another process's: nobody on the way may catch it."""


class Cycle:
    """One cycle of one device. ``error`` is what hindered it last.

    ``goes_on``: a cycle that just ended left the filling of a slot to this one. What
    that one heard of the Director is in the journal, and not asked again at once.
    """

    def __init__(self, parts: Parts, *, goes_on: bool = False) -> None:
        self._has = parts
        self._goes_on = goes_on
        self._leaves = False
        self.error: SealiftError | None = None
        self._untold = False
        self._undelivered: SealiftError | None = None
        self._remarks: tuple[str, ...] = ()
        self._poll_seconds: int | None = None
        self._renewal = Outcome()
        part = replace(
            parts.component, restart=self._report_and_restart, fill=self._fill
        )
        outside = Outside(
            poll=self._poll,
            report=self._report,
            gate=self._gate,
            interval=lambda: _NO_POLL,
            notice=self._notice,
            changed=self._changed,
        )
        self._shell = Shell([part], parts.journal, parts.floors, parts.clock, outside)

    @property
    def states(self) -> dict[str, State]:
        """Every component's state, by ECU id."""
        return dict(self._shell.states)

    def run(self) -> Summary:
        """Go until nothing can be done now; what the parent has to know of it.

        Raises:
            SystemExit: a stop was asked for, or a restart is wanted (75).
            StateError, SpaceError: the store refused a report.
        """
        for state in self._shell.states.values():
            self._tell_watchdogs(state)
        try:
            rest = self._shell.once()
            while self._is_busy() and rest <= LINGER_SECONDS:
                self._has.clock.sleep(rest)
                rest = self._shell.once()
        except _LeaveToNextError:
            rest, self._leaves = 0.0, True
        if self._untold:
            self._tell(News(error=self.error, remarks=self._remarks))
        if not self._leaves:
            self._deliver()
            self._renew()
        return self._summary(rest if self._is_busy() else None)

    # ── what the shell asks for ──────────────────────────────────────────────────
    def _fill(self, order: Instruction, base: Artifact | None) -> Fill:
        if self._has.laden():
            raise _LeaveToNextError
        return self._has.component.fill(order, base)

    def _poll(self) -> Sequence[Instruction] | None:
        """P1 to P3: manifest first, then both repositories."""
        if self._goes_on:
            self._goes_on = False
            return None
        self._tell(News())
        self._deliver()
        self._untold = True
        floors = {ecu: self._has.floors.floor(ecu) for ecu in self._shell.states}
        try:
            checked = self._has.verifier.check(floors, settled(self._shell.states))
        except SealiftError as error:
            self._remember(history.check(error, self._has.clock.now()))
            raise
        self._poll_seconds = checked.poll_seconds
        self._remarks = checked.remarks
        for remark in checked.remarks:
            log.info("remark", text=remark)
        return checked.instructions

    def _gate(self, _: Instruction) -> gate.Decision:
        """Windows are judged by the believed time, and only where that is a clock."""
        standing = self._has.verifier.standing()
        facts = gate.Facts(
            now=standing.now,
            clock_trusted=standing.time_source == "clock",
            on_mains=power.on_mains(),
            battery_percent=power.battery_percent(),
        )
        decision = gate.decide(self._has.policy, facts)
        if isinstance(decision, gate.Closed):
            log.info("deferred", reason=decision.reason, seconds=decision.seconds)
        return decision

    def _report(self, result: AttemptResult) -> None:
        entry = history.attempt(result, self._has.clock.now())
        entries = history.with_entry(history.read(self._has.storage), entry)
        remarks = tuple(_remarks(result.moved))
        news = News(ended=self._ended(result), remarks=remarks)
        self._tell(news, {history.RECORD: entries})
        log.info(
            "attempt",
            verdict=str(result.verdict),
            release=result.order.artifact.version,
            stage=result.stage,
            code=result.code,
            detail=result.detail or None,
            method=result.moved.method if result.moved else None,
            received=result.moved.received if result.moved else None,
        )
        for remark in remarks:
            log.info("remark", text=remark)

    def _report_and_restart(self) -> None:
        """M12 before the machine goes down; nothing is sent on the way back home."""
        if self._untold:
            self._tell(News(error=self.error, remarks=self._remarks))
            if any(isinstance(s, Rebooting) for s in self._shell.states.values()):
                self._deliver()
        if self._has.component.on_board:
            life.restarts()
        self._has.component.restart()

    def _ended(self, told: AttemptResult) -> Ended:
        order, base = told.order, _base(self._shell.states[told.ecu_id])
        result = Result(
            attempt=told.id,
            verdict=str(told.verdict),
            stage=told.stage,
            sha256=order.artifact.sha256,
            director_version=order.director_version,
            from_version=base.version if base else None,
            to_version=order.artifact.version,
            deployment=order.deployment,
            code=told.code,
            detail=told.detail,
            ended=self._has.verifier.standing().now,
            transferred=told.moved.received if told.moved else None,
            method=told.moved.method if told.moved else None,
            repaired=told.moved.repaired if told.moved else None,
        )
        return Ended(told.ecu_id, result, told.installed)

    def _notice(self, ecu_id: str, error: SealiftError) -> None:
        self.error = error
        log.failed("cycle", error, component=ecu_id or None)

    def _changed(self, ecu_id: str, state: State) -> None:
        log.info("state", component=ecu_id, state=machine.name(state))
        self._tell_watchdogs(state)
        self._has.check()

    def _tell_watchdogs(self, state: State) -> None:
        """Whether this start is a trial, and how long it may last."""
        part = self._has.component
        if isinstance(state, Trial) and part.on_board:
            spent = self._has.clock.monotonic() - state.since
            life.trial(min(max(part.trial_seconds - spent, 0.0), part.trial_seconds))
        elif isinstance(state, Idle | Staging | Staged | Reporting):
            life.settled()
            part.settled()

    def _renew(self) -> None:
        """After everything else: a certificate never holds up an update."""
        trouble = self.error or self._undelivered
        troubled = isinstance(trouble, TransportError | AuthRequiredError)
        try:
            self._renewal = self._has.renew(self._has.verifier.standing().now, troubled)
        except SealiftError as error:
            log.failed("renewal", error)

    # ── reports ──────────────────────────────────────────────────────────────────
    def _tell(self, news: News, beside: dict[str, bytes | None] | None = None) -> None:
        self._has.reporter.produce(
            self._shell.states, self._has.verifier.standing(), news, beside
        )
        self._untold = False

    def _deliver(self) -> None:
        done = self._has.outbox.deliver(self._has.way)
        self._poll_seconds = done.poll_seconds or self._poll_seconds
        self._undelivered = done.error
        for code in done.refused:
            log.write("error", "report", code=code, message="a report was given up")
        if done.error is not None:
            log.failed("report", done.error, waiting=self._has.outbox.waiting)

    def _remember(self, entry: history.Entry) -> None:
        entries = history.with_entry(history.read(self._has.storage), entry)
        self._has.storage.commit({history.RECORD: entries})

    # ── the end ──────────────────────────────────────────────────────────────────
    def _is_busy(self) -> bool:
        return any(not isinstance(s, Idle) for s in self._shell.states.values())

    def _summary(self, rest: float | None) -> Summary:
        error = self.error or self._undelivered
        rests = [it for it in (rest, self._renewal.again) if it is not None]
        return {
            "error": error.code if error else None,
            "retry_after": error.fields.get("retry_after") if error else None,
            "rest": min(rests, default=None),
            "renewed": self._renewal.renewed,
            "poll_seconds": self._poll_seconds,
            "waiting": self._has.outbox.waiting,
            "leaves": self._leaves,
            "settled": {
                ecu: [digest.hex() for digest in digests]
                for ecu, digests in settled(self._shell.states).items()
            },
        }


def settled(states: Mapping[str, State]) -> dict[str, list[bytes]]:
    """Per component the images that need no instruction: confirmed, or failed."""
    return {ecu: list(_digests(state)) for ecu, state in states.items()}


def _base(state: State) -> Artifact | None:
    return state.installed if isinstance(state, Idle) else state.attempt.base


def _remarks(moved: Moved | None) -> Iterator[str]:
    """A base that changes by itself is evidence, though no error."""
    if moved is not None and moved.repaired:
        yield (
            f"{moved.repaired} segments could not be made of what runs and were "
            "repaired from the full container: the running slot was changed, "
            "or the delta is badly made"
        )


def _digests(state: State) -> Iterator[bytes]:
    if isinstance(state, Idle):
        if state.installed is not None:
            yield state.installed.sha256
        if state.refused is not None:
            yield state.refused.sha256
