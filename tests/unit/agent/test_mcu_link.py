"""The link by a program: what it is asked, what it may answer, how long it may take."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sealift.agent import config, loaders, settings, wiring
from sealift.agent.clock import SystemClock
from sealift.agent.link import CommandLink, PatientLink, unit_from_json
from sealift.agent.ports import Armed, Parcel, Progress
from sealift.core.errors import (
    FailedTransferError,
    FormatError,
    NotFoundError,
    PatchError,
    SlotError,
)
from sealift.core.types import PatchKind, Slot
from sealift.sim.flash import Door, Flash
from sealift.sim.mcu import Board, SimMcu
from sealift.sim.mcu_link import serve, unit_to_json
from tests.mcu_gateway import MEMORY, NEW, OLD, SEGMENT, order, patch

BOARD = Board(memory_size=MEMORY, segment_size=SEGMENT, block=700)
PROGRAM = [sys.executable, "-m", "sealift.sim.mcu_link"]


@pytest.fixture
def mcu() -> SimMcu:
    found = SimMcu(Flash(Door()), BOARD)
    found.manufacture(OLD)
    return found


@pytest.fixture
def program(mcu: SimMcu, tmp_path: Path) -> Iterator[list[str]]:
    with serve(mcu, str(tmp_path / "wire")):
        yield [*PROGRAM, str(tmp_path / "wire")]


def link(*program: str, deadline: float = 30.0) -> CommandLink:
    return CommandLink(program, SystemClock(), deadline)


def says(text: str, status: int = 0) -> CommandLink:
    """A program that only answers this."""
    code = f"import sys; sys.stdout.write({text!r}); sys.exit({status})"
    return link(sys.executable, "-c", code)


def parcel(kind: PatchKind | None = None) -> tuple[Parcel, bytes]:
    image = order().artifact
    raw, found = (NEW, None) if kind is None else (patch(kind)[1], patch(kind)[0])
    digest = hashlib.sha256(raw).digest()
    return Parcel(Slot.B, len(raw), digest, image.length, image.sha256, found), raw


# ── all verbs ────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("kind", [None, PatchKind.SEQUENTIAL], ids=["image", "patch"])
def test_every_verb_reaches_the_microcontroller(
    mcu: SimMcu, program: list[str], kind: PatchKind | None
) -> None:
    """An image, and a patch, from announcement to confirm, by a program per verb."""
    through = link(*program)
    assert through.identify() == mcu.identify()
    announced, raw = parcel(kind)
    assert through.begin(announced) == 0
    for at in range(0, len(raw), BOARD.block):
        through.write(at, raw[at : at + BOARD.block])
    through.finish()
    through.test(Slot.B)
    through.restart()
    through.confirm(announced.image_sha256)
    unit = through.identify()
    assert (unit.running, unit.confirmed, mcu.image()) == (Slot.B, True, NEW)


def test_the_program_says_how_a_verb_failed(mcu: SimMcu, program: list[str]) -> None:
    """Its status tells who has to do what: send the image, begin again, give up."""
    through, (announced, _) = link(*program), parcel(PatchKind.SEQUENTIAL)
    assert announced.patch is not None
    foreign = dataclasses.replace(announced.patch, base_sha256=bytes(32))
    with pytest.raises(PatchError):
        through.begin(dataclasses.replace(announced, patch=foreign))
    with pytest.raises(FailedTransferError):
        through.write(0, b"nothing was begun")
    with pytest.raises(SlotError):
        through.test(Slot.B)


def test_a_wire_that_nobody_holds_is_no_answer(tmp_path: Path) -> None:
    """transport.failed: whoever asked tries again later."""
    with pytest.raises(FailedTransferError):
        link(*PROGRAM, str(tmp_path / "nowhere")).identify()


# ── what a program may do to us ──────────────────────────────────────────────────────
@pytest.mark.parametrize(
    ("status", "error"),
    [(75, FailedTransferError), (65, PatchError), (1, SlotError), (2, SlotError)],
)
def test_an_exit_status_is_an_error_with_what_it_said(
    status: int, error: type[Exception]
) -> None:
    """The first line of its output, printable and short, is in the message."""
    with pytest.raises(error, match=r"no such \s?bank") as caught:
        says("no such \nbank\x1b[2J" + "x" * 9999, status).finish()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_a_program_that_hangs_is_ended() -> None:
    """At its deadline, and it counts as no answer."""
    hangs = link(sys.executable, "-c", "import time; time.sleep(60)", deadline=0.3)
    with pytest.raises(FailedTransferError):
        hangs.confirm(bytes(32))


def test_a_program_that_is_not_there_is_a_refusal() -> None:
    """device.slot, with a hint at the setting."""
    with pytest.raises(SlotError, match="cannot be started"):
        link("/nonexistent/link").restart()


def test_a_program_that_reads_nothing_does_not_block_us() -> None:
    """What it is given waits in memory, not in a pipe."""
    link(sys.executable, "-c", "").write(0, bytes(1 << 20))


UNIT = unit_to_json(SimMcu(Flash(Door()), BOARD).identify())
WRONG: list[dict[str, Any]] = [
    {"running": "c"},
    {"next": ""},
    {"sha256": "00"},
    {"waiting": "zz" * 32},
    {"coming": 5},
    {"length": -1},
    {"confirmed": 1},
    {"one_slot": None},
    {"boot_id": ""},
    {"boot_id": "x" * 129},
    {"block": 0},
    {"kinds": "all"},
    {"kinds": ["x"] * 2},
]


@pytest.mark.parametrize("change", WRONG, ids=str)
def test_an_answer_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    """Each member is read strictly; the program's fault is device.slot."""
    unit_from_json(UNIT)
    with pytest.raises(FormatError):
        unit_from_json({**UNIT, **change})


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", "{" * 9999, '{"offset": -1}', '{"offset": 99999}']
)
def test_no_answer_at_all_is_refused(text: str) -> None:
    """Not JSON, no object, an offset outside the parcel: device.slot."""
    with pytest.raises(SlotError):
        says(text).begin(parcel()[0])
    with pytest.raises(SlotError):
        says(text).identify()


