"""What every boot control promises: B1 … B9 of device.md 1.2 (B10 is the shell's).

A world is a boot control with its loader: ``start`` does what the board does at
power-on. The worlds in memory can be cut; those of ``tools`` are the real programs on
real files, with the same loaders.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sealift.core.errors import BootError
from sealift.core.types import Slot
from sealift.sim.flash import AFTER, BEFORE, INSIDE, KILLED, Killed, PowerCut
from sealift.sim.loaders.table import WORLDS
from tests.unit.agent.contracts.loaders import ON_DISK

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.sim.loaders.world import LoaderWorld

TRIES = 3
IDLE = {"writing", "empty", "bad"}
"""Conditions of a slot that nothing starts."""


@pytest.fixture(params=[*WORLDS, *ON_DISK])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> LoaderWorld:
    name = str(request.param)
    return WORLDS[name]() if name in WORLDS else ON_DISK[name](tmp_path)


def arm(world: LoaderWorld, slot: Slot) -> None:
    """Write a slot and put it on trial, as an update does."""
    world.boot().mark_writing(slot)
    world.install(slot)
    world.boot().set_next(slot, TRIES)


def update(world: LoaderWorld, slot: Slot) -> None:
    """Bring a slot into use, as a good update does."""
    arm(world, slot)
    world.restarting()
    assert world.start() is slot
    world.boot().mark_good()


def told(world: LoaderWorld) -> str:
    """What ``state`` says, be it in remarks or because it refuses to say more."""
    try:
        state = world.boot().state()
    except BootError as error:
        return error.message
    return " ".join([*state.remarks, *state.missing])


# ── the six verbs ────────────────────────────────────────────────────────────────────
def test_a_new_board_boots_slot_a(world: LoaderWorld) -> None:
    """As the factory leaves it: slot a is good, slot b is empty, nobody is on trial."""
    assert world.start() is Slot.A
    assert world.boot().current() is Slot.A
    assert world.boot().next() is Slot.A
    state = world.boot().state()
    assert state.slots == {Slot.A: "good", Slot.B: "empty"}
    assert state.counts_attempts is (world.trials(TRIES) > 1)
    assert all(it.startswith(world.standing) for it in state.remarks)
    assert not state.missing


def test_an_update_from_slot_to_slot_and_back(world: LoaderWorld) -> None:
    """Write, arm, start, confirm; then the same the other way round."""
    world.start()
    for slot in (Slot.B, Slot.A, Slot.B):
        world.boot().mark_writing(slot)
        expected = {"writing"} if world.keeps_conditions else IDLE
        assert world.boot().state().slots[slot] in expected
        world.install(slot)
        world.boot().set_next(slot, TRIES)
        assert world.boot().next() is slot
        world.restarting()
        assert world.start() is slot
        world.boot().mark_good()
        assert world.boot().state().slots[slot] == "good"
        assert [world.start() for _ in range(5)] == [slot] * 5
        assert world.boot().next() is slot


def test_B2_a_verb_repeated_changes_nothing(world: LoaderWorld) -> None:
    """A verb whose work is done writes nothing."""
    world.start()
    arm(world, Slot.B)
    before = world.stored()
    world.boot().set_next(Slot.B, TRIES)
    assert world.stored() == before
    world.restarting()
    world.start()
    world.boot().mark_good()
    before = world.stored()
    world.boot().mark_good()
    assert world.stored() == before
    world.boot().mark_writing(Slot.A)
    before = world.stored()
    world.boot().mark_writing(Slot.A)
    assert world.stored() == before


def test_B3_home_boots_whatever_set_next_did(world: LoaderWorld) -> None:
    """Disarming is calling it with home."""
    world.start()
    arm(world, Slot.B)
    world.boot().set_next(Slot.A, TRIES)
    assert world.boot().next() is Slot.A
    world.restarting()
    assert world.start() is Slot.A
    assert world.boot().state().slots[Slot.A] == "good"
    assert world.boot().state().slots[Slot.B] in IDLE


def test_B4_power_cycles_of_normal_life_change_nothing(world: LoaderWorld) -> None:
    """D-07: a confirmed slot starts for ever, and its start writes nothing."""
    world.start()
    update(world, Slot.B)
    before = world.stored()
    assert {world.start() for _ in range(20)} == {Slot.B}
    assert world.stored() == before


def test_B4_an_attempt_is_used_up_before_the_start(world: LoaderWorld) -> None:
    """The store says so while the slot runs; nothing of it needs the slot's help."""
    world.start()
    arm(world, Slot.B)
    world.restarting()
    assert world.start() is Slot.B
    left = world.trials(TRIES) - 1
    assert world.boot().state().slots[Slot.B] == f"trial({left})"
    assert world.boot().state().slots[Slot.A] == "good"
    assert world.boot().next() is (Slot.B if left else Slot.A)


def test_B5_attempts_used_up_bring_home(world: LoaderWorld) -> None:
    """Without a human, and for good."""
    world.start()
    arm(world, Slot.B)
    world.restarting()
    trials = world.trials(TRIES)
    starts = [world.start() for _ in range(trials + 3)]
    assert starts == [Slot.B] * trials + [Slot.A] * 3


def test_B6_a_refused_image_is_a_failed_attempt(world: LoaderWorld) -> None:
    """The loader cannot start slot b: home runs, in the same power-on or after resets."""
    world.start()
    arm(world, Slot.B)
    world.restarting()
    assert world.start(lambda slot: slot is Slot.A) is Slot.A
    assert world.start() is Slot.A, "its attempts are used up"
    assert world.boot().state().slots[Slot.A] == "good"


