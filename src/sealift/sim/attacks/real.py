"""The real agent as a process, over real TLS, on a device of the attacks' making.

For rows about what surrounds a process: sockets, environment, signals, a second one.
Device and directory are those of ``simulated``; the loader's part of a restart is too.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography.hazmat.primitives.serialization import Encoding

from sealift.agent.clock import SystemClock
from sealift.core.manifest import verify_manifest
from sealift.server.adapters import ca
from sealift.sim import network
from sealift.sim.attacks.loopback import Loopback, Tls
from sealift.sim.attacks.outcome import broken, observe
from sealift.sim.attacks.simulated import RESTART, SimulatedDevice
from sealift.sim.attacks.world import DEVICE, INSTALLED
from sealift.sim.network import MemoryTransport, Wire, file_server
from sealift.sim.processes import stop, wait_for
from sealift.sim.vendor import Release, Vendor, make_release
from sealift.sim.world import SimClock

if TYPE_CHECKING:
    from datetime import datetime

    from sealift.core.reports import Manifest

__all__ = ["AGENT", "CLEAN", "SECONDS", "RealDevice", "real_device", "said", "tree"]

AGENT = (sys.executable, "-I", "-m", "sealift.agent")
"""As the service unit in ``docs/agent.md`` starts it."""
BOXES = "director/targets/*"
CLEAN: Mapping[str, str] = {"PATH": "/usr/bin:/bin"}
_STARTS = 4
SECONDS = 60.0
"""How long anything the agent does may take here."""
_CODE = re.compile(r"\[([a-z]+\.[a-z_]+)\]")


class RealDevice:
    """One device, one release installed at the factory, the next one ordered."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.vendor = Vendor(_now)
        self.delivered: list[Manifest] = []
        self.wire = Wire(file_server(lambda: self.vendor.served(DEVICE), self._take))
        stores = self.vendor.stores.items()
        self.device = SimulatedDevice(
            directory / DEVICE,
            DEVICE,
            {name: store.files["1.root.json"] for name, store in stores},
            make_release("1.0", 1),
            SimClock(_now()),
            MemoryTransport(self.wire, SimClock()),
        )
        self.next = self.publish("1.1", 2)
        self._running: list[subprocess.Popen[bytes]] = []

    def _take(self, body: bytes) -> bytes:
        self.delivered.append(verify_manifest(body, self.device.inventory()))
        return b'{"poll_seconds": 1}'

    def publish(self, version: str, counter: int) -> Release:
        """A release, listed and ordered."""
        made = self.vendor.release(make_release(version, counter))
        self.vendor.order(DEVICE, made.order(self.device.ecu_id))
        return made

    def connect(self, server: Loopback) -> None:
        """Tell the agent where its server is and whom to believe."""
        key = ca.new_key()
        mine = ca.make_authority(DEVICE, key, _now()).public_bytes(Encoding.PEM)
        files = {
            "ca.pem": server.files.authority.read_bytes(),
            "device.pem": mine,
            "tls.pem": ca.private_pem(key),
        }
        for name, raw in files.items():
            path = self.device.path(name)
            path.touch(mode=0o600)
            path.write_bytes(raw)
        text = self.config.read_text("utf-8")
        self.config.write_text(text.replace("https://updates.invalid", server.url))

    # ── what is there ────────────────────────────────────────────────────────────────
    @property
    def config(self) -> Path:
        """The agent's configuration."""
        return self.device.path("agent.toml")

    @property
    def log(self) -> str:
        """What agents that were started said so far."""
        path = self.directory / "log"
        return path.read_text("utf-8", "replace") if path.exists() else ""

    @property
    def runs_next(self) -> bool:
        """Whether the ordered release runs."""
        running = self.device.slot(self.device.running)
        return running.startswith(self.next.content)

    # ── acts ─────────────────────────────────────────────────────────────────────────
    def check(
        self, *, argv: Sequence[str] = AGENT, env: Mapping[str, str] = CLEAN
    ) -> str:
        """Power on, ``check``, through restarts; ``installed`` or what was said."""
        for _ in range(_STARTS):
            self.device.start()
            done = self.once("check", argv=argv, env=env)
            if done.returncode != RESTART:
                break
        if done.returncode == 0 and self.runs_next:
            return INSTALLED
        return said(done)

    def once(
        self, face: str, *, argv: Sequence[str] = AGENT, env: Mapping[str, str] = CLEAN
    ) -> subprocess.CompletedProcess[str]:
        """One command of the agent, to its end."""
        return subprocess.run(
            [*argv, face, "--config", str(self.config)],
            capture_output=True,
            text=True,
            check=False,
            timeout=SECONDS,
            env=dict(env),
            cwd=self.directory,
        )

    def start(
        self, *, argv: Sequence[str] = AGENT, env: Mapping[str, str] = CLEAN
    ) -> subprocess.Popen[bytes]:
        """Power on, and the long-lived agent."""
        self.device.start()
        with (self.directory / "log").open("ab") as log:
            process = subprocess.Popen(
                [*argv, "run", "--config", str(self.config)],
                stdout=log,
                stderr=log,
                env=dict(env),
                cwd=self.directory,
                start_new_session=True,
            )
        self._running.append(process)
        return process

    def while_it_runs(self, process: subprocess.Popen[bytes]) -> Iterator[int]:
        """Its pid and that of all below it, again and again, until it has ended."""
        until = time.monotonic() + SECONDS
        while process.poll() is None and time.monotonic() < until:
            yield from tree(process.pid)
            time.sleep(0.002)

    def wait(self, what: str) -> None:
        """Until a started agent has said this."""
        wait_for(lambda: what in self.log, f"{what!r} in the agent's log")

    def recovers(self) -> Iterator[str]:
        """A fault if the next release does not install, with nobody attacking."""
        self.next = self.publish("1.9", 9)
        outcome = self.check()
        if outcome != INSTALLED:
            yield f"the honest cycle after it ended with {outcome}"

    def close(self) -> None:
        """End whatever was started."""
        for process in self._running:
            stop(process)


@contextmanager
def real_device(directory: Path, faults: list[str]) -> Iterator[RealDevice]:
    """A connected device for one plan; then the intact set, then the honest cycle.

    A download takes a moment here, so that there is a time while it goes on.
    """
    directory.mkdir()
    made = RealDevice(directory)
    made.wire.attackers = (network.delay(BOXES, 0.5),)
    with contextlib.closing(made):
        server = Loopback(made.wire, directory / "server", _now(), Tls(), 1.0)
        with server:
            made.connect(server)
            made.device.start()
            before = observe(made.device)
            yield made
            made.close()
            if not made.runs_next:
                faults += broken(before, observe(made.device), made.vendor.said)
            made.wire.attackers = ()
            faults += made.recovers()
    if "Traceback" in made.log:
        faults.append("the agent showed a traceback")


def said(done: subprocess.CompletedProcess[str]) -> str:
    """The code an agent ended with."""
    found = _CODE.search(done.stderr)
    return found[1] if found else f"status {done.returncode}: {done.stderr[-300:]}"


def tree(pid: int) -> list[int]:
    """A process and everything below it, as far as it is there."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split()
    except OSError:
        return []
    return [pid, *(it for child in children for it in tree(int(child)))]


def _now() -> datetime:
    return SystemClock().now().replace(microsecond=0)
