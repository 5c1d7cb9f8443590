"""Images on the gateway: one in each slot, known by length and digest."""

from __future__ import annotations

import hashlib
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sealift.agent.ports import SlotDevice, Slots
    from sealift.core.types import Slot

PIECE_BYTES: Final = 64 * 1024


class Copies:
    """The gateway's copies, for reading.

    Raises:
        SlotError: from every method, when a slot cannot be read.
    """

    def __init__(self, slots: Slots) -> None:
        self._slots = slots

    @contextmanager
    def opened(self, slot: Slot) -> Iterator[SlotDevice]:
        """One slot."""
        with closing(self._slots.open(slot, writable=False)) as copy:
            yield copy

    def holds(self, slot: Slot, length: int, sha256: bytes) -> bool:
        """Whether ``slot`` begins with this image, on the medium."""
        found = hashlib.sha256()
        with self.opened(slot) as copy:
            copy.drop_cache()
            for piece in pieces(copy, min(length, copy.size)):
                found.update(piece)
        return found.digest() == sha256


def pieces(file: SlotDevice, length: int) -> Iterator[bytes]:
    """The first ``length`` bytes in order."""
    for at in range(0, length, PIECE_BYTES):
        yield file.read(at, min(PIECE_BYTES, length - at))
