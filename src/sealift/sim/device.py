"""A device in memory: durable flash, a boot loader, and the real agent inside.

Shell, machine, journal, floors, installer and boot control are the shipped ones; only
flash, clock, images, the loader (``sim.loaders``) and the server's word are simulated.
``settle`` starts the device,
lets it live through the cuts it was given, and ends when it rests; ``faults`` then says
everything that must not have happened.
"""

from __future__ import annotations

import functools
import hashlib
import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from sealift.agent.install.ab import AbInstaller
from sealift.agent.journal import JOURNAL_BYTES, Floors, Journal
from sealift.agent.machine import Idle, Verdict, wants
from sealift.agent.ports import CheckResult
from sealift.agent.record import Record
from sealift.agent.shell import AttemptResult, Component, Outside, Shell
from sealift.core.errors import BootError, InvalidInputError, StateError
from sealift.core.types import (
    Artifact,
    Bootable,
    BootKind,
    Container,
    Instruction,
    Slot,
)
from sealift.sim.flash import (
    REFUSED,
    Door,
    Flash,
    FlashCells,
    FlashCounter,
    FlashSlots,
    FlashStorage,
    Killed,
    PowerCut,
    Weather,
)
from sealift.sim.loaders.file import FileWorld
from sealift.sim.loaders.table import WORLDS
from sealift.sim.loaders.uki import made_up_root
from sealift.sim.loaders.world import MOST_RESETS
from sealift.sim.world import SimClock

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sealift.agent.boot.file import LoaderStore, Started
    from sealift.agent.ports import BootControl, Cells, Fill, SlotDevice
    from sealift.sim.loaders.world import LoaderWorld

ECU = "dev-0001-main"
SEGMENT_BYTES = 16
SLOT_BYTES = 4 * SEGMENT_BYTES
MOST_BOOTS = 60
MOST_ROUNDS = 40


class Restarted(BaseException):
    """The agent had the device restarted, in good order: caches are written back."""


class Bitten(BaseException):
    """The watchdog reset the device."""


class Bricked(BaseException):
    """The device will never run again."""


class Kind(StrEnum):
    """What an image does once it is started."""

    GOOD = "good"
    UNHEALTHY = "unhealthy"
    """It runs, and its health check says no."""
    UNBOOTABLE = "unbootable"
    """The loader refuses it."""
    HANGING = "hanging"
    """It never gets as far as the agent; the watchdog resets the device."""
    WEDGED = "wedged"
    """The agent runs, its health check never returns; the watchdog bites."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image small enough to run a hundred thousand times."""

    kind: Kind
    content: bytes
    artifact: Artifact

    @classmethod
    def make(
        cls,
        kind: Kind,
        version: str,
        counter: int,
        segments: int = 3,
        boot_file: bytes | None = None,
    ) -> Image:
        """An image whose every segment differs from every other image's.

        ``boot_file`` is what it carries for the loader, behind all else.
        """
        text = f"{kind} {version} ".encode()
        content = b"".join(
            hashlib.sha256(text + bytes([at])).digest()[:SEGMENT_BYTES]
            for at in range(segments)
        )[:-3]
        bootable = None
        if boot_file is not None:
            bootable = _bootable(version, len(content), boot_file)
            content += boot_file
        digest = hashlib.sha256(content).digest()
        artifact = Artifact(
            name=f"sim-board/main-{version}.img",
            length=len(content),
            sha256=digest,
            sha512=None,
            segment_size=SEGMENT_BYTES,
            segment_root=digest,
            hardware_ids=("sim-board-r1",),
            release_counter=counter,
            version=version,
            bootable=bootable,
        )
        return cls(kind, content, artifact)

    def order(self, director_version: int = 7) -> Instruction:
        """The Director's word to install it."""
        digest = self.artifact.sha256
        return Instruction(
            ecu_id=ECU,
            hardware_id="sim-board-r1",
            artifact=self.artifact,
            full=Container("sim.full", len(self.content), digest, 0, digest),
            delta=None,
            bytes_max=None,
            director_version=director_version,
            targets_sha256=hashlib.sha256(b"targets %d" % director_version).digest(),
        )


