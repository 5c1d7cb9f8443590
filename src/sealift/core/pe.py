"""PE files as firmware starts them: sections, and where their signatures lie.

A unified kernel image is such a file; what it boots is in sections of its own, with
names like ``.linux`` and ``.cmdline`` (the UAPI group's UKI specification). Firmware
hashes the whole file but three holes: the checksum, the entry of the certificate table,
and the table itself, which is last (Microsoft, "Windows Authenticode Portable
Executable Signature Format"). Nothing in those holes may matter (A-25), so:

* Everything is read at offsets, each bounded before it is read; the contents of
  sections stay where they are until they are asked for.
* A section lies behind the headers, in the file, beside all others, and before the
  certificate table; what is loaded as its content is in the file to the last byte.
* A name that is there twice is refused when it is asked for: two readers might take
  two (C-11).
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from itertools import pairwise
from typing import Final

from sealift.core.errors import LimitError, MalformedError

SECTIONS_MAX: Final = 96
"""More than any loader of today has; Windows itself stops there."""
PE32_PLUS: Final = 0x20B
MACHINES: Final = {
    0x014C: "x86", 0x8664: "x86-64", 0x01C4: "arm", 0xAA64: "arm64",
    0x5032: "riscv32", 0x5064: "riscv64",
}  # fmt: skip
"""What the numbers of machines mean that Sealift has met."""

ReadAt = Callable[[int, int], bytes]
"""``read(offset, length)`` gives those bytes, fewer only where the file ends."""

_DOS: Final = 64
_COFF: Final = struct.Struct("<4sHHIIIHH")
_SECTION: Final = struct.Struct("<8sIIIIIIHHI")
_OPTIONAL_MAX: Final = 4096
_HEADERS_MAX: Final = 1 << 16
_CERTIFICATE: Final = struct.Struct("<IHH")
_CERTIFICATES_MAX: Final = 16
_TABLE_MAX: Final = 1 << 20
_CERTIFICATE_ENTRY: Final = 4
_PKCS7: Final = 0x0002
_PIECE: Final = 1 << 17


@dataclass(frozen=True, slots=True)
class Section:
    """One section: where it lies in the file, and where in memory.

    ``length`` is how much of the file is its content: what is loaded, without the
    padding behind it, with which it is ``stored`` bytes. ``size`` is what it takes in
    memory.
    """

    name: str
    offset: int
    length: int
    stored: int
    address: int
    size: int


@dataclass(frozen=True, slots=True)
class Pe:
    """A PE file; ``signatures`` are the bounds of each PKCS #7 blob in the table.

    ``signed_length`` is where the certificate table begins, else the file's length.
    ``table_entry`` is the offset of the table's directory entry, which no signature
    covers, as it does not the checksum at ``checksum``. ``headers`` are the bytes of
    all headers.
    """

    machine: int
    image_base: int
    headers: int
    sections: tuple[Section, ...]
    checksum: int
    table_entry: int
    signed_length: int
    signatures: tuple[tuple[int, int], ...]

    def section(self, name: str) -> Section | None:
        """The one section of that name.

        Raises:
            MalformedError: there are several.
        """
        found = [section for section in self.sections if section.name == name]
        if len(found) > 1:
            raise MalformedError(f"pe: section {name} is there {len(found)} times")
        return found[0] if found else None

    def content(self, read: ReadAt, name: str, limit: int) -> bytes | None:
        """The content of a section, ``None`` if there is none of that name.

        Raises:
            MalformedError: there are several. LimitError: more than ``limit`` bytes.
        """
        found = self.section(name)
        if found is None:
            return None
        if found.length > limit:
            raise LimitError(f"pe: section {name} has {found.length} bytes")
        return _exactly(read, found.offset, found.length)

    def digest(self, read: ReadAt) -> bytes:
        """SHA-256 over what a signature covers: what firmware compares with it.

        Headers without the holes, sections in the order of the file, and what is left
        behind as many bytes as were counted so far; as firmware counts, gaps or not.
        """
        digest = sha256()
        parts = [
            (0, self.checksum),
            (self.checksum + 4, self.table_entry),
            (self.table_entry + 8, self.headers),
        ]
        stored = sorted((one.offset, one.stored) for one in self.sections)
        parts += [(offset, offset + size) for offset, size in stored if size]
        counted = self.headers + sum(size for _, size in stored)
        parts += [(counted, self.signed_length)]
        for start, end in parts:
            for at in range(start, end, _PIECE):
                digest.update(_exactly(read, at, min(_PIECE, end - at)))
        digest.update(bytes(-self.signed_length % 8))
        return digest.digest()


def read_pe(read: ReadAt, length: int) -> Pe:
    """The headers of a PE file of ``length`` bytes.

    Raises:
        MalformedError: not one, or something in it lies where it must not.
        LimitError: too many or too large headers.
    """
    dos = _exactly(read, 0, _DOS)
    if dos[:2] != b"MZ":
        raise MalformedError("pe: it does not begin with MZ")
    start = int.from_bytes(dos[60:64], "little")
    if not _DOS <= start <= _HEADERS_MAX:
        raise MalformedError("pe: the PE header lies where none does")
    magic, machine, count, _, _, _, optional, _ = _COFF.unpack(
        _exactly(read, start, _COFF.size)
    )
    if magic != b"PE\0\0":
        raise MalformedError("pe: no PE header")
    if not 0 < count <= SECTIONS_MAX or not 112 <= optional <= _OPTIONAL_MAX:
        raise LimitError("pe: too many sections, or headers of an odd size")
    at = start + _COFF.size
    header = _exactly(read, at, optional)
    headers, table = _optional(header)
    base = int.from_bytes(header[24:32], "little")
    entries = at + optional
    end = entries + count * _SECTION.size
    if not end <= headers <= min(length, _HEADERS_MAX):
        raise MalformedError("pe: the headers do not hold the section table")
    signed, signatures = _certificates(read, length, table)
    raw = _exactly(read, entries, count * _SECTION.size)
    sections = tuple(
        _section(raw[one : one + _SECTION.size], headers, signed)
        for one in range(0, len(raw), _SECTION.size)
    )
    _apart(sections)
    directory = at + 112 + 8 * _CERTIFICATE_ENTRY
    return Pe(machine, base, headers, sections, at + 64, directory, signed, signatures)


def _optional(header: bytes) -> tuple[int, tuple[int, int]]:
    """Size of all headers; offset and size of the certificate table."""
    if int.from_bytes(header[:2], "little") != PE32_PLUS:
        raise MalformedError("pe: not a 64-bit file (PE32+)")
    headers = int.from_bytes(header[60:64], "little")
    directories = int.from_bytes(header[108:112], "little")
    at = 112 + 8 * _CERTIFICATE_ENTRY
    if not _CERTIFICATE_ENTRY < directories <= 16 or 112 + 8 * directories > len(
        header
    ):
        raise MalformedError("pe: no room for a certificate table in the headers")
    offset, size = struct.unpack_from("<II", header, at)
    return headers, (offset, size)


def _section(raw: bytes, headers: int, end: int) -> Section:
    found = _SECTION.unpack(raw)
    size, address, stored, offset = found[1:5]
    name = found[0].rstrip(b"\0")
    if not name.isascii() or not name.decode("ascii").isprintable():
        raise MalformedError("pe: a section whose name is no text")
    if stored and not headers <= offset <= offset + stored <= end:
        raise MalformedError(f"pe: section {name.decode()} lies outside the file")
    if stored and not size:
        raise MalformedError(f"pe: section {name.decode()} has no size in memory")
    return Section(name.decode(), offset, min(size, stored), stored, address, size)


def _apart(sections: tuple[Section, ...]) -> None:
    """No two sections share a byte of the file or of memory."""
    stored = sorted((one.offset, one.length) for one in sections if one.length)
    loaded = sorted((one.address, one.size) for one in sections if one.size)
    for spans in (stored, loaded):
        for (first, length), (second, _) in pairwise(spans):
            if first + length > second:
                raise MalformedError("pe: two sections overlap")


def _certificates(
    read: ReadAt, length: int, table: tuple[int, int]
) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Where the signed part ends, and the bounds of the signatures behind it."""
    offset, size = table
    if size == 0:
        return length, ()
    if size > _TABLE_MAX:
        raise LimitError(f"pe: a certificate table of {size} bytes")
    if offset % 8 or offset < _DOS or offset + size != length:
        raise MalformedError("pe: the certificate table is not the end of the file")
    found: list[tuple[int, int]] = []
    at = offset
    while at < length:
        if length - at < _CERTIFICATE.size:
            raise MalformedError("pe: a certificate that is cut off")
        entry, _, kind = _CERTIFICATE.unpack(_exactly(read, at, _CERTIFICATE.size))
        if not _CERTIFICATE.size < entry <= length - at:
            raise MalformedError("pe: a certificate that does not fit its table")
        if len(found) == _CERTIFICATES_MAX:
            raise LimitError("pe: too many certificates")
        if kind == _PKCS7:
            found.append((at + _CERTIFICATE.size, entry - _CERTIFICATE.size))
        at += -(-entry // 8) * 8
    return offset, tuple(found)


def _exactly(read: ReadAt, offset: int, length: int) -> bytes:
    found = read(offset, length)
    if len(found) != length:
        raise MalformedError("pe: the file ends too early")
    return found
