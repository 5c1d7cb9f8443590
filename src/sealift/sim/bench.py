"""The device of the demo: the reference board, two slots in files, the real agent.

It is set up as ``docs/integrating.md`` says, runs ``sealift-agent`` on the board of
``board``, with ``mount`` in between, and is looked at through the agent's own commands.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sealift.core.errors import OutcomeError
from sealift.sim.images import HARDWARE_ID, Image
from sealift.sim.processes import Processes, program, stop, wait_for
from sealift.sim.stage import Server, require

__all__ = ["DEVICE", "Bench", "Seen"]

DEVICE = "dev-0001"

_HEALTH = """
[[health]]
name = "tide-gauge"
command = ["{root}/bin/busybox", "sh", "{root}/opt/tidegauge/healthcheck", "{root}"]
deadline = 60
"""
_WATCHDOG_SECONDS = 90
_STARTS = 200
_BLOCK = 4096

Entry = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Seen:
    """What the device says of itself: running slot, state, the image it confirmed."""

    slot: str
    state: str
    release: str | None
    version: str
    """What the mounted file system says it is."""
    pid: int | None

    @property
    def shown(self) -> str:
        """In words."""
        return f"slot {self.slot} runs {self.version}"


class Bench:
    """One device in a directory, powered on and off."""

    def __init__(self, run: Processes, directory: Path, tools: Path) -> None:
        self.directory = directory
        self._run = run
        self._tools = tools
        self._board: subprocess.Popen[bytes] | None = None

    # ── made ─────────────────────────────────────────────────────────────────────
    def provision(self, server: Server, desk: Path, port: int, factory: Path) -> None:
        """Register the device, made with a release; its keys are made and stay here."""
        words = {
            "--hardware-id": HARDWARE_ID,
            "--desk": str(desk),
            "--factory": str(factory),
            "--device-url": f"https://localhost:{port}",
            "--out": str(self.directory),
        }
        options = [word for option in words.items() for word in option]
        provision = ("device", "provision", DEVICE, *options)
        self._run.run(program("sealift"), *provision, *server.access, "--json")
        with self._config.open("a", encoding="utf-8") as config:
            config.write(_HEALTH.format(root=self._root))

    def install_at_the_factory(self, image: Image) -> None:
        """What the factory does: the first image in slot a, an empty slot b."""
        shutil.copyfile(image.path, self.slot("a"))
        self._erase("b", image.length)
        (self.directory / "boot").mkdir(mode=0o700)

    def erase_other_slot(self) -> None:
        """Empty the slot that does not run; else what fits there is not fetched."""
        other = "b" if self.look().slot == "a" else "a"
        self._erase(other, self.slot(other).stat().st_size)

    def write_into_running_slot(self, blocks: int) -> None:
        """Change so many blocks of 4 KiB, as whoever mounts it writable does.

        What runs was mounted before, and goes on. Blocks of zeros are left alone: no
        delta would read them.
        """
        path = self.slot(self.look().slot)
        content = path.read_bytes()
        zeros = bytes(_BLOCK)
        places = range(0, len(content), _BLOCK)
        used = [at for at in places if content[at : at + _BLOCK] != zeros]
        require(len(used) > 2 * blocks, f"only {len(used)} blocks hold anything")
        with path.open("r+b") as file:
            for at in used[len(used) // 2 :][:blocks]:
                file.seek(at)
                file.write(b"written by a mount ".ljust(_BLOCK, b"."))

    # ── power ────────────────────────────────────────────────────────────────────
    def power_on(self) -> None:
        """Start the board and wait until its agent runs."""
        mount = (
            *("--store", self.directory / "boot", "--root", self._root),
            *("--slot-a", self.slot("a"), "--slot-b", self.slot("b")),
            *("--tools", self._tools),
        )
        board = (
            *("--dir", self.directory / "boot", "--watchdog", str(_WATCHDOG_SECONDS)),
            *("--starts", str(_STARTS), "--revive"),
        )
        agent = (program("sealift-agent"), "run", "--config", self._config)
        self._board = self._run.start(
            "device",
            *(sys.executable, "-m", "sealift.sim.board", *board, "--"),
            *(sys.executable, "-m", "sealift.sim.mount", *mount, "--", *agent),
        )
        wait_for(lambda: self._agent() is not None, "the agent's start")

    def power_off(self) -> None:
        """End the board, and with it the agent."""
        if self._board is not None:
            stop(self._board)
            self._board = None

    def kill(self) -> int:
        """SIGKILL the agent, whatever it does now; the process that was killed."""
        pid = self._agent()
        require(pid, "no agent runs that could be killed")
        os.kill(int(pid or 0), signal.SIGKILL)
        return int(pid or 0)

    def poll(self) -> None:
        """Ask the running agent to check now."""
        if pid := self._agent():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGUSR1)

    # ── looked at ────────────────────────────────────────────────────────────────
    def slot(self, name: str) -> Path:
        """The file that stands for a slot."""
        return self.directory / f"slot-{name}.img"

    def look(self) -> Seen:
        """What ``sealift-agent status`` says, beside what is mounted."""
        found = self._tell("status")
        part = found["components"][0]
        installed = part["installed"]
        return Seen(
            slot=part["running"],
            state=part["state"],
            release=None if installed is None else installed["release"],
            version=self._mounted_version(),
            pid=(found["agent"] or {}).get("pid"),
        )

    def is_at_rest(self) -> bool:
        """Whether nothing is under way on the device."""
        found = self._tell("status")
        return found["agent"] is not None and found["components"][0]["state"] == "idle"

    def history(self) -> list[Entry]:
        """What ``sealift-agent history`` says, oldest first."""
        found: list[Entry] = self._tell("history")
        return found

    def require_unharmed(self, image: Image) -> str:
        """The device runs ``image``: confirmed, byte for byte, and the app answers.

        Raises:
            OutcomeError: it does not.
        """
        seen = self.look()
        require(seen.version == image.version, f"{seen.shown}, not {image.version}")
        require(
            self.digest(seen.slot) == image.sha256,
            f"slot {seen.slot} does not hold {image.path.name} any more",
        )
        return f"{seen.shown}, its bytes are those signed, {self.ask_app()}"

    def require_known(self, version: str) -> None:
        """The device knows that it was made with this release.

        Raises:
            FailedTransferError: it does not in time.
        """
        wait_for(lambda: self.look().release == version, f"knowing of {version}")

    def digest(self, slot: str) -> str:
        """SHA-256 of a slot, lower hex."""
        with self.slot(slot).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    def ask_app(self) -> str:
        """Run the health check of what is mounted, with its own busybox."""
        check = self._root / "opt/tidegauge/healthcheck"
        busybox = self._root / "bin/busybox"
        return self._run.run(busybox, "sh", check, self._root).stdout.strip()

    @property
    def _root(self) -> Path:
        return self.directory / "root"

    @property
    def _config(self) -> Path:
        return self.directory / "agent.toml"

    def _erase(self, slot: str, length: int) -> None:
        with self.slot(slot).open("wb") as empty:
            empty.truncate(length)

    def _mounted_version(self) -> str:
        text = (self._root / "etc/sealift-release").read_text("utf-8")
        facts = dict(line.split("=", 1) for line in text.splitlines())
        return facts.get("VERSION", "unknown")

    def _agent(self) -> int | None:
        try:
            agent = self._tell("status")["agent"]
        except OutcomeError:
            return None
        return None if agent is None else int(agent["pid"])

    def _tell(self, what: str) -> Any:
        words = (what, "--config", self._config, "--json")
        return self._run.run(program("sealift-agent"), *words, name="status").json()
