"""Patches a microcontroller applies itself: their limits, their header, their decoder.

The two kinds are those of the ``detools`` project, compressed by heatshrink: decoders
of both exist in C for devices with a few kilobytes of memory. Such a patch is not a
container of ours. Its length, digest and parameters are in Director metadata, so a
hostile server may choose them, and the loader that reads it is C on bare metal. So
whoever passes one on reads it first: :func:`check` judges what is recorded,
:func:`decode` goes through every byte with each extent bounded and gives the image that
would come out, and :func:`rehearse` requires that to be the signed one.

A decoder in place overwrites what it reads from. :func:`decode` admits only reads of
old bytes that are still there when the segment they are read for has been erased, so
what it accepts is safe on flash, and reads nothing of the new image.

Layout, from the public sources of detools 0.53: one byte (``type << 4 | 4``), sizes,
one byte (``(window - 4) << 4 | lookahead - 3``), then the heatshrink stream. A *size*
has its sign in bit 6 of the first byte, goes on where bit 7 is set, and holds 6, then 7
bits each, low bits first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from sealift.core.errors import DigestError, LimitError, PatchError
from sealift.core.types import PatchKind

if TYPE_CHECKING:
    from sealift.core.types import Artifact, Patch

ReadAt = Callable[[int, int], bytes]
"""``read_at(offset, length)`` of the old image."""

PATCH_MAX: Final = 1 << 24
"""Bytes of a patch, and of the images on both of its sides."""
WINDOW_BITS: Final = range(4, 16)
LOOKAHEAD_MIN: Final = 3
SEGMENT_SIZES: Final = range(256, (1 << 20) + 1)
"""What is erased at a time, in bytes."""

_TYPES: Final = {PatchKind.SEQUENTIAL: 0, PatchKind.IN_PLACE: 1}
_HEATSHRINK: Final = 4
_SIZE_BYTES: Final = 5
_STEP: Final = 1 << 14
_INPUT_BYTES: Final = 256
_STATE_BYTES: Final = 1024


# ── what is recorded ─────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Needs:
    """What a decoder takes, in bytes."""

    ram: int
    """Window, input buffer and state; the last two as detools' C sources have them,
    rounded up. Not the stack, nor the loader around it."""
    flash: int
    """The free slot, or the whole region that a patch in place works in."""


def needs(patch: Patch, image_length: int) -> Needs:
    """What decoding ``patch`` takes on the microcontroller."""
    ram = (1 << patch.window) + _INPUT_BYTES + _STATE_BYTES
    in_place = patch.kind is PatchKind.IN_PLACE
    return Needs(ram, patch.memory_size if in_place else image_length)


def check(patch: Patch, image_length: int) -> None:
    """Refuse sizes that no patch can have, or no decoder should meet.

    Raises:
        LimitError: a length, window or segment out of range.
        PatchError: the sizes contradict each other.
    """
    for what, value in (
        ("patch", patch.length),
        ("base", patch.base_length),
        ("image", image_length),
    ):
        if not 1 <= value <= PATCH_MAX:
            raise LimitError(f"patch: {what} length out of range", length=value)
    if patch.window not in WINDOW_BITS:
        raise LimitError("patch: window out of range", window=patch.window)
    if not LOOKAHEAD_MIN <= patch.lookahead < patch.window:
        raise LimitError("patch: lookahead out of range", lookahead=patch.lookahead)
    if patch.kind is PatchKind.IN_PLACE:
        _check_flash(patch, image_length)


def _check_flash(patch: Patch, image_length: int) -> None:
    size, shift, memory = patch.segment_size, patch.shift_size, patch.memory_size
    if size not in SEGMENT_SIZES or not 1 <= memory <= PATCH_MAX:
        raise LimitError("patch: flash sizes out of range", segment=size, memory=memory)
    if shift % size or memory % size or not size <= shift <= memory:
        raise PatchError("patch: the shift is not a part of the flash in segments")
    if max(image_length, patch.base_length) > memory:
        raise PatchError("patch: an image is larger than the flash for it")


# ── what came ────────────────────────────────────────────────────────────────────────
def decode(
    pieces: Iterable[bytes], patch: Patch, image_length: int, read_base: ReadAt
) -> Iterator[bytes]:
    """The new image in order, in small pieces; memory does not grow with it.

    ``pieces`` are the bytes of the patch in order; ``read_base`` is asked for bytes
    inside the base only.

    Raises:
        LimitError, PatchError: as :func:`check`; or the patch is malformed, says
            something else than what is recorded, leaves the base or the image, or
            reads in place what is overwritten by then.
    """
    check(patch, image_length)
    raw = _Bytes(iter(pieces))
    _check_header(raw, patch, image_length)
    plain = _Bytes(_inflate(raw.rest(), patch.window, patch.lookahead))
    ops = _Ops(plain, image_length)
    for extent in _extents(patch, image_length):
        yield from ops.run(extent, read_base)
    plain.finish()


def rehearse(
    pieces: Iterable[bytes], patch: Patch, image: Artifact, read_base: ReadAt
) -> None:
    """Return if the patch makes the signed image out of this base.

    Raises:
        LimitError, PatchError: from :func:`decode`. DigestError: another image.
    """
    found = sha256()
    for piece in decode(pieces, patch, image.length, read_base):
        found.update(piece)
    if found.digest() != image.sha256:
        raise DigestError("the patch does not make the signed image", name=patch.name)


def _check_header(raw: _Bytes, patch: Patch, image_length: int) -> None:
    said: tuple[int, ...]
    recorded: tuple[int, ...] = (image_length,)
    if patch.kind is PatchKind.IN_PLACE:
        sizes = patch.memory_size, patch.segment_size, patch.shift_size
        recorded = (*sizes, patch.base_length, image_length)
    kind = raw.take(1)[0]
    said = tuple(raw.size() for _ in recorded)
    codec = raw.take(1)[0]
    if kind != _TYPES[patch.kind] << 4 | _HEATSHRINK:
        raise PatchError("patch: another kind than the recorded one")
    if said != recorded:
        raise PatchError("patch: other sizes than the recorded ones")
    if codec != (patch.window - 4) << 4 | patch.lookahead - LOOKAHEAD_MIN:
        raise PatchError("patch: another window than the recorded one")


# ── inside ───────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class _Extent:
    """One run of operations: how long its result is, and which old bytes it may read.

    ``low`` to ``high`` are offsets in the base; reading begins at ``low``.
    """

    length: int
    low: int
    high: int


def _extents(patch: Patch, image_length: int) -> Iterator[_Extent]:
    if patch.kind is PatchKind.SEQUENTIAL:
        yield _Extent(image_length, 0, patch.base_length)
        return
    size, shift = patch.segment_size, patch.shift_size
    high = min(patch.base_length, patch.memory_size - shift)
    for at in range(0, image_length, size):
        low = max(at + size - shift, 0)
        yield _Extent(min(size, image_length - at), low, high)


class _Ops:
    """Runs operations: add to old bytes, insert new ones, move in the base."""

    def __init__(self, plain: _Bytes, image_length: int) -> None:
        self._plain = plain
        self._left = image_length + 2
        """Operations may be empty, but there is no use for more of them than bytes."""

    def run(self, extent: _Extent, read_base: ReadAt) -> Iterator[bytes]:
        """The bytes of one extent."""
        if self._plain.size():
            raise PatchError("patch: data formats are not used here")
        left, base = extent.length, extent.low
        while left:
            self._left -= 1
            if self._left < 0:
                raise LimitError("patch: more operations than bytes")
            length = self._length(left)
            if length and not extent.low <= base <= extent.high - length:
                raise PatchError("patch: reads what is not the old image")
            for at, step in _steps(length):
                yield _sum(self._plain.take(step), read_base(base + at, step))
            left, base = left - length, base + length
            length = self._length(left)
            for _, step in _steps(length):
                yield self._plain.take(step)
            left, base = left - length, base + self._plain.size()

    def _length(self, left: int) -> int:
        length = self._plain.size()
        if not 0 <= length <= left:
            raise PatchError("patch: an operation is longer than what is left")
        return length


def _steps(length: int) -> Iterator[tuple[int, int]]:
    for at in range(0, length, _STEP):
        yield at, min(_STEP, length - at)


def _sum(difference: bytes, base: bytes) -> bytes:
    if len(base) != len(difference):
        raise PatchError("patch: the old image is shorter than recorded")
    if not any(difference):
        return base
    return bytes(a + b & 0xFF for a, b in zip(difference, base, strict=True))


class _Bytes:
    """Pieces read as one run of bytes, no further ahead than one piece."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._ahead = memoryview(b"")

    def take(self, length: int) -> bytes:
        """Exactly the next ``length`` bytes."""
        found = bytearray()
        while True:
            piece = self._ahead[: length - len(found)]
            self._ahead = self._ahead[len(piece) :]
            found += piece
            if len(found) == length:
                return bytes(found)
            self._ahead = memoryview(self._next())

    def size(self) -> int:
        """The next size; its shortest form is the only one."""
        (byte,) = self.take(1)
        sign, value, shift = byte & 0x40, byte & 0x3F, 6
        while byte & 0x80:
            if shift > 6 + 7 * (_SIZE_BYTES - 2):
                raise LimitError("patch: a size of too many bytes")
            (byte,) = self.take(1)
            value |= (byte & 0x7F) << shift
            shift += 7
        if (shift > 6 and not byte) or (sign and not value):
            raise PatchError("patch: a size that is not in its shortest form")
        return -value if sign else value

    def rest(self) -> Iterator[bytes]:
        """Everything that has not been taken."""
        yield bytes(self._ahead)
        yield from self._pieces

    def finish(self) -> None:
        """Return if nothing is left."""
        if self._ahead or any(self._pieces):
            raise PatchError("patch: it goes on after its last operation")

    def _next(self) -> bytes:
        piece = next(self._pieces, None)
        if piece is None:
            raise PatchError("patch: it ends before its last operation")
        return piece


