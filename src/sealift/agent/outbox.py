"""Reports that wait for the server: stored before they are sent, sent in order.

A report is opaque bytes here; what it says is made in ``report``. Counter and chain
(crypto-and-identity.md section 9) are kept beside the queue and change in the same
commit, so no cut can use a counter twice with different content (M6) or lose a report
(M12). While the server is away the queue is bounded: the oldest stay, because each is
a link of the chain the server knows, the newest replaces the one before it and says
``gap``.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from sealift.core import canonical
from sealift.core.errors import (
    AuditUnavailableError,
    LimitError,
    RateLimitedError,
    ReportReplayError,
    RequestError,
    SealiftError,
    StateError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sealift.agent.ports import Readable, Storage, Transport

MOST_REPORTS = 64
"""Reports that wait at most; the server keeps the hashes of as many."""

REPORT_LIMIT = 64 * 1024
"""Bytes of one report at most."""

PATH = "director/manifest"
_STATE = "outbox"
_REPORT = "report."
_ANSWER_LIMIT = 4096
_STATE_LIMIT = 64 * 1024


@dataclass(frozen=True, slots=True)
class Link:
    """What the next report must carry to continue the chain."""

    counter: int
    previous: str | None
    """Lower hex SHA-256 of the report produced before it; ``None`` for the first."""
    gap: bool
    """A report between this and the previous delivered one was given up."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """What one try to empty the queue came to."""

    delivered: int = 0
    refused: tuple[str, ...] = ()
    """Codes of reports the server will never take; they were given up."""
    poll_seconds: int | None = None
    error: SealiftError | None = None
    """Why the rest still waits."""


@dataclass(frozen=True, slots=True)
class _Queue:
    counter: int = 0
    previous: str | None = None
    gap: bool = False
    waiting: tuple[int, ...] = ()  # counters, oldest first
    refused: str | None = None


@dataclass(frozen=True, slots=True)
class Looks:
    """The outbox from outside: how many wait, and the code of the last refusal."""

    waiting: int
    last_refusal: str | None


def look(records: Readable) -> Looks:
    """What ``status`` shows of the queue.

    Raises:
        StateError: its record is damaged.
    """
    queue = _read(records)
    return Looks(len(queue.waiting), queue.refused)


class Outbox:
    """The queue of one device; there is one, whatever the number of components.

    ``least`` is a counter above any that can have been used, such as the time in
    seconds. If the record of the queue is damaged, counting goes on above it and the
    next report says ``gap``: a device that cannot report would be a device that cannot
    finish an update. Without a ``least`` the damage is raised.

    ``began`` is asked where nothing is remembered: whether this device has a past all
    the same, as its hardware counter says. Then its state was wiped, and the server
    knows its reports: counting goes on in the same way, or it would be taken for a
    clone.
    """

    def __init__(
        self,
        storage: Storage,
        least: int | None = None,
        began: Callable[[], bool] = lambda: False,
    ) -> None:
        self._storage = storage
        self._least = least
        self._began = began

    def link(self) -> Link:
        """What the next report must say.

        Raises:
            StateError: the record of the queue is damaged.
        """
        queue = self._queue()
        full = len(queue.waiting) >= MOST_REPORTS
        return Link(queue.counter + 1, queue.previous, queue.gap or full)

    def add(
        self, link: Link, report: bytes, beside: dict[str, bytes | None] | None = None
    ) -> None:
        """Store a report made for ``link``, and ``beside`` in the same durable step.

        Raises:
            StateError: ``link`` is not the next one, or the store cannot be written.
            LimitError: the report is too long. SpaceError: no room. The counter is not
            used up by any of them.
        """
        queue = self._queue()
        if link.counter != queue.counter + 1:
            raise StateError("a report for a counter that was used already")
        if len(report) > REPORT_LIMIT:
            raise LimitError(f"report of {len(report)} bytes, {REPORT_LIMIT} allowed")
        kept = queue.waiting[: MOST_REPORTS - 1]
        given_up: dict[str, bytes | None] = {
            _name(counter): None for counter in queue.waiting[len(kept) :]
        }
        queue = replace(
            queue,
            counter=link.counter,
            previous=hashlib.sha256(report).hexdigest(),
            gap=False,
            waiting=(*kept, link.counter),
        )
        self._commit(queue, given_up | {_name(link.counter): report} | (beside or {}))

    @property
    def waiting(self) -> int:
        """How many reports wait."""
        return look(self._storage).waiting

    def deliver(self, transport: Transport) -> Delivery:
        """Send what waits, oldest first, byte for byte as stored, until one fails.

        A replay answer means that the report had arrived. Raises nothing of the
        transport: what stopped the delivery is in the result.

        Raises:
            StateError, SpaceError: the store refused.
        """
        done = Delivery()
        for counter in self._queue().waiting:
            refusal = None
            try:
                answer = transport.put(PATH, self._report(counter), limit=_ANSWER_LIMIT)
                done = replace(done, poll_seconds=_poll_seconds(answer))
            except ReportReplayError:
                pass  # it arrived, only the answer was lost
            except SealiftError as error:
                if not _is_final(error):
                    return replace(done, error=error)
                refusal = error.code
                done = replace(done, refused=(*done.refused, refusal))
            self._settle(counter, refusal)
            done = replace(done, delivered=done.delivered + (refusal is None))
        return done

    def _report(self, counter: int) -> bytes:
        found = self._storage.read(_name(counter))
        if found is None:
            raise StateError(f"report {counter} is lost")
        return found

    def _settle(self, counter: int, refusal: str | None) -> None:
        queue = self._queue()
        self._commit(
            replace(
                queue,
                waiting=tuple(c for c in queue.waiting if c != counter),
                gap=queue.gap or refusal is not None,
                refused=refusal or queue.refused,
            ),
            {_name(counter): None},
        )

    def _commit(self, queue: _Queue, changes: Mapping[str, bytes | None]) -> None:
        self._storage.commit({**changes, _STATE: _encoded(queue)})

    def _queue(self) -> _Queue:
        try:
            raw = self._storage.read(_STATE)
            if raw is not None:
                return _decoded(raw)
        except StateError:
            if self._least is None:
                raise
            return self._begun_anew(self._least)
        if self._least is not None and self._began():
            return self._begun_anew(self._least)
        return _Queue()

    def _begun_anew(self, least: int) -> _Queue:
        """What is still there waits on; nothing of the lost record is guessed."""
        names = self._storage.names(_REPORT)
        waiting = tuple(int(name.removeprefix(_REPORT), 16) for name in names)
        counter = max(least, *waiting, 0)
        return _Queue(counter=counter, gap=True, waiting=waiting)


def _read(records: Readable) -> _Queue:
    raw = records.read(_STATE)
    return _Queue() if raw is None else _decoded(raw)


def _is_final(error: SealiftError) -> bool:
    """Whether sending the same bytes again can never succeed."""
    refused = isinstance(error, RequestError) and not isinstance(
        error, (RateLimitedError, AuditUnavailableError)
    )
    return refused or isinstance(error, StateError)


def _name(counter: int) -> str:
    return f"{_REPORT}{counter:016x}"


def _encoded(queue: _Queue) -> bytes:
    return json.dumps(
        {
            "counter": queue.counter,
            "previous": queue.previous,
            "gap": queue.gap,
            "waiting": list(queue.waiting),
            "refused": queue.refused,
        },
        sort_keys=True,
    ).encode()


def _decoded(raw: bytes) -> _Queue:
    try:
        found = canonical.parse_object(raw, _STATE_LIMIT)
        waiting = found["waiting"]
        assert isinstance(waiting, list)  # noqa: S101
        return _Queue(
            counter=int(str(found["counter"])),
            previous=_text(found["previous"]),
            gap=found["gap"] is True,
            waiting=tuple(int(counter) for counter in waiting),
            refused=_text(found["refused"]),
        )
    except (SealiftError, AssertionError, KeyError, ValueError, TypeError) as error:
        raise StateError("the record of the report outbox is damaged") from error


def _text(value: object) -> str | None:
    return None if value is None else str(value)


def _poll_seconds(answer: bytes) -> int | None:
    """The one thing an answer may say; anything else in it is nobody's order."""
    try:
        found = canonical.parse_object(answer, _ANSWER_LIMIT).get("poll_seconds")
    except SealiftError:
        return None
    return found if type(found) is int else None
