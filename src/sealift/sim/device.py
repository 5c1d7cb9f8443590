"""A device in memory: durable flash, a boot loader, and the real agent inside.

Shell, machine, journal, floors, installer and boot control are the shipped ones; only
flash, clock, images and the server's word are simulated. ``settle`` starts the device,
lets it live through the cuts it was given, and ends when it rests; ``faults`` then says
everything that must not have happened.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from sealift.agent.boot.file import (
    STORE_BYTES,
    FileBoot,
    LoaderStore,
    Started,
    Store,
    choose,
)
from sealift.agent.install.ab import AbInstaller
from sealift.agent.journal import JOURNAL_BYTES, Floors, Journal
from sealift.agent.machine import Idle, Verdict, wants
from sealift.agent.ports import CheckResult
from sealift.agent.record import Record
from sealift.agent.shell import AttemptResult, Component, Outside, Shell
from sealift.core.errors import StateError
from sealift.core.types import Artifact, Container, Instruction, Slot
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
from sealift.sim.world import SimClock

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sealift.agent.ports import Cells, Fill, SlotDevice

ECU = "dev-0001-main"
SEGMENT_BYTES = 16
SLOT_BYTES = 4 * SEGMENT_BYTES
MOST_BOOTS = 60
MOST_STARTS = 12
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


class Loader(StrEnum):
    """What kind of boot loader the board has."""

    COUNTING = "counting"
    ONE_SHOT = "one-shot"
    """Without a counter: an armed slot gets one start."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image small enough to run a hundred thousand times."""

    kind: Kind
    content: bytes
    artifact: Artifact

    @classmethod
    def make(cls, kind: Kind, version: str, counter: int, segments: int = 3) -> Image:
        """An image whose every segment differs from every other image's."""
        text = f"{kind} {version} ".encode()
        content = b"".join(
            hashlib.sha256(text + bytes([at])).digest()[:SEGMENT_BYTES]
            for at in range(segments)
        )[:-3]
        digest = hashlib.sha256(content).digest()
        name = f"sim-board/main-{version}.img"
        ids = ("sim-board-r1",)
        artifact = Artifact(
            name,
            len(content),
            digest,
            None,
            SEGMENT_BYTES,
            digest,
            ids,
            counter,
            version,
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


OLD = Image.make(Kind.GOOD, "1.0", 1)
NEW = {kind: Image.make(kind, "2.0", 2) for kind in Kind}


@dataclass(frozen=True, slots=True)
class Scene:
    """The world one run happens in; the cuts come on top."""

    kind: Kind = Kind.GOOD
    loader: Loader = Loader.COUNTING
    weather: Weather = Weather.MIXED
    spoiled: int = 0
    """The slot write that the medium keeps wrongly, counted from 1; 0: none."""
    seed: int = 0


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
        spoiled = (self.scene.spoiled,) if self.scene.spoiled else ()
        self.flash = Flash(
            self.door, self.scene.weather, seed=self.scene.seed, spoiled=spoiled
        )
        self.storage = FlashStorage(self.door)
        self.counter = FlashCounter(self.door)
        self.old, self.image = OLD, NEW[self.scene.kind]
        self.images = {OLD.content: OLD, self.image.content: self.image}
        self.orders: list[Instruction] = [self.image.order()]
        self.running = Slot.A
        self.boots = 0
        self.trace: list[str] = []
        self.found: list[str] = []
        self.flash.make("slot.a", OLD.content.ljust(SLOT_BYTES, b"\xff"))
        self.flash.make("slot.b", bytes(SLOT_BYTES))

    # ── parts, as a mutant may want them otherwise ───────────────────────────────────
    def make_journal_cells(self) -> Cells:
        """Where the journal lies."""
        return FlashCells(self.flash, "journal")

    def make_installer(self, boot: FileBoot) -> AbInstaller:
        """The installer of the one component."""
        return AbInstaller(boot, FlashSlots(self.flash), self.clock.boot_id)

    def make_components(self) -> list[Component]:
        """What the agent finds to update."""
        boot = FileBoot(self.store(), self.started, counts=self._counts)
        installer = self.make_installer(boot)
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
            self.flash.sync()
        except (PowerCut, Bitten, Killed) as end:  # Killed: inside the loader
            self._note(type(end).__name__)
            self.flash.lose_power()
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
        store = self.store()
        for _ in range(MOST_STARTS):
            before = _read(store)
            self._floor_rule(before)
            slot, after = choose(before, counts=self._counts)
            if after != before:
                _count_down(store, after)
            image = self.whole(slot)
            if image is None:
                raise Bricked(f"slot {slot} was started half-written")
            if image.kind is Kind.UNBOOTABLE:
                if slot is before.default:
                    raise Bricked(f"the confirmed slot {slot} is refused")
                continue
            if image.kind is Kind.HANGING:
                raise Bitten
            self.running = slot
            self.clock.reboot()
            self._note(f"slot {slot} runs")
            return
        raise Bricked("the loader finds nothing to start")

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
            for at in range(0, len(content), SEGMENT_BYTES):
                piece = content[at : at + SEGMENT_BYTES]
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

    @property
    def _counts(self) -> bool:
        return self.scene.loader is Loader.COUNTING

    # ── looking at it ────────────────────────────────────────────────────────────────
    @property
    def images_by_digest(self) -> dict[bytes, Image]:
        """The images a server would have."""
        return {image.artifact.sha256: image for image in self.images.values()}

    def store(self) -> LoaderStore:
        """The loader's store, opened anew."""
        boot = Record(FlashCells(self.flash, "boot"), limit=STORE_BYTES)
        home = Record(FlashCells(self.flash, "home"), limit=STORE_BYTES)
        return LoaderStore(boot, home)

    def started(self) -> Started:
        """What the loader said when it handed over."""
        return Started(self.running, self.clock.boot_id())

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
        store = self.store().read()
        if self.running is not store.default or store.next is not store.default:
            yield (
                f"slot {self.running} runs unconfirmed: default {store.default}, "
                f"trial {store.trial}, tries {store.tries}"
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
        counting = scene.loader is Loader.COUNTING
        few = len(self.cuts) <= (2 if counting else 0)
        few &= not any(point % 1 == REFUSED for point in self.cuts)
        return scene.kind is Kind.GOOD and not scene.spoiled and few

    def _floor_holds(self) -> Iterable[str]:
        image = self.whole(self.running)
        floor = self.make_floors().floor(ECU)
        want = self.image.artifact.release_counter if image is self.image else 0
        if floor != want:
            yield f"the floor is {floor}, {image and image.artifact.name} runs"

    def _floor_rule(self, store: Store) -> None:
        """B10, D-05: at no start does the floor forbid the confirmed image."""
        image = self.whole(store.default)
        floor = self.make_floors().floor(ECU)
        if image is None:
            raise Bricked(f"the confirmed slot {store.default} is not whole")
        if floor > image.artifact.release_counter:
            self.found.append(f"floor {floor} forbids {image.artifact.name}")


def _read(store: LoaderStore) -> Store:
    try:
        return store.read()
    except StateError as error:
        raise Bitten from error


def _count_down(store: LoaderStore, after: Store) -> None:
    """A loader that cannot write what it counted starts nothing, it resets (B4)."""
    try:
        store.write(after)
    except StateError as error:
        raise Bitten from error


def _restart() -> None:
    raise Restarted
