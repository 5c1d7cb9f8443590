"""GRUB itself, under OVMF, with our script and blocks written by our boot control.

One start looks at sixty blocks, good ones and broken ones, and decides for each as the
simulated loader does; two more go the way of an update, and of one that is refused.
"""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from sealift.agent.boot.grub import BLOCK_BYTES, SIGNATURE, Store, pack
from sealift.core.types import Slot
from sealift.sim.loaders.grub import GrubWorld
from tests.bench import grub

FACTORY = pack(Store(Slot.A, states={Slot.A: "g", Slot.B: "e"}).lines())
HOME = {slot: pack({"good": slot.encode()}) for slot in Slot}
ARMED = pack(Store(Slot.A, Slot.B, 2, {Slot.A: "g", Slot.B: "t"}).lines())
IN_B = pack(Store(Slot.B, Slot.A, 1, {Slot.A: "t", Slot.B: "g"}).lines())
SECONDS = 120.0


def lines(**values: str) -> bytes:
    return pack({name: value.encode() for name, value in values.items()})


def blocks() -> dict[str, tuple[bytes, bytes]]:
    """First and second block of each case."""
    found = {
        "factory": (FACTORY, HOME[Slot.A]),
        "armed": (ARMED, HOME[Slot.A]),
        "b is home": (IN_B, HOME[Slot.B]),
        "empty": (b"", HOME[Slot.B]),
        "both empty": (b"", b""),
        "cut after a sector": (ARMED[:512], HOME[Slot.A]),
        "cut in a line": (ARMED[:30], HOME[Slot.B]),
        "overlong": (ARMED + b"#" * 4096, HOME[Slot.A]),
        "overlong, and lying": (FACTORY + b"\ngood=b\n", HOME[Slot.A]),
        "zeros": (bytes(BLOCK_BYTES), HOME[Slot.B]),
        "erased flash": (b"\xff" * BLOCK_BYTES, HOME[Slot.B]),
        "no signature": (b"x" + ARMED[1:], HOME[Slot.B]),
        "a second half of zeros": (ARMED[:512] + bytes(512), HOME[Slot.A]),
        "good is c": (lines(good="c", trial="b", tries="2"), HOME[Slot.B]),
        "good is empty": (lines(good="", trial="b", tries="2"), HOME[Slot.A]),
        "good is there twice": (SIGNATURE + b"good=a\ngood=b\n#", HOME[Slot.A]),
        "trial of home": (lines(good="a", trial="a", tries="2"), HOME[Slot.A]),
        "trial is a program": (lines(good="a", trial="$(x)", tries="2"), HOME[Slot.A]),
        "foreign names": (
            lines(good="a", trial="-", tries="0", root="hd9", prefix="x", default="9"),
            HOME[Slot.A],
        ),
        "second block lies": (FACTORY, HOME[Slot.B]),
    }
    for tries in ("", "-", "-1", "0", "1", "5", "9", "10", "99", "a", "1 ", "01"):
        found[f"tries {tries!r}"] = (
            lines(good="a", trial="b", tries=tries),
            HOME[Slot.A],
        )
    chance = random.Random(26)
    while len(found) < 60:
        # Any mixture of the bytes of two blocks, as a sector torn inside may hold.
        mixed = bytes(chance.choice(pair) for pair in zip(FACTORY, IN_B, strict=True))
        found[f"mixture {len(found)}"] = (mixed, HOME[chance.choice(list(Slot))])
    return found


def driver(count: int) -> bytes:
    """A grub.cfg that lets the script decide for each case, and tells."""
    text = ""
    for at in range(count):
        text += (
            f"set sealift_dir=($root)/case/{at}\n"
            "source ($root)/grub/sealift.cfg\n"
            f'echo "CASE {at} slot=$sealift_slot home=$sealift_home word=$sealift_word|"\n'
        )
    return (text + 'echo "ALL CASES"\nhalt\n').encode()


