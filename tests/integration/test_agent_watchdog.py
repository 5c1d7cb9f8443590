"""The real agent under a service manager and over a watchdog device.

The manager is a socket of ours that keeps systemd's side of the protocol: it reads
datagrams, knows whom they come from, and counts the time since the last word. The
device is a file; whoever watches it resets the board when it does not grow any more.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import pytest

from sealift.agent.boot.file import Started, choose, open_store, running_text
from sealift.core.types import Slot
from tests.integration.agent_world import (
    AGENT,
    ECU,
    Device,
    World,
    private,
    wait_for,
    world,
)

IDLE = f"state component={ECU} state=idle"
QUICK = (
    "import sys; from sealift.agent import life, watchdog; "
    "life.SILENCE_SECONDS = 1.0; watchdog._FEEDINGS = 120; "
    "watchdog.GRACE_SECONDS = 1.0; "
    "from sealift.agent.__main__ import main; sys.exit(main())"
)
"""The agent, with watchdogs that are as impatient as a test."""


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as found:
        yield found


def add(device: Device, section: str) -> None:
    """One more section in the configuration."""
    private(device.config, device.config.read_bytes() + section.encode())


# ── a service manager ────────────────────────────────────────────────────────────────
@dataclass
class Manager:
    """What systemd does for ``Type=notify`` and ``WatchdogSec=``, in a thread."""

    place: Path
    heard: list[tuple[float, int, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.address = str(self.place / "notify")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        self._socket.bind(self.address)
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        room = socket.CMSG_SPACE(struct.calcsize("3i"))
        while True:
            data, [(_, _, facts)], _, _ = self._socket.recvmsg(4096, room)
            pid = struct.unpack("3i", facts)[0]
            for line in data.decode().split("\n"):
                self.heard.append((time.monotonic(), pid, line))

    def lines(self, name: str) -> list[str]:
        """What was said of one name, oldest first."""
        return [line for _, _, line in self.heard if line.startswith(f"{name}=")]

    def environment(self, watchdog: float, pid: str = "") -> dict[str, str]:
        """What a service is started with. Its pid is known to a shell only."""
        found = {"NOTIFY_SOCKET": self.address}
        found["WATCHDOG_USEC"] = str(int(watchdog * 1e6))
        return found | ({"WATCHDOG_PID": pid} if pid else {})


@pytest.fixture
def manager(tmp_path: Path) -> Manager:
    return Manager(tmp_path)


def start(
    device: Device, environment: Mapping[str, str], *program: str
) -> subprocess.Popen[str]:
    """``run`` as the service's main process, its own pid in ``WATCHDOG_PID``."""
    shell = ["/bin/sh", "-c", 'WATCHDOG_PID=$$ exec "$@"', "sh"]
    words = [*shell, *(program or AGENT), "run", "--config", str(device.config)]
    load(device)
    return spawn(device, words, environment)


def load(device: Device) -> None:
    """The loader's part, where no board is around the agent."""
    store = open_store(str(device.boot))
    slot, after = choose(store.read())
    store.write(after)
    started = Started(slot, os.urandom(8).hex())
    (device.boot / "running").write_bytes(running_text(started))


def spawn(
    device: Device, words: Sequence[str], environment: Mapping[str, str]
) -> subprocess.Popen[str]:
    """A program that is stopped with the test, in this environment."""
    with (device.directory / "log").open("a") as log:
        process = subprocess.Popen(words, stderr=log, text=True, env=dict(environment))
    device._processes.append(process)
    return process


def stop(process: subprocess.Popen[str]) -> int:
    """As ``systemctl stop`` does."""
    process.send_signal(signal.SIGTERM)
    return process.wait(60)


def test_ready_alive_and_stopping_are_told(here: World, manager: Manager) -> None:
    """All of it by the main process; ready once the state is claimed, fed from then."""
    process = start(here.device, manager.environment(4.0))
    wait_for(lambda: len(manager.lines("WATCHDOG")) >= 4, lambda: str(manager.heard))
    assert stop(process) == 0
    said = [line for _, _, line in manager.heard]
    assert said[0] == "READY=1"
    assert said[-1] == "STOPPING=1"
    assert "STATUS=working" in said
    assert any(line.startswith("STATUS=waiting") for line in said)
    assert {pid for _, pid, _ in manager.heard} == {process.pid}
    fed = [at for at, _, line in manager.heard if line == "WATCHDOG=1"]
    assert max(b - a for a, b in pairwise(fed)) < 4.0


def test_who_cannot_work_is_not_ready(here: World, manager: Manager) -> None:
    """A spoilt configuration, and a state somebody else works with."""
    add(here.device, "[watchdog]\nseconds = 1\n")
    assert start(here.device, manager.environment(4.0)).wait(60) == 2
    here.device.configure(here.server.url)
    first = start(here.device, manager.environment(4.0))
    wait_for(lambda: bool(manager.lines("READY")), "ready")
    manager.heard.clear()
    second = start(here.device, manager.environment(4.0))
    assert second.wait(60) == 5
    assert not [line for _, pid, line in manager.heard if pid == second.pid]
    stop(first)


def test_d12_the_protocols_variables_outlive_a_clean_start_and_go_no_further(
    here: World, manager: Manager
) -> None:
    """Started again without the loader's variables, still the manager's; no check
    sees them.
    """
    seen = here.device.directory / "seen"
    here.device.configure(
        here.server.url, command=f'["/bin/sh", "-c", "env > {seen}; true"]'
    )
    here.publish("1.0.0", 1)
    environment = manager.environment(4.0) | {"LD_BIND_NOW": "1", "PYTHONPATH": "/x"}
    process = start(here.device, environment)
    wait_for(lambda: bool(manager.lines("READY")), lambda: here.device.log)
    assert {pid for _, pid, _ in manager.heard} == {process.pid}
    assert process.wait(60) == 75  # the restart into the trial
    here.device.start()
    here.device.wait(IDLE)
    assert "SEALIFT_VERSION=1.0.0" in seen.read_text()
    assert "NOTIFY" not in seen.read_text()
    assert "WATCHDOG" not in seen.read_text()