def _bootable(version: str, offset: int, boot_file: bytes) -> Bootable:
    """Where it lies; the root is made up, as ``sim.loaders.uki`` makes it up."""
    root_hash, salt = made_up_root(version)
    digest = hashlib.sha256(boot_file).digest()
    size = len(boot_file)
    return Bootable(BootKind.UKI, offset, size, digest, root_hash, salt, 1)


OLD = Image.make(Kind.GOOD, "1.0", 1)
NEW = {kind: Image.make(kind, "2.0", 2) for kind in Kind}


@functools.cache
def image_for(loader: str, kind: Kind, *, old: bool) -> Image:
    """The image as this loader wants it; ``old`` is what the factory puts in."""
    version, counter = ("1.0", 1) if old else ("2.0", 2)
    carried = WORLDS[loader].boot_file(version)
    if carried is None:
        return OLD if old else NEW[kind]
    return Image.make(kind, version, counter, boot_file=carried)


@dataclass(frozen=True, slots=True)
class Scene:
    """The world one run happens in; the cuts come on top."""

    kind: Kind = Kind.GOOD
    loader: str = "counting"
    """One of ``sim.loaders.table``."""
    weather: Weather = Weather.MIXED
    spoiled: int = 0
    """The slot write that the medium keeps wrongly, counted from 1; 0: none."""
    seed: int = 0

    def __post_init__(self) -> None:
        if self.loader not in WORLDS:
            raise InvalidInputError(
                f"{self.loader[:80]!r} is no loader", hint=f"known: {', '.join(WORLDS)}"
            )