def test_device_D26_grub_decides_as_the_simulated_loader_does(tmp_path: Path) -> None:
    """Empty, torn, overlong, mixed, lying: slot, home and what is left, case by case."""
    cases = blocks()
    files = {"grub/grub.cfg": driver(len(cases))}
    for at, (first, second) in enumerate(cases.values()):
        files[f"case/{at}/grubenv"] = first
        files[f"case/{at}/grubenv.home"] = second
    disk = grub.make_disk(tmp_path / "disk.img", files)
    with grub.start(disk, tmp_path) as machine:
        machine.expect("ALL CASES", SECONDS)
        machine.wait_off(SECONDS)
        told = re.findall(r"CASE (\d+) slot=(.*) home=(.*) word=(.*)\|", machine.text)
        said = {int(at): (slot, home) for at, slot, home, _ in told}
    wrong = []
    for at, (name, (first, second)) in enumerate(cases.items()):
        world = GrubWorld()
        world.put("grubenv", first)
        world.put("grubenv.home", second)
        home, slot = world.home(), world.decide(lambda _: True)
        left = world.block("grubenv").read(1 << 16)
        if (
            said.get(at) != (slot, home)
            or grub.read(disk, f"case/{at}/grubenv") != left
        ):
            wrong.append(f"{name}: GRUB {said.get(at)}, the simulation {slot, home}")
    assert wrong == []
    for _, slot, home, word in told:
        assert word == ("sealift.trial" if slot != home else "")
    assert {home for _, home in said.values()} == {"a", "b"}
    assert sum(slot != home for slot, home in said.values()) > 5


def config(*, refused: bool = False) -> bytes:
    """``boards/grub/grub.cfg``; what would start Linux tells which slot it is.

    ``refused``: slot b has no kernel, as on this disk there is none.
    """
    text = (grub.BOARDS / "grub.cfg").read_text()
    text = re.sub(r"(?m)^insmod .*\n", "", text)
    text = re.sub(r"set root=.*\n", "", text)
    for slot in Slot:
        after = "reboot" if slot is Slot.B else "halt"
        start = f'if echo "STARTS {slot}."; then\n {after}\n if true; then\n'
        wanted = rf"if linux .*sealift-{slot} .*\n\s*if initrd .*\n"
        if not refused or slot is Slot.A:
            text, found = re.subn(wanted, start, text)
            assert found == 1
    return text.encode()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("grub")


def board(place: Path, *, refused: bool = False) -> Path:
    return grub.make_disk(
        place / "disk.img",
        {
            "grub/grub.cfg": config(refused=refused),
            "grub/grubenv": FACTORY,
            "grub/grubenv.home": HOME[Slot.A],
        },
    )


def test_an_update_on_grub(place: Path) -> None:
    """Armed for two starts: b, b, then home without a human. Then b is confirmed: b."""
    disk = board(place)
    control = grub.control(disk, Slot.A)
    control.mark_writing(Slot.B)
    control.set_next(Slot.B, 2)
    with grub.start(disk, place) as machine:
        for slot in (Slot.B, Slot.B, Slot.A):
            machine.expect(f"STARTS {slot}\\.", SECONDS, never=f"STARTS {slot.other}")
        machine.wait_off(SECONDS)
    assert grub.control(disk, Slot.A).state().slots[Slot.B] == "trial(0)"
    grub.control(disk, Slot.A).set_next(Slot.B, 9)
    grub.control(disk, Slot.B).mark_good()
    before = grub.read(disk, "grub/grubenv")
    with grub.start(disk, place) as machine:
        for _ in range(2):
            machine.expect(r"STARTS b\.", SECONDS, never="STARTS a")
    assert grub.read(disk, "grub/grubenv") == before, "B4: normal life writes nothing"


def test_an_image_grub_cannot_start(place: Path) -> None:
    """One restart, then home: the attempts are over, though eight were left (B6)."""
    disk = board(place, refused=True)
    grub.control(disk, Slot.A).set_next(Slot.B, 9)
    with grub.start(disk, place) as machine:
        machine.expect(r"STARTS a\.", SECONDS)
        machine.wait_off(SECONDS)
    state = grub.control(disk, Slot.A).state()
    assert state.slots == {Slot.A: "good", Slot.B: "trial(0)"}
    assert grub.control(disk, Slot.A).next() is Slot.A
