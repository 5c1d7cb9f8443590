"""No cut, anywhere, leaves a brick or an untrue report: a bounded, repeatable slice."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING

import pytest

from sealift.agent.boot.file import FileBoot, LoaderStore, Started, choose
from sealift.agent.install.ab import AbInstaller
from sealift.agent.machine import Idle, Staging
from sealift.agent.record import Record
from sealift.agent.shell import Component
from sealift.core.errors import InvalidInputError, NotFoundError
from sealift.core.types import Slot
from sealift.sim.device import (
    NEW,
    OLD,
    SLOT_BYTES,
    Device,
    Image,
    Kind,
    Scene,
)
from sealift.sim.flash import (
    AFTER,
    BEFORE,
    INSIDE,
    KILLED,
    FlashCells,
    FlashSlots,
    Weather,
)
from sealift.sim.loaders.table import WORLDS
from sealift.sim.powercut import REFERENCE, Run, cases, parse_cuts, survey, written

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sealift.agent.ports import Fill, SlotDevice
    from sealift.core.types import Artifact, Instruction

RUNS = 20_000
PLACES = (BEFORE, INSIDE, AFTER, KILLED)


def everywhere(steps: int, places: Sequence[float] = PLACES) -> Iterator[float]:
    return (step + place for step in range(1, steps + 1) for place in places)


def test_no_cut_bricks_a_device() -> None:
    """Singles everywhere, pairs, triples: the device rests, whole, and told the truth."""
    found = survey(cases(RUNS))
    assert found.runs == RUNS
    assert found.findings == []
    assert found.clean
    assert len(found.kinds) == len(Kind) * len(REFERENCE)
    assert min(found.kinds.values()) > RUNS / 20, "every scene has its share"


def test_the_same_seed_lives_the_same_lives() -> None:
    """A finding can be replayed: runs, cuts and traces hang on the seed alone."""
    first, again, other = (list(cases(15_000, seed)) for seed in (5, 5, 6))
    assert first == again
    assert first != other
    run = Run(Scene(weather=Weather.MIXED, seed=5), (9.25, 17.5, 24.75))
    lives = [Device(run.scene, run.cuts).settle() for _ in range(2)]
    assert lives[0].trace == lives[1].trace
    assert parse_cuts(written(run.cuts)) == run.cuts


@pytest.mark.parametrize("text", ["x", "0.5", "3.3", "-1", "1,,2", "nan", "inf"])
def test_what_is_no_cut_is_refused(text: str) -> None:
    """A point that names no place of a cut is an error, never a run without cuts."""
    with pytest.raises(InvalidInputError):
        parse_cuts(text)


@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.GOOD])
@pytest.mark.parametrize("loader", WORLDS)
def test_D06_an_image_that_fails_is_rolled_back(kind: Kind, loader: str) -> None:
    """Whatever is wrong with the image: the old one runs, and device.boot is told."""
    device = Device(Scene(kind, loader)).settle()
    assert device.faults() == []
    assert device.running is Slot.A
    [told] = device.reports()
    assert told["verdict"] == "rolled_back"
    assert told["code"] == "device.boot"
    assert told["installed"] == OLD.artifact.name


def test_D05_the_floor_rises_last() -> None:
    """After the confirm is durable and journaled, and never for an image that failed."""
    good = Device(Scene(Kind.GOOD)).settle()
    bad = Device(Scene(Kind.UNHEALTHY)).settle()
    assert good.counter.value() == NEW[Kind.GOOD].artifact.release_counter
    assert bad.counter.value() == 0
    reporting = next(it for it in good.trace if it.endswith("Reporting"))
    step = int(reporting.split(":")[0])
    cut = Device(Scene(Kind.GOOD), (step + AFTER,))
    cut._live()
    assert cut.counter.value() == 0, "journaled as a success, floor not yet raised"
    assert cut.settle().faults() == []
    assert cut.counter.value() == 2


# ── the same instruction is not tried for ever ───────────────────────────────────────
def test_a_failed_instruction_comes_back_only_with_a_newer_word() -> None:
    """Polling the same order again changes nothing; a newer Director version does."""
    device = Device(Scene(Kind.UNHEALTHY)).settle()
    device.settle()
    assert len(device.reports()) == 1
    device.orders = [device.image.order(director_version=8)]
    device.settle()
    assert len(device.reports()) == 2
    assert device.running is Slot.A


# ── both copies of the journal lost ──────────────────────────────────────────────────
class LosesJournal(Device):
    """Between the first life and the second, both copies of the journal rot."""

    def _start(self) -> None:
        if self.boots == 1:
            for region in ("journal.0", "journal.1"):
                if region in self.flash.medium:
                    self.flash.make(region, b"\x00rotten" * 9)
        super()._start()


def test_a_lost_journal_never_bricks() -> None:
    """Cut anywhere and lose the journal: it boots, goes home, and updates again."""
    for kind in Kind:
        lose_the_journal(kind, "counting", (BEFORE, INSIDE))


@pytest.mark.parametrize("loader", [it for it in WORLDS if it != "counting"])
def test_a_lost_journal_never_bricks_on_any_loader(loader: str) -> None:
    """The same, with fewer cuts: each loader has another way to be left half-way."""
    for kind in (Kind.GOOD, Kind.HANGING):
        lose_the_journal(kind, loader, (BEFORE,))


def lose_the_journal(kind: Kind, loader: str, places: Sequence[float]) -> None:
    steps = Device(Scene(kind, loader)).settle().door.steps
    for point in everywhere(steps, places):
        device = LosesJournal(Scene(kind, loader), (point,)).settle()
        assert not any(it.startswith(("brick", "never")) for it in device.found), point
        # Power cycles of normal life use up a trial nobody confirms any more.
        for _ in range(4):
            device.settle()
        assert device.running is device.world.home(), f"{kind} {point}"
        assert device.whole(device.running) is not None
        carried = WORLDS[loader].boot_file("3.0")
        newer = Image.make(Kind.GOOD, "3.0", 3, boot_file=carried)
        device.images[newer.content] = newer
        device.orders = [newer.order(director_version=9)]
        device.settle()
        assert device.whole(device.running) is newer, f"{kind} {point}: {device.trace}"


# ── superseded ───────────────────────────────────────────────────────────────────────
NEWER = Image.make(Kind.GOOD, "3.0", 3)


class Superseding(Device):
    """After the first life the Director orders something newer."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.images[NEWER.content] = NEWER

    def poll(self) -> Sequence[Instruction]:
        newer = self.boots > 1
        return [NEWER.order(director_version=8)] if newer else self.orders


