"""A desk, a server and one device with any images, all of them the real programs.

What end-to-end tests and measurements stand on; the demo has its own set-up in
``stage`` and ``bench``, because it mounts what it installs. Health here is a text: an
image is healthy unless the check finds ``UNHEALTHY`` in its first 4 KiB.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sealift.agent.boot.file import open_store
from sealift.sim.images import HARDWARE_ID, Image
from sealift.sim.processes import Processes, program, wait_for
from sealift.sim.stage import Desk, Packed, Server, send

if TYPE_CHECKING:
    import subprocess

DEVICE = "dev-0001"
AGENT = (sys.executable, "-I", "-m", "sealift.agent")

_CHECK = (
    "slot=$(sed -n s/slot=//p {boot}/running); "
    "! head -c 4096 {directory}/slot-$slot.img | grep -q UNHEALTHY"
)
_PACK_SECONDS = 600.0


class Station:
    """One of each, in one directory. ``slot_bytes`` is the size of both slots."""

    def __init__(self, run: Processes, place: Path, slot_bytes: int) -> None:
        self.run = run
        self.place = place
        self.server = Server(run, place / "server", "server")
        self.desk = Desk(run, place / "desk")
        self.device = place / "device"
        self._slot_bytes = slot_bytes
        self._counter = 0

    def set_up(self, *, deltas: bool = False) -> None:
        """Keys, server, device: everything but a release; the server makes deltas?"""
        self.server.init(deltas=deltas)
        self.desk.init(self.server.online_keys)
        self.server.start()
        self.desk.publish_keys(self.server)
        self._provision()

    def _provision(self) -> None:
        url = f"https://localhost:{self.server.device_port}"
        words = ("--hardware-id", HARDWARE_ID, "--device-url", url)
        self.run.run(
            program("sealift"),
            *("device", "provision", DEVICE, *words, "--out", self.device),
            *("--desk", self.desk.directory, *self.server.access, "--json"),
        )
        boot = self.device / "boot"
        boot.mkdir(mode=0o700, exist_ok=True)
        for slot in "ab":
            with self.slot(slot).open("wb") as file:
                file.truncate(self._slot_bytes)
        check = _CHECK.format(boot=boot, directory=self.device)
        command = json.dumps(["/bin/sh", "-c", check])
        with self.config.open("a", encoding="utf-8") as config:
            config.write(f'\n[[health]]\nname = "text"\ncommand = {command}\n')

    # ── the vendor ───────────────────────────────────────────────────────────────
    def release(self, path: Path, version: str, *more: str | Path) -> Packed:
        """Pack, sign by two people and publish a file as the next release.

        ``more`` are further options of ``sealift release pack``.
        """
        self._counter += 1
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        image = Image(path, version, path.stat().st_size, digest)
        packed = self.desk.pack(image, self._counter, *more)
        self.desk.sign(packed)
        self.desk.publish(packed, self.server)
        return packed

    def order(self, packed: Packed) -> str:
        """Order it for the device; the deployment's id."""
        return send(self.run, self.server, packed.id, DEVICE)

    # ── the device ───────────────────────────────────────────────────────────────
    @property
    def config(self) -> Path:
        """The agent's configuration."""
        return self.device / "agent.toml"

    @property
    def log(self) -> str:
        """What board and agent said so far."""
        path = self.run.log("device")
        return path.read_text("utf-8", "replace") if path.exists() else ""

    def slot(self, name: str) -> Path:
        """The file that stands for a slot."""
        return self.device / f"slot-{name}.img"

    @property
    def confirmed(self) -> str:
        """The slot the loader starts when nothing is on trial."""
        return str(open_store(str(self.device / "boot")).read().default)

    def power_on(self) -> subprocess.Popen[bytes]:
        """Start the board with ``sealift-agent run`` on it."""
        board = ("--dir", self.device / "boot", "--watchdog", "60", "--revive")
        agent = (*AGENT, "run", "--config", self.config)
        return self.run.start(
            "device", sys.executable, "-m", "sealift.sim.board", *board, "--", *agent
        )

    def tell(self, what: str) -> Any:
        """What a command of the agent says with ``--json``."""
        words = (what, "--config", self.config, "--json")
        return self.run.run(*AGENT, *words, name=what).json()

    def agents(self) -> list[int]:
        """Process ids of the agent's parent and its child, if it has one."""
        return [int(p.name) for p in Path("/proc").iterdir() if self._is_agent(p)]

    def _is_agent(self, process: Path) -> bool:
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            return False
        ours = os.fsencode(self.config) in words and b"run" in words
        return ours and b"sealift.agent" in words and b"sealift.sim.board" not in words

    def wait(self, what: str, seconds: float = 60.0, times: int = 1) -> None:
        """Until the device's log says ``what`` so many times."""
        wait_for(lambda: self.log.count(what) >= times, what, seconds=seconds)
