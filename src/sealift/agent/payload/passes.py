"""One pass over what is wrong in the slot: by the delta first, then by the full one.

A pass looks at the slot unless the pass before did, and leaves the marks of what is
still wrong. The full pass leaves nothing, or raises.
"""

from __future__ import annotations

from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sealift.agent.payload.line import Line
from sealift.agent.payload.method import Balance
from sealift.agent.payload.plan import Plan, survey
from sealift.agent.payload.source import Source, head_length
from sealift.agent.payload.stream import Stream
from sealift.agent.payload.tally import Mending, Tally
from sealift.core.container import check_bounds
from sealift.core.errors import ContainerError, LengthError, LimitError, SealiftError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sealift.agent.payload.box import Box
    from sealift.agent.payload.ledger import Ledger
    from sealift.agent.payload.marks import Marks
    from sealift.agent.payload.workers import Workers
    from sealift.agent.ports import Progress, SlotDevice, Transport, Workspace
    from sealift.core.container import Head, Segment
    from sealift.core.delta import Base
    from sealift.core.payload import Frame
    from sealift.core.types import Artifact, Container

HEAD_FILE: Final = "payload.head"
DELTA_HEAD_FILE: Final = "payload.delta.head"

_BADLY_MADE: Final = (ContainerError, LimitError, LengthError)


@dataclass(frozen=True, slots=True)
class Site:
    """What the passes of one install have in common. ``box`` tells how a container is
    read, and raises ``LengthError`` if it cannot be one.
    """

    artifact: Artifact
    full: Container
    into: SlotDevice
    transport: Transport
    work: Workspace
    ledger: Ledger
    workers: Workers
    progress: Progress
    box: Callable[[Container], Box]

    @contextmanager
    def source(self, container: Container, name: str) -> Iterator[Source]:
        """The container with its head in the work file ``name``.

        Raises:
            ContainerError, LimitError, LengthError: no such container of this image.
        """
        box = self.box(container)
        check_bounds(self.artifact, box.plain)
        stream = Stream(self.transport, container, self.ledger)
        with (
            closing(self.work.open(name, head_length(box))) as file,
            closing(Source(box, stream, file)) as source,
        ):
            yield source

    def survey(self, head: Head) -> Marks:
        """What is wrong in the slot."""
        return survey(head, self.into, self.workers, self.progress)


# ── passes ───────────────────────────────────────────────────────────────────────────
def by_delta(site: Site, delta: Container, base: Base) -> Marks | None:
    """Make what this delta makes; what is left for the full container.

    A delta that is badly made is left, not an error: nothing of it was written (C-14).

    Returns:
        Segments still wrong; ``None`` if the slot was not looked at.
    """
    if not site.ledger.follow(delta):
        return None
    try:
        with site.source(delta, DELTA_HEAD_FILE) as source:
            head = source.head(site.artifact)
            return _by_delta(site, source, head, base)
    except _BADLY_MADE:
        site.ledger.went("full")
        return None


def _by_delta(site: Site, source: Source, head: Head, base: Base) -> Marks:
    wrong = site.survey(head)
    plan = Plan(head, wrong.without(site.ledger.bad))
    site.ledger.require(source.cost(plan))
    balance = Balance(plan, site.box(site.full).plain)
    tally = Mending(Plan(head, wrong), site.progress, site.ledger, balance)
    if plan.marks:
        site.ledger.went("delta")
    if _run(site, source, plan, tally, base, lambda: balance.tips):
        site.ledger.went("full")
    return tally.left


def by_full(site: Site, left: Marks | None) -> None:
    """Make what is left, or all that a look finds wrong, by the full container."""
    with site.source(site.full, HEAD_FILE) as source:
        head = source.head(site.artifact)
        plan = Plan(head, site.survey(head) if left is None else left)
        site.ledger.require(source.cost(plan))
        if left is None and plan.marks:
            site.ledger.went("full")
        _run(site, source, plan, Tally(plan, site.progress), None, lambda: False)


def _run(
    site: Site,
    source: Source,
    plan: Plan,
    tally: Tally,
    base: Base | None,
    enough: Callable[[], bool],
) -> bool:
    """Fetch, make and write, until it is done or ``enough``: then ``True``."""
    line = Line(site.workers, site.into, base, tally, plan.head.header.segment_size)
    source.follow(plan)
    for segment in plan.segments():
        line.make_room(segment.frame_length)
        if enough():
            break
        line.add(_fetched(source, segment, line))
        tally.fetched(segment)
    line.drain()
    return enough()


def _fetched(source: Source, segment: Segment, line: Line) -> Frame:
    """The frame; if there is none, what came before is written first."""
    try:
        return source.frame(segment)
    except SealiftError:
        line.drain()
        raise