@pytest.mark.parametrize("loader", REFERENCE)
def test_a_newer_instruction_wins_wherever_the_cut_falls(loader: str) -> None:
    """Before the switch it ends the attempt, after the switch it waits for its end."""
    steps = Device(Scene(loader=loader)).settle().door.steps
    verdicts = set()
    for point in everywhere(steps, (BEFORE, INSIDE, AFTER)):
        device = Superseding(Scene(loader=loader), (point,)).settle()
        assert device.found == [], point
        if device.boots == 1:  # the cut lay behind the end
            continue
        last = device.whole(device.running)
        assert last is NEWER, f"{point}: {device.trace}"
        told = {it["image"]: it["verdict"] for it in device.reports()}
        assert told.pop(NEWER.artifact.name) == "succeeded"
        verdicts |= set(told.values())
    assert {"superseded", "succeeded"} <= verdicts


# ── content that is gone ─────────────────────────────────────────────────────────────
class WithoutContent(Device):
    """The server does not have the content before it was asked for ``present`` times."""

    present = 3

    def __post_init__(self) -> None:
        super().__post_init__()
        self.asked = 0

    def poll(self) -> Sequence[Instruction]:
        return [self.image.order(director_version=7 + min(self.asked, self.present))]

    def _fill(self, order: Instruction, base: Artifact | None) -> Fill:
        real = super()._fill(order, base)

        def fill(into: SlotDevice, base: SlotDevice | None, /) -> None:
            self.asked += 1
            if self.asked <= self.present:
                raise NotFoundError("the server does not have this file")
            real(into, base)

        return fill


class NeverContent(WithoutContent):
    """It never has it."""

    present = 1000

    def poll(self) -> Sequence[Instruction]:
        return self.orders


@pytest.mark.parametrize("loader", REFERENCE)
def test_gone_content_survives_any_cut(loader: str) -> None:
    """No cut loses the count, or the offer that holds."""
    steps = WithoutContent(Scene(loader=loader)).settle().door.steps
    for point in everywhere(steps):
        device = WithoutContent(Scene(loader=loader), (point,))
        assert device.settle().faults() == [], f"{point}: {device.trace}"
    whole = WithoutContent(Scene(loader=loader))
    assert whole.settle().running is Slot.B
    assert whole.asked == 4


