"""Power cuts in an install by a delta of a base that was changed, plain and sealed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sealift.agent.payload import PayloadFill
from sealift.agent.slot import WorkFiles
from sealift.core.encryption import CHUNK, TAG
from tests.containers import SEGMENT
from tests.unit.agent.delta_pair import KEY, NEW, OLD, Pair, Shelf, pair, sealed
from tests.unit.agent.memory import PIECE, CutError, CutSlot, Doors, MemorySlot
from tests.unit.agent.test_payload_delta import touched

PAIR = pair()
BASE = touched(97)
"""A base whose one changed block feeds segment 6 of the new image."""


@dataclass
class CutWay(Shelf):
    """A network whose pieces are steps, too."""

    doors: Doors = field(default_factory=lambda: Doors(0))

    def stream(
        self, path: str, *, start: int, stop: int, length: int, drop_max: int
    ) -> Iterator[bytes]:
        for piece in super().stream(
            path, start=start, stop=stop, length=length, drop_max=drop_max
        ):
            self.doors.step()
            yield piece


def lived(found: Pair, slot: MemorySlot, work: Path, doors: Doors) -> CutWay:
    """One life; the power may go in it."""
    way = CutWay(pair=found, doors=doors)
    fill = PayloadFill(
        found.order(),
        way,
        WorkFiles(str(work)),
        base_image=found.base,
        content_key=lambda _order: KEY,
    )
    try:
        fill(slot, MemorySlot(BASE))
    except CutError:
        slot.lose_power()
    return way


@pytest.mark.parametrize("found", [PAIR, sealed(PAIR)], ids=["plain", "sealed"])
def test_a_cut_anywhere_costs_at_most_one_segment_of_network(
    found: Pair, tmp_path: Path
) -> None:
    """Every write, flush and piece: unflushed bytes lost, then it finishes.

    Of both containers together no more than one segment size of frames comes twice,
    beside the piece of the stream that was in memory and the chunk it ended in.
    """
    uncut = lived(found, MemorySlot(b"\xee" * len(NEW)), tmp_path, Doors(0)).by_kind
    cut, most = 0, 0
    while True:
        cut += 1
        work = tmp_path / str(cut)
        work.mkdir()
        slot, doors = CutSlot(b"\xee" * len(NEW)), Doors(cut)
        slot.doors = doors
        first = lived(found, slot, work, doors)
        if doors.steps < cut:
            break
        slot.doors = Doors(0)
        again = lived(found, slot, work, Doors(0))
        assert slot.durable == NEW
        spent = sum(first.by_kind.values()) + sum(again.by_kind.values())
        most = max(most, spent - sum(uncut.values()))
    assert cut > 80
    assert most <= SEGMENT + PIECE + 2 * (CHUNK + TAG)


def test_the_base_is_as_it_was(tmp_path: Path) -> None:
    """What is healed is the new image, never the slot that runs."""
    slot, base = MemorySlot(b"\xee" * len(NEW)), MemorySlot(BASE)
    PayloadFill(
        PAIR.order(), Shelf(pair=PAIR), WorkFiles(str(tmp_path)), base_image=PAIR.base
    )(slot, base)
    assert slot.durable == NEW
    assert base.durable == BASE != OLD
    assert base.writes == []
