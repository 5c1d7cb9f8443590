"""The simulated memory is as treacherous as it says, or the power-cut test is worth little."""

from __future__ import annotations

import pytest

from sealift.core.errors import SlotError, SpaceError
from sealift.core.types import Slot
from sealift.sim.flash import (
    Door,
    Flash,
    FlashCounter,
    FlashSlots,
    Killed,
    PowerCut,
    Weather,
)
from sealift.sim.world import START, SimClock, World


def flash(*cuts: float, weather: Weather = Weather.LOST, spoiled: int = 0) -> Flash:
    found = Flash(Door(cuts), weather, spoiled=(spoiled,) if spoiled else ())
    found.make("slot.a", b"old old old old ")
    return found


def test_what_was_not_flushed_is_lost() -> None:
    """A process sees its write at once; the power cut takes it back."""
    memory = flash()
    memory.write("slot.a", 0, b"new")
    assert memory.read("slot.a", 0, 3) == b"new"
    memory.lose_power()
    assert memory.read("slot.a", 0, 3) == b"old"


def test_what_was_flushed_stays() -> None:
    """And flushing again is no step."""
    memory = flash()
    memory.write("slot.a", 0, b"new")
    memory.flush("slot.a")
    steps = memory.door.steps
    memory.flush("slot.a")
    memory.lose_power()
    assert memory.read("slot.a", 0, 3) == b"new"
    assert memory.door.steps == steps == 2


def test_weather_decides_about_the_cache() -> None:
    """Kept is kept; mixed writes may be dropped, reordered or torn, by the seed alone."""
    memory = flash(weather=Weather.KEPT)
    memory.write("slot.a", 0, b"new")
    memory.lose_power()
    assert memory.read("slot.a", 0, 3) == b"new"

    def mixed(seed: int) -> bytes:
        found = Flash(Door(), Weather.MIXED, seed=seed)
        found.make("slot.a", bytes(8))
        found.write("slot.a", 0, b"AAAA")
        found.write("slot.a", 4, b"BBBB")
        found.lose_power()
        return bytes(found.medium["slot.a"])

    seen = {mixed(seed) for seed in range(200)}
    assert {bytes(8), b"AAAABBBB"} <= seen
    assert bytes(4) + b"BBBB" in seen, "the second without the first"
    assert any(it not in {bytes(8), b"AAAABBBB"} and it.strip(b"\0") for it in seen)
    assert mixed(3) == mixed(3)


@pytest.mark.parametrize(
    ("point", "left"),
    [
        (1, b"old old old old "),
        (1.25, b"old old NEW NEW "),
        (1.5, b"old old old old "),
        (2, b"old old old old "),
        (2.5, b"NEW NEW NEW NEW "),
    ],
)
def test_a_cut_before_inside_and_after(point: float, left: bytes) -> None:
    """Inside a write half of it is on the medium; after a flush all of it is."""
    memory = flash(point)
    with pytest.raises(PowerCut):
        memory.write("slot.a", 0, b"NEW NEW NEW NEW ")
        memory.flush("slot.a")
    memory.lose_power()
    assert memory.medium["slot.a"] == left


def test_a_medium_may_refuse_one_step() -> None:
    """k.125: an error of the port, nothing written by it, and the next step works."""
    memory = flash(1.125, 3.125)
    slot = FlashSlots(memory).open(Slot.A, writable=True)
    with pytest.raises(SlotError):
        slot.write(0, b"new")
    assert slot.read(0, 3) == b"old"
    slot.write(0, b"new")
    with pytest.raises(SlotError):
        slot.flush()
    slot.flush()
    memory.lose_power()
    assert slot.read(0, 3) == b"new"


def test_a_killed_process_leaves_its_cache() -> None:
    """k.75: the power stays on, the next process sees the write."""
    memory = flash(1.75)
    with pytest.raises(Killed):
        memory.write("slot.a", 0, b"new")
    assert memory.read("slot.a", 0, 3) == b"new"
    memory.sync()
    memory.lose_power()
    assert memory.read("slot.a", 0, 3) == b"new"


def test_a_bad_medium_is_seen_only_behind_the_cache() -> None:
    """The cache shows what was written until it is dropped; what waits stays in it."""
    memory = flash(spoiled=1)
    slot = FlashSlots(memory).open(Slot.A, writable=True)
    slot.write(0, b"new")
    slot.drop_cache()
    assert slot.read(0, 3) == b"nev"
    slot.write(0, b"new")
    slot.flush()
    assert slot.read(0, 3) == b"new"
    assert memory.medium["slot.a"][:3] == b"new"


def test_slots_keep_to_their_size_and_mode() -> None:
    """Past the end, read-only, missing: errors of the port, nothing written."""
    slots = FlashSlots(flash())
    slot = slots.open(Slot.A, writable=True)
    assert slot.size == 16
    assert slot.read(10, 100) == b"d old "[:6]
    with pytest.raises(SpaceError):
        slot.write(14, b"long")
    with pytest.raises(SlotError):
        slots.open(Slot.A, writable=False).write(0, b"x")
    with pytest.raises(SlotError):
        slots.open(Slot.B, writable=False)
    slot.close()


def test_a_counter_never_goes_down() -> None:
    """And its rise is one step that a cut leaves done or undone."""
    counter = FlashCounter(Door())
    counter.advance(3)
    counter.advance(2)
    assert counter.value() == 3
    for point in (1, 1.25, 1.5):
        cut = FlashCounter(Door([point]))
        with pytest.raises(PowerCut):
            cut.advance(5)
        assert cut.value() in {0, 5}


def test_time_passes_when_somebody_sleeps() -> None:
    """Monotonic and system clock move together, and events happen at their time."""
    clock, seen = SimClock(), []
    clock.at(5, lambda: seen.append(clock.monotonic()))
    clock.at(2, lambda: seen.append(clock.monotonic()))
    clock.at(50, lambda: seen.append(-1.0))
    clock.sleep(10)
    clock.sleep(-3)
    assert seen == [2.0, 5.0]
    assert clock.monotonic() == 10.0
    assert (clock.now() - START).total_seconds() == 10.0
    clock.set_system(START.replace(year=1970))
    assert clock.monotonic() == 10.0
    first = clock.boot_id()
    clock.reboot()
    assert clock.boot_id() != first


def test_a_world_hangs_on_its_seed() -> None:
    """Two worlds of one seed throw the same dice."""
    assert World(7).chance.random() == World(7).chance.random()
    assert World(7).seed == 7
    assert World(7).clock.monotonic() == 0.0
