"""Images for tests of deltas: in memory, generated, and taken apart again."""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise

from sealift.core.container import Head, open_head
from sealift.core.delta import Base
from sealift.core.packer import Packed
from sealift.core.payload import check_frame, open_frame
from sealift.core.types import Artifact
from sealift.payload.delta.make import Report, make_delta


@dataclass(frozen=True)
class Bytes:
    """An image held in memory."""

    raw: bytes

    @property
    def length(self) -> int:
        return len(self.raw)

    def read_at(self, offset: int, length: int) -> bytes:
        return self.raw[offset : offset + length]


def code(seed: int, length: int) -> bytes:
    """Bytes that repeat themselves about as much as machine code does."""
    chance = random.Random(seed)
    words = [chance.randbytes(4) for _ in range(512)]
    return b"".join(chance.choices(words, k=-(-length // 4)))[:length]


def noise(seed: int, length: int) -> bytes:
    """Bytes that no compressor makes smaller."""
    return random.Random(seed).randbytes(length)


def edited(old: bytes, seed: int, edits: int) -> bytes:
    """The image with pieces changed, inserted, left out and moved."""
    chance = random.Random(seed)
    cuts = sorted(chance.sample(range(1, len(old)), edits))
    pieces = [old[a:b] for a, b in pairwise([0, *cuts, len(old)])]
    for index in range(0, len(pieces) - 1, 3):
        way = chance.randrange(4)
        if way == 0:
            pieces[index] = bytes(byte ^ 4 for byte in pieces[index][:64])
        elif way == 1:
            pieces[index] += chance.randbytes(chance.randrange(1, 200))
        elif way == 2:
            pieces[index] = b""
        else:
            pieces[index : index + 2] = pieces[index + 1], pieces[index]
    return b"".join(pieces)


def artifact_of(packed: Packed) -> Artifact:
    """What the vendor signed about the new image."""
    return packed.artifact(
        "board/rootfs-2.img",
        hardware_ids=("board-r1",),
        release_counter=1,
        version="2",
    )


def head_of(raw: bytes, packed: Packed) -> Head:
    """The head of a container, verified against its own facts."""
    return open_head(
        lambda offset, length: raw[offset : offset + length],
        artifact_of(packed),
        packed.container("x.delta"),
    )


def rebuilt(raw: bytes, packed: Packed, base: bytes) -> bytes:
    """The image a device makes of a container and its base."""
    source = Base(Bytes(base).read_at, len(base))
    plain = []
    for segment in head_of(raw, packed).segments():
        stop = segment.frame_offset + segment.frame_length
        frame = check_frame(segment, raw[segment.frame_offset : stop])
        plain.append(open_frame(frame, source))
    return b"".join(plain)


def delta(base: bytes, new: bytes, **options: object) -> tuple[bytes, Report]:
    """A delta in memory, and the report on it."""
    out = io.BytesIO()
    report = make_delta(
        Bytes(base),
        Bytes(new),
        out=out,
        spool=io.BytesIO(),
        **options,  # type: ignore[arg-type]
    )
    return out.getvalue(), report


def checked_delta(base: bytes, new: bytes, **options: object) -> Report:
    """Make a delta and take it apart again: it must be the image, and what was told."""
    raw, report = delta(base, new, **options)
    packed = report.packed
    assert rebuilt(raw, packed, base) == new
    assert packed.image_sha256 == sha256(new).digest()
    assert packed.base_sha256 == sha256(base).digest()
    assert (packed.length, packed.sha256) == (len(raw), sha256(raw).digest())
    return report
