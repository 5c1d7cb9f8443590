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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)

from sealift.agent import config, identity
from sealift.agent.boot.file import Started, choose, open_boot, open_store, running_text
from sealift.agent.install.ab import AbInstaller
from sealift.agent.journal import JOURNAL_BYTES, Floors, Journal
from sealift.agent.keyfile import FileKey
from sealift.agent.machine import Idle, Verdict
from sealift.agent.outbox import Outbox
from sealift.agent.payload import PayloadFill
from sealift.agent.ports import CheckResult
from sealift.agent.record import FileCells, Record
from sealift.agent.shell import AttemptResult, Component, Outside, Shell
from sealift.agent.slot import PathSlots, WorkFiles
from sealift.agent.storage import Store, claim
from sealift.agent.trust import Checked, Provision, Verifier
from sealift.core.errors import SealiftError
from sealift.core.types import Slot
from sealift.sim.vendor import HARDWARE

if TYPE_CHECKING:
    from sealift.agent.ports import Fill, Storage, Transport
    from sealift.agent.storage import Calls
    from sealift.core.types import Artifact, Instruction
    from sealift.sim.vendor import Release
    from sealift.sim.world import SimClock

__all__ = ["Cycle", "Parts", "SimulatedDevice"]

SLOT_BYTES = 1 << 18
MOST_BOOTS = 8
RESTART = 75


@dataclass(frozen=True, slots=True)
class Parts:
    """Parts of the agent a test may want otherwise; the defaults are the shipped ones."""

    verifier: type[Verifier] = Verifier
    fill: Callable[..., Fill] = PayloadFill
    calls: Calls = os
    """System calls of the store: where a process can be killed."""


@dataclass(slots=True)
class Cycle:
    """What one life of the agent came to.

    ``checked`` is what the verifier said last, ``errors`` everything that hindered, in
    order, ``results`` the attempts that ended.
    """

    checked: Checked | None = None
    errors: list[SealiftError] = field(default_factory=list)
    results: list[AttemptResult] = field(default_factory=list)

    @property
    def installed(self) -> bool:
        """An attempt succeeded, whatever else happened."""
        return any(it.verdict is Verdict.SUCCEEDED for it in self.results)

    def remarked(self, text: str) -> bool:
        """The verifier remarked on something."""
        remarks = self.checked.remarks if self.checked else ()
        return any(text in remark for remark in remarks)

    @property
    def outcome(self) -> str:
        """One word: the first error's code, ``installed``, or ``no news``."""
        if self.errors:
            return self.errors[0].code
        for result in self.results:
            if result.verdict is not Verdict.SUCCEEDED:
                return result.code or str(result.verdict)
        return "installed" if self.results else "no news"


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
        parts: Parts = Parts(),
    ) -> None:
        self.directory = directory
        self.device_id = device_id
        self.ecu_id = f"{device_id}-main"
        self.transport = transport
        self.parts = parts
        self.clock = clock
        self.built = clock.now()
        self.factory: Artifact = factory.artifact
        self.health: Sequence[CheckResult] = (CheckResult("self-test", ok=True),)
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
        self._write("agent.toml", self._settings().encode())
        self.start()

    def _settings(self) -> str:
        return f"""
[device]
id = "{self.device_id}"
report_key = "report.pem"
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

    def records(self) -> dict[str, bytes]:
        """Everything in the agent's store."""
        directory = claim(str(self.path("state")))
        try:
            store = Store(directory)
            return {name: store.read(name) or b"" for name in store.names()}
        finally:
            os.close(directory)

    def floor(self) -> int:
        """The counter floor of the component."""
        return self._floors().floor(self.ecu_id)

    # ── a boot, a life of the agent ──────────────────────────────────────────────────
    def start(self) -> Slot:
        """The loader's part of a power-on."""
        store = open_store(str(self.path("boot")))
        before = store.read()
        slot, after = choose(before)
        if after != before:
            store.write(after)
        self.clock.reboot()
        text = running_text(Started(slot, self.clock.boot_id()))
        self._write("boot/running", text)
        return slot

    def cycle(self) -> Cycle:
        """Power on, poll once, do what is ordered, through restarts, until it waits."""
        cycle = Cycle()
        for _ in range(MOST_BOOTS):
            self.start()
            try:
                self._live(cycle)
            except SystemExit as request:
                if request.code != RESTART:
                    raise
            else:
                return cycle
        raise AssertionError("the device restarts without end")

    def _live(self, cycle: Cycle) -> None:
        """One process of the agent: nothing of it outlives this call but files."""
        try:
            anchors = identity.anchors(config.load(str(self.path("agent.toml"))))
            directory = claim(str(self.path("state")))
        except SealiftError as error:
            cycle.errors.append(error)
            return
        try:
            self._agent(cycle, Store(directory, self.parts.calls), anchors).once()
        finally:
            os.close(directory)

    def _agent(
        self, cycle: Cycle, storage: Storage, anchors: identity.Anchors
    ) -> Shell:
        verifier = self.parts.verifier(
            self.transport,
            storage,
            self.clock,
            Provision(
                self.device_id,
                {self.ecu_id: HARDWARE},
                {"director": anchors.director, "image": anchors.image},
                self.built,
            ),
        )
        floors = self._floors()
        boot = open_boot(str(self.path("boot")))
        part = Component(
            self.ecu_id,
            AbInstaller(boot, self._slots(), boot.boot_id),
            self._fill,
            _restart,
            self,
            self.factory,
        )
        journal = Journal(Record(self._cells("journal"), limit=JOURNAL_BYTES))

        def poll() -> Sequence[Instruction]:
            found = shell.installed[self.ecu_id]
            settled = {self.ecu_id: [found.sha256] if found else []}
            floor = {self.ecu_id: floors.floor(self.ecu_id)}
            cycle.checked = verifier.check(floor, settled)
            return cycle.checked.instructions

        outside = Outside(
            poll=poll,
            report=cycle.results.append,
            notice=lambda _ecu, error: cycle.errors.append(error),
        )
        shell = Shell([part], journal, floors, self.clock, outside)
        return shell

    def check(self, order: Instruction) -> Sequence[CheckResult]:
        """The health of what runs."""
        del order
        return self.health

    def _fill(self, order: Instruction) -> Fill:
        work = WorkFiles(str(self.path("state")))
        return self.parts.fill(order, self.transport, work, decoders=1)

    def _slots(self) -> PathSlots:
        return PathSlots({slot: str(self.path(f"slots/{slot}")) for slot in Slot})

    def _cells(self, name: str) -> FileCells:
        return FileCells(str(self.path("state")), name)

    def _floors(self) -> Floors:
        return Floors(Record(self._cells("floor"), limit=JOURNAL_BYTES))


def _restart() -> None:
    raise SystemExit(RESTART)
