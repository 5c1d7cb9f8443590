"""The contract of boot controls can fail: a verb done wrongly, and the test it fails.

These are steps that the power-cut test cannot tell, because the agent never takes them
in that order; the contract is what forbids them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from sealift.agent.boot.script import ScriptBoot
from sealift.agent.boot.uboot import UbootBoot
from sealift.core.types import Slot
from sealift.sim.loaders.script import ScriptProgram, ScriptWorld
from sealift.sim.loaders.uboot import UbootLoader, UbootWorld
from tests.unit.agent.contracts import test_boot_control as contract

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.agent.boot.file import Store
    from sealift.agent.ports import BootControl
    from sealift.sim.loaders.world import LoaderWorld


class NotDisarmed(UbootBoot):
    """The slot is noted as being written, and stays what starts next."""

    def mark_writing(self, slot: Slot) -> None:
        self._environment.write({f"{slot}_state": "writing"})


class WritesInUse(UbootBoot):
    """Any slot may be written."""

    def mark_writing(self, slot: Slot) -> None:
        self._write({f"{slot}_state": "writing"})


class AsksTheLoader(UbootBoot):
    """What runs is what was switched to last."""

    def current(self) -> Slot:
        return Slot(self._environment.read()["slot"])


class WritesAlways(UbootBoot):
    """A step whose work is done is written once more."""

    def _write(self, wanted: dict[str, str]) -> None:  # type: ignore[override]
        self._environment.write(wanted)


class UncountedWorld(UbootWorld):
    """U-Boot without BOOTCOUNT_ENV: it counts in memory only."""

    def decide(self, starts: Callable[[Slot], bool]) -> Slot | None:
        class Forgetful(UbootLoader):
            def _save(self, _variables: object) -> None:
                """Do nothing."""

        return Forgetful(self.copies()).decide(starts)


class StopsAtThePrompt(UbootWorld):
    """A bootcmd that does not end in reset."""

    def decide(self, starts: Callable[[Slot], bool]) -> Slot | None:
        slot = super().decide(starts)
        assert slot is not None, "the board waits at its prompt"
        return slot


class NeverDisarms(ScriptProgram):
    """Asked to go home it says yes, and the trial goes on."""

    def _changed(self, store: Store, verb: str, *rest: str) -> Store:
        if verb == "set-next" and rest[0] == store.default.value:
            return store
        return super()._changed(store, verb, *rest)


class ConfirmsTheArmed(ScriptProgram):
    """Confirming names who is on trial, not who runs."""

    def _good(self, store: Store, running: Slot) -> Store:
        return super()._good(store, store.trial or running)


def uboot(control: type[UbootBoot]) -> LoaderWorld:
    class World(UbootWorld):
        def boot(self) -> BootControl:
            return control(self.environment(), lambda: self.running, lambda: "boot")

    return World()


def script(program: type[ScriptProgram]) -> LoaderWorld:
    class World(ScriptWorld):
        def boot(self) -> BootControl:
            return ScriptBoot(
                program(self.record(), lambda: self.running), lambda: "boot"
            )

    return World()


MUTANTS: dict[str, tuple[LoaderWorld, Callable[[LoaderWorld], None]]] = {
    "B2": (uboot(WritesAlways), contract.test_B2_a_verb_repeated_changes_nothing),
    "B3": (script(NeverDisarms), contract.test_B3_home_boots_whatever_set_next_did),
    "B4": (UncountedWorld(), contract.test_B4_an_attempt_is_used_up_before_the_start),
    "B5": (UncountedWorld(), contract.test_B5_attempts_used_up_bring_home),
    "B6": (StopsAtThePrompt(), contract.test_B6_a_refused_image_is_a_failed_attempt),
    "B7": (script(ConfirmsTheArmed), contract.test_B7_mark_good_marks_what_runs),
    "B9": (uboot(NotDisarmed), contract.test_B9_what_is_being_written_cannot_boot),
    "D2": (uboot(AsksTheLoader), contract.test_every_start_is_told_from_the_others),
    "D08": (
        uboot(WritesInUse),
        contract.test_D08_the_slot_in_use_is_never_given_to_be_written,
    ),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_the_contract_notices(name: str) -> None:
    """Each mutant fails the test of the guarantee it breaks."""
    world, test = MUTANTS[name]
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        test(world)
