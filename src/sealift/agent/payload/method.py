"""Which container an install goes by: pure decisions over lengths and digests.

The server proposes; the device takes a delta only if it was made for the image that is
*recorded* as running, and leaves it when repairs make it dearer than the full one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sealift.core.container import Op

if TYPE_CHECKING:
    from sealift.agent.payload.plan import Plan
    from sealift.agent.ports import SlotDevice
    from sealift.core.container import Segment
    from sealift.core.types import Artifact, Container, Instruction

_CAUTION: Final = 8
"""Segments taken as good beforehand, so that a bad first one does not end a delta: the
first segment of a file system is the one that a single writable mount changes."""


def usable_delta(
    order: Instruction, recorded: Artifact | None, base: SlotDevice | None
) -> Container | None:
    """The ordered delta, if it starts from what is recorded of the running slot."""
    delta = order.delta
    if delta is None or recorded is None or base is None:
        return None
    wanted = (delta.base_sha256, delta.base_length)
    if wanted != (recorded.sha256, recorded.length) or base.size < delta.base_length:
        return None
    return delta


class Balance:
    """Delta with repairs against the full container, in bytes, as segments are made.

    A repair is expected to cost what a segment of the full container costs on average,
    and the rest to go wrong as often as the part seen so far. Zeros cost nothing.
    """

    def __init__(self, plan: Plan, full: Container) -> None:
        filled = sum(it.op is not Op.ZERO for it in plan.head.segments())
        self._each = (full.length - full.head_length) / max(1, filled)
        self._left = self._left_bytes = self._seen = self._bad = 0
        for segment in plan.segments():
            self._left += segment.op is not Op.ZERO
            self._left_bytes += segment.frame_length

    def fetched(self, segment: Segment) -> None:
        """The delta's part of a segment is here."""
        self._left -= segment.op is not Op.ZERO
        self._left_bytes -= segment.frame_length

    def made(self, segment: Segment, *, good: bool) -> None:
        """A segment was put together, rightly or not."""
        self._seen += segment.op is not Op.ZERO
        self._bad += not good

    @property
    def tips(self) -> bool:
        """Whether repairs make the rest dearer than by the full container."""
        share = self._bad / (self._seen + _CAUTION)
        dearer = self._left_bytes > (1 - share) * self._left * self._each
        return dearer and self._bad > 0
