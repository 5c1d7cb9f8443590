"""Numbers of a payload container: LEB128 varints in shortest form, zigzag for signs.

A number has one form of at most nine bytes (63 bits), so what parses writes back as the
same bytes, and no arithmetic on what was read leaves 64 bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sealift.core.errors import LimitError

if TYPE_CHECKING:
    from sealift.core.errors import PayloadError

VARINT_MAX: Final = 9
"""Bytes of the longest varint, 63 bits."""


def varint(value: int) -> bytes:
    """LEB128 of ``0 <= value < 2**63``, minimal."""
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def svarint(value: int) -> bytes:
    """The :func:`varint` of the zigzag of a signed number."""
    return varint(value << 1 if value >= 0 else (-value << 1) - 1)


def read_varint(
    raw: bytes | memoryview, at: int, error: type[PayloadError]
) -> tuple[int, int]:
    """The varint that begins at ``raw[at]``, and where it ends.

    Raises:
        PayloadError: of class ``error``; ``raw`` ends inside it, or it is padded.
        LimitError: it is longer than nine bytes.
    """
    value = shift = 0
    for byte in raw[at : at + VARINT_MAX]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            if byte == 0 and shift > 7:
                raise error("payload: a varint is not in its shortest form")
            return value, at + shift // 7
    if len(raw) - at < VARINT_MAX:
        raise error("payload: a varint is cut short")
    raise LimitError("payload: a varint is longer than nine bytes")


def read_svarint(
    raw: bytes | memoryview, at: int, error: type[PayloadError]
) -> tuple[int, int]:
    """The svarint that begins at ``raw[at]``, and where it ends; see read_varint."""
    value, stop = read_varint(raw, at, error)
    return -(value >> 1) - 1 if value & 1 else value >> 1, stop