def test_B7_mark_good_marks_what_runs(world: LoaderWorld) -> None:
    """From home it confirms home, whoever is on trial; it never names the other slot."""
    world.start()
    arm(world, Slot.B)
    world.boot().mark_good()
    assert world.boot().next() is Slot.A
    world.restarting()
    assert world.start() is Slot.A
    assert world.home() is Slot.A


def test_B9_what_is_being_written_cannot_boot(world: LoaderWorld) -> None:
    """Armed or not: after mark_writing no start leads there."""
    world.start()
    arm(world, Slot.B)
    world.boot().mark_writing(Slot.B)
    assert world.boot().state().slots[Slot.B] in IDLE
    world.restarting()
    assert [world.start() for _ in range(3)] == [Slot.A] * 3


def test_D08_the_slot_in_use_is_never_given_to_be_written(world: LoaderWorld) -> None:
    """Neither what runs nor what is confirmed, which on a trial are two slots."""
    world.start()
    with pytest.raises(BootError):
        world.boot().mark_writing(Slot.A)
    arm(world, Slot.B)
    world.restarting()
    assert world.start() is Slot.B
    for slot in Slot:
        with pytest.raises(BootError):
            world.boot().mark_writing(slot)


def test_every_start_is_told_from_the_others(world: LoaderWorld) -> None:
    """The running slot comes from what runs, never from the loader (device-D2)."""
    world.start()
    arm(world, Slot.B)
    assert world.boot().current() is Slot.A, "armed is not running"
    world.restarting()
    world.start()
    assert world.boot().current() is Slot.B
    world.boot().set_next(Slot.A, TRIES)
    assert world.boot().current() is Slot.B, "disarmed is not restarted"


# ── cuts ─────────────────────────────────────────────────────────────────────────────
VERBS: dict[str, Callable[[LoaderWorld], None]] = {
    "mark_writing": lambda it: it.boot().mark_writing(Slot.A),
    "set_next": lambda it: it.boot().set_next(Slot.A, TRIES),
    "disarm": lambda it: it.boot().set_next(Slot.B, TRIES),
    "mark_good": lambda it: it.boot().mark_good(),
}


def prepared(name: str, verb: str) -> LoaderWorld:
    """Slot b is home; for some verbs slot a is written, armed, or runs."""
    world = WORLDS[name]()
    world.start()
    update(world, Slot.B)
    if verb != "mark_writing":
        world.boot().mark_writing(Slot.A)
        world.install(Slot.A)
    if verb in {"disarm", "mark_good"}:
        world.boot().set_next(Slot.A, TRIES)
    if verb == "mark_good":
        world.restarting()
        world.start()
    world.flash.sync()
    return world


@pytest.mark.parametrize("verb", list(VERBS))
@pytest.mark.parametrize("name", list(WORLDS))
def test_B1_B2_B3_a_cut_in_any_verb(name: str, verb: str) -> None:
    """Slot b is home. Cut anywhere in a verb: it boots, and a repeat completes."""
    whole = prepared(name, verb)
    before = whole.flash.door.steps
    VERBS[verb](whole)
    steps = whole.flash.door.steps - before
    assert steps or not whole.keeps_conditions, "it wrote something"
    expected = (whole.home(), whole.boot().next())
    for point in (
        step + part
        for step in range(1, steps + 2)
        for part in (BEFORE, INSIDE, AFTER, KILLED)
    ):
        world = prepared(name, verb)
        running = world.running
        world.flash.door.cuts = frozenset([world.flash.door.steps + point])
        cut = True
        try:
            VERBS[verb](world)
            cut = False
        except PowerCut:
            world.power_lost()
        except Killed:
            world.restarting()
        world.flash.door.cuts = frozenset()
        home = world.home()
        assert home is Slot.B or (verb, home) == ("mark_good", running), point
        if cut:
            told = world.boot().next()
            assert world.start() is told, f"{point}: next is what the loader does"
            starts = [world.start() for _ in range(TRIES + 2)]
            assert starts[-1] is home, point
        world.running = running
        VERBS[verb](world)
        assert (world.home(), world.boot().next()) == expected, point
        assert world.boot().state().slots[world.home()] == "good", point


# ── a lost store ─────────────────────────────────────────────────────────────────────
LOSSES = [(name, loss) for name in WORLDS for loss in WORLDS[name].losses]


@pytest.mark.parametrize(("name", "loss"), LOSSES)
@pytest.mark.parametrize("home", list(Slot))
def test_B8_a_lost_store_boots_home(name: str, loss: str, home: Slot) -> None:
    """It boots, ``state`` says what happened, and nobody writes the slot in use."""
    world = WORLDS[name]()
    world.start()
    update(world, Slot.B)
    if home is Slot.A:
        update(world, Slot.A)
    world.lose(loss)
    started = world.start()
    assert started is home or not world.remembers_home
    assert started is Slot.A or world.remembers_home
    assert told(world)
    with pytest.raises(BootError):
        world.boot().mark_writing(started)


@pytest.mark.parametrize(("name", "loss"), LOSSES)
def test_B8_a_lost_store_in_a_trial_boots_home(name: str, loss: str) -> None:
    """Slot b was armed: it does not run for ever without having been confirmed."""
    world = WORLDS[name]()
    world.start()
    arm(world, Slot.B)
    world.restarting()
    world.lose(loss)
    starts = [world.start() for _ in range(TRIES + 2)]
    assert starts[-1] is Slot.A
