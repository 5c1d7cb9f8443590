"""A device under attack: the shipped agent over real files in a directory of its own.

Verifier, payload, shell, machine, installer, boot control, store, outbox and key are
those of the product, composed as ``sealift-agent`` composes them; the network is in
memory, the clock injected, and the loader one pure function of the reference board.

```
DIR/agent.toml  DIR/report.pem  DIR/anchors/{director,image}.json  DIR/state/
DIR/boot/{boot.*,home.*,running}  DIR/slots/{a,b}
```
A :meth:`SimulatedDevice.cycle` starts the agent anew, as after a restart: whatever
lives in memory only is gone each time.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from sealift.agent import assembly, config, history, log, wiring
from sealift.agent.assembly import Around
from sealift.agent.boot.file import Started, choose, open_boot, open_store, running_text
from sealift.agent.cycle import Cycle
from sealift.agent.keyfile import FileKey, decryption_key
from sealift.agent.payload import PayloadFill
from sealift.agent.ports import Progress
from sealift.agent.slot import WorkFiles
from sealift.agent.storage import Store, claim
from sealift.agent.unsealing import unseal
from sealift.core.errors import SealiftError
from sealift.core.hpke import Recipient
from sealift.core.keys import PublicKey
from sealift.core.manifest import Inventory, Unit
from sealift.core.types import Slot
from sealift.sim.vendor import HARDWARE

if TYPE_CHECKING:
    from sealift.agent.config import Config
    from sealift.agent.ports import Counter, Fill, Health, Transport
    from sealift.agent.storage import Calls
    from sealift.agent.trust import Provision
    from sealift.core.types import Artifact, Instruction
    from sealift.sim.vendor import Release
    from sealift.sim.world import SimClock

__all__ = ["SHIPPED", "Lived", "Parts", "SimulatedDevice"]

SLOT_BYTES = 1 << 18
MOST_BOOTS = 8
RESTART = 75


@dataclass(frozen=True, slots=True)
class Parts:
    """Parts of the agent a test may want otherwise; by default the shipped ones."""

    fill: Callable[..., Fill] = PayloadFill
    """Called with order, transport, workspace, and by name as ``PayloadFill`` is."""
    calls: Calls = os
    """System calls of the store: where a process can be killed."""


SHIPPED = Parts()


@dataclass(slots=True)
class Lived:
    """What the device went through in one power-on, restarts included.

    ``errors`` are what ended each life of the agent, if anything did; ``attempts`` the
    entries of its history that are new; ``lines`` its log.
    """

    started: bool = False
    errors: list[SealiftError] = field(default_factory=list)
    attempts: list[dict[str, object]] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    @property
    def installed(self) -> bool:
        """An attempt succeeded, whatever else happened."""
        return any(it["verdict"] == "succeeded" for it in self.attempts)

    @property
    def outcome(self) -> str:
        """One word: the first error's code, ``installed``, or ``no news``."""
        if self.errors:
            return self.errors[0].code
        for attempt in self.attempts:
            if attempt["verdict"] != "succeeded":
                return str(attempt["code"] or attempt["verdict"])
        return "installed" if self.attempts else "no news"


