"""What every boot control promises: B1 … B9 of device.md 1.2 (B10 is the shell's).

A bench is a boot control with its loader: ``start`` does what the board does at
power-on. Both kinds of store (files, simulated flash) and both kinds of loader answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from sealift.agent.boot.file import (
    STORE_BYTES,
    FileBoot,
    LoaderStore,
    Started,
    choose,
    open_store,
)
from sealift.agent.record import Record
from sealift.core.errors import BootError
from sealift.core.types import Slot
from sealift.sim.flash import AFTER, BEFORE, INSIDE, Door, Flash, FlashCells, PowerCut

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.agent.ports import BootControl

TRIES = 3


class Bench:
    """A board that is switched on and off; ``opened`` opens its loader's store."""

    def __init__(self, opened: Callable[[], LoaderStore], *, counts: bool) -> None:
        self.opened = opened
        self.counts = counts
        self.running = Slot.A
        self.boots = 0

    @property
    def boot(self) -> BootControl:
        """The boot control, opened anew as after a start of the agent."""
        return FileBoot(
            self.opened(),
            lambda: Started(self.running, str(self.boots)),
            counts=self.counts,
        )

    def start(self) -> Slot:
        """Switch it on."""
        store = self.opened()
        before = store.read()
        self.running, after = choose(before, counts=self.counts)
        if after != before:
            store.write(after)
        self.boots += 1
        return self.running

    def confirm_b(self) -> None:
        """Bring slot b into use, as one good update does."""
        self.boot.mark_writing(Slot.B)
        self.boot.set_next(Slot.B, TRIES)
        self.start()
        self.boot.mark_good()


def on_flash(flash: Flash, *, counts: bool) -> Bench:
    def opened() -> LoaderStore:
        boot, home = (
            Record(FlashCells(flash, name), limit=STORE_BYTES)
            for name in ("boot", "home")
        )
        return LoaderStore(boot, home)

    return Bench(opened, counts=counts)


@pytest.fixture(params=["files", "flash"])
def medium(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=[True, False], ids=["counting", "one-shot"])
def bench(request: pytest.FixtureRequest, tmp_path: Path, medium: str) -> Bench:
    counts = bool(request.param)
    if medium == "files":
        return Bench(lambda: open_store(str(tmp_path)), counts=counts)
    return on_flash(Flash(Door()), counts=counts)


# ── the six verbs ────────────────────────────────────────────────────────────────────
def test_a_new_board_boots_slot_a(bench: Bench) -> None:
    """As the factory leaves it: slot a is good, slot b is empty, nobody is on trial."""
    assert bench.start() is Slot.A
    assert bench.boot.current() is Slot.A
    assert bench.boot.next() is Slot.A
    assert bench.boot.state().slots == {Slot.A: "good", Slot.B: "empty"}
    assert bench.boot.state().counts_attempts is bench.counts
    assert not bench.boot.state().remarks


def test_an_update_from_slot_to_slot_and_back(bench: Bench) -> None:
    """Write, arm, start, confirm; then the same the other way round."""
    for slot in (Slot.B, Slot.A, Slot.B):
        bench.boot.mark_writing(slot)
        assert bench.boot.state().slots[slot] == "writing"
        bench.boot.set_next(slot, TRIES)
        assert bench.boot.next() is slot
        assert bench.start() is slot
        bench.boot.mark_good()
        assert bench.boot.state().slots[slot] == "good"
        assert [bench.start() for _ in range(5)] == [slot] * 5


def test_B3_home_boots_whatever_set_next_did(bench: Bench) -> None:
    """Disarming is calling it with home; repeated arming is no second arming."""
    bench.boot.set_next(Slot.B, TRIES)
    bench.boot.set_next(Slot.B, TRIES)
    bench.boot.set_next(Slot.A, TRIES)
    assert bench.boot.next() is Slot.A
    assert bench.start() is Slot.A
    assert bench.boot.state().slots[Slot.B] == "bad"


def test_B4_power_cycles_of_normal_life_change_nothing(bench: Bench) -> None:
    """D-07: a confirmed slot starts for ever, and its start writes nothing."""
    bench.confirm_b()
    before = bench.opened().read()
    assert {bench.start() for _ in range(20)} == {Slot.B}
    assert bench.opened().read() == before


def test_B4_an_attempt_is_used_up_before_the_start(bench: Bench) -> None:
    """The store says so while the slot runs; nothing of it needs the slot's help."""
    bench.boot.set_next(Slot.B, TRIES)
    bench.start()
    left = TRIES - 1 if bench.counts else 0
    assert bench.boot.state().slots[Slot.B] == f"trial({left})"


def test_B5_attempts_used_up_bring_home(bench: Bench) -> None:
    """Without a human, and for good."""
    bench.boot.set_next(Slot.B, TRIES)
    starts = [bench.start() for _ in range(TRIES + 3)]
    trials = TRIES if bench.counts else 1
    assert starts == [Slot.B] * trials + [Slot.A] * (TRIES + 3 - trials)


