"""C-02 with a delta: places in base and image that do not fit into 32 bits.

The files are sparse and no digest of a whole image is taken by the payload engine, so
the base's is only a name here.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path

import pytest

from sealift.agent.payload import PayloadFill
from sealift.agent.ports import Moved
from sealift.agent.slot import PathSlots, WorkFiles
from sealift.core.container import Op
from sealift.core.delta import Base, Extent, encode_delta
from sealift.core.packer import ContainerWriter, Made
from sealift.core.streams import pack
from sealift.core.types import Artifact, Container, Instruction, Slot
from tests.unit.agent.delta_pair import random_bytes
from tests.unit.agent.memory import MemoryTransport

MIB = 1 << 20
BEYOND = 1 << 32
CONTENT = random_bytes(2 * MIB, "beyond")
BASE_LENGTH = BEYOND + 3 * MIB
LENGTH = BEYOND + 1
"""4096 segments and one byte."""


@dataclass(frozen=True)
class Made4GiB:
    """A delta to an image of 4 GiB and a byte."""

    order: Instruction
    base: Artifact
    raw: bytes


def base_read(offset: int, length: int) -> bytes:
    """The base: zeros, and 777 bytes behind 4 GiB two full megabytes."""
    at = offset - BEYOND - 777
    return CONTENT[at : at + length]


@pytest.fixture(scope="module")
def made() -> Made4GiB:
    changed = bytes(b ^ 0x55 for b in CONTENT[:100]) + CONTENT[100:MIB]
    extents = [Extent(Op.DELTA, MIB, BEYOND + 777)]
    base = Base(base_read, BASE_LENGTH)
    zero = Made.of(Op.ZERO, bytes(MIB))
    out = BytesIO()
    writer = ContainerWriter(
        LENGTH,
        MIB,
        spool=BytesIO(),
        out=out,
        base=(BASE_LENGTH, sha256(b"base").digest()),
    )
    writer.add(Made.of(Op.COPY, CONTENT[5 : 5 + MIB], base_offset=BEYOND + 782))
    frame = encode_delta(changed, MIB, extents, base, pack)
    writer.add(Made.of(Op.DELTA, changed, frame))
    for _ in range(4094):
        writer.add(zero)
    writer.add(Made.of(Op.COPY, CONTENT[-1:], base_offset=BEYOND + 776 + 2 * MIB))
    packed = writer.finish(sha256(b"image").digest())
    artifact = Artifact(
        "demo-board/rootfs-1.img", LENGTH, packed.image_sha256, None, MIB,
        packed.segment_root, ("demo-board-r1",), 1, "1",
    )  # fmt: skip
    old = replace(artifact, length=BASE_LENGTH, sha256=sha256(b"base").digest())
    full = Container("x.full", 1 << 20, bytes(32), 144 + 34 * 4097, bytes(32))
    order = Instruction(
        "dev-0001-main", "demo-board-r1", artifact, full,
        packed.container("x.delta"), None, 1, bytes(32),
    )  # fmt: skip
    return Made4GiB(order, old, out.getvalue())


def test_c02_a_delta_reads_beyond_4_gib_of_its_base(
    made: Made4GiB, tmp_path: Path
) -> None:
    """COPY and DELTA from behind 2^32, and the last byte of the image lies there, too."""
    old, new = tmp_path / "old", tmp_path / "new"
    with old.open("wb") as file:
        file.seek(BEYOND + 777)
        file.write(CONTENT)
        file.truncate(BASE_LENGTH)
    with new.open("wb") as file:
        file.truncate(LENGTH)
    slots = PathSlots({Slot.A: str(old), Slot.B: str(new)})
    into = slots.open(Slot.B, writable=True)
    base = slots.open(Slot.A, writable=False)
    fill = PayloadFill(
        made.order,
        MemoryTransport(made.raw),
        WorkFiles(str(tmp_path)),
        base_image=made.base,
    )
    try:
        fill(into, base)
        assert into.read(0, MIB) == CONTENT[5 : 5 + MIB]
        assert into.read(MIB, MIB)[100:] == CONTENT[100:MIB]
        assert into.read(BEYOND, 1) == CONTENT[-1:]
    finally:
        into.close()
        base.close()
    assert fill.moved == Moved("delta", len(made.raw), 0)
    assert new.stat().st_blocks * 512 < 4 * MIB
    new.unlink()
