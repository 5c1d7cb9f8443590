"""How hard LZMA tries: the settings behind a word.

Most of the time a delta of a large image takes is spent on differences, so settings are
what they were measured to be on those (``docs/adr/0010``). An image of a
microcontroller takes a moment whatever the settings: there every stream is packed in a
few ways, and the smallest is kept. Which one it was, a stream says itself.
"""

from __future__ import annotations

import lzma
from enum import Enum
from typing import Final

from sealift.core.streams import pack

SMALL: Final = 4 << 20
"""Bytes of the largest image whose streams are packed in several ways."""


class Quality(Enum):
    """Time for a stream: *best* takes three parts, *balanced* two, *quick* one."""

    QUICK = "quick"
    BALANCED = "balanced"
    BEST = "best"

    def pack(self, plain: bytes, image_length: int) -> bytes:
        """The packed stream of ``plain`` for an image of so many bytes."""
        settings = _SETTINGS[self]
        if image_length > SMALL or self is Quality.QUICK:
            return pack(plain, **settings)
        best = _SETTINGS[Quality.BEST]
        return min((pack(plain, **best, **way) for way in _WAYS), key=len)


_SETTINGS: Final[dict[Quality, dict[str, int]]] = {
    Quality.QUICK: {"preset": 9, "nice_len": 48, "depth": 8},
    Quality.BALANCED: {"preset": 9, "nice_len": 192, "depth": 24},
    Quality.BEST: {"preset": 9 | lzma.PRESET_EXTREME},
}
_WAYS: Final[tuple[dict[str, int], ...]] = (
    {},
    {"pb": 0},
    {"lc": 1, "lp": 1, "pb": 1},
    {"lc": 0, "pb": 0},
)
"""Bits of context and of alignment: words of four bytes, bytes, words of two."""