def test_content_that_never_comes_fails_whatever_is_cut() -> None:
    """One report with the code, at most one try more per cut, and home runs."""
    steps = NeverContent().settle().door.steps
    for point in everywhere(steps):
        device = NeverContent(cuts=(point,))
        assert device.settle().found == [], f"{point}: {device.trace}"
        [told] = device.reports()
        assert (told["verdict"], told["code"]) == ("failed", "input.not_found")
        assert device.asked in {4, 5}, f"{point}: {device.trace}"
        assert device.running is Slot.A


# ── several components ───────────────────────────────────────────────────────────────
MCU = "dev-0001-mcu"
MCU_OLD, MCU_NEW = Image.make(Kind.GOOD, "m1", 1), Image.make(Kind.GOOD, "m2", 2)


class WithMcu(Device):
    """A second component with slots, a loader and a boot id of its own."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.mcu_boots, self.mcu_slot = 0, Slot.A
        self.flash.make("mcu.a", MCU_OLD.content.ljust(SLOT_BYTES, b"\xff"))
        self.flash.make("mcu.b", bytes(SLOT_BYTES))
        self.images |= {it.content: it for it in (MCU_OLD, MCU_NEW)}
        order = dataclasses.replace(MCU_NEW.order(), ecu_id=MCU)
        self.orders = [*self.orders, order]

    def mcu_store(self) -> LoaderStore:
        cells = [FlashCells(self.flash, f"mcu.{name}") for name in ("boot", "home")]
        return LoaderStore(*(Record(it, limit=256) for it in cells))

    def restart_mcu(self) -> None:
        """The MCU's own loader; the device goes on running."""
        store = self.mcu_store()
        before = store.read()
        self.mcu_slot, after = choose(before, counts=self.scene.loader == "counting")
        if after != before:
            store.write(after)
        self.mcu_boots += 1

    def _start(self) -> None:
        super()._start()
        self.restart_mcu()

    def make_components(self) -> list[Component]:
        boot = FileBoot(
            self.mcu_store(), lambda: Started(self.mcu_slot, f"mcu-{self.mcu_boots}")
        )
        slots = FlashSlots(self.flash, "mcu")
        installer = AbInstaller(boot, slots, boot.boot_id)
        mcu = Component(
            MCU,
            installer,
            self._fill,
            self.restart_mcu,
            self,
            factory=lambda: installer.recognised(MCU_OLD.artifact),
        )
        return [*super().make_components(), mcu]

    def faults(self) -> list[str]:
        wrong = list(self.found) + list(self._at_home())
        told = {it["image"]: it["verdict"] for it in self.reports()}
        if len(told) != 2:
            wrong.append(f"reports: {told}")
        store = self.mcu_store().read()
        content = bytes(self.flash.medium[f"mcu.{self.mcu_slot}"])
        runs_new = content.startswith(MCU_NEW.content)
        if self.mcu_slot is not store.next:
            wrong.append("the mcu runs unconfirmed")
        if (told.get(MCU_NEW.artifact.name) == "succeeded") is not runs_new:
            wrong.append(f"mcu runs {self.mcu_slot}, told {told}")
        main_new = self.whole(self.running) is self.image
        if (told.get(self.image.artifact.name) == "succeeded") is not main_new:
            wrong.append(f"main runs {self.running}, told {told}")
        return wrong


def _mcu_cuts(steps: int) -> Iterable[tuple[float, ...]]:
    yield ()
    yield from ((point,) for point in everywhere(steps))
    pairs = list(itertools.combinations(everywhere(steps, (BEFORE, INSIDE)), 2))
    yield from pairs[::17]


@pytest.mark.parametrize("kind", [Kind.GOOD, Kind.UNHEALTHY, Kind.HANGING])
def test_several_components_settle_each_for_itself(kind: Kind) -> None:
    """One machine each, one journal: each ends as its own image deserves."""
    steps = WithMcu(Scene(kind)).settle().door.steps
    for cuts in _mcu_cuts(steps):
        device = WithMcu(Scene(kind), cuts).settle()
        assert device.faults() == [], f"{cuts}: {device.trace}"
    whole = WithMcu(Scene(kind))
    whole.settle()
    assert whole.mcu_slot is Slot.B


def test_states_of_the_trace_are_the_nine() -> None:
    """The run passes every state of the machine that a good update has."""
    names = {line.split(": ")[1] for line in Device().settle().trace}
    assert {Staging.__name__, "Staged", "Arming", "Rebooting", "Trial"} <= names
    assert {"Confirming", "Reporting", Idle.__name__} <= names
