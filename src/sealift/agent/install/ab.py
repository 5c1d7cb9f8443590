"""The native A/B installer: two slots on this device, and a boot loader to switch them.

The order inside :meth:`AbInstaller.stage` is the promise: refuse what runs (D-08), then
what does not fit (D-09), then look; before the first byte that has to be written take
the slot's entry away (B9), then write, then read everything back through the same
descriptor (W8), and see that root and boot file belong together. Where the loader wants
its boot file outside the slot, that is placed last. Only after that may anybody arm. So
an install that is deferred before it wrote anything, for lack of budget say, leaves
both slots bootable.
"""

from __future__ import annotations

import contextlib
import hashlib
from typing import TYPE_CHECKING

from sealift.agent.ports import Armed, Feature, Probe, Running
from sealift.core.errors import BootError, SlotError, SlotTooSmallError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sealift.agent.ports import BootControl, BootFiles, Fill, SlotDevice, Slots
    from sealift.core.types import Artifact, Instruction, Slot

__all__ = ["PIECE_BYTES", "AbInstaller"]

PIECE_BYTES = 256 * 1024
"""How much of a slot is in memory at a time while it is read back."""


class AbInstaller:
    """:class:`~sealift.agent.ports.Installer` over a boot control and two slots.

    ``boot_id`` is another text after every start of the machine; ``tries`` is how many
    starts a trial gets where the loader can count. ``files`` is where the loader keeps
    what it starts, if that is outside the slots. ``belongs`` raises if the boot file
    and the root in a slot are not those of one release.
    """

    features = Feature.RESUME | Feature.DELTA | Feature.ROLLBACK

    def __init__(
        self,
        boot: BootControl,
        slots: Slots,
        boot_id: Callable[[], str],
        *,
        tries: int = 3,
        files: BootFiles | None = None,
        belongs: Callable[[Artifact, SlotDevice], None] = lambda _image, _slot: None,
    ) -> None:
        self._boot = boot
        self._slots = slots
        self._boot_id = boot_id
        self._tries = tries
        self._files = files
        self._belongs = belongs

    def stage(self, order: Instruction, slot: Slot, fill: Fill) -> None:
        """Have the ordered image in ``slot``, verified and re-read.

        Raises:
            SlotError: ``slot`` runs now, or reads back differently. SlotTooSmallError:
            as it says; nothing was erased. BootError: this boot is a trial, so the
            other slot is its way home; or the loader lacks something, or the release
            cannot boot here. PayloadError, TransportError: from ``fill``.
        """
        home = self._refuse_running(slot)
        if self._files is not None:
            self._files.accept(order.artifact)
        with self._open(slot, writable=True) as into:
            if into.size < order.artifact.length:
                raise SlotTooSmallError(
                    f"slot {slot} holds {into.size} bytes, "
                    f"the image has {order.artifact.length}",
                    hint="nothing was erased; the release does not fit this device",
                )
            marking = _Marking(into, lambda: self._boot.mark_writing(slot))
            with self._open(home, writable=False) as base:
                fill(marking, base)
            into.flush()
            self._reread(into, order.artifact)
            self._belongs(order.artifact, into)
            if self._files is not None:
                self._files.place(slot, order.artifact, into)

    def arm(self, order: Instruction, slot: Slot) -> Armed | Running:
        """Tell the loader to try ``slot``, after one more look at its bytes (D-01).

        Raises:
            SlotError: it no longer holds the image. BootError: the loader refused.
        """
        current = self._boot.current()
        if current is slot:
            return Running(slot)
        with self._open(slot, writable=False) as staged:
            self._reread(staged, order.artifact)
        if self._files is not None:
            self._files.check(slot, order.artifact)
        self._boot.set_next(slot, self._tries)
        if self._boot.next() is not slot:
            raise BootError(f"the loader would not start slot {slot}")
        return Armed(self._boot_id())

    def probe(self) -> Probe:
        """Which slot runs, in which boot."""
        return Probe(self._boot.current(), self._boot_id())

    def confirm(self, order: Instruction, slot: Slot) -> None:
        """Mark ``slot`` good, from inside itself (B7).

        Raises:
            BootError: another slot runs, or the loader refused.
        """
        del order
        if self._boot.current() is not slot:
            raise BootError(f"slot {slot} can only be confirmed from inside itself")
        self._boot.mark_good()

    def revert(self, home: Slot) -> bool:
        """Disarm; ``True`` when ``home`` runs and is the confirmed one again.

        ``home`` was confirmed when the attempt began. If a failed confirm got as far as
        the loader's store, home is put on trial, and confirmed from inside itself.

        Raises:
            BootError: the loader refused; do it again.
        """
        self._boot.set_next(home, self._tries)
        if self._boot.current() is not home:
            return False
        if self._boot.state().slots[home] != "good" or self._boot.next() is not home:
            self._boot.mark_good()
        return True

    def recognised(self, image: Artifact) -> Artifact | None:
        """``image`` if the running slot holds it, byte for byte; else ``None``.

        Raises:
            SlotError: the slot cannot be read. BootError: it is on trial, or the store
            is broken.
        """
        with self._open(self._confirmed(), writable=False) as slot:
            if slot.size < image.length or _digests(slot, image) != _signed(image):
                return None
        return image

    def _refuse_running(self, slot: Slot) -> Slot:
        """The slot that runs and is good, which is another one than ``slot``."""
        if self._boot.current() is slot:
            raise SlotError(f"slot {slot} runs now and is never written", slot=slot)
        home = self._confirmed()
        # Nothing is fetched for a loader that could not do what comes after.
        if missing := self._boot.state().missing:
            raise BootError(
                f"the boot loader cannot do its duties: {'; '.join(missing)}",
                hint="see `sealift-agent config-check`",
            )
        return home

    def _confirmed(self) -> Slot:
        """The slot that runs and is good."""
        current = self._boot.current()
        if self._boot.state().slots[current] != "good":
            raise BootError(
                f"slot {current} runs on trial, and slot {current.other} "
                "is its only way home",
                hint="restart the device: its loader goes back to the confirmed slot",
            )
        return current

    @contextlib.contextmanager
    def _open(self, slot: Slot, *, writable: bool) -> Iterator[SlotDevice]:
        device = self._slots.open(slot, writable=writable)
        try:
            yield device
        finally:
            device.close()

    def _reread(self, device: SlotDevice, image: Artifact) -> None:
        """Compare the medium with the signed digests (W8): every one that is listed.

        Raises:
            SlotError: what lies in the slot is not the image.
        """
        if _digests(device, image) != _signed(image):
            raise SlotError(
                f"the slot does not hold {image.name}",
                hint="the medium lost or changed what was written to it",
            )


