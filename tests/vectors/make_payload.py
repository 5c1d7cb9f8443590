"""Make the payload vectors: small containers, sound and hostile, with their outcome.

Run from the root of the checkout: ``python -m tests.vectors.make_payload``. A hostile
case is one a stolen Director could serve: the container is wrong, but its length and
digests were signed that way, so only the parser stands against it. Frames come from the
liblzma at hand, so a new run may give other bytes; the checked-in file stays, because
what was once published must decode for ever.
"""

from __future__ import annotations

import base64
import json
import lzma
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

from sealift.core.container import (
    HEADER_SIZE,
    Header,
    Kind,
    Op,
    Segment,
    encode_head,
    open_head,
    segment_count,
)
from sealift.core.merkle import tree_root
from sealift.core.packer import pack_full
from sealift.core.payload import check_frame, open_frame
from sealift.core.types import Artifact, Container

SEGMENT = 65_536
FILE = Path(__file__).parent / "payload" / "cases.json"


@dataclass(frozen=True)
class Case:
    """A container, what metadata says of it, and what must come of reading it."""

    name: str
    artifact: Artifact
    container: Container
    raw: bytes
    error: str | None = None

    def to_json(self) -> dict[str, Any]:
        return {
            "name": self.name,
            "artifact": self.artifact.to_json(),
            "container": self.container.to_json(),
            "raw": base64.b64encode(self.raw).decode(),
            "error": self.error,
        }

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Case:
        return cls(
            name=found["name"],
            artifact=Artifact.from_json(found["artifact"]),
            container=Container.from_json(found["container"]),
            raw=base64.b64decode(found["raw"]),
            error=found["error"],
        )

    def read(self) -> bytes:
        """The image, by the shipped reader."""
        head = open_head(
            lambda at, n: self.raw[at : at + n], self.artifact, self.container
        )
        return b"".join(
            open_frame(
                check_frame(found, self.raw[found.frame_offset :][: found.frame_length])
            )
            for found in head.segments()
        )


def describe(image: bytes, root: bytes, segment_size: int = SEGMENT) -> Artifact:
    """What offline keys would sign of an image."""
    return Artifact(
        name="demo-board/rootfs-1.img",
        length=len(image),
        sha256=sha256(image).digest(),
        sha512=None,
        segment_size=segment_size,
        segment_root=root,
        hardware_ids=("demo-board-r1",),
        release_counter=1,
        version="1",
    )


def pack(name: str, image: bytes) -> Case:
    """The full container of an image, sound."""
    out = BytesIO()
    packed = pack_full(
        lambda at, n: image[at : at + n],
        len(image),
        spool=BytesIO(),
        out=out,
        segment_size=SEGMENT,
    )
    artifact = describe(image, packed.segment_root)
    return Case(name, artifact, packed.container("x.full"), out.getvalue())