def _inflate(pieces: Iterable[bytes], window: int, lookahead: int) -> Iterator[bytes]:
    """Plain bytes of a heatshrink stream (its public C sources): tag 1 and a byte, or
    tag 0, how far back less one, how many less one. Before the first byte are zeros.
    """
    reach = 1 << window
    out = bytearray(reach)
    bits, have = 0, 0
    for byte in (byte for piece in pieces for byte in piece):
        bits, have = bits << 8 | byte, have + 8
        while have:
            need = 9 if bits >> (have - 1) else 1 + window + lookahead
            if have < need:
                break
            have -= need
            token, bits = bits >> have, bits & (1 << have) - 1
            if need == 9 and token >> 8:
                out.append(token & 0xFF)
            else:
                back = (token >> lookahead) + 1
                _copy(out, back, (token & (1 << lookahead) - 1) + 1)
        if len(out) >= reach + _STEP:
            yield bytes(out[reach:])
            del out[:-reach]
    if have >= 8 or bits:
        raise PatchError("patch: the compressed stream ends inside a token")
    yield bytes(out[reach:])


def _copy(out: bytearray, back: int, length: int) -> None:
    """Append ``length`` bytes from ``back`` bytes ago; they may run into themselves."""
    run = out[-back:][:length]
    out += (run * (-(-length // len(run))))[:length]