class _Marking:
    """A slot that ``mark`` is called for before its first byte is written."""

    def __init__(self, device: SlotDevice, mark: Callable[[], None]) -> None:
        self._device = device
        self._mark: Callable[[], None] | None = mark
        self.size = device.size
        self.read = device.read
        self.flush = device.flush
        self.drop_cache = device.drop_cache
        self.close = device.close

    def write(self, offset: int, data: bytes) -> None:
        """Write, and mark first; a mark that fails is tried again."""
        if self._mark is not None:
            self._mark()
            self._mark = None
        self._device.write(offset, data)


def _signed(image: Artifact) -> tuple[bytes, bytes | None]:
    return image.sha256, image.sha512


def _digests(device: SlotDevice, image: Artifact) -> tuple[bytes, bytes | None]:
    """Of as many bytes as the image has, from the medium; SHA-512 if it lists one."""
    device.drop_cache()
    sha256 = hashlib.sha256()
    sha512 = hashlib.sha512() if image.sha512 is not None else None
    for piece in _pieces(device, image.length):
        sha256.update(piece)
        if sha512 is not None:
            sha512.update(piece)
    return sha256.digest(), None if sha512 is None else sha512.digest()


def _pieces(device: SlotDevice, length: int) -> Iterator[bytes]:
    offset = 0
    while offset < length:
        piece = device.read(offset, min(PIECE_BYTES, length - offset))
        if not piece:
            raise SlotError("the slot ends before the image does")
        yield piece
        offset += len(piece)
