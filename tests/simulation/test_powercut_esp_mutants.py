"""systemd-boot, GRUB and tryboot done wrongly, and found by the power-cut test.

Each is a shipped boot control with one step done as somebody might do it who did not
read device.md; nothing is patched.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import pytest

from sealift.agent.boot.grub import GrubBoot
from sealift.agent.boot.systemd_boot import SystemdBoot
from sealift.agent.boot.tryboot import TryBoot
from sealift.agent.entries import LINUX, name_of
from sealift.core.errors import BootError, StateError
from sealift.core.types import Slot
from sealift.sim.device import Device
from sealift.sim.loaders.grub import FlashBlock, GrubWorld
from sealift.sim.loaders.systemd_boot import NamesWorld, SystemdBootWorld
from sealift.sim.loaders.tryboot import TryBootWorld
from sealift.sim.powercut import cases

if TYPE_CHECKING:
    from sealift.agent.inplace import Block
    from sealift.sim.loaders.world import LoaderWorld

MUTANT_RUNS = 3_000


# ── systemd-boot ─────────────────────────────────────────────────────────────────────
class GoodByRename(SystemdBoot):
    """The name follows by a rename, as systemd-bless-boot does it (device-D4)."""

    def _tidy(self, slot: Slot) -> None:
        for entry in self._entries():
            if entry.slot is slot and not entry.confirmed:
                self._esp.rename(entry.path, f"{LINUX}/{name_of(slot)}")
                self._esp.sync()


class ArmedAsDefault(SystemdBoot):
    """The trial is the default: nothing brings home (device-D3)."""

    def set_next(self, slot: Slot, tries: int) -> None:
        super().set_next(slot, tries)
        self._set("LoaderEntryDefault", f"sealift-{slot}*")


class GoodByName(SystemdBoot):
    """Only the name says who is good; the variable stays as it was."""

    def _set(self, name: str, text: str) -> None:
        if name != "LoaderEntryDefault":
            super()._set(name, text)


class PlacedAsConfirmed(SystemdBoot):
    """What is placed has the confirmed name at once (names only)."""

    def _place_of(self, slot: Slot) -> str:
        return f"{LINUX}/{name_of(slot)}"


class RemovesHome(SystemdBoot):
    """So that the trial surely comes first, home's entry is taken away (names only)."""

    def _arm_by_name(self, slot: Slot, home: Slot, tries: int) -> None:
        super()._arm_by_name(slot, home, tries)
        self._take_away(home)


class ArmedWithoutCount(SystemdBoot):
    """The trial's name counts nothing (names only)."""

    def _arm_by_name(self, slot: Slot, home: Slot, tries: int) -> None:
        super()._arm_by_name(slot, home, tries)
        self._tidy(slot)


def uefi(
    control: type[SystemdBoot], world: type[SystemdBootWorld] = SystemdBootWorld
) -> type[LoaderWorld]:
    class World(world):  # type: ignore[valid-type,misc]
        def boot(self) -> SystemdBoot:
            return control(
                self.variables(),
                self.partition(),
                lambda: self.running,
                lambda: f"boot-{self.boots}",
            )

    return World


# ── GRUB ─────────────────────────────────────────────────────────────────────────────
class GoodInTwoWrites(GrubBoot):
    """The trial is ended first, and only then somebody is good."""

    def mark_good(self) -> None:
        store, _ = self._read()
        self._write(dataclasses.replace(store, trial=None, tries=0))
        super().mark_good()


class ArmedAsGood(GrubBoot):
    """The trial is the confirmed slot."""

    def set_next(self, slot: Slot, tries: int) -> None:
        super().set_next(slot, tries)
        store, _ = self._read()
        self._write(dataclasses.replace(store, good=slot))


class Unflushed(FlashBlock):
    """A block that stays in the cache."""

    def write(self, data: bytes) -> None:
        try:
            self._flash.write(self._region, 0, data)
        except StateError as error:
            raise BootError(error.message) from error


def grub(
    control: type[GrubBoot] = GrubBoot, medium: type[FlashBlock] = FlashBlock
) -> type[LoaderWorld]:
    class World(GrubWorld):
        def block(self, name: str) -> Block:
            return medium(self.flash, name)

        def boot(self) -> GrubBoot:
            return control(
                self.block("grubenv"),
                self.block("grubenv.home"),
                lambda: self.running,
                lambda: f"boot-{self.boots}",
            )

    return World


# ── tryboot ──────────────────────────────────────────────────────────────────────────
class ArmedInAll(TryBoot):
    """The trial stands where home stands."""

    def set_next(self, slot: Slot, tries: int) -> None:
        super().set_next(slot, tries)
        self._write(slot, slot)


class GoodInTrial(TryBoot):
    """Confirming changes the number of the trial."""

    def mark_good(self) -> None:
        self._forget()
        self._write(self.current().other, self.current())


def tryboot(
    control: type[TryBoot] = TryBoot, medium: type[FlashBlock] = FlashBlock
) -> type[LoaderWorld]:
    class World(TryBootWorld):
        def file(self) -> Block:
            return medium(self.flash, "autoboot.txt")

        def boot(self) -> TryBoot:
            return control(
                self.file(),
                self.note,
                {Slot.A: 2, Slot.B: 3},
                lambda: self.running,
                lambda: f"boot-{self.boots}",
            )

    return World


MUTANTS: dict[str, tuple[str, type[LoaderWorld]]] = {
    "good by rename": ("systemd-boot", uefi(GoodByRename)),
    "armed as default": ("systemd-boot", uefi(ArmedAsDefault)),
    "good by name": ("systemd-boot", uefi(GoodByName)),
    "names, as confirmed": ("systemd-boot-names", uefi(PlacedAsConfirmed, NamesWorld)),
    "names, without home": ("systemd-boot-names", uefi(RemovesHome, NamesWorld)),
    "names, uncounted": ("systemd-boot-names", uefi(ArmedWithoutCount, NamesWorld)),
    "good in two writes": ("grub", grub(GoodInTwoWrites)),
    "armed as good": ("grub", grub(ArmedAsGood)),
    "blocks not flushed": ("grub", grub(medium=Unflushed)),
    "armed in all": ("tryboot", tryboot(ArmedInAll)),
    "good in trial": ("tryboot", tryboot(GoodInTrial)),
    "file not flushed": ("tryboot", tryboot(medium=Unflushed)),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_loader_done_wrongly_is_found(name: str) -> None:
    """The same runs find a brick or an untruth."""
    loader, world = MUTANTS[name]

    class Mutant(Device):
        def make_world(self) -> LoaderWorld:
            return world(self.flash)

    for run in cases(MUTANT_RUNS, names=(loader,)):
        if Mutant(run.scene, run.cuts).settle().faults():
            return
    pytest.fail(f"{MUTANT_RUNS} runs do not notice: {name}")
