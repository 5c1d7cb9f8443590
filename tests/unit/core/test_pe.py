"""PE files: what is told of them, and the many ways to lie about a section."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Callable
from typing import Any

import pytest

from sealift.core import pe
from sealift.core.errors import LimitError, MalformedError
from sealift.core.pe import Pe, read_pe
from sealift.sim.boot_files import uki_file
from sealift.sim.loaders.uki import pe_file

UKI = uki_file("quiet")
PE = 64  # where the header begins
OPTIONAL = PE + 24
TABLE = OPTIONAL + 112 + 32  # the certificate table's directory entry
SECTIONS = OPTIONAL + 112 + 16 * 8


def told(raw: bytes) -> Pe:
    return read_pe(reader(raw), len(raw))


def reader(raw: bytes) -> Callable[[int, int], bytes]:
    return lambda offset, length: raw[offset : offset + length]


def put(form: str, at: int, *values: Any, raw: bytes = UKI) -> bytes:
    changed = bytearray(raw)
    struct.pack_into(form, changed, at, *values)
    return bytes(changed)


def signed(raw: bytes = UKI, blob: bytes = bytes(24), kind: int = 2) -> bytes:
    """With a certificate table of one entry."""
    raw += bytes(-len(raw) % 8)
    entry = struct.pack("<IHH", 8 + len(blob), 0x200, kind) + blob
    entry += bytes(-len(entry) % 8)
    return put("<II", TABLE, len(raw), len(entry), raw=raw) + entry


def test_sections_and_their_contents() -> None:
    """Names, places and bytes; what is not there is None."""
    found = told(UKI)
    assert [one.name for one in found.sections] == [".cmdline", ".linux"]
    assert pe.MACHINES[found.machine] == "x86-64"
    assert found.content(reader(UKI), ".cmdline", 100) == b"quiet\0"
    assert found.content(reader(UKI), ".initrd", 100) is None
    assert found.signatures == ()
    assert found.signed_length == len(UKI)


def test_a_content_is_bounded() -> None:
    """More than was asked for is refused before it is read."""
    with pytest.raises(LimitError):
        told(UKI).content(reader(UKI), ".linux", 3)


def test_padding_is_no_content() -> None:
    """A section may take less in memory than in the file: then that is what is read."""
    raw = put("<I", SECTIONS + 8, 3)
    assert told(raw).content(reader(raw), ".cmdline", 9) == b"qui"


def test_signatures_lie_at_the_end() -> None:
    """The bounds of each PKCS #7 blob; other kinds of certificates are passed over."""
    raw = signed()
    [(at, length)] = told(raw).signatures
    assert raw[at : at + length] == bytes(24)
    assert told(signed(kind=1)).signatures == ()
    assert told(signed(blob=bytes(21))).signatures[0][1] == 21


def test_a_25_the_digest_has_three_holes() -> None:
    """Checksum, table entry and table may change; no other byte may."""
    raw = signed()
    digest = told(raw).digest(reader(raw))
    for other in (
        put("<I", OPTIONAL + 64, 7, raw=raw),
        signed(blob=bytes(range(40))),
    ):
        assert told(other).digest(reader(other)) == digest
    for at in (PE + 8, SECTIONS + 36, raw.index(b"quiet"), raw.index(b"kernel")):
        other = put("B", at, raw[at] ^ 1, raw=raw)
        assert told(other).digest(reader(other)) != digest


def test_the_digest_is_over_headers_and_sections() -> None:
    """Added up by hand, padded as an unsigned file is when it is signed."""
    holes = UKI[: OPTIONAL + 64] + UKI[OPTIONAL + 68 : TABLE] + UKI[TABLE + 8 :]
    by_hand = hashlib.sha256(holes + bytes(-len(UKI) % 8)).digest()
    assert told(UKI).digest(reader(UKI)) == by_hand


def test_c_11_a_name_that_is_there_twice() -> None:
    """It may stand there; whoever asks for it gets neither."""
    raw = UKI.replace(b".linux\0\0", b".cmdline", 1)
    found = told(raw)
    with pytest.raises(MalformedError):
        found.content(reader(raw), ".cmdline", 100)


LIES = {
    "no MZ": put("2s", 0, b"ZM"),
    "header in front": put("<I", 60, 4),
    "header far away": put("<I", 60, 1 << 20),
    "no PE": put("4s", PE, b"NE\0\0"),
    "32 bits": put("<H", OPTIONAL, 0x10B),
    "few directories": put("<I", OPTIONAL + 108, 4),
    "many directories": put("<I", OPTIONAL + 108, 17),
    "headers too short": put("<I", OPTIONAL + 60, SECTIONS),
    "headers beyond the file": put("<I", OPTIONAL + 60, 1 << 15),
    "odd name": put("8s", SECTIONS, b"\xff"),
    "unprintable name": put("8s", SECTIONS, b"\x07"),
    "section in the headers": put("<I", SECTIONS + 20, 100),
    "section beyond the file": put("<I", SECTIONS + 16, 1 << 20),
    "sections that overlap": put("<I", SECTIONS + 60, told(UKI).sections[0].offset),
    "memory that overlaps": put("<I", SECTIONS + 52, 0x1000),
    "no size in memory": put("<I", SECTIONS + 8, 0),
    "table not at the end": put("<I", TABLE + 4, 24, raw=signed()),
    "table not aligned": put("<II", TABLE, len(UKI) // 8 * 8 + 1, 7),
    "table in the headers": put("<II", TABLE, 0, len(UKI)),
    "certificate too long": put("<I", len(signed()) - 32, 33, raw=signed()),
    "certificate too short": put("<I", len(signed()) - 32, 8, raw=signed()),
    "certificate cut off": put("<I", len(signed()) - 32, 28, raw=signed())[:-4],
    "cut off": UKI[:100],
}


@pytest.mark.parametrize("lie", LIES)
def test_lies_are_told_apart(lie: str) -> None:
    """Each is refused when it is read."""
    with pytest.raises(MalformedError):
        told(LIES[lie])


FLOODS = {
    "no section": put("<H", PE + 6, 0),
    "many sections": put("<H", PE + 6, 97),
    "long header": put("<H", PE + 20, 5000),
    "short header": put("<H", PE + 20, 100),
    "large table": put("<II", TABLE, 64, 1 << 21),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_floods_are_cut(flood: str) -> None:
    """Numbers beyond every file."""
    with pytest.raises(LimitError):
        told(FLOODS[flood])


def test_too_many_certificates() -> None:
    """Seventeen of the smallest."""
    raw = UKI + bytes(-len(UKI) % 8)
    table = (struct.pack("<IHH", 9, 0x200, 2) + bytes(8)) * 17
    with pytest.raises(LimitError):
        told(put("<II", TABLE, len(raw), len(table), raw=raw) + table)


def test_a_certificate_that_is_cut_off() -> None:
    """Four bytes behind the first: no entry is so short."""
    raw = UKI + bytes(-len(UKI) % 8)
    table = struct.pack("<IHH", 17, 0x200, 2) + bytes(20)
    with pytest.raises(MalformedError):
        told(put("<II", TABLE, len(raw), len(table), raw=raw) + table)


def test_a_file_that_ends_under_the_reader() -> None:
    """What was announced has to come."""
    raw = pe_file({".linux": b"kernel"})
    found = told(raw)
    with pytest.raises(MalformedError):
        found.content(reader(raw[:-1]), ".linux", 100)
