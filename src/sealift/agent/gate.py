"""The gate before the switch: may this device install and restart now? Pure.

Windows are in device-local wall time (product.md 5.5): a window gates *starting* the
switch while the expected duration still fits; it never interrupts one that runs. The
owner's safety conditions hold in every mode, urgent releases included.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import time, tzinfo

LOOK_AGAIN_SECONDS = 60.0
"""When to ask again about facts that change without a timetable."""


class Consent(StrEnum):
    """Whose word an install waits for."""

    FORCED = "forced"
    OPTIONAL = "optional"


@dataclass(frozen=True, slots=True)
class Window:
    """A weekly window: local start on some weekdays (Monday is 0), elapsed length."""

    days: frozenset[int]
    start: time
    duration: timedelta


@dataclass(frozen=True, slots=True)
class Policy:
    """What the gate goes by. No window means always; the rest is off by default."""

    windows: tuple[Window, ...] = ()
    zone: tzinfo = UTC
    expected: timedelta = timedelta(0)
    """How long install and restart take; it has to fit into what is left."""
    consent: Consent = Consent.FORCED
    battery_percent_min: int = 0
    mains_needed: bool = False
    wait_when_unsure: bool = True
    """Whether a clock nobody trusts keeps the windows shut."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The device as it is now. ``None``: there is no such sensor or no such word."""

    now: datetime
    clock_trusted: bool = True
    on_mains: bool | None = None
    battery_percent: int | None = None
    consented: bool = False
    postponed_until: datetime | None = None


@dataclass(frozen=True, slots=True)
class Open:
    """Go on."""


@dataclass(frozen=True, slots=True)
class Closed:
    """Not now: why, in a word for ``deferred(reason)``, and when to look again."""

    reason: str
    seconds: float


Decision: TypeAlias = Open | Closed


def decide(policy: Policy, facts: Facts) -> Decision:
    """Whether the switch may be written and the device restarted now."""
    return (
        _power(policy, facts)
        or _consent(policy, facts)
        or _window(policy, facts)
        or Open()
    )


def _power(policy: Policy, facts: Facts) -> Closed | None:
    """A missing sensor fails closed where the policy asks for it."""
    if policy.mains_needed and facts.on_mains is not True:
        return Closed("power", LOOK_AGAIN_SECONDS)
    if policy.battery_percent_min and facts.on_mains is not True:
        charge = facts.battery_percent
        if charge is None or charge < policy.battery_percent_min:
            return Closed("power", LOOK_AGAIN_SECONDS)
    return None


def _consent(policy: Policy, facts: Facts) -> Closed | None:
    until = facts.postponed_until
    if until is not None and facts.now < until:
        return Closed("postponed", (until - facts.now).total_seconds())
    if policy.consent is Consent.OPTIONAL and not facts.consented:
        return Closed("consent", LOOK_AGAIN_SECONDS)
    return None


def _window(policy: Policy, facts: Facts) -> Closed | None:
    if not policy.windows:
        return None
    if not facts.clock_trusted:
        wait = policy.wait_when_unsure
        return Closed("clock", LOOK_AGAIN_SECONDS) if wait else None
    starts = []
    for begin, end in _occurrences(policy, facts.now):
        if begin <= facts.now and facts.now + policy.expected <= end:
            return None
        if begin > facts.now:
            starts.append(begin)
    until = min(starts, default=facts.now + timedelta(days=1))
    return Closed("window", (until - facts.now).total_seconds())


def _occurrences(policy: Policy, now: datetime) -> Iterator[tuple[datetime, datetime]]:
    """Every window that begins between eight days ago and eight days from now, in UTC.

    A start inside the hour that clocks skip opens at the first instant after it; in the
    hour that comes twice the first one counts.
    """
    today = now.astimezone(policy.zone).date()
    for offset in range(-8, 9):
        day = today + timedelta(days=offset)
        for window in policy.windows:
            if day.weekday() in window.days:
                begin = _instant(datetime.combine(day, window.start), policy.zone)
                yield begin, begin + window.duration


def _instant(local: datetime, zone: tzinfo) -> datetime:
    """When a wall clock in ``zone`` first shows ``local`` or, if it skips it, more."""
    begin = local.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if begin.astimezone(zone).replace(tzinfo=None) == local:
        return begin
    # Skipped: read with the offset from before the jump, it lies after it; bisect.
    earlier, later = begin - timedelta(days=1), begin
    while later - earlier > timedelta(seconds=1):
        middle = earlier + (later - earlier) / 2
        jumped = middle.astimezone(zone).replace(tzinfo=None) >= local
        earlier, later = (earlier, middle) if jumped else (middle, later)
    return later.replace(microsecond=0)
