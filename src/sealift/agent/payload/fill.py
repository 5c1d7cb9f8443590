"""The steps of one install, in their order."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Final

from sealift.agent.payload.budget import SPENT_FILE, Budget
from sealift.agent.payload.line import Line
from sealift.agent.payload.plan import survey
from sealift.agent.payload.source import Source
from sealift.agent.payload.workers import Workers
from sealift.agent.ports import Progress
from sealift.core.container import check_bounds, open_head
from sealift.core.errors import DigestError, SealiftError, SlotTooSmallError
from sealift.core.payload import check_frame, open_frame

if TYPE_CHECKING:
    from sealift.agent.payload.plan import Plan
    from sealift.agent.ports import SlotDevice, Transport, Workspace
    from sealift.core.container import Head, Segment
    from sealift.core.payload import Frame
    from sealift.core.types import Instruction

HEAD_FILE: Final = "payload.head"


class PayloadFill:
    """:class:`~sealift.agent.ports.Fill` for one instruction.

    ``bytes_max`` is this device's own cap on the body bytes of one install (``None``:
    none); that of the instruction holds as well. ``decoders`` is how many threads
    hash and decode; memory is bounded whatever the image.

    This version knows full containers; a delta that is offered is not used.
    """

    def __init__(
        self,
        order: Instruction,
        transport: Transport,
        work: Workspace,
        *,
        progress: Progress | None = None,
        bytes_max: int | None = None,
        decoders: int = 2,
    ) -> None:
        self._order = order
        self._transport = transport
        self._work = work
        self._progress = progress or Progress()
        self._bytes_max = _least(bytes_max, order.bytes_max)
        self._decoders = decoders

    def __call__(self, into: SlotDevice, base: SlotDevice | None, /) -> None:
        """Have every segment of the image in ``into``, verified and flushed.

        Raises:
            SlotTooSmallError: as it says. SlotError: from the slot.
            DigestError, LengthError, ContainerError, PatchError, LimitError: the bytes
            are not the signed ones, twice in a row where that may be the network's
            fault. UnsafeNameError: the container's name.
            RefusedError: more bytes would be needed than allowed (``reason`` is
            ``budget``): known before anything is written, unless the network's
            mistakes cost the rest of the budget.
            TransportError, NotFoundError, AuthRequiredError, RevokedError: as named.
        """
        del base
        artifact, container = self._order.artifact, self._order.full
        check_bounds(artifact, container)
        if into.size < artifact.length:
            raise SlotTooSmallError(
                "the slot is smaller than the image", size=into.size
            )
        with (
            closing(Budget(self._work, self._order, self._bytes_max)) as budget,
            closing(Source(self._transport, container, budget)) as source,
            closing(self._work.open(HEAD_FILE, container.head_length)) as file,
            Workers(self._decoders) as workers,
        ):
            plan = survey(self._head(file, source), into, workers, self._progress)
            budget.require(plan.cost)
            source.follow(plan)
            self._fill(plan, source, workers, into)
        self._work.remove(HEAD_FILE)
        self._work.remove(SPENT_FILE)

    def _head(self, file: SlotDevice, source: Source) -> Head:
        """The verified head: the one kept from an earlier attempt, or fetched."""
        artifact, container = self._order.artifact, self._order.full
        for _ in range(2):
            try:
                return open_head(file.read, artifact, container)
            except DigestError:
                source.head(file)
        return open_head(file.read, artifact, container)

    def _fill(
        self, plan: Plan, source: Source, workers: Workers, into: SlotDevice
    ) -> None:
        line = Line(workers, into, plan.head.header.segment_size)
        done = 0
        for segment in plan.wrong():
            if segment.framed:
                line.make_room(segment.frame_length)
                line.add(_fetched(source, segment, line))
            else:
                into.write(segment.offset, open_frame(check_frame(segment, b"")))
            done += segment.length
            self._progress.report("install", done, plan.length)
        line.drain()
        into.flush()


def _fetched(source: Source, segment: Segment, line: Line) -> Frame:
    """The frame; if there is none, what came before is written first."""
    try:
        return source.frame(segment)
    except SealiftError:
        line.drain()
        raise


def _least(*limits: int | None) -> int | None:
    return min((limit for limit in limits if limit is not None), default=None)
