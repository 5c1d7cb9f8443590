"""Make the payload vectors: small containers, sound and hostile, with their outcome.

Run from the root of the checkout: ``python -m tests.vectors.payload.generate``. Streams
come from the liblzma at hand, so a new run may give other bytes; what is checked in
stays, because what was once published must decode for ever.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sealift.core.container import HEADER_SIZE, Op, Segment
from sealift.core.delta import Extent
from sealift.core.types import Artifact, Container
from tests.containers import (
    SEGMENT,
    Case,
    applied,
    control,
    control_of,
    delta_frame,
    filtered,
    lzma_raw,
    noise,
    one_frame,
    pack,
    pack_delta,
    parts,
    rebuilt,
    reframed,
    signed,
    text,
    wild_delta,
)

PLACE = Path(__file__).parent / "v1"


# ── full containers ──────────────────────────────────────────────────────────────────
def full() -> Iterator[Case]:
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
    length = case.container.head_length
    head, frames = case.raw[:length], case.raw[length:]
    for name, error, at, patch in PATCHES:
        bad = head[:at] + patch + head[at + len(patch) :]
        yield replace(signed(case, bad, frames), name=name, error=error)
    entry = HEADER_SIZE + 32 * 3
    end = next(i for i in range(entry + 1, entry + 5) if head[i] < 128)
    edits: list[tuple[str, str, bytes]] = [
        ("padded varint", "payload.container",
         head[:end] + bytes([head[end] | 128, 0]) + head[end + 1 :]),
        ("varint of ten bytes", "format.limit",
         head[: entry + 1] + b"\x80" * 9 + b"\x01" + head[end + 1 :]),
        ("empty frame", "payload.container",
         head[: entry + 1] + b"\0" + head[end + 1 :]),
        ("frame larger than its segment", "format.limit",
         head[: entry + 1] + b"\x81\x80\x04" + head[end + 1 :]),
        ("one byte after the entries", "payload.container", head + b"\0"),
        ("entries one byte short", "payload.container", head[:-1]),
    ]  # fmt: skip
    for name, error, bad in edits:
        told = bad[:12] + len(bad).to_bytes(4, "little") + bad[16:]
        yield replace(signed(case, told, frames), name=name, error=error)


def hostile_replace_frames() -> Iterator[Case]:
    case = mixed()
    header, segments, frames = parts(case)
    good = frames[0]
    rows: list[tuple[str, str, bytes]] = [
        ("garbage with the right digest", "payload.patch", noise(200)),
        ("stream without its end marker", "payload.patch", good[:-1]),
        ("one byte after the stream", "payload.patch", good + b"x"),
        ("a second stream", "payload.patch", good + good),
        ("one plain byte too many", "format.limit", lzma_raw(text(SEGMENT) + b"x")),
        ("a bomb of a hundred segments", "format.limit", lzma_raw(bytes(100 * SEGMENT))),
        ("one plain byte too few", "payload.patch", lzma_raw(text(SEGMENT)[:-1])),
        ("stream of another segment", "payload.digest", lzma_raw(text(SEGMENT, 1))),
    ]  # fmt: skip
    for name, error, frame in rows:
        yield replace(reframed(case, 0, frame), name=name, error=error)
    stored = replace(reframed(case, 2, text(100)), error="payload.digest")
    yield replace(stored, name="stored bytes of another segment")
    zeroed = [replace(segments[0], op=Op.ZERO), *segments[1:]]
    bad = rebuilt(case, header, zeroed, [b"", *frames[1:]])
    yield replace(bad, name="zeros instead of bytes", error="payload.digest")
    at = case.container.head_length
    flipped = case.raw[:at] + bytes([case.raw[at] ^ 1]) + case.raw[at + 1 :]
    yield replace(
        case, raw=flipped, name="malformed frame, wrong digest", error="payload.digest"
    )


# ── deltas ───────────────────────────────────────────────────────────────────────────
LARGE = text(SEGMENT) + noise(1500) + text(SEGMENT, 3) + bytes(9000) + text(30_000, 9)
SMALL = text(600) + noise(400)
BASES = {"base of large deltas": LARGE, "base of small deltas": SMALL}


def bases() -> Iterator[Case]:
    for name, image in BASES.items():
        yield pack(name, image)


def deltas() -> Iterator[Case]:
    yield every_kind()
    yield pack_delta("one byte copied", SMALL, SMALL[-1:], [999])
    yield pack_delta("nothing of the base used", SMALL, b"new", [Op.REPLACE])
    yield pack_delta("a base shorter than the image", b"x", SMALL * 2, [Op.REPLACE])
    rows: list[tuple[str, list[Extent], bytes, bytes]] = [
        ("only copies", [copy(500, 500), copy(300, 0)], b"", b""),
        ("base extents overlap", [copy(400, 10), copy(400, 9), copy(40, 20)], b"", b""),
        ("the last byte of the base", [copy(99, 901), copy(1, 999)], b"", b""),
        ("sums wrap", [added(300, 700)], b"\xff" * 300, b""),
        ("only literals", [literal(400)], b"", text(400, 5)),
        ("stored streams",
         [added(100, 600), literal(100), zero(500)], noise(100), noise(100)),
        ("packed streams",
         [added(300, 650), literal(300), zero(100)], b"\x07" * 300, text(300, 5)),
    ]  # fmt: skip
    for name, extents, difference, literals in rows:
        yield small(name, extents, difference, literals)
    extents = [added(400, 600), literal(400)]
    name = "streams with other parameters of LZMA"
    yield small(name, extents, bytes(400), text(400), otherwise)
    yield many_ops("65 536 ops", 65_536)
    yield small_delta()


def copy(length: int, at: int) -> Extent:
    return Extent(Op.COPY, length, at)


def added(length: int, at: int) -> Extent:
    return Extent(Op.DELTA, length, at)


def literal(length: int) -> Extent:
    return Extent(Op.REPLACE, length)


def zero(length: int) -> Extent:
    return Extent(Op.ZERO, length)


def every_kind() -> Case:
    """DELTA with every op across steps of 64 KiB, COPY, REPLACE, ZERO, a short DELTA."""
    first = [
        added(40_000, 11),
        literal(700),
        *(added(70, 42_000 + 73 * at) for at in range(60)),
        copy(1200, SEGMENT + 100),
        zero(5000),
        added(SEGMENT - 51_100, SEGMENT + 1500),
    ]
    difference = (bytes(211) + b"\x04\xfc") * 300
    used = sum(found.length for found in first if found.op is Op.DELTA)
    last = [added(200, 100_000), literal(30), zero(9)]
    image = b"".join([
        applied(first, LARGE, difference[:used], noise(700)),
        LARGE[1700:][:SEGMENT],
        text(SEGMENT, 4),
        bytes(SEGMENT),
        applied(last, LARGE, bytes(200), b"r" * 30),
    ])  # fmt: skip
    return pack_delta(
        "every kind of segment and op", LARGE, image, [first, 1700, Op.REPLACE, Op.ZERO, last]
    )


def small(
    name: str,
    extents: Sequence[Extent],
    difference: bytes,
    literals: bytes,
    stream: Callable[[bytes], bytes] | None = None,
) -> Case:
    image = applied(extents, SMALL, difference, literals)
    if stream is None:
        return pack_delta(name, SMALL, image, [extents])
    return pack_delta(name, SMALL, image, [extents], stream)


def many_ops(name: str, count: int) -> Case:
    """So many ops in a segment of 128 KiB: the last has the rest of it."""
    extents = [zero(1)] * (count - 1) + [zero(131_072 - count + 1)]
    frame = delta_frame(control_of(extents, 0), stream=lzma_or_empty)
    return one_frame(name, frame, SMALL, bytes(131_072), 131_072)


def lzma_or_empty(plain: bytes) -> bytes:
    return lzma_raw(plain) if plain else b""


def otherwise(plain: bytes) -> bytes:
    """Packed by a writer that is not ours, where that is shorter."""
    packed = filtered(plain, preset=1, lc=0, lp=3, pb=1)
    return packed if len(packed) < len(plain) else plain


def hostile_delta_heads() -> Iterator[Case]:
    good = every_kind()
    header, segments, frames = parts(good)
    for name, at in (
        ("copy from before the base", -1),
        ("copy from the end of the base", len(LARGE)),
        ("copy one byte beyond the base", len(LARGE) - SEGMENT + 1),
        ("copy from 2^60", 2**60),
    ):
        wild = [segments[0], replace(segments[1], base_offset=at), *segments[2:]]
        bad = rebuilt(good, header, wild, frames)
        yield replace(bad, name=name, error="payload.container")
    image = text(900)
    bad = one_frame("DELTA as large as its segment", noise(900), SMALL, image)
    yield replace(bad, error="format.limit")
    empty = replace(header, base_sha256=bytes(32))
    bad = rebuilt(good, empty, segments, frames)
    yield replace(bad, name="another base", error="payload.container")
    short = Segment(0, 0, 900, bytes(32), Op.COPY)
    bad = wild_delta("digest of another segment", [short], [b""], SMALL, image)
    yield replace(bad, error="payload.digest")


OPS = [added(500, 20), literal(100), copy(100, 900), zero(200)]
SUMS, WORDS = bytes(500), text(100, 5)


def small_delta() -> Case:
    """The sound frame that the hostile ones below are made of."""
    return small("a small delta", OPS, SUMS, WORDS)


def hostile_delta_frames() -> Iterator[Case]:
    """Around one sound frame: 500 added, 100 literal, 100 copied, 200 zero bytes."""
    patch, limit = "payload.patch", "format.limit"
    ops, sums, words = OPS, SUMS, WORDS
    image = applied(ops, SMALL, sums, words)
    plain = control_of(ops, 0)
    packed = control_of([*ops[:3], *[zero(1)] * 200], 0)

    def ops_of(*extents: Extent) -> bytes:
        return delta_frame(control_of(extents, 0), sums, words, stream=fitted)

    def told(**lies: Sequence[int | None]) -> bytes:
        return delta_frame(plain, sums, words, stream=fitted, **lies)

    def spoilt(which: int, change: Callable[[bytes], bytes]) -> bytes:
        streams = [packed, sums, words]
        made = [fitted(found) for found in streams]
        made[which] = change(streams[which])
        return delta_frame(
            *made,
            plain=[len(found) for found in streams],
        )

    first, rest = ops[0], ops[1:]
    rows: list[tuple[str, str, bytes]] = [
        ("ops one byte short", patch, ops_of(*ops[:3], zero(199))),
        ("ops one byte long", patch, ops_of(*ops[:3], zero(201))),
        ("an op of no bytes", patch, ops_of(zero(0), *ops)),
        ("an op of 2^59 bytes", patch, ops_of(*ops[:3], zero(2**59))),
        ("no ops", patch, delta_frame(b"", sums, words, stream=fitted)),
        ("added to bytes before the base", patch, ops_of(added(500, -1), *rest)),
        ("added to bytes at its end", patch, ops_of(added(500, 1000), *rest)),
        ("added to one byte beyond it", patch, ops_of(added(500, 501), *rest)),
        ("added to bytes at 2^61", patch, ops_of(added(500, 2**61), *rest)),
        ("copied from before the base", patch, ops_of(*ops[:2], copy(100, -1), ops[3])),
        ("copied one byte beyond it", patch, ops_of(*ops[:2], copy(100, 901), ops[3])),
        ("copied from -2^61", patch, ops_of(*ops[:2], copy(100, -(2**61)), ops[3])),
        ("a difference byte left over", patch, ops_of(added(499, 20), zero(1), *rest)),
        ("a difference byte short", patch, ops_of(added(501, 20), *ops[1:3], zero(199))),
        ("a literal byte left over", patch,
         ops_of(first, literal(99), zero(1), *ops[2:])),
        ("a literal byte short", patch, ops_of(first, literal(101), ops[2], zero(199))),
        ("control ends inside a number", patch,
         delta_frame(plain[:-1] + bytes([plain[-1] | 128]), sums, words, stream=fitted)),
        ("control with a padded number", patch,
         delta_frame(plain[:-1] + bytes([plain[-1] | 128, 0]), sums, words, stream=fitted)),
        ("control with a number of ten bytes", limit,
         delta_frame(b"\xff" * 9 + b"\x01", sums, words, stream=fitted)),
        ("control of 262 145 bytes", limit, told(plain=(262_145, None, None))),
        ("control of 2^62 bytes", limit, told(plain=(2**62, None, None))),
        ("difference and literals above the segment", limit, told(plain=(None, None, 401))),
        ("difference of 2^62 bytes", limit, told(plain=(None, 2**62, None))),
        ("a stream longer than its bytes", patch, told(plain=(len(plain) - 1, None, None))),
        ("a stream without bytes", patch,
         delta_frame(plain, b"", words, plain=(None, 300, None))),
        ("bytes without a stream", patch,
         delta_frame(plain, b"x", words, plain=(None, 0, None))),
        ("streams one byte short of the frame", patch, ops_of(*ops) + b"\0"),
        ("streams one byte beyond the frame", patch, ops_of(*ops)[:-1]),
        ("a stream of 2^62 bytes", patch, told(packed=(None, None, 2**62))),
        ("numbers cut short", patch, ops_of(*ops)[:3]),
        ("one byte", patch, b"\x01"),
        ("numbers padded", patch, b"\x80\x00" + ops_of(*ops)[1:]),
        ("a number of ten bytes", limit, b"\xff" * 9 + b"\x01" + ops_of(*ops)[1:]),
        ("garbage", patch, b"\x01" * 300),
        ("other literals", "payload.digest",
         delta_frame(plain, sums, text(100, 6), stream=fitted)),
        ("another place in the base", "payload.digest", ops_of(added(500, 21), *rest)),
    ]  # fmt: skip
    for which, name in enumerate(("control", "difference", "literal")):
        rows += [
            (f"{name} stream without its end marker", patch,
             spoilt(which, lambda it: lzma_raw(it)[:-1])),
            (f"{name} stream and a byte", patch,
             spoilt(which, lambda it: lzma_raw(it) + b"\0")),
            (f"{name} stream with a plain byte too many", limit,
             spoilt(which, lambda it: lzma_raw(it + b"\0"))),
            (f"{name} stream with a plain byte too few", patch,
             spoilt(which, lambda it: lzma_raw(it[:-1]))),
            (f"{name} stream that is none", patch,
             spoilt(which, lambda it: noise(len(it) - 1))),
        ]  # fmt: skip
    rows.append(("a bomb among the differences", limit,
                 spoilt(1, lambda it: lzma_raw(it + bytes(1 << 20)))))  # fmt: skip
    for name, error, frame in rows:
        yield replace(one_frame(f"frame: {name}", frame, SMALL, image), error=error)
    yield replace(many_ops("frame: 65 537 ops", 65_537), error=limit)


def fitted(plain: bytes) -> bytes:
    """Packed where that is shorter."""
    packed = lzma_raw(plain) if plain else b""
    return packed if len(packed) < len(plain) else plain


FAMILIES: list[Callable[[], Iterator[Case]]] = [
    full,
    bases,
    deltas,
    hostile_heads,
    hostile_replace_frames,
    hostile_delta_heads,
    hostile_delta_frames,
]


def cases() -> list[Case]:
    """All cases, made anew."""
    return [case for family in FAMILIES for case in family()]


# ── as files ─────────────────────────────────────────────────────────────────────────
def stored(place: Path = PLACE) -> list[Case]:
    """All cases as checked in."""
    found = json.loads((place / "cases.json").read_text())
    images = {"": b""} | {
        row["name"]: _case(row, place, b"").read()
        for row in found
        if row["name"] in {other["base"] for other in found}
    }
    return [_case(row, place, images[row["base"]]) for row in found]


def _case(row: dict[str, Any], place: Path, base: bytes) -> Case:
    return Case(
        name=row["name"],
        artifact=Artifact.from_json(row["artifact"]),
        container=Container.from_json(row["container"]),
        raw=(place / row["file"]).read_bytes(),
        error=row["error"],
        base=base,
    )


def _row(case: Case, names: dict[bytes, str]) -> dict[str, Any]:
    return {
        "name": case.name,
        "file": re.sub("[^a-z0-9]+", "-", case.name.lower()).strip("-") + ".bin",
        "error": case.error,
        "base": names[case.base],
        "artifact": case.artifact.to_json(),
        "container": case.container.to_json(),
    }


def main() -> None:
    """Write all of them."""
    PLACE.mkdir(exist_ok=True)
    made = cases()
    names = {b"": "", b"x": "one byte"} | {BASES[name]: name for name in BASES}
    rows = [_row(case, names) for case in made]
    for row, case in zip(rows, made, strict=True):
        (PLACE / row["file"]).write_bytes(case.raw)
    (PLACE / "cases.json").write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
