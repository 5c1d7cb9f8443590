"""What is fuzzed: each target takes any bytes and complains if a promise is broken.

The promises: only our own errors come out; what comes out has exactly the length that
was announced; it is accepted only if it is the signed bytes; there is one form. Memory
is watched by whoever runs the targets.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import cache
from hashlib import sha256
from io import BytesIO
from itertools import pairwise
from typing import Final

from sealift.core import hpke, mcu
from sealift.core.bootable import check, command_lines
from sealift.core.container import (
    DIGEST_SIZE,
    HEADER_SIZE,
    IMAGE_MAX,
    Header,
    encode_head,
    open_head,
)
from sealift.core.delta import Base, decode_delta, read_control
from sealift.core.encryption import CHUNK, PREFIX, TAG, Opener, Sealer, unwrap, wrap
from sealift.core.errors import LimitError, SealiftError
from sealift.core.fdt import Fdt, boot_arguments, read_fit
from sealift.core.merkle import tree_root
from sealift.core.pe import read_pe
from sealift.core.streams import PackedStream, unpack
from sealift.core.types import Artifact, BootKind, Container, Patch, PatchKind
from sealift.core.verity import Superblock
from sealift.sim.boot_files import fit_file, joined, line_for, uki_file
from tests.containers import control_of, noise, reader, text, understood
from tests.fuzz import structure
from tests.fuzz.choices import Choices
from tests.mcu_patches import literals, size

Target = Callable[[bytes], None]
BASE: Final = text(3000) + noise(3000)


def head(data: bytes) -> None:
    """A head that a thief signs as it is; the tree root is told for these digests."""
    try:
        header = Header.decode(data[:HEADER_SIZE])
    except SealiftError:
        return
    count = min(header.count, (len(data) - HEADER_SIZE) // DIGEST_SIZE)
    digests = data[HEADER_SIZE:][: DIGEST_SIZE * count]
    root = tree_root(
        digests[at : at + DIGEST_SIZE] for at in range(0, len(digests), DIGEST_SIZE)
    )
    data = data[:104] + root + data[136:]
    artifact = Artifact(
        "x", header.image_length, header.image_sha256, None, header.segment_size,
        root, (), 1, "1",
    )  # fmt: skip
    container = Container(
        "x", header.frames_length + len(data), bytes(32), len(data),
        sha256(data).digest(), header.base_length, header.base_sha256,
    )  # fmt: skip
    with suppress(SealiftError):
        found = open_head(reader(data), artifact, container)
        assert encode_head(found.header, found.segments()) == data, "another form"
        segments = list(found.segments())
        assert sum(it.length for it in segments) == header.image_length
        assert sum(it.frame_length for it in segments) == header.frames_length


def frame(data: bytes) -> None:
    """A DELTA frame, for a segment of any length, read as its plainest reading says."""
    choices = Choices(data)
    length, offset = 1 + choices.below(8000), choices.below(4) * 2000
    base = Base(reader(BASE), len(BASE) - choices.below(2))
    raw = choices.rest()
    with suppress(SealiftError):
        found = decode_delta(raw, offset, length, base)
        assert found == understood(raw, offset, length, BASE), "read in two ways"


def control(data: bytes) -> None:
    """A control stream: what parses fills its segment and writes back as it was."""
    choices = Choices(data)
    length, offset = 1 + choices.below(1 << 20), choices.below(IMAGE_MAX)
    raw = choices.rest()
    with suppress(SealiftError):
        extents = list(read_control(raw, offset, length))
        assert sum(extent.length for extent in extents) == length
        assert control_of(extents, offset) == raw, "another form"


def stream(data: bytes) -> None:
    """A packed stream; taken whole or piece by piece it comes to the same."""
    choices = Choices(data)
    length, piece, raw = choices.below(1 << 17), 1 + choices.below(4000), choices.rest()
    whole = _outcome(lambda: unpack(raw, length))
    assert whole == _outcome(lambda: _in_pieces(raw, length, piece))
    assert isinstance(whole, str) or len(whole) == length


def _in_pieces(raw: bytes, length: int, piece: int) -> bytes:
    packed, out = PackedStream(raw, length), BytesIO()
    for at in range(0, length, piece):
        out.write(packed.take(min(piece, length - at)))
    packed.finish()
    return out.getvalue()


def _outcome(act: Callable[[], bytes]) -> bytes | str:
    try:
        return act()
    except SealiftError as error:
        return error.code


def container(data: bytes) -> None:
    """A whole delta container, changed and signed again: the vendor's image or none."""
    case = structure.hostile(data)
    with suppress(SealiftError):
        assert sha256(case.read()).digest() == case.artifact.sha256, "another image"


def rewritten(data: bytes) -> None:
    """The same image in other words is taken, unless it grew beyond a limit."""
    case = structure.equivalent(data)
    with suppress(LimitError):
        assert sha256(case.read()).digest() == case.artifact.sha256, "another image"


# ── seals ────────────────────────────────────────────────────────────────────────────
KEY, CONTEXT = bytes(range(32)), b"fuzz"


