"""The light parent of ``sealift-agent run``: poll, sleep, send a child to work.

It never loads ``cryptography``. A full check runs in a child (see ``child``): at the
start, which resumes whatever a cut left in the journal before any network; on news;
when the Director's Timestamp expires; and at least once a day.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sealift.agent import log, schedule
from sealift.agent.child import RESTART, Ended
from sealift.agent.watch import Known, Look
from sealift.core.errors import SealiftError

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.agent.ports import Clock
    from sealift.agent.signals import Signals
    from sealift.agent.watch import Watch

FULL_CHECK_SECONDS = 86_400.0
"""A full check at least this often, news or not."""

EXPIRED_AGAIN_SECONDS = 3_600.0
"""After a full check that found the Timestamp expired, the next one for that reason."""


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
        watch: Watch,
        work: Work,
        clock: Clock,
        signals: Signals,
        pace: Pace,
        chance: Callable[[], float],
        note: Callable[[Facts], None] = lambda _: None,
    ) -> None:
        self._watch = watch
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
        self._expires: float | None = None
        self._rest: float | None = None
        self._checked_at = float("-inf")

    def run(self) -> int:
        """Poll until told to stop or to restart; the exit status."""
        due = True
        while not self._signals.stopping:
            if due and self._check() == RESTART:
                log.info("restart", status=RESTART)
                return RESTART
            due = self._pause() and self._is_due()
        log.info("stopped")
        return 0

    # ── the full check ───────────────────────────────────────────────────────────
    def _check(self) -> int:
        ended = self._work()
        self._checked_at = self._clock.monotonic()
        self._learn(ended)
        self._unfinished = not ended.whole
        if self._unfinished or ended.summary.get("again") is True:
            self._failures += 1
            self._watch.forget()
        else:
            self._failures = 0
        error = ended.summary.get("error")
        crashed = "device.state" if self._unfinished else None
        self._facts.last_error = error if isinstance(error, str) else crashed
        return ended.status

    def _learn(self, ended: Ended) -> None:
        known = Known.from_summary(ended.summary)
        self._watch.learn(known)
        self._expires = known.expires if known else self._expires
        self._rest = _number(ended.summary.get("rest"))
        self._dictated = _number(ended.summary.get("poll_seconds")) or self._dictated

    # ── the light poll ───────────────────────────────────────────────────────────
    def _is_due(self) -> bool:
        """Whether a full check is to run now; asks the server unless that is clear."""
        if self._signals.take_hint() or self._overdue():
            return True
        try:
            look = self._watch.look()
        except SealiftError as error:
            self._failed(error)
            return False
        self._looked(look)
        return look.news

    def _overdue(self) -> bool:
        since = self._clock.monotonic() - self._checked_at
        if since >= FULL_CHECK_SECONDS or self._unfinished:
            return True  # a killed child left a journal to resume, network or not
        if self._rest is not None and since >= self._rest:
            return True
        expired = self._expires is not None and (
            self._clock.now().timestamp() >= self._expires
        )
        return expired and since >= EXPIRED_AGAIN_SECONDS

    def _looked(self, look: Look) -> None:
        self._failures, self._asked = 0, None
        self._dictated = look.poll_seconds or self._dictated
        self._facts.last_poll = self._clock.now().timestamp()
        log.info("poll", news=look.news, interval=self._interval())

    def _failed(self, error: SealiftError) -> None:
        self._failures += 1
        self._asked = _number(error.fields.get("retry_after"))
        self._facts.last_error = error.code
        log.failed("poll", error, failures=self._failures)

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
