"""The five verbs, for an image that has to go one link further."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sealift.agent.ports import Armed, Feature, Probe, Running
from sealift.core.errors import BootError, FormatError, SlotError
from sealift.core.fields import count, digest, text
from sealift.core.types import Slot

if TYPE_CHECKING:
    from sealift.agent.install.mcu.copies import Copies
    from sealift.agent.install.mcu.courier import Courier
    from sealift.agent.ports import Fill, Installer, Link, Unit
    from sealift.agent.record import Record
    from sealift.core.types import Artifact, Instruction


class McuInstaller:
    """:class:`~sealift.agent.ports.Installer` over a link and copies on this device.

    ``inner`` installs into the copies; its loader is the one at the end of the link.
    ``home`` is a record of which image lies in the copy of the confirmed slot.

    Raises:
        FailedTransferError: from every verb, when the microcontroller does not answer.
    """

    features = Feature.RESUME | Feature.DELTA | Feature.ROLLBACK

    def __init__(
        self,
        inner: Installer,
        copies: Copies,
        courier: Courier,
        link: Link,
        home: Record,
    ) -> None:
        self._inner = inner
        self._copies = copies
        self._courier = courier
        self._link = link
        self._home = home

    def stage(self, order: Instruction, slot: Slot, fill: Fill) -> None:
        """Have the image here, verified and re-read; with two slots over there, too.

        Raises:
            SlotError, SlotTooSmallError, BootError, PayloadError, TransportError: as
            the installer of the copies; or SlotError: the loader refuses the image.
        """
        self._courier.fetch_patch(order)
        self._inner.stage(order, slot, fill)
        if not self._link.identify().one_slot:
            self._courier.deliver(order, slot)

    def arm(self, order: Instruction, slot: Slot) -> Armed | Running:
        """Have the image over there, and the loader start it next.

        Raises:
            SlotError: a copy is not what it has to be, and nothing was touched over
            there; or the loader refuses. BootError: it would not start the image.
        """
        unit = self._link.identify()
        if unit.running is not slot:
            if unit.one_slot and unit.sha256 is not None:
                self._require_copies(order, slot, unit)
            self._courier.deliver(order, slot)
        return self._inner.arm(order, slot)

    def probe(self) -> Probe:
        """Which image runs, in which start of the microcontroller."""
        return self._inner.probe()

    def confirm(self, order: Instruction, slot: Slot) -> None:
        """Have what runs confirmed, if it is the ordered image.

        Raises:
            BootError: it is another one, or the loader refused.
        """
        del slot
        try:
            self._link.confirm(order.artifact.sha256)
        except SlotError as error:
            raise BootError(f"the microcontroller is not confirmed: {error}") from error

    def revert(self, home: Slot) -> bool:
        """Disarm; with one slot, send the image of ``home`` again if it is gone.

        Where only the loader ran when the attempt began, the loader is home.

        Raises:
            BootError, SlotError: the loader refused; do it again.
        """
        unit = self._link.identify()
        runs_home = unit.running is home and unit.sha256 is not None
        if runs_home or not unit.one_slot:
            return self._inner.revert(home)
        kept = self._kept(home)
        if kept is None and unit.sha256 is None:
            return True
        if kept is not None and unit.waiting != kept.sha256:
            self._courier.send(home, kept.length, kept.sha256)
        self._link.test(home)
        return False

    def restart(self) -> None:
        """Start the microcontroller anew."""
        self._link.restart()

    def recognised(self, image: Artifact) -> Artifact | None:
        """``image`` if the microcontroller runs it, confirmed; else ``None``."""
        unit = self._link.identify()
        same = unit.confirmed and unit.sha256 == image.sha256
        return image if same else None

    def _require_copies(self, order: Instruction, slot: Slot, unit: Unit) -> None:
        """Both images are here, and which one is home is on record."""
        image, old = order.artifact, unit.sha256 or b""
        if not self._copies.holds(slot, image.length, image.sha256):
            raise SlotError(f"the copy of {image.name} is not what it was")
        if not self._copies.holds(unit.running, unit.length, old):
            raise SlotError(
                "there is no copy of what the microcontroller runs: no way back",
                hint=f"put the image it was made with into slot {unit.running}",
            )
        self._home.write(_Kept(unit.running, unit.length, old).to_json())

    def _kept(self, home: Slot) -> _Kept | None:
        """The image of ``home``, if its copy is here."""
        raw = self._home.read()
        kept = None if raw is None else _Kept.from_json(raw)
        if kept is None or kept.slot is not home:
            return None
        return kept if self._copies.holds(home, kept.length, kept.sha256) else None


@dataclass(frozen=True, slots=True)
class _Kept:
    """Which image the copy in a slot is."""

    slot: Slot
    length: int
    sha256: bytes

    def to_json(self) -> bytes:
        found = {"slot": self.slot, "length": self.length, "sha256": self.sha256.hex()}
        return json.dumps(found).encode("ascii")

    @classmethod
    def from_json(cls, raw: bytes) -> _Kept | None:
        """What :meth:`to_json` wrote; ``None`` if it is anything else."""
        try:
            found = json.loads(raw)
            slot = Slot(text(found, "slot", 1))
            return cls(slot, count(found, "length"), digest(found, "sha256", 32))
        except (ValueError, AttributeError, FormatError):
            return None