@cache
def _sealed(length: int) -> bytes:
    sealer, plain = Sealer(KEY, CONTEXT, bytes(24)), noise(length)
    chunks = range(length // CHUNK + 1)
    return sealer.prefix + b"".join(
        sealer.seal(at, plain[at * CHUNK :][:CHUNK]) for at in chunks
    )


def sealed(data: bytes) -> None:
    """A sealed file with changes: every run of chunks opens to what was sealed, or not."""
    choices = Choices(data)
    length = choices.pick((0, 1, 100, CHUNK - 1, CHUNK, CHUNK + 100))
    raw = _sealed(length)
    for _ in range(choices.below(3)):
        raw = choices.edited(raw)
    first = choices.below(3)
    start = PREFIX + first * (CHUNK + TAG)
    stop = start + choices.pick((CHUNK + TAG, 2 * (CHUNK + TAG), len(raw)))
    with suppress(SealiftError):
        opener = Opener(KEY, CONTEXT, raw[:PREFIX], len(raw))
        plain = opener.open(first, raw[start:stop])
        assert plain == noise(length)[first * CHUNK :][: len(plain)], "other bytes"


@cache
def _wrap(kem: str) -> tuple[hpke.PrivateKey, bytes]:
    key = hpke.PrivateKey(kem, bytes(31) + b"\x07")
    return key, wrap(kem, key.public, KEY, CONTEXT, bytes(31) + b"\x09")


def wrapped(data: bytes) -> None:
    """A wrapped content key with changes, or any bytes: the key that was wrapped, or none."""
    choices = Choices(data)
    key, raw = _wrap(choices.pick(sorted(hpke.KEMS)))
    for _ in range(choices.below(3)):
        raw = choices.edited(raw)
    raw = choices.rest() if choices.below(8) == 7 else raw
    with suppress(SealiftError):
        assert unwrap(key.kem, key.public, key.dh, raw, CONTEXT) == KEY, "another key"


# ── microcontrollers ─────────────────────────────────────────────────────────────────
def patch(data: bytes) -> None:
    """A patch with the recorded header, and any body or any operations behind it."""
    choices = Choices(data)
    kind, length = choices.pick(tuple(PatchKind)), 1 + choices.below(4000)
    found = Patch(kind, "x", 1, bytes(32), len(BASE), bytes(32), 8, 7)
    sizes: tuple[int, ...] = (length,)
    if kind is PatchKind.IN_PLACE:
        flash = 8192, 512, 512 * (1 + choices.below(15))
        found = replace(
            found, memory_size=flash[0], segment_size=flash[1], shift_size=flash[2]
        )
        sizes = (*flash, len(BASE), length)
    packed, body = choices.below(2), choices.rest()
    stream = body if packed else literals(body)
    head = bytes([0x14 if kind is PatchKind.IN_PLACE else 0x04])
    raw = head + b"".join(map(size, sizes)) + b"\x44" + stream
    with suppress(SealiftError):
        pieces = mcu.decode([raw], found, length, inside(BASE))
        assert sum(map(len, pieces)) == length, "an image of another length"


def inside(base: bytes) -> Callable[[int, int], bytes]:
    """Reads that must not leave the base."""

    def read(offset: int, length: int) -> bytes:
        assert 0 <= offset <= offset + length <= len(base), "a read outside the base"
        return base[offset : offset + length]

    return read


# ── boot files ───────────────────────────────────────────────────────────────────────
ROOT, SALT = noise(3 * 4096), bytes(range(32))
LINE, OTHER_LINE = (line_for(data, SALT) for data in (ROOT, text(3 * 4096)))


@cache
def _boot_file(kind: BootKind) -> bytes:
    return uki_file(LINE) if kind is BootKind.UKI else fit_file(LINE, LINE)


def boot(data: bytes) -> None:
    """An image whose boot file was changed and signed again: our line in it, or no."""
    choices = Choices(data)
    kind = choices.pick(tuple(BootKind))
    raw = _boot_file(kind)
    for _ in range(choices.below(4)):
        raw = choices.edited(raw)
    if choices.below(16) == 15:
        raw = choices.rest()
    with suppress(SealiftError):
        image, facts = joined(ROOT, SALT, raw or b"x", kind)
        check(facts, reader(image), len(image))
        lines = command_lines(kind, reader(raw), len(raw))
        assert all(set(LINE.split()[1:]) <= set(line.split()) for line in lines)


def pe(data: bytes) -> None:
    """Any bytes as a PE file: what is told of it lies in it, apart from each other."""
    with suppress(SealiftError):
        found = read_pe(inside_of(data), len(data))
        parts = sorted((one.offset, one.length) for one in found.sections if one.length)
        for (first, length), (second, _) in pairwise(parts):
            assert first + length <= second
        assert all(at + size <= len(data) for at, size in (*parts, *found.signatures))
        found.digest(inside_of(data))
        for name in {one.name for one in found.sections}:
            with suppress(SealiftError):
                found.content(inside_of(data), name, 1 << 16)


def fdt(data: bytes) -> None:
    """Any bytes as a device tree and as a FIT image: what is told of it lies in it."""
    with suppress(SealiftError):
        boot_arguments(Fdt(inside_of(data), len(data)))
    with suppress(SealiftError):
        found = read_fit(inside_of(data), len(data))
        assert found.default in found.configurations
        for one in found.images.values():
            assert 0 < one.data.offset <= one.data.offset + one.data.length <= len(data)


def superblock(data: bytes) -> None:
    """A block with changes: what is read is written back as it was."""
    choices = Choices(data)
    raw = Superblock(1 + choices.below(1 << 24), SALT, bytes(16)).encode()
    for _ in range(choices.below(4)):
        raw = choices.edited(raw)
    with suppress(SealiftError):
        assert Superblock.decode(raw).encode() == raw, "another form"


def inside_of(data: bytes) -> Callable[[int, int], bytes]:
    """Reads of a file, none of them negative or absurdly long."""

    def read(offset: int, length: int) -> bytes:
        assert offset >= 0, "a read before the file"
        assert 0 <= length <= 1 << 20, "an unbounded read"
        return data[offset : offset + length]

    return read


TARGETS: Final[dict[str, Target]] = {
    found.__name__: found
    for found in (
        head, frame, control, stream, container, rewritten, sealed, wrapped,
        patch, boot, pe, fdt, superblock,
    )
}  # fmt: skip
