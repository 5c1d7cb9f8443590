"""The contract of boot controls over a link, as far as it applies to one.

A microcontroller has no word for "being written": what comes replaces what lies in the
free slot, and nothing starts it before it is whole and ``test`` was asked. It verifies
what it starts itself (B6), and its own cuts are ``install/test_mcu.py``'s.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from sealift.agent.boot.link import LinkBoot
from sealift.agent.ports import Parcel
from sealift.core.types import Slot
from sealift.sim.flash import Door, Flash
from sealift.sim.loaders.world import LoaderWorld
from sealift.sim.mcu import SimMcu
from tests.unit.agent.contracts import test_boot_control as contract

if TYPE_CHECKING:
    from collections.abc import Callable


class LinkWorld(LoaderWorld):
    """A microcontroller with two slots; its flash is the world's."""

    kind = "link"
    keeps_conditions = False

    def __init__(self) -> None:
        super().__init__(Flash(Door()))
        self.mcu = SimMcu(self.flash)
        self.releases = 1
        self.mcu.manufacture(b"release 1" * 100)

    def boot(self) -> LinkBoot:
        return LinkBoot(self.mcu)

    def decide(self, starts: Callable[[Slot], bool]) -> Slot | None:
        del starts
        self.mcu.restart()
        return self.mcu.identify().running

    def home(self) -> Slot:
        unit = self.mcu.identify()
        return unit.running if unit.confirmed else unit.running.other

    def trials(self, tries: int) -> int:
        del tries
        return 1

    def install(self, slot: Slot) -> None:
        self.releases += 1
        image = f"release {self.releases}".encode() * 100
        digest = hashlib.sha256(image).digest()
        size = len(image)
        self.mcu.begin(Parcel(slot, size, digest, size, digest))
        for at in range(0, size, 512):
            self.mcu.write(at, image[at : at + 512])
        self.mcu.finish()


APPLY = [
    contract.test_a_new_board_boots_slot_a,
    contract.test_an_update_from_slot_to_slot_and_back,
    contract.test_B3_home_boots_whatever_set_next_did,
    contract.test_B4_power_cycles_of_normal_life_change_nothing,
    contract.test_B4_an_attempt_is_used_up_before_the_start,
    contract.test_B5_attempts_used_up_bring_home,
    contract.test_B7_mark_good_marks_what_runs,
    contract.test_B9_what_is_being_written_cannot_boot,
    contract.test_every_start_is_told_from_the_others,
]


@pytest.mark.parametrize("test", APPLY, ids=lambda it: it.__name__)
def test_a_link_keeps_the_contract(test: Callable[[LoaderWorld], None]) -> None:
    """The same functions as for every loader."""
    test(LinkWorld())
