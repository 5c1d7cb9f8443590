"""A desk and a server beside a machine of the benches, and devices made for its disk.

All of them are the real programs; the guest reaches the server by the one address its
network has (``qemu.network``), for which the server's certificate holds.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

from sealift.sim.images import HARDWARE_ID, Image
from sealift.sim.processes import Processes, program, wait_for
from sealift.sim.stage import Desk, Packed, Server, send
from tests.bench import qemu

AGENT_TOML = """
[watchdog]
device = "/dev/watchdog"
seconds = 60

[[health]]
name = "bench"
command = ["/usr/libexec/health"]
deadline = 120
"""


class Station:
    """A vendor in one directory: keys, a server that runs, releases, devices."""

    def __init__(self, run: Processes, place: Path) -> None:
        self._run = run
        self._place = place
        self.server = Server(
            run, place / "server", "server", more_names=[qemu.GUEST_SERVER]
        )
        self.desk = Desk(run, place / "desk")
        self._counter = 0

    def set_up(self) -> None:
        """Keys, and a server that has them and listens."""
        self.server.init()
        self.desk.init(self.server.online_keys)
        self.server.start()
        self.desk.publish_keys(self.server)

    @property
    def port(self) -> int:
        """Where the server listens for devices, on this machine."""
        return self.server.device_port

    def release(self, image: Path, version: str, *more: str | Path) -> Packed:
        """Pack, sign by two people and publish an image with its ``.boot.json``."""
        self._counter += 1
        with image.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        facts = image.with_name(f"{image.name}.boot.json")
        made = Image(image, version, image.stat().st_size, digest)
        packed = self.desk.pack(made, self._counter, "--bootable", facts, *more)
        self.desk.sign(packed)
        self.desk.publish(packed, self.server)
        return packed

    def device(
        self,
        name: str,
        slots: tuple[str, str],
        boot: Mapping[str, str],
        factory: Packed | None = None,
    ) -> Path:
        """A tree for the data partition, the device's own files in ``agent``.

        ``boot`` are lines of the table ``[boot]``, values as TOML has them.
        """
        tree = self._place / name
        tree.mkdir(mode=0o755)
        url = f"https://{qemu.GUEST_SERVER}:{qemu.GUEST_PORT}"
        words = ("--hardware-id", HARDWARE_ID, "--device-url", url)
        places = ("--slot-a", slots[0], "--slot-b", slots[1], "--out", tree / "agent")
        known = () if factory is None else ("--factory", factory.directory)
        self._run.run(
            program("sealift"),
            *("device", "provision", name, *words, *places, *known),
            *("--desk", self.desk.directory, *self.server.access, "--json"),
        )
        config = tree / "agent/agent.toml"
        text = config.read_text("utf-8")
        lines = "".join(f"{key} = {value}\n" for key, value in boot.items())
        text = re.sub(r"(?s)\[boot\]\n.*?\n\n", f"[boot]\n{lines}\n", text)
        text = text.replace('"status.json"', '"/run/sealift/status.json"')
        config.write_text(text + AGENT_TOML, "utf-8")
        return tree

    def order(self, packed: Packed, device: str) -> str:
        """Order a release for a device; the deployment's id."""
        return send(self._run, self.server, packed.id, device)

    def ended(self, deployment: str, state: str, seconds: float = 120.0) -> None:
        """Wait until an operator sees the installation in that state."""
        wait_for(
            lambda: self.server.installations(deployment) == [state],
            f"installation {state}",
            seconds=seconds,
        )
