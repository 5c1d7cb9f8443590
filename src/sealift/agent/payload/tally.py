"""What became of the segments of one pass, and what is left of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sealift.agent.payload.ledger import Ledger
    from sealift.agent.payload.method import Balance
    from sealift.agent.payload.plan import Plan
    from sealift.agent.ports import Progress
    from sealift.core.container import Segment
    from sealift.core.errors import SealiftError


class Tally:
    """What is left to do; a segment that comes out wrong ends the install."""

    def __init__(self, plan: Plan, progress: Progress) -> None:
        self.left = plan.marks.copy()
        self._report = progress.report
        self._total = plan.length()
        self._done = 0

    def fetched(self, segment: Segment) -> None:
        """Its frame is here."""

    def good(self, segment: Segment) -> None:
        """It is right, and written."""
        self.left.discard(segment.index)
        self._done += segment.length
        self._report("install", self._done, self._total)

    def bad(self, segment: Segment, error: SealiftError) -> None:
        """It is not what is signed, and was not written."""
        del segment
        raise error


class Mending(Tally):
    """A segment that comes out wrong is noted, and left for the full container."""

    def __init__(
        self, plan: Plan, progress: Progress, ledger: Ledger, balance: Balance
    ) -> None:
        super().__init__(plan, progress)
        self._ledger = ledger
        self._balance = balance

    def fetched(self, segment: Segment) -> None:
        """The delta's part of it is here."""
        self._balance.fetched(segment)

    def good(self, segment: Segment) -> None:
        """The base was what it should be, here."""
        super().good(segment)
        self._balance.made(segment, good=True)

    def bad(self, segment: Segment, error: SealiftError) -> None:
        """Base or delta are not what they should be."""
        del error
        self._ledger.note_bad(segment.index)
        self._balance.made(segment, good=False)