class SimulatedDevice:
    """One device with one component, provisioned in ``directory``."""

    def __init__(
        self,
        directory: Path,
        device_id: str,
        anchors: Mapping[str, bytes],
        factory: Release,
        clock: SimClock,
        transport: Transport,
        parts: Parts = SHIPPED,
    ) -> None:
        self.directory = directory
        self.device_id = device_id
        self.ecu_id = f"{device_id}-main"
        self.transport = transport
        self.parts = parts
        self.clock = clock
        self.built = clock.now()
        self.counter: Counter | None = None
        """A hardware counter, where the board has one."""
        self.health: Health | None = None
        """Other health checks than none, which pass."""
        self.heard: Callable[[str], None] = lambda _line: None
        """Who else hears each line of the log as it is written, and may act then."""
        self.boots: Callable[[Slot], bool] = lambda _slot: True
        """Whether what lies in a slot gets as far as the agent once it is started."""
        self._chance = random.Random(device_id)
        self._provision(anchors, factory)

    # ── made once ────────────────────────────────────────────────────────────────────
    def _provision(self, anchors: Mapping[str, bytes], factory: Release) -> None:
        for name in ("anchors", "boot", "slots"):
            self.path(name).mkdir(parents=True, mode=0o700)
        for name, raw in anchors.items():
            self.anchor(name).write_bytes(raw)
            self.anchor(name).chmod(0o444)
        self._write("slots/a", factory.content.ljust(SLOT_BYTES, b"\xff"))
        self._write("slots/b", bytes(SLOT_BYTES))
        secret = hashlib.sha256(f"report/{self.device_id}".encode()).digest()
        private = Ed25519PrivateKey.from_private_bytes(secret)
        pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        self._write("report.pem", pem)
        self._write("decrypt.pem", self._decryption_key())
        self._write("agent.toml", self._settings().encode())
        self.start()

    def _decryption_key(self) -> bytes:
        secret = hashlib.sha256(f"decrypt/{self.device_id}".encode()).digest()
        private = X25519PrivateKey.from_private_bytes(secret)
        return private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())

    @property
    def recipient(self) -> Recipient:
        """Whom content keys are wrapped to."""
        key = decryption_key(str(self.path("decrypt.pem")))
        return Recipient(key.kem, key.public)

    def _settings(self) -> str:
        return f"""
[device]
id = "{self.device_id}"
report_key = "report.pem"
decryption_key = "decrypt.pem"
[server]
url = "https://updates.invalid"
ca = "ca.pem"
certificate = "device.pem"
key = "tls.pem"
[trust]
image_root = "anchors/image.json"
director_root = "anchors/director.json"
[state]
directory = "state"
runtime = "runtime.json"
[boot]
store = "boot"
[watchdog]
settled = "settled"
[[component]]
ecu_id = "{self.ecu_id}"
hardware_id = "{HARDWARE}"
slots = {{ a = "slots/a", b = "slots/b" }}
"""

    def _write(self, name: str, raw: bytes) -> None:
        path = self.path(name)
        path.touch(mode=0o600)
        path.write_bytes(raw)

    # ── places ───────────────────────────────────────────────────────────────────────
    def path(self, name: str) -> Path:
        """A path inside the device's directory."""
        return self.directory / name

    def anchor(self, repository: str) -> Path:
        """The file of a trust anchor."""
        return self.path(f"anchors/{repository}.json")

    @property
    def running(self) -> Slot:
        """The slot that runs."""
        return open_boot(str(self.path("boot"))).current()

    def slot(self, slot: Slot) -> bytes:
        """What lies in a slot."""
        return self.path(f"slots/{slot}").read_bytes()

    def seal_state(self) -> None:
        """Begin anew with a state that is sealed with a key, here one in a file."""
        shutil.rmtree(self.path("state"), ignore_errors=True)
        self._write("store.key", hashlib.sha256(b"store").hexdigest().encode())
        text = self.path("agent.toml").read_text()
        keyed = text.replace("[state]\n", '[state]\nkey = "store.key"\n')
        self._write("agent.toml", keyed.encode())

    def records(self) -> dict[str, bytes]:
        """Everything in the agent's store."""
        directory = claim(str(self.path("state")))
        try:
            store = Store(directory, seal=wiring.seal(self.config()))
            return {name: store.read(name) or b"" for name in store.names()}
        finally:
            os.close(directory)

    def floor(self) -> int:
        """The counter floor of the component."""
        found = self.config()
        floors = wiring.floors(found, wiring.seal(found), self._hardware)
        return floors.floor(self.ecu_id)

    @property
    def _hardware(self) -> dict[str, Counter]:
        return {self.ecu_id: self.counter} if self.counter else {}

    def config(self) -> Config:
        """The configuration, read anew."""
        return config.load(str(self.path("agent.toml")))

    def waiting(self) -> list[bytes]:
        """Reports that were not delivered yet, oldest first."""
        found = self.records()
        return [found[name] for name in sorted(found) if name.startswith("report.")]

    def inventory(self) -> Inventory:
        """This device as its server knows it."""
        public = PublicKey.from_json(FileKey(str(self.path("report.pem"))).public())
        units = {self.ecu_id: Unit(HARDWARE, public)}
        return Inventory(self.device_id, self.ecu_id, units)

    # ── a boot, a life of the agent ──────────────────────────────────────────────────
    def start(self) -> Slot:
        """Power on, again and again, until a slot gets as far as the agent."""
        for _ in range(MOST_BOOTS):
            if self.boots(slot := self.load()):
                return slot
        raise AssertionError("no slot boots")

    def load(self) -> Slot:
        """The loader's part of one power-on; what lay on a tmpfs is gone."""
        self.path("settled").unlink(missing_ok=True)
        store = open_store(str(self.path("boot")))
        before = store.read()
        slot, after = choose(before)
        if after != before:
            store.write(after)
        self.clock.reboot()
        text = running_text(Started(slot, self.clock.boot_id()))
        self._write("boot/running", text)
        return slot

    def cycle(self) -> Lived:
        """Power on, poll once, do what is ordered, through restarts, until it rests."""
        lived = Lived()

        def hear(line: str) -> None:
            lived.lines.append(line)
            self.heard(line)

        with log.diverted(hear):
            for _ in range(MOST_BOOTS):
                self.start()
                try:
                    self._live(lived)
                except SystemExit as request:
                    if request.code != RESTART:
                        raise
                else:
                    return lived
        raise AssertionError("the device restarts without end")

    def _live(self, lived: Lived) -> None:
        """One process of the agent: nothing of it outlives this call but files."""
        try:
            settings = self.config()
            provision = wiring.provision(settings)
            directory = claim(settings.state)
        except SealiftError as error:
            lived.errors.append(error)
            return
        try:
            storage = Store(directory, self.parts.calls, wiring.seal(settings))
            self._run(lived, settings, provision, storage)
        except SealiftError as error:
            lived.errors.append(error)
        finally:
            os.close(directory)

    def _run(
        self, lived: Lived, settings: Config, provision: Provision, storage: Store
    ) -> None:
        known = {entry.get("id") for entry in history.read(storage)}
        cycle = self._agent(settings, provision, storage)
        try:
            cycle.run()
            lived.started = True
        except SealiftError as error:
            lived.errors.append(error)
        finally:
            lived.errors += [cycle.error] if cycle.error else []
            ended = [it for it in history.read(storage) if it["kind"] == "install"]
            lived.attempts += [it for it in ended if it["id"] not in known]

    def _agent(self, settings: Config, provision: Provision, storage: Store) -> Cycle:
        """What ``sealift-agent`` runs, with our clock, network, chance and parts."""
        way, work, fill = self.transport, WorkFiles(settings.state), self.parts.fill
        chance = self._chance.randbytes
        around = Around(
            way, self.clock, lambda: None, chance, Progress(), self._hardware
        )
        provision = replace(provision, build_time=self.built)
        shipped = assembly.parts(settings, provision, storage, around)

        def content_key(order: Instruction) -> bytes:
            key = decryption_key(settings.decryption_key)
            return unseal(order, settings.device_id, key)

        def filled(order: Instruction, base: Artifact | None) -> Fill:
            return fill(order, way, work, base_image=base, content_key=content_key)

        part = replace(shipped.component, fill=filled)
        if self.health is not None:
            part = replace(part, health=self.health)
        return Cycle(replace(shipped, component=part))
