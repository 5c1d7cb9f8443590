"""The power-cut run can fail: take one guard away, and it finds what the guard is for.

Each mutant is a device with one part exchanged for a worse one; nothing is patched.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sealift.agent.duties import Component, Duties, Found, NotYet
from sealift.agent.install.ab import AbInstaller
from sealift.agent.machine import Attempt, Done, Trial
from sealift.agent.shell import Shell
from sealift.sim.device import Device
from sealift.sim.flash import Flash, FlashCells, FlashSlots
from sealift.sim.powercut import cases

if TYPE_CHECKING:
    from sealift.agent.journal import Journal
    from sealift.agent.ports import BootControl, Cells
    from sealift.agent.shell import Outside
    from sealift.core.types import Artifact, Instruction, Slot
    from sealift.sim.flash import FlashSlot

RUNS = 9_000


class UnflushedCells(FlashCells):
    """Cells whose writes stay in the cache until it pleases somebody."""

    def flush(self, cell: int) -> None:
        """Do nothing."""


class WithoutFsync(Device):
    """The journal's fsync removed."""

    def make_journal_cells(self) -> Cells:
        return UnflushedCells(self.flash, "journal")


class CredulousInstaller(AbInstaller):
    """What was written is believed without being read."""

    def _reread(self, device: object, image: Artifact) -> None:
        """Do nothing."""


class WithoutReread(Device):
    """The slot's re-read removed (W8, D-01)."""

    def make_installer(self, boot: BootControl) -> AbInstaller:
        return CredulousInstaller(boot, FlashSlots(self.flash), self.clock.boot_id)


class CachedSlots(FlashSlots):
    """Slots whose cache cannot be dropped."""

    def open(self, slot: Slot, *, writable: bool) -> FlashSlot:
        device = super().open(slot, writable=writable)
        device.drop_cache = lambda: None  # type: ignore[method-assign]
        return device


class WithoutDroppedCache(Device):
    """The re-read sees the page cache and not the medium."""

    def make_installer(self, boot: BootControl) -> AbInstaller:
        return AbInstaller(boot, CachedSlots(self.flash), self.clock.boot_id)


class ObedientInstaller(AbInstaller):
    """Confirms whatever runs."""

    def confirm(self, order: Instruction, slot: Slot) -> None:
        self._boot.mark_good()


class UnaskingDuties(Duties):
    """Confirms without asking which slot runs."""

    def _confirm(self, part: Component, attempt: Attempt) -> Found:
        part.installer.confirm(attempt.order, attempt.slot)
        return Done()


class UnaskingShell(Shell):
    """The loop around them."""

    performs = UnaskingDuties


class WithoutBoldRow(Device):
    """The bold row's guard removed: Confirming no longer asks which slot runs."""

    def make_installer(self, boot: BootControl) -> AbInstaller:
        return ObedientInstaller(boot, FlashSlots(self.flash), self.clock.boot_id)

    def make_shell(self, journal: Journal, outside: Outside) -> Shell:
        parts, floors = self.make_components(), self.make_floors()
        return UnaskingShell(parts, journal, floors, self.clock, outside)


class EagerDuties(Duties):
    """Raises the floor as soon as the new image runs."""

    def _check(self, part: Component, state: Trial) -> Found:
        counter = state.attempt.order.artifact.release_counter
        self._helpers.floors.raise_to(part.ecu_id, counter)
        return super()._check(part, state)


class EagerShell(Shell):
    """The loop around them."""

    performs = EagerDuties


class WithEarlyFloor(Device):
    """The floor rises before the confirm (B10, D-05)."""

    def make_shell(self, journal: Journal, outside: Outside) -> Shell:
        parts, floors = self.make_components(), self.make_floors()
        return EagerShell(parts, journal, floors, self.clock, outside)


class ForgetfulFlash(Flash):
    """A flash that keeps nothing of the loader's store until the next flush."""

    def flush(self, region: str) -> None:
        if not region.startswith("boot."):
            super().flush(region)


class WithoutLoaderFsync(Device):
    """The loader's store is written without fsync (B1)."""

    def make_flash(self) -> Flash:
        return ForgetfulFlash(self.door, self.scene.weather, seed=self.scene.seed)


class HastyDuties(Duties):
    """Changes the world first and has the journal written afterwards."""

    def _arm(self, part: Component, attempt: Attempt) -> Found:
        super()._arm(part, attempt)
        part.restart()
        return NotYet(60.0)


class HastyShell(Shell):
    """The loop around them."""

    performs = HastyDuties


class WithoutJournalFirst(Device):
    """The device restarts before Rebooting is journaled."""

    def make_shell(self, journal: Journal, outside: Outside) -> Shell:
        parts, floors = self.make_components(), self.make_floors()
        return HastyShell(parts, journal, floors, self.clock, outside)


@pytest.mark.parametrize(
    "mutant",
    [
        WithoutBoldRow,
        WithoutFsync,
        WithoutReread,
        WithoutDroppedCache,
        WithEarlyFloor,
        WithoutLoaderFsync,
        WithoutJournalFirst,
    ],
)
def test_a_removed_guard_is_found(mutant: type[Device]) -> None:
    """Without this guard the same runs find a brick or an untruth."""
    for run in cases(RUNS):
        if mutant(run.scene, run.cuts).settle().faults():
            return
    pytest.fail(f"{RUNS} runs do not notice: {mutant.__doc__}")
