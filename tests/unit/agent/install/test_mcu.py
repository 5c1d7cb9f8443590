"""A microcontroller behind a gateway, end to end on the shipped machine."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import pytest

from sealift.agent.install.mcu import McuInstaller
from sealift.agent.ports import Parcel, Unit
from sealift.core.errors import BootError, FailedTransferError, PatchError, SlotError
from sealift.core.types import PatchKind, Slot
from sealift.sim.flash import AFTER, BEFORE, INSIDE, Door, Flash
from sealift.sim.mcu import Board, SimMcu
from tests.mcu_gateway import MEMORY, NEW, OLD, SEGMENT, Gateway, code, order, patch

TWO_SLOTS = Board(memory_size=MEMORY, segment_size=SEGMENT, block=200)
ONE_SLOT = dataclasses.replace(TWO_SLOTS, one_slot=True)
WAYS: dict[str, tuple[Board, PatchKind | None]] = {
    "image to the spare slot": (TWO_SLOTS, None),
    "patch to the spare slot": (TWO_SLOTS, PatchKind.SEQUENTIAL),
    "image over the old one": (ONE_SLOT, None),
    "patch over the old one": (ONE_SLOT, PatchKind.IN_PLACE),
}
ways = pytest.mark.parametrize(("board", "kind"), WAYS.values(), ids=WAYS)
patches = pytest.mark.parametrize(
    ("board", "kind"), [it for it in WAYS.values() if it[1]], ids=["spare", "in place"]
)
PLACES = (BEFORE, INSIDE, AFTER)


def ends_well(it: Gateway) -> bool:
    """A working image runs, confirmed, and the one report tells which."""
    it.door.cuts = it.mcu_door.cuts = frozenset()
    right = NEW if it.verdict == "succeeded" else OLD
    return it.mcu.image() == right and it.mcu.identify().confirmed


# ── the four ways ────────────────────────────────────────────────────────────────────
@ways
def test_an_update_ends_on_the_new_image_confirmed(
    board: Board, kind: PatchKind | None
) -> None:
    """One report of success; nothing but the image, or the patch, crosses the link."""
    it = Gateway(board, order(kind)).settle()
    unit = it.mcu.identify()
    assert (it.mcu.image(), unit.confirmed, it.verdict) == (NEW, True, "succeeded")
    assert it.mcu.written == (len(NEW) if kind is None else patch(kind)[0].length)


@ways
def test_an_unhealthy_image_leaves_the_old_one_confirmed(
    board: Board, kind: PatchKind | None
) -> None:
    """With one slot the old image comes back from the gateway's copy."""
    it = Gateway(board, order(kind), healthy=False).settle()
    unit = it.mcu.identify()
    assert (it.mcu.image(), unit.confirmed, it.verdict) == (OLD, True, "rolled_back")


@ways
def test_D02_every_cut_of_the_microcontroller_ends_on_a_working_image(
    board: Board, kind: PatchKind | None
) -> None:
    """Before, inside and after each of its writes; most of them do not even show, and
    what is on its way is sent twice at most.
    """
    whole = Gateway(board, order(kind)).settle()
    steps, sent, good = whole.mcu_door.steps, whole.mcu.written, 0
    for point in (step + place for step in range(1, steps + 1) for place in PLACES):
        it = Gateway(board, order(kind), mcu_cuts=[point]).settle()
        assert ends_well(it), f"cut at {point}"
        if it.verdict == "succeeded":
            assert it.mcu.written <= 2 * sent, f"cut at {point}"
            good += 1
    assert good >= 3 * steps - 7  # a cut of the trial is a failed trial


@ways
@pytest.mark.parametrize("healthy", [True, False], ids=["healthy", "unhealthy"])
def test_D02_every_cut_of_the_gateway_costs_time_only(
    board: Board, kind: PatchKind | None, *, healthy: bool
) -> None:
    """Before and after each of its writes, and of each word over the link."""
    steps = Gateway(board, order(kind), healthy=healthy).settle().door.steps
    for point in (step + place for step in range(1, steps + 1) for place in PLACES):
        it = Gateway(board, order(kind), cuts=[point], healthy=healthy).settle()
        assert ends_well(it), f"cut at {point}"
        assert it.verdict == ("succeeded" if healthy else "rolled_back"), point


