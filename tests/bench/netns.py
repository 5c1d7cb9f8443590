"""A fleet in network namespaces: each device has a cable of its own, which can be cut.

    python -m tests.bench.netns DIR --devices 12

Runs itself again in fresh user, mount and network namespaces, so it needs no root and
touches nothing outside. A bridge joins one cable per device to the server; desk, server
and agents are the real programs. While images travel, a third of the cables is pulled,
and plugged in again. Prints one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

from sealift.agent.boot.file import open_store
from sealift.sim.images import HARDWARE_ID, Image
from sealift.sim.processes import Processes, program, wait_for
from sealift.sim.stage import Desk, Server
from tests.bench import toolbox

ADDRESS = "10.77.0.1"
IMAGE_BYTES = 6 << 20
RATE = 1 << 20  # bytes/s: an image takes long enough for a cable to be cut under it
CUT_SECONDS = 4.0
AGENT = (sys.executable, "-I", "-m", "sealift.agent")

_INSIDE = "SEALIFT_BENCH_INSIDE"


class Fleet:
    """A desk, a server, and devices behind cables."""

    def __init__(self, run: Processes, place: Path, devices: int) -> None:
        self.run = run
        self.place = place
        self.names = [f"dev-{number:04}" for number in range(1, devices + 1)]
        more = (ADDRESS,)
        server = place / "server"
        self.server = Server(run, server, "server", listens=ADDRESS, more_names=more)
        self.desk = Desk(run, place / "desk")
        self._ip = toolbox.program("ip", toolbox.NETWORK)

    def lay_cables(self) -> None:
        """A bridge with the server's address, a namespace and a cable per device."""
        self._link("set", "lo", "up")
        self._link("add", "bridge", "type", "bridge")
        self._link("set", "bridge", "up")
        self._net("addr", "add", f"{ADDRESS}/16", "dev", "bridge")
        for number, name in enumerate(self.names, start=1):
            self._net("netns", "add", name)
            ends = (f"cable{number}", "type", "veth", "peer", "name", "eth0")
            self._link("add", *ends, "netns", name)
            self._link("set", f"cable{number}", "master", "bridge", "up")
            address = f"10.77.{1 + number // 250}.{number % 250}/16"
            self._net("-n", name, "addr", "add", address, "dev", "eth0")
            self._net("-n", name, "link", "set", "eth0", "up")

    def plug(self, name: str, *, into: bool) -> None:
        """Pull a device's cable, or plug it in."""
        number = self.names.index(name) + 1
        self._link("set", f"cable{number}", "up" if into else "down")

    def set_up(self) -> None:
        """Keys, server, and a directory for each device."""
        self.server.init()
        self.desk.init(self.server.online_keys)
        self.server.start()
        self.desk.publish_keys(self.server)
        for name in self.names:
            self._provision(name)

    def _provision(self, name: str) -> None:
        url = f"https://{ADDRESS}:{self.server.device_port}"
        home = self.place / name
        words = ("--hardware-id", HARDWARE_ID, "--device-url", url, "--out", home)
        access = ("--desk", self.desk.directory, *self.server.access, "--json")
        self.run.run(program("sealift"), "device", "provision", name, *words, *access)
        (home / "boot").mkdir(mode=0o700, exist_ok=True)
        for slot in "ab":
            with (home / f"slot-{slot}.img").open("wb") as file:
                file.truncate(IMAGE_BYTES)
        config = home / "agent.toml"
        text = config.read_text("utf-8")
        with config.open("a", encoding="utf-8") as file:
            file.write(
                "" if "[transfer]" in text else f"\n[transfer]\nrate_max = {RATE}\n"
            )
            file.write('\n[[health]]\nname = "up"\ncommand = ["/bin/true"]\n')

    def release(self) -> str:
        """One release of noise, signed and published; its id."""
        path = self.place / "image"
        path.write_bytes(random.Random(1).randbytes(IMAGE_BYTES))
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        packed = self.desk.pack(Image(path, "1.0.0", IMAGE_BYTES, digest), 1)
        self.desk.sign(packed)
        self.desk.publish(packed, self.server)
        return packed.id

    def order(self, release: str) -> str:
        """For all of them; the deployment's id."""
        words = ("deployment", "create", "--release", release, "--all", "--json")
        made = self.run.run(program("sealift"), *words, *self.server.access).json()
        return str(made["deployment"]["id"])

    def power_on(self, name: str) -> None:
        """The board of one device, in its namespace."""
        home = self.place / name
        inside = (self._ip, "netns", "exec", name)
        board = (sys.executable, "-m", "sealift.sim.board", "--dir", home / "boot")
        more = ("--watchdog", "60", "--revive", "--", *AGENT, "run")
        words = (*inside, *board, *more, "--config", home / "agent.toml")
        self.run.start(name, *words)

    def says(self, name: str, what: str) -> bool:
        """Whether a device's log says something."""
        log = self.run.log(name)
        return log.exists() and what in log.read_text("utf-8", "replace")

    def held(self, name: str) -> bool:
        """Whether the confirmed slot of a device holds the image, byte for byte."""
        home = self.place / name
        slot = open_store(str(home / "boot")).read().default
        image = (self.place / "image").read_bytes()
        return (home / f"slot-{slot}.img").read_bytes() == image

    def _link(self, *words: str) -> None:
        self._net("link", *words)

    def _net(self, *words: str) -> None:
        subprocess.run([self._ip, *words], check=True, timeout=30)


def play(place: Path, devices: int) -> dict[str, object]:
    """The whole story; what was seen."""
    with Processes(place / "logs") as run:
        fleet = Fleet(run, place, devices)
        began = time.monotonic()
        fleet.lay_cables()
        cables = time.monotonic() - began
        fleet.set_up()
        deployment = fleet.order(fleet.release())
        for name in fleet.names:
            fleet.power_on(name)
        cut = fleet.names[::3]
        for name in cut:
            wait_for(partial(fleet.says, name, "state=staging"), f"{name} staging")
        time.sleep(1.0)
        for name in cut:
            fleet.plug(name, into=False)
        time.sleep(CUT_SECONDS)
        halfway = fleet.server.installations(deployment)
        for name in cut:
            fleet.plug(name, into=True)
        wait_for(
            lambda: set(fleet.server.installations(deployment)) == {"succeeded"},
            "every installation to succeed",
            seconds=240,
        )
        return {
            "devices": devices,
            "cut": len(cut),
            "seconds_to_lay_cables": round(cables, 2),
            "states_while_cut": sorted(set(halfway)),
            "states": fleet.server.installations(deployment),
            "held": [fleet.held(name) for name in fleet.names],
        }


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.netns")
    parser.add_argument("directory", type=Path)
    parser.add_argument("--devices", type=int, default=12)
    asked = parser.parse_args()
    if _INSIDE not in os.environ:
        # Fetched out here: in there is no way to the network any more.
        toolbox.program("ip", toolbox.NETWORK)
        apart = ("unshare", "--user", "--map-root-user", "--net", "--mount")
        again = (*apart, sys.executable, "-m", "tests.bench.netns", *sys.argv[1:])
        os.execvpe("unshare", again, {**os.environ, _INSIDE: "1"})
    # `ip netns` keeps its names below /run, which belongs to somebody else.
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
    place = asked.directory.absolute()
    place.mkdir(parents=True, exist_ok=True)
    print(json.dumps(play(place, asked.devices)))


if __name__ == "__main__":
    main()
