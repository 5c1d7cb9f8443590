"""Every state change leaves its leaf, in the transaction of the change.

:func:`recorded` is the only way a use case gets a writing transaction. It commits one
event with the change or nothing at all: a change without an event cannot be committed,
nor can two events in one change (invariant 10 of ``product.md`` section 5.13). Actor
and time come from the session and the server, never from what was asked.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.core.audit import Actor, ActorType, Event, Kind, Ref, leaf_bytes, leaf_hash
from sealift.core.errors import AuditUnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from datetime import datetime

    from sealift.server.ports import Leaf, Means, Session

__all__ = ["SYSTEM", "Unit", "page", "recorded", "size"]

SYSTEM = Actor(ActorType.SYSTEM, "server")
PAGE_MAX = 1000


@dataclass(slots=True)
class Unit:
    """One use case under way: its transaction, its moment, its one event."""

    session: Session
    actor: Actor
    now: datetime
    event_id: str
    events: int = 0

    def record(
        self, kind: Kind, body: Mapping[str, object], refs: Sequence[Ref] = ()
    ) -> None:
        """Append the event of this change.

        Raises:
            AuditUnavailableError: the log cannot be written; the change is undone.
        """
        event = Event(
            id=self.event_id,
            kind=kind,
            at=self.now,
            actor=self.actor,
            refs=tuple(refs),
            body=body,
        )
        leaf = leaf_bytes(event)
        self.session.audit.append(event, leaf, leaf_hash(leaf))
        self.events += 1


@contextmanager
def recorded(means: Means, actor: Actor) -> Iterator[Unit]:
    """A writing transaction that commits exactly one event with its change.

    A use case that found nothing to change records nothing and commits nothing.

    Raises:
        AuditUnavailableError: the log cannot be written, or the change has no event.
    """
    with means.store.begin() as session:
        event_id = means.chance.token_bytes(16).hex()
        unit = Unit(session, actor, means.clock.now(), event_id)
        yield unit
        if unit.events != (1 if session.changes() else 0):
            raise AuditUnavailableError(
                f"a change with {unit.events} audit events was undone",
                hint="this is a defect of the server; please report it",
            )


def size(session: Session) -> int:
    """How many leaves the log has."""
    return session.audit.size()


def page(session: Session, after: int = 0, limit: int = 100) -> Sequence[Leaf]:
    """Leaves with an index above ``after``, at most 1000 at once."""
    return session.audit.page(after, min(limit, PAGE_MAX))