def test_B7_mark_good_marks_what_runs(bench: Bench) -> None:
    """From home it confirms home, whoever is on trial; it never names the other slot."""
    bench.boot.set_next(Slot.B, TRIES)
    bench.boot.mark_good()
    assert bench.boot.next() is Slot.A
    assert bench.start() is Slot.A


def test_B9_what_is_being_written_cannot_boot(bench: Bench) -> None:
    """Armed or not: after mark_writing no start leads there."""
    bench.boot.set_next(Slot.B, TRIES)
    bench.boot.mark_writing(Slot.B)
    assert bench.boot.state().slots[Slot.B] == "writing"
    assert [bench.start() for _ in range(3)] == [Slot.A] * 3


def test_D08_the_slot_in_use_is_never_given_to_be_written(bench: Bench) -> None:
    """Neither what runs nor what is confirmed, which on a trial are two slots."""
    with pytest.raises(BootError):
        bench.boot.mark_writing(Slot.A)
    bench.boot.set_next(Slot.B, TRIES)
    bench.start()
    for slot in Slot:
        with pytest.raises(BootError):
            bench.boot.mark_writing(slot)


# ── cuts ─────────────────────────────────────────────────────────────────────────────
VERBS: dict[str, Callable[[Bench], None]] = {
    "mark_writing": lambda it: it.boot.mark_writing(Slot.A),
    "set_next": lambda it: it.boot.set_next(Slot.A, TRIES),
    "disarm": lambda it: it.boot.set_next(Slot.B, TRIES),
    "mark_good": lambda it: it.boot.mark_good(),
}


@pytest.mark.parametrize("verb", list(VERBS))
@pytest.mark.parametrize("counts", [True, False])
def test_B1_B2_B3_a_cut_in_any_verb(verb: str, *, counts: bool) -> None:
    """Slot b is home. Cut anywhere in a verb: it boots, and a repeat completes."""
    whole = on_flash(Flash(Door()), counts=counts)
    prepare(whole, verb)
    VERBS[verb](whole)
    expected = whole.opened().read()
    for point in (
        step + part for step in range(1, 9) for part in (BEFORE, INSIDE, AFTER)
    ):
        flash = Flash(Door())
        bench = on_flash(flash, counts=counts)
        prepare(bench, verb)
        running = bench.running
        flash.door.cuts = frozenset([flash.door.steps + point])
        try:
            VERBS[verb](bench)
        except PowerCut:
            flash.lose_power()
        flash.door.cuts = frozenset()
        confirmed = bench.opened().read().default
        assert confirmed is Slot.B or (verb, confirmed) == ("mark_good", running), point
        starts = [bench.start() for _ in range(TRIES + 1)]
        assert starts[-1] is confirmed, point
        bench.running = running
        VERBS[verb](bench)
        found = bench.opened().read()
        assert (found.default, found.next) == (expected.default, expected.next), point
        assert bench.opened().confirmed() is whole.opened().confirmed(), point


def prepare(bench: Bench, verb: str) -> None:
    """Slot b is confirmed; for some verbs slot a is armed, or runs."""
    bench.confirm_b()
    if verb in {"disarm", "mark_good"}:
        bench.boot.set_next(Slot.A, TRIES)
    if verb == "mark_good":
        bench.start()


@pytest.mark.parametrize("damage", ["torn", "empty", "gone"])
def test_B8_a_lost_store_boots_the_confirmed_slot(tmp_path: Path, damage: str) -> None:
    """Both copies of the loader's record lost: slot b, and ``state`` says what happened."""
    bench = Bench(lambda: open_store(str(tmp_path)), counts=True)
    bench.confirm_b()
    bench.boot.mark_writing(Slot.A)
    for copy in (tmp_path / "boot.0", tmp_path / "boot.1"):
        if damage == "gone":
            copy.unlink()
        else:
            copy.write_bytes(b"" if damage == "empty" else copy.read_bytes()[:80])
    assert bench.start() is Slot.B
    [remark] = bench.boot.state().remarks
    assert "slot b boots" in remark
    assert bench.boot.state().slots[Slot.A] == "bad", "it may be half-written"
    bench.boot.mark_good()
    assert not bench.boot.state().remarks, "the next write heals it"


def test_B8_the_second_record_lost_does_not_matter(tmp_path: Path) -> None:
    """The loader's own record is whole: nothing is noticed, and the next confirm heals."""
    bench = Bench(lambda: open_store(str(tmp_path)), counts=True)
    bench.confirm_b()
    (tmp_path / "home.0").write_bytes(b"rotten")
    assert bench.start() is Slot.B
    bench.boot.mark_good()
    assert bench.opened().confirmed() is Slot.B


def test_everything_lost_boots_slot_a(tmp_path: Path) -> None:
    """Both records beyond repair: the slot that is compiled in, with a remark."""
    bench = Bench(lambda: open_store(str(tmp_path)), counts=True)
    bench.confirm_b()
    for name in ("boot.0", "boot.1", "home.0", "home.1"):
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_bytes(b"\xff" * 200)
    assert bench.start() is Slot.A
    assert bench.boot.state().remarks
