"""Packed streams: how the bytes of a frame are compressed, both ways.

A packed stream has a known plain length. As long as its plain bytes, it is those bytes;
shorter, it is one raw LZMA2 stream (``docs/formats.md``, "Frames"). The reader decodes
64 KiB at a time and takes its input in steps of that size. Its dictionary is as large
as the plain bytes, whatever the writer used, so no stream can make it take more.
"""

from __future__ import annotations

import lzma
from io import BufferedReader, BytesIO, RawIOBase
from typing import Any, Final

from sealift.core.errors import LimitError, PatchError

PRESET: Final = 6
"""LZMA preset of writers that ask for none: 9 is the same for segments of 1 MiB."""
STEP: Final = 1 << 16
"""Bytes decoded at a time. Blocks of this size are used again by the allocator; those
of a whole segment go back to the system and come as fresh pages for every segment."""

_DICTIONARY_MIN: Final = 4096
_STORED_GAIN: Final = 64
"""Bytes are stored unless LZMA saves more than one in this many."""


class PackedStream:
    """A packed stream of ``length`` plain bytes, taken from its begin to its end.

    Raises:
        PatchError: it is longer than its plain bytes.
    """

    def __init__(self, packed: bytes | memoryview, length: int) -> None:
        if len(packed) > length:
            raise PatchError("payload: a packed stream longer than its plain bytes")
        stored = len(packed) == length
        self._inflater = None if stored else _Inflater(packed, length)
        self._plain = (
            BufferedReader(self._inflater, STEP) if self._inflater else BytesIO(packed)
        )
        self._left = length

    def take(self, length: int) -> bytes:
        """The next ``length`` bytes.

        Raises:
            PatchError: the stream is malformed, or holds fewer.
        """
        found = self._plain.read(length)
        if len(found) != length:
            raise PatchError("payload: a stream ends too early")
        self._left -= length
        return found

    def finish(self) -> None:
        """Return if every byte was taken and the stream ends with the last of them.

        Raises:
            PatchError: bytes are left over, or the end marker is missing: only that
                tells a whole LZMA2 stream from one that lost its last byte.
            LimitError: more plain bytes would come out.
        """
        if self._left:
            raise PatchError("payload: a stream ends too late")
        if self._inflater is not None:
            self._inflater.finish()


class _Inflater(RawIOBase):
    """The plain bytes of one raw LZMA2 stream, no more than ``length``."""

    def __init__(self, packed: bytes | memoryview, length: int) -> None:
        self._packed = memoryview(packed)
        self._fed = 0
        self._left = length
        self._decoder = lzma.LZMADecompressor(
            lzma.FORMAT_RAW, filters=[_filter(length)]
        )

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        """Some of the next bytes; none at the end."""
        want = min(len(buffer), self._left)
        piece = self._inflate(want) if want else b""
        buffer[: len(piece)] = piece
        self._left -= len(piece)
        return len(piece)

    def finish(self) -> None:
        """See :meth:`PackedStream.finish`."""
        # With the output full the decoder stops short of the end marker.
        if self._inflate(1):
            raise LimitError("payload: a stream holds more than announced")
        unread = self._fed < len(self._packed) or self._decoder.unused_data
        if not self._decoder.eof or unread:
            raise PatchError("payload: a stream does not end with its plain bytes")

    def _inflate(self, want: int) -> bytes:
        """At least one and at most ``want`` bytes, none at the end of input."""
        decoder, piece = self._decoder, b""
        while not piece and not decoder.eof:
            feed = self._feed() if decoder.needs_input else b""
            if decoder.needs_input and not feed:
                break
            try:
                piece = decoder.decompress(feed, min(want, STEP))
            except lzma.LZMAError as error:
                raise PatchError("payload: a malformed LZMA2 stream") from error
        return piece

    def _feed(self) -> memoryview:
        found = self._packed[self._fed : self._fed + STEP]
        self._fed += len(found)
        return found


def unpack(packed: bytes | memoryview, length: int) -> bytes:
    """All ``length`` plain bytes of a packed stream.

    Raises:
        PatchError: malformed, cut short, too short a result, or bytes left over.
        LimitError: more than ``length`` bytes would come out.
    """
    if len(packed) == length:
        return bytes(packed)
    room = BytesIO(bytes(length))  # before the decoder takes its dictionary: see STEP
    stream = PackedStream(packed, length)
    for at in range(0, length, STEP):
        room.write(stream.take(min(STEP, length - at)))
    stream.finish()
    return room.getvalue()


def pack(plain: bytes, *, preset: int = PRESET, **options: int) -> bytes:
    """The packed stream of ``plain``; ``options`` are those of liblzma's filter.

    Stored unless LZMA saves more than one byte in 64: a device does not spend time on
    bytes that gain nothing by it.
    """
    if not plain:
        return b""
    packed = lzma.compress(
        plain, lzma.FORMAT_RAW, filters=[_filter(len(plain), preset=preset, **options)]
    )
    worth = len(packed) < len(plain) - len(plain) // _STORED_GAIN
    return packed if worth else plain


def _filter(length: int, **options: int) -> dict[str, Any]:
    dictionary = max(_DICTIONARY_MIN, length)
    return {"id": lzma.FILTER_LZMA2, "dict_size": dictionary, **options}
