"""Two small images, every kind of segment between them, and a shelf that serves them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import sha256
from io import BytesIO

from sealift.core.container import Head, Op, open_head
from sealift.core.delta import Base, Extent, encode_delta
from sealift.core.encryption import CHUNK, Sealer, payload_context, sealed_length
from sealift.core.errors import FailedTransferError
from sealift.core.packer import ContainerWriter, Made, pack_full
from sealift.core.streams import pack
from sealift.core.types import Artifact, Container, Instruction, Seal, Wrap
from tests.containers import SEGMENT, describe, text
from tests.unit.agent.memory import MemorySlot, MemoryTransport

KEY = bytes(range(32))
SEAL = Seal(Wrap("x25519", "0123456789abcdef", b"wrapped"))


def random_bytes(length: int, seed: str) -> bytes:
    """Bytes that do not compress, others for every seed."""
    blocks = (sha256(f"{seed} {i}".encode()).digest() for i in range(length // 32 + 1))
    return b"".join(blocks)[:length]


def edited(plain: bytes, *places: int) -> bytes:
    """The same bytes but for a few."""
    out = bytearray(plain)
    for place in places:
        out[place % len(out)] ^= 0x55
    return bytes(out)


OLD = b"".join(random_bytes(SEGMENT, f"old {i}") for i in range(17)) + text(777)
KINDS: list[tuple[Op, int]] = [
    (Op.DELTA, 0),
    (Op.COPY, SEGMENT),
    (Op.COPY, 9 * SEGMENT - 5),
    (Op.ZERO, 0),
    (Op.REPLACE, 0),
    *((Op.DELTA, i * SEGMENT) for i in range(5, 13)),
    (Op.REPLACE, 0),
    (Op.DELTA, 14 * SEGMENT - 11),
    (Op.COPY, 16 * SEGMENT + 1),
    (Op.DELTA, 17 * SEGMENT),
]
"""How each segment of the new image comes about, and from where in the old one."""


def _made(kind: Op, start: int, index: int, length: int) -> bytes:
    if kind is Op.ZERO:
        return bytes(length)
    if kind is Op.REPLACE:
        return random_bytes(length, f"new {index}")
    found = OLD[start : start + length]
    return found if kind is Op.COPY else edited(found, 100, 7000 + index, 40_000)


NEW = b"".join(
    _made(kind, start, i, SEGMENT if i < len(KINDS) - 1 else 777)
    for i, (kind, start) in enumerate(KINDS)
)


@dataclass(frozen=True)
class Boxed:
    """A container and its bytes as they lie on a server."""

    container: Container
    raw: bytes


@dataclass(frozen=True)
class Pair:
    """An old image, a new one, and the containers that lead to it."""

    base: Artifact
    artifact: Artifact
    full: Boxed
    delta: Boxed
    sealed: bool = False

    def order(self, bytes_max: int | None = None) -> Instruction:
        return Instruction(
            ecu_id="dev-0001-main",
            hardware_id="demo-board-r1",
            artifact=self.artifact,
            full=self.full.container,
            delta=self.delta.container,
            bytes_max=bytes_max,
            director_version=1,
            targets_sha256=bytes(32),
            sealed=SEAL if self.sealed else None,
        )

    def head(self, boxed: Boxed) -> Head:
        """The verified head of a plain container."""
        raw = boxed.raw
        return open_head(lambda at, n: raw[at : at + n], self.artifact, boxed.container)

    def frames(self, boxed: Boxed, indices: Sequence[int]) -> int:
        """Bytes of the frames of these segments in a plain container."""
        return sum(
            it.frame_length for it in self.head(boxed).segments() if it.index in indices
        )


def pair(
    old: bytes = OLD, new: bytes = NEW, kinds: list[tuple[Op, int]] | None = None
) -> Pair:
    """The plain containers of a new image."""
    out = BytesIO()
    packed = pack_full(
        lambda at, n: new[at : at + n],
        len(new),
        spool=BytesIO(),
        out=out,
        segment_size=SEGMENT,
    )
    artifact = describe(new, packed.segment_root)
    base = replace(describe(old, bytes(32)), name="demo-board/rootfs-0.img")
    full = Boxed(packed.container("x.full"), out.getvalue())
    return Pair(base, artifact, full, delta_of(old, new, kinds or KINDS))


def delta_of(old: bytes, new: bytes, kinds: list[tuple[Op, int]]) -> Boxed:
    """The delta that makes each segment by its kind."""
    out = BytesIO()
    known = (len(old), sha256(old).digest())
    writer = ContainerWriter(len(new), SEGMENT, spool=BytesIO(), out=out, base=known)
    base = Base(lambda at, n: old[at : at + n], len(old))
    for index, (kind, start) in enumerate(kinds):
        offset = index * SEGMENT
        plain = new[offset : offset + SEGMENT]
        frame = b""
        if kind is Op.REPLACE:
            frame = pack(plain)
        elif kind is Op.DELTA:
            extents = [Extent(Op.DELTA, len(plain), start)]
            frame = encode_delta(plain, offset, extents, base, pack)
        writer.add(Made.of(kind, plain, frame, base_offset=start))
    return Boxed(
        writer.finish(sha256(new).digest()).container("x.delta"), out.getvalue()
    )


def sealed(found: Pair) -> Pair:
    """The same, sealed with one key and a salt for each file."""
    return replace(
        found,
        full=seal(found.full, found.artifact, b"f"),
        delta=seal(found.delta, found.artifact, b"d"),
        sealed=True,
    )


def seal(boxed: Boxed, artifact: Artifact, salt: bytes) -> Boxed:
    """A container sealed as the desk does it."""
    context = payload_context(artifact.sha256, boxed.container.head_sha256)
    sealer = Sealer(KEY, context, salt * 24)
    count = len(boxed.raw) // CHUNK + 1
    raw = sealer.prefix + b"".join(
        sealer.seal(k, boxed.raw[k * CHUNK : (k + 1) * CHUNK]) for k in range(count)
    )
    assert len(raw) == sealed_length(len(boxed.raw))
    facts = replace(
        boxed.container,
        name=boxed.container.name + ".sealed",
        length=len(raw),
        sha256=sha256(raw).digest(),
    )
    return Boxed(facts, raw)


@dataclass
class Shelf(MemoryTransport):
    """Serves both containers of a pair by their paths, and counts by kind."""

    raw: bytes = b""
    pair: Pair | None = None
    by_kind: dict[str, int] = field(default_factory=dict)
    ranges_of: dict[str, list[tuple[int, int]]] = field(default_factory=dict)

    def stream(
        self, path: str, *, start: int, stop: int, length: int, drop_max: int
    ) -> Iterator[bytes]:
        assert self.pair is not None
        kind = "delta" if ".delta" in path else "full"
        boxed = self.pair.delta if kind == "delta" else self.pair.full
        if f"{boxed.container.sha256.hex()}.{boxed.container.name}" not in path:
            raise FailedTransferError("no such file")
        self.raw = boxed.raw
        self.ranges_of.setdefault(kind, []).append((start, stop))
        pieces = super().stream(
            path, start=start, stop=stop, length=length, drop_max=drop_max
        )
        for piece in pieces:
            self.by_kind[kind] = self.by_kind.get(kind, 0) + len(piece)
            yield piece


def empty() -> MemorySlot:
    """A slot with room to spare and nothing of either image in it."""
    return MemorySlot(b"\xee" * (len(NEW) + 1000))
