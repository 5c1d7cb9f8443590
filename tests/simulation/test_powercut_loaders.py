"""The power-cut test over every loader, and what it finds when one is done wrongly.

Each mutant is a loader's boot control with one step done as somebody might do it who
did not read device.md; nothing is patched.
"""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

import pytest

from sealift.agent.boot.script import ScriptBoot
from sealift.agent.boot.uboot import UbootBoot
from sealift.core.types import Slot
from sealift.sim.device import Device, Kind, Scene
from sealift.sim.flash import AFTER, KILLED
from sealift.sim.loaders.script import ScriptProgram, ScriptWorld
from sealift.sim.loaders.table import WORLDS
from sealift.sim.loaders.uboot import UbootWorld
from sealift.sim.powercut import REFERENCE, Run, cases, survey

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from sealift.agent.boot.file import Store
    from sealift.agent.ports import BootControl
    from sealift.sim.loaders.world import LoaderWorld

RUNS = {"systemd-boot": 900, "systemd-boot-names": 600}
"""Lives of those that take longer; the others have four thousand."""
MUTANT_RUNS = 6_000


@pytest.mark.parametrize("name", [it for it in WORLDS if it not in REFERENCE])
def test_no_cut_bricks_a_device_with_this_loader(name: str) -> None:
    """Singles everywhere, then pairs: the device rests, whole, and told the truth."""
    found = survey(cases(RUNS.get(name, 4_000), names=(name,)))
    assert found.findings == []
    assert found.clean
    assert len(found.kinds) == len(Kind)


def killed_then_cut(name: str) -> Iterator[Run]:
    """The agent killed after each step, and soon after that the power cut."""
    scene = Scene(Kind.GOOD, name)
    steps = Device(scene).settle().door.steps
    for killed in range(1, steps + 1):
        for cut in range(killed + 1, killed + 9):
            yield Run(scene, (killed + KILLED, cut + AFTER))


@pytest.mark.parametrize("name", WORLDS)
def test_what_a_killed_process_left_in_the_cache_is_not_believed(name: str) -> None:
    """Made durable first: the next cut takes back what was only written."""
    found = survey(killed_then_cut(name))
    assert found.findings == []


# ── U-Boot ───────────────────────────────────────────────────────────────────────────
class Hasty(UbootBoot):
    """Steps of U-Boot done in another way."""

    def write_each(self, wanted: Mapping[str, str]) -> None:
        """One call of fw_setenv for each variable, instead of one for all (D21)."""
        for name, value in wanted.items():
            self._environment.write({name: value})


class GoodInTwoWrites(Hasty):
    """Confirming says first that there is no trial, and then who is good."""

    def mark_good(self) -> None:
        running = self.current().value
        self._environment.write({"upgrade_available": "0", "bootcount": "0"})
        self._environment.write({"good": running, "slot": running})
        self._environment.write({f"{running}_state": "good"})


class ArmedWithoutTheFlag(Hasty):
    """The slot is switched first, and only then said to be on trial."""

    def set_next(self, slot: Slot, tries: int) -> None:
        if slot.value == self._environment.read()["good"]:
            super().set_next(slot, tries)
            return
        self.write_each(
            {
                "slot": slot.value,
                "bootcount": "0",
                f"{slot}_state": "trial",
                "upgrade_available": "1",
            }
        )


class BelievesTheCache(Hasty):
    """What is found in the store needs no flush (found by 20 000 lives, once)."""

    def _write(self, wanted: Mapping[str, str]) -> None:
        found = self._environment.read()
        if any(found[name] != value for name, value in wanted.items()):
            self._environment.write(wanted)


class NeverOnTrial(Hasty):
    """It is armed for good: nothing counts, nothing brings home (B4, B5)."""

    def set_next(self, slot: Slot, tries: int) -> None:
        del tries
        self._write(
            {
                "slot": slot.value,
                "good": slot.value,
                "bootcount": "0",
                "upgrade_available": "0",
                f"{slot}_state": "good",
            }
        )


def uboot(control: type[UbootBoot]) -> type[LoaderWorld]:
    class World(UbootWorld):
        def boot(self) -> BootControl:
            return control(
                self.environment(), lambda: self.running, lambda: f"boot-{self.boots}"
            )

    return World


class OneCopy(UbootWorld):
    """An environment without its second copy: a torn write loses all of it."""

    def decide(self, starts):  # type: ignore[no-untyped-def]
        self.flash.remove("env.1")
        return super().decide(starts)


# ── a program of the integrator ──────────────────────────────────────────────────────
class CarelessProgram(ScriptProgram):
    """The base of those that do one thing wrongly."""


class ArmsAsDefault(CarelessProgram):
    """An armed slot becomes the default at once."""

    def _armed(self, store: Store, slot: Slot, tries: int) -> Store:
        armed = super()._armed(store, slot, tries)
        return dataclasses.replace(armed, default=slot, trial=None)


class SaysDone(CarelessProgram):
    """Asked to confirm it says that it is done, and has saved nothing."""

    def _changed(self, store: Store, verb: str, *rest: str) -> Store:
        return store if verb == "mark-good" else super()._changed(store, verb, *rest)


class SavesInPlace(CarelessProgram):
    """The file is overwritten where it lies."""

    def _save(self, store: Store) -> None:
        cells = self._record._cells
        for at in (0, 1):
            raw = cells.read(at, 1000)
            if raw:
                cells.write(at, b"\0" * len(raw))
        super()._save(store)


def script(program: type[ScriptProgram]) -> type[LoaderWorld]:
    class World(ScriptWorld):
        def boot(self) -> BootControl:
            asked = program(self.record(), lambda: self.running)
            return ScriptBoot(asked, lambda: f"boot-{self.boots}")

    return World


MUTANTS: dict[str, tuple[str, type[LoaderWorld]]] = {
    "good in two writes": ("uboot", uboot(GoodInTwoWrites)),
    "armed without the flag": ("uboot", uboot(ArmedWithoutTheFlag)),
    "believes the cache": ("uboot", uboot(BelievesTheCache)),
    "never on trial": ("uboot", uboot(NeverOnTrial)),
    "one copy": ("uboot", OneCopy),
    "arms as default": ("script", script(ArmsAsDefault)),
    "says done": ("script", script(SaysDone)),
    "saves in place": ("script", script(SavesInPlace)),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_loader_done_wrongly_is_found(name: str) -> None:
    """The same runs find a brick or an untruth."""
    loader, world = MUTANTS[name]

    class Mutant(Device):
        def make_world(self) -> LoaderWorld:
            return world(self.flash)

    for run in itertools.chain(
        killed_then_cut(loader), cases(MUTANT_RUNS, names=(loader,))
    ):
        if Mutant(run.scene, run.cuts).settle().faults():
            return
    pytest.fail(f"{MUTANT_RUNS} runs do not notice: {name}")


def test_a_life_without_a_cut_is_the_same_on_every_loader() -> None:
    """The update succeeds, with one report, on each of them."""
    for name in WORLDS:
        device = Device(Scene(loader=name)).settle()
        assert device.faults() == [], name
        assert [it["verdict"] for it in device.reports()] == ["succeeded"], name
        assert device.running is Slot.B, name
