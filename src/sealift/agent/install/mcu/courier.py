"""Over the last link: the image by its patch where that is sound, else as it is."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

from sealift.agent import log
from sealift.agent.install.mcu.copies import PIECE_BYTES, pieces
from sealift.agent.ports import Parcel
from sealift.core import mcu
from sealift.core.errors import (
    FailedTransferError,
    FormatError,
    PayloadError,
    PolicyError,
    RequestError,
    SlotError,
    SpaceError,
    TransportError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from sealift.agent.install.mcu.copies import Copies
    from sealift.agent.ports import Link, SlotDevice, Unit
    from sealift.core.types import Instruction, Patch, Slot

TRIES: Final = 8
"""How often the link may fail without one byte more coming through."""

_UNUSABLE: Final = (PayloadError, FormatError, SlotError, SpaceError)
_UNOBTAINABLE: Final = (*_UNUSABLE, TransportError, RequestError, PolicyError)


class PatchSource(Protocol):
    """The patch of one order; see ``agent.payload.patch``."""

    def fetch(self) -> None:
        """Have it here, whole and with its digest."""
        ...

    def opened(self) -> AbstractContextManager[SlotDevice]:
        """What was fetched, its digest compared again."""
        ...


class Courier:
    """Sends images to a microcontroller, each until it lies there whole.

    ``patches`` gives the source of an order's patch; ``pause`` waits before the link is
    tried again.
    """

    def __init__(
        self,
        link: Link,
        copies: Copies,
        patches: Callable[[Instruction, Patch], PatchSource],
        pause: Callable[[], None],
    ) -> None:
        self._link = link
        self._copies = copies
        self._patches = patches
        self._pause = pause

    def fetch_patch(self, order: Instruction) -> None:
        """Have the order's patch here, if it is of use; if not, the image is sent.

        Raises:
            FailedTransferError: the microcontroller does not answer.
        """
        patch = _fitting(order, self._link.identify())
        if patch is None:
            return
        try:
            self._patches(order, patch).fetch()
        except _UNOBTAINABLE as error:
            log.failed("patch", error)

    def deliver(self, order: Instruction, slot: Slot) -> None:
        """Have the image, whose copy is in ``slot`` here, in ``slot`` over there.

        Raises:
            FailedTransferError: no answer, again and again. SlotError: the loader
            refuses the image. PatchError: it gets another one.
        """
        unit, image = self._link.identify(), order.artifact
        if unit.waiting == image.sha256:
            return
        patch = _fitting(order, unit)
        if patch is None or not self._sent_patch(order, slot, patch):
            self.send(slot, image.length, image.sha256)

    def send(self, slot: Slot, length: int, sha256: bytes) -> None:
        """Send the copy in ``slot`` as it is.

        Raises:
            FailedTransferError, SlotError, PatchError: as :meth:`deliver`.
        """
        with self._copies.opened(slot) as copy:
            self._send(Parcel(slot, length, sha256, length, sha256), copy)

    def _sent_patch(self, order: Instruction, slot: Slot, patch: Patch) -> bool:
        """Whether the patch made the image; it goes nowhere before it did so here."""
        image, source = order.artifact, self._patches(order, patch)
        parcel = Parcel(
            slot, patch.length, patch.sha256, image.length, image.sha256, patch
        )
        try:
            with source.opened() as file, self._copies.opened(slot.other) as base:
                mcu.rehearse(pieces(file, patch.length), patch, image, base.read)
                self._send(parcel, file)
        except _UNUSABLE as error:
            log.failed("patch", error)
            return False
        return True

    def _send(self, parcel: Parcel, source: SlotDevice) -> None:
        """Send it all, from where the loader wants it, as often as it takes."""
        reached = failures = 0
        while True:
            try:
                unit = self._link.identify()
                if unit.waiting == parcel.image_sha256:
                    return  # the last word of an earlier try was lost, not its deed
                for at in self._written(parcel, source, unit):
                    if at > reached:
                        reached, failures = at, 0
                self._link.finish()
            except FailedTransferError:
                failures += 1
                if failures > TRIES:
                    raise
                self._pause()
            else:
                return

    def _written(self, parcel: Parcel, source: SlotDevice, unit: Unit) -> Iterator[int]:
        """Write block after block; gives the offset that was reached."""
        block, at = unit.block, self._link.begin(parcel)
        if block < 1 or not 0 <= at <= parcel.length:
            raise SlotError("the loader wants what is not there", offset=at)
        while at < parcel.length:
            length = min(block, PIECE_BYTES, parcel.length - at)
            self._link.write(at, source.read(at, length))
            at += length
            yield at


def _fitting(order: Instruction, unit: Unit) -> Patch | None:
    """The patch, if the loader can apply it to what it has, or has begun to."""
    patch = order.patch
    if patch is None or patch.kind not in unit.kinds:
        return None
    fits = patch.base_sha256 == unit.sha256 or patch.sha256 == unit.coming
    return patch if fits else None
