"""A gateway in memory with a microcontroller behind it: both can lose their power."""

from __future__ import annotations

import contextlib
import hashlib
import io
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any

import pytest

from sealift.agent.boot.link import LinkBoot
from sealift.agent.install.ab import AbInstaller
from sealift.agent.install.mcu import Copies, Courier, McuInstaller
from sealift.agent.journal import JOURNAL_BYTES, Floors, Journal
from sealift.agent.link import PatientLink
from sealift.agent.machine import Idle, wants
from sealift.agent.ports import CheckResult
from sealift.agent.record import Record
from sealift.agent.shell import AttemptResult, Component, Outside, Shell
from sealift.core.errors import DigestError
from sealift.core.types import Artifact, Container, Instruction, Patch, PatchKind
from sealift.sim.flash import Door, Flash, FlashCells, FlashSlot, FlashSlots, PowerCut
from sealift.sim.mcu import Board, SimMcu
from sealift.sim.world import SimClock

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sealift.agent.ports import Fill, Link, SlotDevice

ECU = "dev-0001-radio"
SEGMENT = 256
MEMORY = 4096
KINDS = (None, PatchKind.SEQUENTIAL, PatchKind.IN_PLACE)


def code(length: int, seed: str) -> bytes:
    """Bytes with the look of machine code: few of them often, the same for a seed."""
    rare = hashlib.shake_256(seed.encode()).digest(length)
    often = hashlib.shake_256(b"opcodes").digest(64)
    return bytes(often[b % 64] if b < 200 else b for b in rare)


OLD = code(1500, "program")
NEW = OLD[:400] + b"new code" + OLD[410:1100] + code(300, "more") + OLD[1100:]


def artifact(image: bytes, version: str, counter: int) -> Artifact:
    digest = hashlib.sha256(image).digest()
    name = f"radio/app-{version}.img"
    return Artifact(
        name, len(image), digest, None, 1 << 20, digest, ("radio-r1",), counter, version
    )


