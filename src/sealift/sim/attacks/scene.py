"""A scene: a vendor, devices on wires, one release installed and the next one waiting.

``attempt`` lets the device under attack live one cycle with somebody on its wire, and
compares the intact set before and after; ``recovers`` lets it live an honest one. What
must not be is noted in ``faults``.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from sealift.agent.boot.file import open_boot
from sealift.core.manifest import verify_manifest
from sealift.core.reports import Manifest
from sealift.sim.attacks.fence import fenced
from sealift.sim.attacks.forge import Forger
from sealift.sim.attacks.killing import Killing
from sealift.sim.attacks.outcome import broken, observe
from sealift.sim.attacks.simulated import Lived, Parts, SimulatedDevice
from sealift.sim.flash import Killed
from sealift.sim.network import MemoryTransport, Wire, file_server
from sealift.sim.network import replace as overlay
from sealift.sim.shipping import sealed
from sealift.sim.vendor import Keys, Release, Shape, Vendor, make_release
from sealift.sim.world import START, SimClock

if TYPE_CHECKING:
    from securesystemslib.signer import Signer

    from sealift.repo.director import Order
    from sealift.sim.network import Attacker

__all__ = ["DEVICE", "INSTALLED", "NO_NEWS", "OTHER", "Scene", "Seat"]

DEVICE, OTHER = "dev-0001", "dev-0002"
INSTALLED, NO_NEWS = "installed", "no news"
MOST_STEPS = 200


@dataclass
class Seat:
    """One device with its own wire to the vendor."""

    device: SimulatedDevice
    wire: Wire
    delivered: list[Manifest]
    """Reports as the server got and verified them."""

    def reports(self) -> list[Manifest]:
        """Every report the device ever made, those that wait included."""
        inventory = self.device.inventory()
        waiting = [verify_manifest(it, inventory) for it in self.device.waiting()]
        return [*self.delivered, *waiting]


class Scene:
    """A vendor and its devices, one release installed, the next one waiting."""

    def __init__(self, directory: Path, shape: Shape, parts: Parts) -> None:
        self.clock = SimClock()
        self.directory = directory
        self.parts = parts
        self.faults: list[str] = []
        self.may_trust: set[bytes] = set()
        """Files by stolen keys that a device cannot tell from honest ones."""
        self.bad: set[bytes] = set()
        """Files that may never be kept; rows may note some."""
        self.waiting = True
        """The next release is not installed yet."""
        self._published = self._forged = 0
        self._plausible: set[bytes] = set()
        self.vendor = Vendor(self.true_now, shape)
        self.thief = Keys("attacker")
        self.factory = make_release("1.0", 1)
        self.seats: dict[str, Seat] = {}
        self.seat(DEVICE)
        self.first = self.publish("1.1", 2)
        self.honest_cycle()
        self.next = self.publish("1.2", 3)

    def true_now(self) -> datetime:
        """The time by which the vendor goes, whatever a device's clock says."""
        return START + timedelta(seconds=self.clock.monotonic())

    # ── devices ──────────────────────────────────────────────────────────────────────
    def seat(self, device_id: str) -> Seat:
        """A device that has just left the factory; it keeps its seat."""
        delivered: list[Manifest] = []

        def take(body: bytes) -> bytes:
            delivered.append(verify_manifest(body, device.inventory()))
            return b'{"poll_seconds": 300}'

        wire = Wire(file_server(lambda: self.vendor.served(device_id), take))
        device = SimulatedDevice(
            self.directory / device_id,
            device_id,
            {
                name: store.files["1.root.json"]
                for name, store in self.vendor.stores.items()
            },
            self.factory,
            self.clock,
            MemoryTransport(wire, self.clock),
            self.parts,
        )
        self.vendor.order(device_id)
        self.seats[device_id] = Seat(device, wire, delivered)
        return self.seats[device_id]

    @property
    def device(self) -> SimulatedDevice:
        """The device under attack."""
        return self.seats[DEVICE].device

    def reports(self) -> list[Manifest]:
        """Every report the device under attack made."""
        return self.seats[DEVICE].reports()

    @property
    def wire(self) -> Wire:
        """The wire of the device under attack."""
        return self.seats[DEVICE].wire

    # ── the vendor's honest acts ─────────────────────────────────────────────────────
    def publish(self, version: str, counter: int) -> Release:
        """A release, listed and ordered for the device under attack."""
        made = make_release(version, counter)
        if self.vendor.shape.sealed:
            made = sealed(made)
        self.vendor.release(made)
        self.order(self.order_for(made))
        return made

    def order_for(self, made: Release) -> Order:
        """The Director's wish that the device under attack runs it."""
        return made.order(self.device.ecu_id, recipient=self.device.recipient)

    def order(self, *orders: Order) -> None:
        """Order the device under attack to run these."""
        self.vendor.order(DEVICE, *orders)

    def served(self) -> dict[str, bytes]:
        """What the device under attack is served, to be recorded by an attacker."""
        return dict(self.vendor.served(DEVICE))

    @contextlib.contextmanager
    def clock_at(self, system: datetime) -> Iterator[None]:
        """Have the device's own clock wrong for a while; the vendor's is right."""
        self.clock.set_system(system)
        try:
            yield
        finally:
            self.clock.set_system(self.true_now())

    def catch_up(self) -> None:
        """Have the waiting release installed, honestly, and publish another one."""
        self.require(self.attempt(), INSTALLED)
        self._published += 1
        self.next = self.publish(f"1.2.{self._published}", 3 + self._published)
        self.waiting = True

    def require(self, found: str, wanted: str) -> None:
        """Note a fault of the scene itself, if something else was found."""
        if found != wanted:
            self.faults.append(f"{found} where {wanted} was expected")

    def require_unusable(self) -> None:
        """The slot that does not run is as it was, or may not be started."""
        slot = self.device.running.other
        state = open_boot(str(self.device.path("boot"))).state().slots[slot]
        older = {self.factory.content, *self.vendor.contents} - {self.next.content}
        as_it_was = self.device.slot(slot).startswith(tuple(older))
        if state not in {"empty", "writing", "bad"} and not as_it_was:
            self.faults.append(f"slot {slot} is {state}")

    def later(self, **span: float) -> None:
        """Let time pass for everybody."""
        self.clock.sleep(timedelta(**span).total_seconds())

    # ── forging ──────────────────────────────────────────────────────────────────────
    def forger(self, repository: str, **signers: Sequence[Signer]) -> Forger:
        """Over the files served now, with the *real* keys except where named."""
        roles = ("root", "targets", "snapshot", "timestamp")
        real = {role: self.vendor.signers(repository, role) for role in roles}
        files = self.vendor.repository(repository, DEVICE)
        return Forger(
            files,
            {**real, **signers},
            step=self._forged + 1,
            strange=frozenset(signers.keys() & real.keys()),
            plausible=self._plausible,
        )

    def serve(
        self,
        repository: str,
        files: Mapping[str, bytes | None],
        *,
        stolen: bool = False,
    ) -> Attacker:
        """Put these files in place of a repository's.

        ``stolen``: with stolen keys, so that a device may keep what was signed by them,
        and by whoever should: files that were spoiled or signed by others it may not.
        """
        if stolen:
            self.may_trust |= self._plausible.intersection(files.values())
            self._forged += 1  # what comes next has to be newer, or is discarded
        return overlay({f"{repository}/metadata/{n}": raw for n, raw in files.items()})

    def newly_trusted(self, repository: str) -> set[str]:
        """Roles whose served file the device has stored, byte for byte."""
        kept = set(self.device.records().values())
        files = self.vendor.repository(repository, DEVICE)
        roles = {name.split(".")[-2]: raw for name, raw in sorted(files.items())}
        return {role for role, raw in roles.items() if raw in kept}

    # ── acts ─────────────────────────────────────────────────────────────────────────
    def attempt(self, *attackers: Attacker) -> str:
        """One cycle of the device with these on its wire; how it ended."""
        return self.attempted(*attackers).outcome

    def settled(self) -> str:
        """How an honest cycle ends, if an earlier one may have done its work."""
        outcome = self.attempt()
        ordered = {it.artifact.sha256 for it in self.vendor.orders[DEVICE]}
        wanted = outcome == NO_NEWS and self.runs() in ordered
        self.waiting &= not wanted
        return INSTALLED if wanted else outcome

    def runs(self) -> bytes | None:
        """The digest of the release that runs, ``None`` if it never was released."""
        running = self.device.slot(self.device.running)
        for content in self.vendor.contents:
            if running.startswith(content):
                return hashlib.sha256(content).digest()
        return None

    def attempted(self, *attackers: Attacker) -> Lived:
        """The same, with everything there is to know."""
        before, told = observe(self.device), len(self.reports())
        with self.attacked(*attackers), fenced(self.directory) as fence:
            lived = self.device.cycle()
        self.faults += fence.outside
        if lived.installed:
            self.waiting = False
            self._require_honest()
        else:
            trusted = self.vendor.said | self.may_trust
            self.faults += broken(before, observe(self.device), trusted)
        if lived.started:
            self._require_told(lived, self.reports()[told:])
        return lived

    def _require_told(self, lived: Lived, reports: list[Manifest]) -> None:
        """What was refused stands in a report of the device, sent or waiting (M5)."""
        parts = [part for manifest in reports for part in manifest.reports]
        codes = {part.attack for part in parts}
        codes |= {result.code for part in parts for result in part.results}
        for error in lived.errors:
            if error.code not in codes:
                self.faults.append(f"{error.code} stands in no report")

    def _require_honest(self) -> None:
        if self.runs() is None:
            self.faults.append("what runs was never released")

    def killed_at_every_step(self, *attackers: Attacker) -> None:
        """Have the agent killed at its first, second, … change of the store, then live.

        Each time the power goes before the change, so the next life finds the last.
        """
        shipped = self.device.parts
        for step in range(1, MOST_STEPS):
            calls = Killing(step)
            self.device.parts = replace(shipped, calls=calls)
            try:
                with self.attacked(*attackers):
                    self.device.cycle()
            except Killed:
                continue
            finally:
                self.device.parts = shipped
            if not calls.killed:
                return
        self.faults.append("the store never comes to rest")

    @contextlib.contextmanager
    def attacked(self, *attackers: Attacker) -> Iterator[None]:
        """Put attackers on the wire for a while."""
        self.wire.attackers = attackers
        try:
            yield
        finally:
            self.wire.attackers = ()

    def honest_cycle(self) -> Lived:
        """One cycle with nobody on the wire."""
        return self.device.cycle()

    def recovers(self) -> None:
        """The next honest cycle has to install what waits; a fault if it does not."""
        if not self.waiting:
            self.publish("1.9", 9)
        for _ in range(self._forged and self._forged + 1):
            self.vendor.refresh(anew=True)  # pass the versions the thief has signed
        self.vendor.refresh()
        outcome = self.honest_cycle().outcome
        if outcome != INSTALLED:
            self.faults.append(f"the honest cycle after it ended with {outcome}")