def test_d27_a_manager_is_not_told_that_a_hung_child_lives(
    here: World, manager: Manager
) -> None:
    """A check that stops the process that runs it: the word ends, and systemd acts."""
    here.device.configure(
        here.server.url, command='["/bin/sh", "-c", "kill -STOP $PPID"]'
    )
    here.publish("1.0.0", 1)
    assert start(here.device, manager.environment(4.0)).wait(60) == 75
    program = [sys.executable, "-I", "-c", QUICK]
    board = [sys.executable, "-m", "sealift.sim.board", "--dir", str(here.device.boot)]
    words = [*board, "--", *program, "run", "--config", str(here.device.config)]
    environment = {**os.environ, **manager.environment(4.0)}
    process = spawn(here.device, words, environment)
    here.device.wait("error watchdog")
    words = manager.lines("WATCHDOG")
    assert words
    time.sleep(5.0)  # longer than WatchdogSec
    assert manager.lines("WATCHDOG") == words
    process.kill()
    process.wait()


# ── a device of the kernel ───────────────────────────────────────────────────────────
def processes(device: Device) -> list[int]:
    """The agent, its children and their programs, but not the board."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (place / "cmdline").read_bytes().split(b"\0")
            ours = str(device.config).encode() in words
            if ours and b"sealift.sim.board" not in words:
                found.append(int(place.name))
    return found


def hardware(device: Device, path: Path, seconds: float) -> threading.Event:
    """Resets the board when ``path`` does not grow for so long, until it is set."""
    over = threading.Event()

    def watch() -> None:
        fed, at = b"", time.monotonic()
        while not over.wait(0.2):
            now = path.read_bytes() if path.exists() else b""
            if now != fed:
                fed, at = now, time.monotonic()
            if fed and fed[-1:] != b"V" and time.monotonic() - at > seconds:
                for pid in processes(device):
                    os.kill(pid, signal.SIGKILL)
                at = time.monotonic()

    threading.Thread(target=watch, daemon=True).start()
    return over


def test_d27_d06_an_agent_that_hangs_in_its_trial_is_reset_and_home_comes_back(
    here: World,
) -> None:
    """Feeding ends, the hardware bites, the loader has no attempt left, home reports."""
    watched = here.device.directory / "watchdog"
    watched.touch()
    settled = here.device.directory / "settled"
    here.device.configure(
        here.server.url, command='["/bin/sh", "-c", "kill -STOP $PPID"]'
    )
    add(here.device, f'[watchdog]\ndevice = "{watched}"\nsettled = "{settled}"\n')
    here.publish("1.0.0", 1)
    over = hardware(here.device, watched, 4.0)
    try:
        here.device.start([sys.executable, "-I", "-c", QUICK])
        here.device.wait("state=trial")
        here.device.wait("error watchdog")
        here.device.wait(IDLE, seconds=60)
    finally:
        over.set()
    assert here.device.confirmed is Slot.A
    [entry] = [it for it in here.device.json("history") if it["kind"] == "install"]
    assert entry["verdict"] != "succeeded"
    assert entry["code"] == "device.boot"


def test_the_device_is_called_off_by_an_orderly_stop_only(here: World) -> None:
    """``V`` when it is told to stop; nothing when it restarts the machine."""
    watched = here.device.directory / "watchdog"
    watched.touch()
    settled = here.device.directory / "settled"
    add(here.device, f'[watchdog]\ndevice = "{watched}"\nsettled = "{settled}"\n')
    process = start(here.device, {})
    here.device.wait("info wait")
    assert stop(process) == 0
    assert watched.read_bytes().endswith(b"V")
    watched.write_bytes(b"")
    here.publish("1.0.0", 1)
    assert start(here.device, {}).wait(60) == 75
    assert watched.read_bytes()
    assert b"V" not in watched.read_bytes()


def test_a_start_that_is_no_trial_says_so_and_a_trial_does_not(here: World) -> None:
    """What the trial's timer looks at: made at rest, not on trial, made by a confirm."""
    settled = here.device.directory / "settled"
    add(here.device, f'[watchdog]\nsettled = "{settled}"\n')
    here.publish("1.0.0", 1)
    assert start(here.device, {}).wait(60) == 75
    assert settled.exists()
    settled.unlink()  # as /run is, after a restart
    seen = here.device.directory / "seen"
    here.device.configure(
        here.server.url,
        command=f'["/bin/sh", "-c", "test -e {settled} || touch {seen}"]',
    )
    add(here.device, f'[watchdog]\nsettled = "{settled}"\n')
    here.device.start()
    here.device.wait(IDLE)
    assert here.device.confirmed is Slot.B
    assert seen.exists()
    assert settled.exists()


def test_a_lost_journal_does_not_settle_a_trial(here: World) -> None:
    """The agent knows of no trial any more; the loader does, and the timer acts."""
    settled = here.device.directory / "settled"
    here.publish("1.0.0", 1)
    assert start(here.device, {}).wait(60) == 75
    for number in (0, 1):
        (here.device.state / f"journal.{number}").write_bytes(b"rot" * 100)
    add(here.device, f'[watchdog]\nsettled = "{settled}"\n')
    here.device.start()
    here.device.wait("info wait")
    assert not settled.exists()