def test_kinds_unknown_here_are_passed_over() -> None:
    """A newer loader can do more than this gateway knows."""
    kinds = ["brotli", PatchKind.SEQUENTIAL.value]
    assert unit_from_json({**UNIT, "kinds": kinds}).kinds == {PatchKind.SEQUENTIAL}


# ── patience ─────────────────────────────────────────────────────────────────────────
class Deaf:
    """A link that answers at the ``n``-th time only."""

    def __init__(self, hears_at: int) -> None:
        self.calls = 0
        self._hears_at = hears_at

    def __getattr__(self, verb: str) -> Any:
        def say(*_: Any) -> None:
            self.calls += 1
            if self.calls < self._hears_at:
                raise FailedTransferError("no answer")

        return say


@pytest.mark.parametrize(
    ("verb", "arguments"),
    [("identify", ()), ("begin", (None,)), ("test", (Slot.A,)), ("confirm", (b"",))],
)
def test_verbs_that_are_harmless_twice_are_asked_again(
    verb: str, arguments: tuple[Any, ...]
) -> None:
    """With a pause before each; five times in all, then the error comes through."""
    pauses: list[int] = []
    deaf = Deaf(5)
    getattr(PatientLink(deaf, lambda: pauses.append(1)), verb)(*arguments)
    assert (deaf.calls, len(pauses)) == (5, 4)
    deaf = Deaf(6)
    with pytest.raises(FailedTransferError):
        getattr(PatientLink(deaf, lambda: None), verb)(*arguments)


@pytest.mark.parametrize(
    ("verb", "arguments"), [("write", (0, b"")), ("finish", ()), ("restart", ())]
)
def test_verbs_that_are_not_are_asked_once(
    verb: str, arguments: tuple[Any, ...]
) -> None:
    """A second restart would end the trial that the first one began."""
    deaf = Deaf(2)
    with pytest.raises(FailedTransferError):
        getattr(PatientLink(deaf, lambda: None), verb)(*arguments)
    assert deaf.calls == 1


# ── wired ────────────────────────────────────────────────────────────────────────────
class Shelf:
    """A transport that has one patch."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw
        self.asked: list[str] = []

    def stream(self, path: str, *, start: int, stop: int, **_: Any) -> Iterator[bytes]:
        self.asked.append(path)
        if hashlib.sha256(self._raw).hexdigest() not in path:
            raise NotFoundError("no such file")
        yield self._raw[start:stop]


def test_a_component_with_a_link_is_a_microcontroller(
    mcu: SimMcu, program: list[str], tmp_path: Path
) -> None:
    """From the configuration to the new image running on trial, patch and all."""
    for name in ("state", "boot"):
        (tmp_path / name).mkdir(mode=0o700)
    (tmp_path / "slot-a.img").write_bytes(OLD.ljust(MEMORY, b"\0"))
    (tmp_path / "slot-b.img").write_bytes(bytes(MEMORY))
    text = settings.example().replace("/var/lib/sealift", str(tmp_path / "state"))
    text = text.replace("\nlink = []", f"\nlink = {json.dumps(program)}")
    found = config.parse(text.encode(), str(tmp_path / "agent.toml"))
    way, ordered = Shelf(patch(PatchKind.SEQUENTIAL)[1]), order(PatchKind.SEQUENTIAL)
    part = wiring.component(found, way, SystemClock(), Progress())  # type: ignore[arg-type]

    def fill(into: Any, base: Any, /) -> None:
        into.write(0, NEW)
        into.flush()

    part.installer.stage(ordered, Slot.B, fill)
    assert mcu.written == len(patch(PatchKind.SEQUENTIAL)[1])
    armed = part.installer.arm(ordered, Slot.B)
    assert isinstance(armed, Armed)
    part.restart()
    probe = part.installer.probe()
    assert (probe.running, mcu.image()) == (Slot.B, NEW)
    assert probe.boot_id != armed.boot_id
    loader = loaders.boot(found)
    assert (loader.current(), loader.next()) == (Slot.B, Slot.A)
    assert loader.state().slots == {Slot.B: "trial(0)", Slot.A: "good"}
    part.installer.confirm(ordered, Slot.B)
    assert mcu.identify().confirmed
    part.clear()
    assert not (tmp_path / "state" / "mcu.patch").exists()