def text(length: int, seed: int = 0) -> bytes:
    """Bytes that compress well and are nowhere zero."""
    words = b"".join(b"sea lift %d\n" % (i + seed) for i in range(99))
    return (words * (length // len(words) + 1))[:length]


def noise(length: int) -> bytes:
    """Bytes that do not compress."""
    blocks = (sha256(b"%d" % i).digest() for i in range(length // 32 + 1))
    return b"".join(blocks)[:length]


def signed(case: Case, head: bytes, frames: bytes) -> Case:
    """The same case with other bytes, as if a stolen Director had signed them."""
    raw = head + frames
    container = replace(
        case.container,
        length=len(raw),
        sha256=sha256(raw).digest(),
        head_length=len(head),
        head_sha256=sha256(head).digest(),
    )
    return replace(case, container=container, raw=raw)


def parts(case: Case) -> tuple[Header, list[Segment], bytes]:
    """Header, segments and frames of a sound case."""
    head = open_head(lambda at, n: case.raw[at : at + n], case.artifact, case.container)
    return head.header, list(head.segments()), case.raw[case.container.head_length :]


def rebuilt(case: Case, segments: list[Segment], frames: bytes) -> Case:
    """A case with other entries and frames and a header that fits them."""
    header = parts(case)[0]
    entries = sum(len(found.entry()) for found in segments)
    header = replace(
        header,
        head_length=HEADER_SIZE + 32 * len(segments) + entries,
        frames_length=len(frames),
    )
    return signed(case, encode_head(header, segments), frames)


def delta(name: str, entries: list[Segment], base: bytes, image: bytes) -> Case:
    """A delta container with the given entries; frames are noise of the right length."""
    frames = b"".join(noise(found.frame_length) for found in entries)
    root = tree_root(found.sha256 for found in entries)
    header = Header(
        kind=Kind.DELTA,
        segment_size=SEGMENT,
        head_length=0,
        image_length=len(image),
        base_length=len(base),
        frames_length=len(frames),
        image_sha256=sha256(image).digest(),
        base_sha256=sha256(base).digest(),
        segment_root=root,
        count=segment_count(len(image), SEGMENT),
    )
    length = len(encode_head(header, entries))
    head = encode_head(replace(header, head_length=length), entries)
    container = Container("x.delta", 0, b"", 0, b"", len(base), sha256(base).digest())
    return signed(Case(name, describe(image, root), container, b""), head, frames)


# ── the cases ────────────────────────────────────────────────────────────────────────
def sound() -> Iterator[Case]:
    yield pack("one byte", b"x")
    yield pack("one zero byte", b"\0")
    yield pack("all zeros, last segment short", bytes(2 * SEGMENT + 5))
    yield pack("exactly one segment", text(SEGMENT))
    yield pack("one byte more than a segment", text(SEGMENT + 1))
    yield mixed()


def mixed() -> Case:
    """LZMA2, zeros, and a short stored segment."""
    return pack("mixed", text(SEGMENT) + bytes(SEGMENT) + noise(100))


PATCHES: list[tuple[str, str, int, bytes]] = [
    ("another magic", "payload.container", 0, b"SEALPAX"),
    ("version 2", "payload.container", 7, b"\x02"),
    ("unknown kind", "payload.container", 8, b"\x02"),
    ("delta announced, full signed", "format.limit", 8, b"\x01"),
    ("segment size below", "format.limit", 9, b"\x0f"),
    ("segment size above", "format.limit", 9, b"\x15"),
    ("segment size beyond any shift", "format.limit", 9, b"\xff"),
    ("another legal segment size", "payload.container", 9, b"\x11"),
    ("reserved field set", "payload.container", 10, b"\x01"),
    ("head length one less", "payload.container", 12, b"\x01"),
    ("image length zero", "format.limit", 16, bytes(8)),
    ("image length 2^36 + 1", "format.limit", 16, (2**36 + 1).to_bytes(8, "little")),
    ("image length 2^64 - 1", "format.limit", 16, b"\xff" * 8),
    ("image one byte longer", "payload.container", 16, (2 * SEGMENT + 101).to_bytes(8, "little")),
    ("base length in a full container", "payload.container", 24, b"\x01"),
    ("sum of frames lies", "payload.container", 32, b"\x01"),
    ("another image digest", "payload.container", 40, b"\0\0"),
    ("base digest in a full container", "payload.container", 72, b"\x01"),
    ("another segment root", "payload.container", 104, b"\0\0"),
    ("one segment fewer", "payload.container", 136, b"\x02"),
    ("65 537 segments", "format.limit", 136, b"\x01\0\x01\0"),
    ("second reserved field set", "payload.container", 140, b"\x01"),
    ("another segment digest", "payload.container", 144, b"\0\0"),
    ("unknown kind of segment", "payload.container", 240, b"\x04"),
    ("copy in a full container", "payload.container", 240, b"\x01"),
    ("delta segment in a full container", "payload.container", 240, b"\x03"),
]  # fmt: skip


def hostile_heads() -> Iterator[Case]:
    case = mixed()
    _header, _segments, frames = parts(case)
    head = case.raw[: case.container.head_length]
    for name, error, at, patch in PATCHES:
        bad = head[:at] + patch + head[at + len(patch) :]
        yield replace(signed(case, bad, frames), name=name, error=error)
    entry = HEADER_SIZE + 32 * 3
    varint = next(i for i in range(entry + 1, entry + 5) if head[i] < 128)
    edits: list[tuple[str, str, bytes]] = [
        ("padded varint", "payload.container",
         head[:varint] + bytes([head[varint] | 128, 0]) + head[varint + 1 :]),
        ("varint of ten bytes", "format.limit",
         head[: entry + 1] + b"\x80" * 9 + b"\x01" + head[varint + 1 :]),
        ("empty frame", "payload.container",
         head[: entry + 1] + b"\0" + head[varint + 1 :]),
        ("frame larger than its segment", "format.limit",
         head[: entry + 1] + b"\x81\x80\x04" + head[varint + 1 :]),
        ("one byte after the entries", "payload.container", head + b"\0"),
        ("entries one byte short", "payload.container", head[:-1]),
    ]  # fmt: skip
    for name, error, bad in edits:
        told = bad[:12] + len(bad).to_bytes(4, "little") + bad[16:]
        yield replace(signed(case, told, frames), name=name, error=error)


def hostile_frames() -> Iterator[Case]:
    case = mixed()
    _header, segments, frames = parts(case)
    first, last = segments[0], segments[2]
    good, rest = frames[: first.frame_length], frames[first.frame_length :]
    longer = lzma_raw(text(SEGMENT) + b"x")
    rows: list[tuple[str, str, bytes]] = [
        ("garbage with the right digest", "payload.patch", noise(200)),
        ("stream without its end marker", "payload.patch", good[:-1]),
        ("one byte after the stream", "payload.patch", good + b"x"),
        ("a second stream", "payload.patch", good + good),
        ("one plain byte too many", "format.limit", longer),
        ("a bomb of a hundred segments", "format.limit", lzma_raw(bytes(100 * SEGMENT))),
        ("one plain byte too few", "payload.patch", lzma_raw(text(SEGMENT)[:-1])),
        ("stream of another segment", "payload.digest", lzma_raw(text(SEGMENT, 1))),
        ("stored bytes of another segment", "payload.digest", noise(SEGMENT)),
    ]  # fmt: skip
    for name, error, frame in rows:
        entry = replace(
            first, frame_length=len(frame), frame_sha256=sha256(frame).digest()
        )
        bad = rebuilt(case, [entry, segments[1], last], frame + rest)
        yield replace(bad, name=name, error=error)
    zeroed = replace(first, op=Op.ZERO, frame_length=0)
    bad = rebuilt(case, [zeroed, segments[1], last], rest)
    yield replace(bad, name="zeros instead of bytes", error="payload.digest")
    flipped = bytes([good[0] ^ 1]) + good[1:] + rest
    unsigned = replace(case, raw=case.raw[: case.container.head_length] + flipped)
    yield replace(
        unsigned, name="malformed frame, wrong digest", error="payload.digest"
    )


def deltas() -> Iterator[Case]:
    image, base = text(2 * SEGMENT), text(3 * SEGMENT)
    digest = [sha256(image[:SEGMENT]).digest(), sha256(image[SEGMENT:]).digest()]
    frame = sha256(noise(500)).digest()
    second = Segment(1, SEGMENT, SEGMENT, digest[1], Op.COPY, base_offset=SEGMENT)
    first = Segment(
        0, 0, SEGMENT, digest[0], Op.DELTA, frame_length=500, frame_sha256=frame
    )
    case = delta("a delta parses, and is not decoded yet", [first, second], base, image)
    yield replace(case, error="payload.patch")
    for name, at in (
        ("copy from before the base", -1),
        ("copy from the end of the base", 3 * SEGMENT),
        ("copy one byte beyond the base", 2 * SEGMENT + 1),
        ("copy from 2^60", 2**60),
    ):
        wild = replace(second, base_offset=at)
        case = delta(name, [first, wild], base, image)
        yield replace(case, error="payload.container")
    whole = replace(
        first, frame_length=SEGMENT, frame_sha256=sha256(noise(SEGMENT)).digest()
    )
    case = delta("delta frame as large as its segment", [whole, second], base, image)
    yield replace(
        case, error="format.limit", raw=case.raw[: case.container.head_length]
    )


def lzma_raw(plain: bytes) -> bytes:
    """One raw LZMA2 stream, as a writer makes it."""
    options = {"id": lzma.FILTER_LZMA2, "preset": 6, "dict_size": SEGMENT}
    return lzma.compress(plain, lzma.FORMAT_RAW, filters=[options])


FAMILIES: list[Callable[[], Iterator[Case]]] = [
    sound,
    hostile_heads,
    hostile_frames,
    deltas,
]


def cases() -> list[Case]:
    """All cases, made anew."""
    return [case for family in FAMILIES for case in family()]


def stored() -> list[Case]:
    """All cases as checked in."""
    return [Case.from_json(found) for found in json.loads(FILE.read_text())]


if __name__ == "__main__":
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(json.dumps([case.to_json() for case in cases()], indent=1) + "\n")