@ways
def test_D02_several_cuts_of_both_end_on_a_working_image(
    board: Board, kind: PatchKind | None
) -> None:
    """Up to three of the gateway and four of the microcontroller, anywhere."""
    chance = random.Random(f"{board} {kind}")
    for _ in range(60):
        cuts, mcu_cuts = (
            [chance.randrange(1, 130) + chance.choice(PLACES) for _ in range(count)]
            for count in (chance.randrange(4), chance.randrange(5))
        )
        healthy = chance.random() < 0.7
        it = Gateway(board, order(kind), b"", cuts, mcu_cuts, healthy=healthy).settle()
        assert ends_well(it), (cuts, mcu_cuts, healthy)


def test_D02_cuts_on_the_way_back_into_one_slot() -> None:
    """The old image is sent again as often as it takes."""
    way = {"board": ONE_SLOT, "order": order(PatchKind.IN_PLACE), "healthy": False}
    steps = Gateway(**way).settle().mcu_door.steps  # type: ignore[arg-type]
    for step in range(steps // 2, steps + 1):
        it = Gateway(**way, mcu_cuts=[step + INSIDE]).settle()  # type: ignore[arg-type]
        assert ends_well(it), step
        assert it.verdict == "rolled_back", step


def test_a_cut_while_it_comes_costs_one_segment_at_most() -> None:
    """The image goes on where it was; a segment is what is sent twice."""
    steps = Gateway(TWO_SLOTS, order()).settle().mcu_door.steps
    for step in range(1, steps + 1):
        it = Gateway(TWO_SLOTS, order(), mcu_cuts=[step + INSIDE]).settle()
        assert it.mcu.written <= len(NEW) + SEGMENT + TWO_SLOTS.block


# ── these tests can fail ─────────────────────────────────────────────────────────────
class Hasty(SimMcu):
    """A loader that records a segment of a patch in place as done before it is."""

    def _program(self, slot: Slot, offset: int, data: bytes) -> None:
        if self._parcel is not None and self._parcel.patch is not None:
            self._change(step=self._loader.step + 1)
        super()._program(slot, offset, data)


class Unsafe(SimMcu):
    """A loader that takes what came for the image without looking."""

    def _verify(self, parcel: Parcel) -> None:
        found = parcel.image_length, parcel.image_sha256.hex()
        self._change(images={parcel.slot: found}, coming=None, step=0)


class Reckless(McuInstaller):
    """An installer that overwrites what it could not bring back."""

    def _require_copies(self, *_: object) -> None: ...


def test_a_loader_that_records_too_early_is_found() -> None:
    """A cut then costs the whole image, or leaves a wrong one."""
    way: dict[str, Any] = {"board": ONE_SLOT, "order": order(PatchKind.IN_PLACE)}
    whole = Gateway(**way, mcu_type=Hasty).settle()
    sent = whole.mcu.written
    assert any(
        it.verdict == "succeeded" and it.mcu.written > 2 * sent
        for step in range(1, whole.mcu_door.steps + 1)
        for it in [Gateway(**way, mcu_type=Hasty, mcu_cuts=[step + INSIDE]).settle()]
    )


def test_a_loader_that_does_not_verify_is_found() -> None:
    """What it starts is not what its record says."""
    it = Gateway(ONE_SLOT, order(PatchKind.IN_PLACE), mcu_type=Unsafe)
    region = it.mcu.flash.medium["mcu"]
    it.mcu.flash.make("mcu", flipped(bytes(region), 5))
    assert not ends_well(it.settle())


def test_an_installer_that_overwrites_the_only_copy_is_found() -> None:
    """Without a copy there is no way back from an unhealthy image."""
    it = Gateway(
        ONE_SLOT,
        order(None),
        healthy=False,
        copy_of_home=bytes(1500),
        installer_type=Reckless,
    )
    assert not ends_well(it.settle())


# ── what is not sent ─────────────────────────────────────────────────────────────────
def flipped(raw: bytes, at: int) -> bytes:
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


@patches
def test_a_patch_that_makes_another_image_is_not_sent(
    board: Board, kind: PatchKind
) -> None:
    """Signed online, wrong all the same: the gateway finds out, and sends the image."""
    facts, raw = patch(kind, OLD, code(len(NEW), "other"))
    evil = dataclasses.replace(order(kind), patch=facts)
    it = Gateway(board, evil, raw=raw).settle()
    assert (it.mcu.written, it.mcu.image(), it.verdict) == (len(NEW), NEW, "succeeded")


@patches
def test_a_patch_with_other_sizes_than_recorded_is_not_sent(
    board: Board, kind: PatchKind
) -> None:
    """More flash or a larger window than the Director's word: the image goes."""
    facts, _ = patch(kind)
    for wrong in (
        dataclasses.replace(facts, window=9),
        dataclasses.replace(facts, base_length=1499),
        dataclasses.replace(facts, lookahead=6),
    ):
        it = Gateway(board, dataclasses.replace(order(kind), patch=wrong)).settle()
        assert (it.mcu.written, it.mcu.image()) == (len(NEW), NEW)


@patches
def test_a_damaged_patch_is_not_sent(board: Board, kind: PatchKind) -> None:
    """The gateway's file of it does not have the signed digest."""
    _, raw = patch(kind)
    it = Gateway(board, order(kind), raw=flipped(raw, len(raw) // 2)).settle()
    assert (it.mcu.written, it.mcu.image()) == (len(NEW), NEW)


@patches
def test_a_patch_for_another_base_is_not_sent(board: Board, kind: PatchKind) -> None:
    """Something else was flashed over there by hand: the image goes."""
    other = code(1500, "flashed by hand")
    it = Gateway(board, order(kind), made_with=other, copy_of_home=other).settle()
    assert (it.mcu.written, it.mcu.image()) == (len(NEW), NEW)


@patches
def test_a_patch_the_loader_does_not_know_is_not_sent(
    board: Board, kind: PatchKind
) -> None:
    """An older loader takes images only."""
    old = dataclasses.replace(board, kinds=frozenset())
    it = Gateway(old, order(kind)).settle()
    assert (it.mcu.written, it.mcu.image()) == (len(NEW), NEW)


@patches
def test_without_a_copy_of_the_base_no_patch_is_sent(
    board: Board, kind: PatchKind
) -> None:
    """What cannot be tried here first is not tried over there."""
    it = Gateway(board, order(kind), copy_of_home=code(1500, "else")).settle()
    assert it.mcu.written == (0 if board.one_slot else len(NEW))


@patches
def test_a_patch_that_fails_over_there_is_followed_by_the_image(
    board: Board, kind: PatchKind
) -> None:
    """Its flash is not what the loader says: even in place, nothing is lost."""
    it = Gateway(board, order(kind))
    region = "mcu" if board.one_slot else "mcu.a"
    it.mcu.flash.make(region, flipped(bytes(it.mcu.flash.medium[region]), 5))
    it.settle()
    assert (it.mcu.image(), it.verdict) == (NEW, "succeeded")
    assert it.mcu.written == patch(kind)[0].length + len(NEW)


# ── one slot, and nothing to go back to ──────────────────────────────────────────────
@pytest.mark.parametrize("kind", [None, PatchKind.IN_PLACE], ids=["image", "patch"])
def test_N3_without_a_copy_of_what_runs_nothing_is_overwritten(
    kind: PatchKind | None,
) -> None:
    """The gateway could not bring it back: refused, and no byte was sent."""
    it = Gateway(ONE_SLOT, order(kind), copy_of_home=bytes(1500)).settle()
    (result,) = it.reports.values()
    assert (it.verdict, result.code) == ("failed", "device.slot")
    assert (it.mcu.image(), it.mcu.written) == (OLD, 0)


@pytest.mark.parametrize("board", [ONE_SLOT, TWO_SLOTS], ids=["one", "two"])
def test_a_microcontroller_with_only_its_loader_gets_the_image(board: Board) -> None:
    """Nothing runs, so nothing can be lost, and no patch has a base."""
    it = Gateway(board, order(None))
    it.mcu._change(images={})
    it.mcu.restart()
    assert it.mcu.image() is None
    it.settle()
    assert (it.mcu.image(), it.verdict) == (NEW, "succeeded")


def test_where_only_the_loader_was_home_a_bad_image_ends_in_the_loader() -> None:
    """It is not confirmed and does not start again; the next order can be installed."""
    it = Gateway(ONE_SLOT, order(None), healthy=False)
    it.mcu._change(images={})
    it.mcu.restart()
    it.settle()
    assert (it.mcu.image(), it.verdict) == (None, "rolled_back")
    it.healthy, it.order, it.reports = True, order(None, director_version=8), {}
    it.settle()
    assert (it.mcu.image(), it.verdict) == (NEW, "succeeded")


# ── verbs ────────────────────────────────────────────────────────────────────────────
def test_only_the_ordered_image_is_confirmed() -> None:
    """Another one runs: device.boot, and it is not confirmed."""
    it = Gateway(TWO_SLOTS, order())
    with pytest.raises(BootError):
        it.installer().confirm(it.order, Slot.A)


def test_what_runs_is_recognised_by_its_digest() -> None:
    """The confirmed image, and no other."""
    installer = Gateway(TWO_SLOTS, order()).installer()
    new = order().artifact
    old = dataclasses.replace(new, sha256=order(None, OLD).artifact.sha256)
    assert installer.recognised(new) is None
    assert installer.recognised(old) is old


class Liar:
    """A link whose loader answers as it was told to."""

    def __init__(self, link: SimMcu, **answers: Any) -> None:
        self._link = link
        self._answers = answers

    def __getattr__(self, verb: str) -> Any:
        if verb in self._answers:
            return lambda *_: self._answers[verb]
        return getattr(self._link, verb)


@pytest.mark.parametrize("offset", [-1, len(NEW) + 1, 1 << 40])
def test_a_loader_that_wants_what_is_not_there_is_refused(offset: int) -> None:
    """An offset outside the parcel: device.slot, not a read beyond the copy."""
    it = Gateway(TWO_SLOTS, order())
    it.wire._link = Liar(it.mcu, begin=offset)
    it.settle()
    (result,) = it.reports.values()
    assert (result.code, it.mcu.image()) == ("device.slot", OLD)


def test_a_block_of_nothing_is_refused() -> None:
    """A loader that takes no byte at a time would never end."""
    it = Gateway(TWO_SLOTS, order())
    unit: Unit = dataclasses.replace(it.mcu.identify(), block=0)
    it.wire._link = Liar(it.mcu, identify=unit)
    it.settle()
    (result,) = it.reports.values()
    assert result.code == "device.slot"


# ── the simulated loader ─────────────────────────────────────────────────────────────
def made(board: Board = TWO_SLOTS) -> SimMcu:
    mcu = SimMcu(Flash(Door()), board)
    mcu.manufacture(OLD)
    return mcu


def parcel(image: bytes = NEW, slot: Slot = Slot.B) -> Parcel:
    digest = order(None, image).artifact.sha256
    return Parcel(slot, len(image), digest, len(image), digest)


def test_the_loader_refuses_what_no_gateway_should_ask() -> None:
    """The running slot, too large an image, bytes out of order, an early end."""
    mcu = made()
    for wrong in (parcel(slot=Slot.A), parcel(bytes(MEMORY + 1))):
        with pytest.raises(SlotError):
            mcu.begin(wrong)
    with pytest.raises(FailedTransferError):
        mcu.write(0, b"nothing was begun")
    mcu.begin(parcel())
    with pytest.raises(SlotError):
        mcu.write(1, b"x")
    with pytest.raises(SlotError):
        mcu.finish()
    with pytest.raises(SlotError):
        mcu.test(Slot.B)
    with pytest.raises(SlotError):
        mcu.confirm(bytes(32))


def test_the_loader_starts_no_image_that_came_wrong() -> None:
    """A bit was lost on the link: it is not on record, and has to come anew."""
    mcu = made()
    mcu.begin(parcel())
    for at in range(0, len(NEW), 200):
        mcu.write(at, flipped(NEW, 900)[at : at + 200])
    with pytest.raises(PatchError):
        mcu.finish()
    assert mcu.identify().waiting is None
    assert mcu.begin(parcel()) == 0