@dataclass
class Device:
    """One device, from power-on to rest. Mutants override the ``make_…`` methods."""

    scene: Scene = field(default_factory=Scene)
    cuts: Sequence[float] = ()
    seen: set[int] | None = None
    """Where to note what the memory looked like at each start."""

    def __post_init__(self) -> None:
        self.clock = SimClock()
        self.door = Door(self.cuts)
        self.flash = self.make_flash()
        self.storage = FlashStorage(self.door)
        self.counter = FlashCounter(self.door)
        loader = self.scene.loader
        self.old = image_for(loader, Kind.GOOD, old=True)
        self.image = image_for(loader, self.scene.kind, old=False)
        self.images = {it.content: it for it in (self.old, self.image)}
        self.orders: list[Instruction] = [self.image.order()]
        self.boots = 0
        self.trace: list[str] = []
        self.found: list[str] = []
        size = max(SLOT_BYTES, len(self.old.content), len(self.image.content))
        self.flash.make("slot.a", self.old.content.ljust(size, b"\xff"))
        self.flash.make("slot.b", bytes(size))
        self.world = self.make_world()
        self.world.deliver(Slot.A, self.old.content, self.old.artifact)

    # ── parts, as a mutant may want them otherwise ───────────────────────────────────
    def make_flash(self) -> Flash:
        """Everything durable but the hardware counter and the outbox."""
        scene = self.scene
        spoiled = (scene.spoiled,) if scene.spoiled else ()
        return Flash(self.door, scene.weather, seed=scene.seed, spoiled=spoiled)

    def make_world(self) -> LoaderWorld:
        """The loader, and the agent's boot control for it."""
        return WORLDS[self.scene.loader](self.flash)

    def make_journal_cells(self) -> Cells:
        """Where the journal lies."""
        return FlashCells(self.flash, "journal")

    def make_installer(self, boot: BootControl) -> AbInstaller:
        """The installer of the one component."""
        slots, files = FlashSlots(self.flash), self.world.files()
        return AbInstaller(boot, slots, self.clock.boot_id, files=files)

    def make_components(self) -> list[Component]:
        """What the agent finds to update."""
        installer = self.make_installer(self.world.boot())
        return [
            Component(
                ECU,
                installer,
                self._fill,
                _restart,
                self,
                factory=lambda: installer.recognised(self.old.artifact),
            )
        ]

    def make_shell(self, journal: Journal, outside: Outside) -> Shell:
        """The loop."""
        parts, floors = self.make_components(), self.make_floors()
        return Shell(parts, journal, floors, self.clock, outside)

    def make_floors(self) -> Floors:
        """The counter floors: a record, and a counter in hardware."""
        record = Record(FlashCells(self.flash, "floor"), limit=JOURNAL_BYTES)
        return Floors(record, {ECU: self.counter})

    # ── life ─────────────────────────────────────────────────────────────────────────
    def settle(self) -> Device:
        """Start, run, be cut, start again, until the device rests or is dead."""
        try:
            while self.boots < MOST_BOOTS:
                if self._live():
                    return self
            self.found.append("never comes to rest")
        except Bricked as brick:
            self.found.append(f"brick: {brick}")
        return self

    def _live(self) -> bool:
        """One power-on; ``True`` if the device came to rest in it."""
        try:
            self._start()
            while not (rested := self._serve()):
                pass
        except Restarted:
            self._note("restarts")
            self.world.restarting()
        except (PowerCut, Bitten, Killed) as end:  # Killed: inside the loader
            self._note(type(end).__name__)
            self.world.power_lost()
        else:
            return rested
        return False

    def _serve(self) -> bool:
        """One life of the agent's process; ``False`` if it is to be started again."""
        try:
            return self._agent()
        except (Killed, StateError) as end:  # StateError: it could not even begin
            self._note(type(end).__name__)
            return False

    def _start(self) -> None:
        """The loader's part: decide, count, start; and judge what was started."""
        self.boots += 1
        if self.seen is not None:
            self.seen.add(self.flash.fingerprint())
        for _ in range(MOST_RESETS):
            slot = self._decided()
            if slot is None:  # it was refused, the board resets
                continue
            image = self.whole(slot)
            if image is None:
                raise Bricked(f"slot {slot} was started half-written")
            if image.kind is Kind.HANGING:
                raise Bitten
            self.running = slot
            self.clock.reboot()
            self._note(f"slot {slot} runs")
            return
        raise Bricked("the loader finds nothing to start")

    def _decided(self) -> Slot | None:
        try:
            home, before = self.world.home(), self.world.stored()
            self._floor_rule(home)
            slot = self.world.decide(lambda slot: self._starts(slot, home))
        except StateError as error:
            raise Bitten from error
        except BootError as error:
            raise Bricked(error.message) from error
        refusing = any(point % 1 == REFUSED for point in self.cuts)
        if slot not in {None, home} and self.world.stored() == before and not refusing:
            self.found.append(f"slot {slot} starts unconfirmed and uncounted (B4)")
        return slot

    def _starts(self, slot: Slot, home: Slot) -> bool:
        """Whether the loader can start what lies there; to try it may be a fault."""
        image = self.whole(slot)
        if image is None:
            raise Bricked(f"slot {slot} was started half-written")
        if image.kind is Kind.UNBOOTABLE and slot is home:
            raise Bricked(f"the confirmed slot {slot} is refused")
        return image.kind is not Kind.UNBOOTABLE

    def _agent(self) -> bool:
        """The agent's process, until the device rests."""
        outside = Outside(
            poll=self.poll,
            report=self._report,
            changed=lambda _ecu, state: self._note(type(state).__name__),
        )
        cells = Record(self.make_journal_cells(), limit=JOURNAL_BYTES, what="journal")
        shell = self.make_shell(Journal(cells), outside)
        for _ in range(MOST_ROUNDS):
            rest = shell.once()
            if self._content(shell):
                return True
            self.clock.sleep(rest)
        self.found.append(f"never idle: {shell.states}")
        return True

    def _content(self, shell: Shell) -> bool:
        """Whether every component is idle and has all it was ordered to have."""
        ordered = {order.ecu_id: order for order in self.poll()}
        return all(
            isinstance(state, Idle)
            and (ecu not in ordered or not wants(state, ordered[ecu]))
            for ecu, state in shell.states.items()
        )

    def poll(self) -> Sequence[Instruction]:
        """The Director's present word."""
        return self.orders

    def check(self, order: Instruction) -> Sequence[CheckResult]:
        """The health of what runs (:class:`~sealift.agent.ports.Health`)."""
        del order
        image = self.whole(self.running)
        if image is None or image.kind is Kind.WEDGED:
            raise Bitten
        return [CheckResult("self-test", image.kind is not Kind.UNHEALTHY)]

    def _fill(self, order: Instruction, _base: Artifact | None) -> Fill:
        content = self.images_by_digest[order.artifact.sha256].content

        def fill(into: SlotDevice, base: SlotDevice | None, /) -> None:
            """Segment by segment: what is there already is not written again."""
            del base
            size = max(SEGMENT_BYTES, -(-len(content) // 3))
            for at in range(0, len(content), size):
                piece = content[at : at + size]
                if into.read(at, len(piece)) != piece:
                    into.write(at, piece)
                    into.flush()

        return fill

    def _note(self, what: str) -> None:
        self.trace.append(f"{self.door.steps}: {what}")

    def _report(self, result: AttemptResult) -> None:
        name = f"report.{result.id}"
        told = {
            "verdict": result.verdict.value,
            "code": result.code,
            "image": result.order.artifact.name,
            "installed": result.installed.name if result.installed else None,
        }
        raw = json.dumps(told).encode()
        if self.storage.read(name) not in {None, raw}:
            self.found.append(f"two different reports under {name}")
        self.storage.commit({name: raw})

    # ── looking at it ────────────────────────────────────────────────────────────────
    @property
    def images_by_digest(self) -> dict[bytes, Image]:
        """The images a server would have."""
        return {image.artifact.sha256: image for image in self.images.values()}

    @property
    def running(self) -> Slot:
        """The slot that runs."""
        return self.world.running

    @running.setter
    def running(self, slot: Slot) -> None:
        self.world.running = slot

    def store(self) -> LoaderStore:
        """The store of a reference loader, opened anew."""
        return self._file_world.store()

    def started(self) -> Started:
        """What a reference loader said when it handed over."""
        return self._file_world.started()

    @property
    def _file_world(self) -> FileWorld:
        if not isinstance(self.world, FileWorld):
            raise TypeError(f"{self.scene.loader} is no reference loader")
        return self.world

    def whole(self, slot: Slot) -> Image | None:
        """The image that lies whole in a slot, on the medium."""
        content = bytes(self.flash.medium[f"slot.{slot}"])
        for image in self.images.values():
            if content.startswith(image.content):
                return image
        return None

    def reports(self) -> list[dict[str, str | None]]:
        """What the outbox holds."""
        names = self.storage.names("report.")
        return [json.loads(self.storage.read(name) or b"") for name in names]

    def faults(self) -> list[str]:
        """Everything that is wrong with the device at rest; empty is what must be."""
        self.door.cuts = frozenset()  # looking must not be cut
        if self.found:
            return self.found
        return [*self._at_home(), *self._told_truly(), *self._floor_holds()]

    def _at_home(self) -> Iterable[str]:
        home, boot = self.world.home(), self.world.boot()
        if self.running is not home or boot.next() is not home:
            yield (
                f"slot {self.running} runs unconfirmed: home is {home}, "
                f"next {boot.next()}, {dict(boot.state().slots)}"
            )
        if self.whole(self.running) is None:
            yield f"slot {self.running} is not whole"

    def _told_truly(self) -> Iterable[str]:
        reports = self.reports()
        image = self.whole(self.running)
        runs_new = image is not None and image is self.image
        if len(reports) != 1:
            yield f"{len(reports)} reports instead of one: {reports}"
        for told in reports:
            succeeded = told["verdict"] == Verdict.SUCCEEDED
            if succeeded is not runs_new:
                runs = image.artifact.name if image else "nothing whole"
                yield f"report says {told['verdict']}, slot {self.running} runs {runs}"
        if runs_new and self.scene.kind is not Kind.GOOD:
            yield f"a {self.scene.kind} image was confirmed"
        if not runs_new and self._had_to_succeed():
            yield f"a good image was given up: {reports}"

    def _had_to_succeed(self) -> bool:
        """Three starts outlive two cuts; a bad medium or a single start may not."""
        scene = self.scene
        few = len(self.cuts) <= self.world.outlives()
        few &= not any(point % 1 == REFUSED for point in self.cuts)
        return scene.kind is Kind.GOOD and not scene.spoiled and few

    def _floor_holds(self) -> Iterable[str]:
        image = self.whole(self.running)
        floor = self.make_floors().floor(ECU)
        want = self.image.artifact.release_counter if image is self.image else 0
        if floor != want:
            yield f"the floor is {floor}, {image and image.artifact.name} runs"

    def _floor_rule(self, home: Slot) -> None:
        """B10, D-05: at no start does the floor forbid the confirmed image."""
        image = self.whole(home)
        floor = self.make_floors().floor(ECU)
        if image is None:
            raise Bricked(f"the confirmed slot {home} is not whole")
        if floor > image.artifact.release_counter:
            self.found.append(f"floor {floor} forbids {image.artifact.name}")


def _restart() -> None:
    raise Restarted
