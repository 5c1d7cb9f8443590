"""The light parent of ``sealift-agent run``: poll, sleep, send a child to work.

It never loads ``cryptography``. A full check runs in a child (see ``child``): at the
start, where it resumes whatever a cut left in the journal before any network; on news,
which is the verifier's cheap question; when the server answers again and reports wait
for it; when a component said it would be ready; after a child was killed; and at least
once a day.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sealift.agent import log, schedule
from sealift.agent.child import RESTART, Ended
from sealift.core.errors import SealiftError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.agent.ports import Clock
    from sealift.agent.signals import Signals
    from sealift.agent.trust import Polled

FULL_CHECK_SECONDS = 86_400.0
"""A full check at least this often, news or not."""

Settled = Mapping[str, list[bytes]]


class Ask(Protocol):
    """The cheap question: whether a full check is worth it; see ``Verifier.poll``."""

    def __call__(self, settled: Settled, /) -> Polled:
        """Ask the server.

        Raises:
            SealiftError: no usable answer.
        """
        ...


class Work(Protocol):
    """Run one full check in a child."""

    def __call__(self) -> Ended:
        """Return when the child has ended, however it did."""
        ...


@dataclass(frozen=True, slots=True)
class Pace:
    """How the configuration wants polls spread."""

    poll_seconds: float
    poll_jitter: float


@dataclass(slots=True)
class Facts:
    """What ``status`` is told of a running agent; ``note`` gets them as they change."""

    last_poll: float | None = None
    next_poll: float | None = None
    last_error: str | None = None


class Daemon:
    """One device's poll loop. ``chance`` draws from [0, 1)."""

    def __init__(
        self,
        ask: Ask,
        work: Work,
        clock: Clock,
        signals: Signals,
        pace: Pace,
        chance: Callable[[], float],
        note: Callable[[Facts], None] = lambda _: None,
    ) -> None:
        self._ask = ask
        self._work = work
        self._clock = clock
        self._signals = signals
        self._pace = pace
        self._chance = chance
        self._note = note
        self._facts = Facts()
        self._dictated: float | None = None
        self._failures = 0
        self._unfinished = False
        self._asked: float | None = None
        self._settled: Settled = {}
        self._rest: float | None = None
        self._owes_reports = False
        self._checked_at = float("-inf")

    def run(self) -> int:
        """Poll until told to stop or to restart; the exit status."""
        due = True
        self._note(self._facts)
        while not self._signals.stopping:
            if due and self._check() == RESTART and not self._signals.stopping:
                log.info("restart", status=RESTART)
                return RESTART
            due = self._pause() and self._is_due()
        log.info("stopped")
        return 0

    # ── the full check ───────────────────────────────────────────────────────────
    def _check(self) -> int:
        ended = self._work()
        self._checked_at = self._clock.monotonic()
        self._unfinished = not ended.whole
        self._learn(ended.summary)
        error = ended.summary.get("error")
        if self._unfinished or isinstance(error, str):
            self._failures += 1
            self._facts.last_error = str(error or "device.state")
        else:
            self._failures, self._facts.last_error = 0, None
        return ended.status

    def _learn(self, told: Mapping[str, object]) -> None:
        self._rest = _number(told.get("rest"))
        self._asked = _number(told.get("retry_after"))
        self._owes_reports = bool(told.get("waiting"))
        self._dictated = _number(told.get("poll_seconds")) or self._dictated
        settled = told.get("settled")
        if isinstance(settled, dict):
            self._settled = {
                str(ecu): [bytes.fromhex(digest) for digest in digests]
                for ecu, digests in settled.items()
            }

    # ── the light poll ───────────────────────────────────────────────────────────
    def _is_due(self) -> bool:
        """Whether a full check is to run now; asks the server unless that is clear."""
        if self._signals.take_hint() or self._overdue():
            return True
        try:
            found = self._ask(self._settled)
        except SealiftError as error:
            self._failures += 1
            self._asked = _number(error.fields.get("retry_after"))
            self._facts.last_error = error.code
            log.failed("poll", error, failures=self._failures)
            return False
        self._facts.last_poll = self._clock.now().timestamp()
        self._dictated = found.poll_seconds or self._dictated
        log.info("poll", news=found.news, interval=self._interval())
        if found.news or self._owes_reports:
            return True
        self._failures, self._asked, self._facts.last_error = 0, None, None
        return False

    def _overdue(self) -> bool:
        """A killed child left a journal to resume, network or not; a wait is over."""
        since = self._clock.monotonic() - self._checked_at
        waited = self._rest is not None and since >= self._rest
        return self._unfinished or waited or since >= FULL_CHECK_SECONDS

    # ── waiting ──────────────────────────────────────────────────────────────────
    def _interval(self) -> float:
        return schedule.interval(self._pace.poll_seconds, self._dictated)

    def _pause(self) -> bool:
        """Wait for the next poll; ``False`` when it is time to stop instead."""
        seconds = self._seconds()
        self._facts.next_poll = self._clock.now().timestamp() + seconds
        self._note(self._facts)
        log.info("wait", seconds=round(seconds, 1))
        self._signals.wait(seconds)
        return not self._signals.stopping

    def _seconds(self) -> float:
        chance = self._chance()
        if self._failures:
            interval = self._interval()
            return schedule.retry(self._failures, interval, self._asked, chance)
        wait = schedule.wait(self._interval(), self._pace.poll_jitter, chance)
        return wait if self._rest is None else min(wait, self._rest)


def _number(value: object) -> float | None:
    return float(value) if type(value) in {int, float} else None  # type: ignore[arg-type]
