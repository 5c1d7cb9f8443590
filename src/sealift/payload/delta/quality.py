"""How hard LZMA tries: the settings behind a word.

Most of the time a delta of a large image takes is spent on differences, so settings are
what they were measured to be on those (``docs/adr/0010``). An image of a
microcontroller takes a moment whatever the settings: there every stream is packed in a
few ways, and the smallest is kept. Which one it was, a stream says itself.
"""

from __future__ import annotations

import lzma
from enum import Enum
from typing import TYPE_CHECKING, Final

from sealift.core.streams import pack

if TYPE_CHECKING:
    from collections.abc import Iterable

SMALL: Final = 4 << 20
"""Bytes of the largest image whose streams are packed in several ways."""


class Quality(Enum):
    """Time for a stream: *best* takes three parts, *balanced* two, *quick* one.

    *Balanced* is *best* where that is cheap: in small images, and in those so large
    that most of them was never given to the engine.
    """

    QUICK = "quick"
    BALANCED = "balanced"
    BEST = "best"

    def pack(self, plain: bytes, image_length: int, *, spare: bool = False) -> bytes:
        """The packed stream of ``plain`` for an image of so many bytes.

        ``spare``: matching took little, so there is time left for packing.
        """
        ways = self._ways(image_length, spare=spare)
        return min((pack(plain, **way) for way in ways), key=len)

    def _ways(self, image_length: int, *, spare: bool) -> Iterable[dict[str, int]]:
        if self is Quality.QUICK or (image_length > SMALL and not spare):
            return (_SETTINGS[self],)
        ways = _WAYS if image_length <= SMALL else _SPARE_WAYS
        return (_SETTINGS[Quality.BEST] | way for way in ways)


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
_SPARE_WAYS: Final[tuple[dict[str, int], ...]] = ({}, {"lc": 2, "pb": 0})
"""Likewise where blocks that both images hold were left out: what is left of most
segments is short, and short streams gain by fewer bits of context."""
