"""The patch of an order: fetched whole, kept, paid for, and trusted only by digest."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from sealift.agent.payload import PatchFile
from sealift.agent.payload.patch import PATCH_FILE
from sealift.agent.slot import WorkFiles
from sealift.core.errors import (
    DigestError,
    FailedTransferError,
    LimitError,
    PatchError,
    RefusedError,
    UnsafeNameError,
)
from sealift.core.types import Instruction, PatchKind
from tests.mcu_gateway import NEW, order, patch
from tests.unit.agent.memory import MemoryTransport

ORDER = order(PatchKind.IN_PLACE)
PATCH, RAW = patch(PatchKind.IN_PLACE)


class Breaks(MemoryTransport):
    """Every connection breaks after half of the file."""

    def stream(
        self, path: str, *, start: int, stop: int, length: int, drop_max: int
    ) -> Iterator[bytes]:
        yield self.raw[start : stop // 2]
        raise FailedTransferError("the connection broke")


@pytest.fixture
def work(tmp_path: object) -> WorkFiles:
    return WorkFiles(str(tmp_path))


def source(
    way: MemoryTransport, work: WorkFiles, *, most: int | None = None, **change: object
) -> PatchFile:
    found = dataclasses.replace(PATCH, **change)  # type: ignore[arg-type]
    return PatchFile(ORDER, found, way, work, most)


def test_it_is_fetched_once_and_kept(work: WorkFiles) -> None:
    """One request for the whole file, by digest and name; later it is there."""
    way = MemoryTransport(RAW)
    for _ in range(2):
        source(way, work).fetch()
    assert (way.asked, way.sent) == ([(0, len(RAW))], len(RAW))
    assert way.paths == [f"director/targets/{PATCH.sha256.hex()}.{PATCH.name}"]
    with source(way, work).opened() as file:
        assert file.read(0, file.size) == RAW


def test_wrong_bytes_are_refused_and_fetched_anew(work: WorkFiles) -> None:
    """A lie of the network is payload.digest, and costs one more download."""
    liar = MemoryTransport(RAW, tamper=lambda at, piece: bytes(len(piece)))
    with pytest.raises(DigestError):
        source(liar, work).fetch()
    with pytest.raises(DigestError), source(liar, work).opened():
        pass
    source(MemoryTransport(RAW), work).fetch()


def test_a_file_that_changed_is_not_opened(work: WorkFiles) -> None:
    """Whoever writes into the state directory gains nothing."""
    source(MemoryTransport(RAW), work).fetch()
    file = work.open(PATCH_FILE, len(RAW))
    file.write(5, b"\xee")
    file.close()
    with pytest.raises(DigestError), source(MemoryTransport(RAW), work).opened():
        pass


def test_A18_what_cannot_be_is_not_fetched(work: WorkFiles) -> None:
    """Lengths beyond the limits, sizes that contradict, a name that is a path."""
    way = MemoryTransport(RAW)
    for error, change in (
        (LimitError, {"length": 1 << 40}),
        (LimitError, {"window": 40}),
        (PatchError, {"shift_size": 1}),
        (UnsafeNameError, {"name": "../../etc/passwd"}),
    ):
        with pytest.raises(error):
            source(way, work, **change).fetch()
    assert way.sent == 0


def test_it_leaves_room_for_the_container(work: WorkFiles) -> None:
    """Refused if what is left of the budget would not do for the image itself."""
    way, enough = MemoryTransport(RAW), len(RAW) + ORDER.full.length
    with pytest.raises(RefusedError):
        source(way, work, most=enough - 1).fetch()
    assert way.sent == 0
    source(way, work, most=enough).fetch()


def test_it_counts_against_the_budget_over_restarts(work: WorkFiles) -> None:
    """What a broken connection brought is paid for, too."""
    way = Breaks(RAW)
    most = len(RAW) + ORDER.full.length + 10
    with pytest.raises(FailedTransferError):
        source(way, work, most=most).fetch()
    with pytest.raises(RefusedError):
        source(way, work, most=most).fetch()


def test_the_cap_of_the_order_holds_as_well(work: WorkFiles) -> None:
    """The smaller of both limits counts."""
    capped: Instruction = dataclasses.replace(ORDER, bytes_max=len(NEW))
    way = MemoryTransport(RAW)
    with pytest.raises(RefusedError):
        PatchFile(capped, PATCH, way, work).fetch()
    assert way.sent == 0