@cache
def patch(
    kind: PatchKind, old: bytes = OLD, new: bytes = NEW, memory: int = MEMORY
) -> tuple[Patch, bytes]:
    """A patch by ``detools`` itself, and its facts."""
    detools = pytest.importorskip("detools", reason="needs the extra mcu")
    out, options = io.BytesIO(), dict[str, object]()
    if kind is PatchKind.IN_PLACE:
        options = {"memory_size": memory, "segment_size": SEGMENT}
        options |= {"patch_type": "in-place", "minimum_shift_size": SEGMENT}
    detools.create_patch(
        io.BytesIO(old),
        io.BytesIO(new),
        out,
        compression="heatshrink",
        heatshrink_window_sz2=8,
        heatshrink_lookahead_sz2=7,
        use_mmap=False,
        **options,
    )
    raw = out.getvalue()
    sizes = {}
    if options:
        shift = memory - -(-len(old) // SEGMENT) * SEGMENT
        sizes = {"memory_size": memory, "segment_size": SEGMENT, "shift_size": shift}
    digests = hashlib.sha256(raw).digest(), hashlib.sha256(old).digest()
    found = Patch(
        kind, "app.patch", len(raw), digests[0], len(old), digests[1], 8, 7, **sizes
    )
    return found, raw


def order(
    kind: PatchKind | None = None, new: bytes = NEW, director_version: int = 7
) -> Instruction:
    """The Director's word to install ``new``, with a patch or without."""
    image = artifact(new, "2.0", 2)
    return Instruction(
        ecu_id=ECU,
        hardware_id="radio-r1",
        artifact=image,
        full=Container("app.full", len(new), image.sha256, 0, image.sha256),
        delta=None,
        bytes_max=None,
        director_version=director_version,
        targets_sha256=bytes(32),
        patch=None if kind is None else patch(kind)[0],
    )


@dataclass
class Patches:
    """The patch of an order in a region of the gateway's flash."""

    flash: Flash
    wanted: Patch
    raw: bytes

    def fetch(self) -> None:
        if not self._whole():
            self.flash.make("work.patch", bytes(len(self.raw)))
            with contextlib.closing(self._file(writable=True)) as file:
                file.write(0, self.raw)
                file.flush()

    @contextlib.contextmanager
    def opened(self) -> Iterator[SlotDevice]:
        if not self._whole():
            raise DigestError("not there")
        yield self._file(writable=False)

    def _whole(self) -> bool:
        kept = self.flash.read("work.patch", 0, len(self.raw))
        return kept is not None and hashlib.sha256(kept).digest() == self.wanted.sha256

    def _file(self, *, writable: bool) -> FlashSlot:
        return FlashSlot(self.flash, "work.patch", writable=writable)


class Wire:
    """A link on which the gateway's power can go before or after any verb."""

    def __init__(self, link: Link, door: Door) -> None:
        self._link = link
        self._door = door
        self.said: list[str] = []

    def __getattr__(self, verb: str) -> Any:
        def say(*arguments: Any) -> Any:
            self._door.enter()
            answer = getattr(self._link, verb)(*arguments)
            self.said.append(verb)
            self._door.leave()
            return answer

        return say


@dataclass
class Gateway:
    """From power-on to rest. ``cuts`` are the gateway's, ``mcu_cuts`` the other's."""

    board: Board
    order: Instruction
    raw: bytes = b""
    """The patch as it was fetched."""
    cuts: Sequence[float] = ()
    mcu_cuts: Sequence[float] = ()
    healthy: bool = True
    made_with: bytes = OLD
    copy_of_home: bytes = OLD
    new: bytes = NEW
    mcu_type: type[SimMcu] = SimMcu
    installer_type: type[McuInstaller] = McuInstaller
    reports: dict[str, AttemptResult] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.clock = SimClock()
        self.door, self.mcu_door = Door(), Door()
        self.flash = Flash(self.door)
        self.flash.make("slot.a", self.copy_of_home.ljust(MEMORY, b"\xff"))
        self.flash.make("slot.b", bytes(MEMORY))
        self.mcu = self.mcu_type(Flash(self.mcu_door), self.board)
        self.mcu.manufacture(self.made_with)
        self.mcu_door.steps = 0
        self.door.cuts, self.mcu_door.cuts = map(frozenset, (self.cuts, self.mcu_cuts))
        self.wire = Wire(self.mcu, self.door)

    def installer(self) -> McuInstaller:
        slots = FlashSlots(self.flash)
        link = PatientLink(self.wire, lambda: self.clock.sleep(1))
        boot, copies = LinkBoot(link), Copies(slots)
        inner = AbInstaller(boot, slots, boot.boot_id, tries=1)
        courier = Courier(link, copies, self._patches, lambda: self.clock.sleep(1))
        home = Record(FlashCells(self.flash, "mcu"), limit=JOURNAL_BYTES)
        return self.installer_type(inner, copies, courier, link, home)

    def settle(self) -> Gateway:
        """Live until it rests."""
        for _ in range(20):
            try:
                return self._live()
            except PowerCut:
                self.flash.lose_power()
                self.clock.reboot()
        raise AssertionError("never comes to rest")

    def _live(self) -> Gateway:
        installer = self.installer()
        part = Component(ECU, installer, self._fill, installer.restart, self)
        shell = Shell(
            [part],
            Journal(Record(FlashCells(self.flash, "journal"), limit=JOURNAL_BYTES)),
            Floors(Record(FlashCells(self.flash, "floors"), limit=JOURNAL_BYTES)),
            self.clock,
            Outside(poll=lambda: [self.order], report=self._report),
        )
        for _ in range(60):
            rest = shell.once()
            state = shell.states[ECU]
            if isinstance(state, Idle) and not wants(state, self.order):
                return self
            self.clock.sleep(rest)
        raise AssertionError(f"never idle: {shell.states}")

    def _patches(self, order: Instruction, wanted: Patch) -> Patches:
        return Patches(self.flash, wanted, self.raw or patch(wanted.kind)[1])

    def _fill(self, order: Instruction, base: Artifact | None = None) -> Fill:
        def fill(into: SlotDevice, base: SlotDevice | None, /) -> None:
            for at in range(0, len(self.new), 512):
                piece = self.new[at : at + 512]
                if into.read(at, len(piece)) != piece:
                    into.write(at, piece)
                    into.flush()

        return fill

    def check(self, order: Instruction) -> Sequence[CheckResult]:
        return [CheckResult("radio", self.healthy)]

    def _report(self, result: AttemptResult) -> None:
        before = self.reports.setdefault(result.id, result)
        assert before == result, "two results under one id"

    @property
    def verdict(self) -> str:
        """How the one attempt ended."""
        (result,) = self.reports.values()
        return result.verdict.value
