"""The installed units under a real systemd: ready, fenced, watched, restarted, ended."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sealift.agent.boot.file import open_store
from sealift.core.types import Slot
from tests.bench import debian_tree
from tests.bench.systemd_machine import Machine
from tests.integration.agent_world import Device, World, world
from tests.integration.test_agent_watchdog import QUICK, load
from tools import deb

pytestmark = pytest.mark.skipif(
    os.geteuid() != 0, reason="a systemd of its own needs control groups, and they root"
)

AGENT = "sealift-agent.service"


class Board:
    """A machine, its loader, and the server it asks."""

    def __init__(self, machine: Machine, here: World) -> None:
        self.machine = machine
        self.here = here

    def start(self) -> None:
        """The loader decides and says whether this is a trial; then systemd starts."""
        device = self.here.device
        load(device)
        store = open_store(str(device.boot)).read()
        running = (device.boot / "running").read_text()
        trial = store.trial is not None and f"slot={store.trial}" in running
        self.machine.start(
            f"touch {self.machine.root}/run/sealift/trial" if trial else ""
        )

    def drop_in(self, unit: str, text: str) -> None:
        """One more file of settings for a unit; an empty text takes it away."""
        place = self.machine.root / f"etc/systemd/system/{unit}.d/test.conf"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = debian_tree.copy(tmp_path_factory.mktemp("systemd") / "root")
    package = deb.build(found / "tmp")
    done = debian_tree.run(found, "dpkg", "--install", f"/tmp/{package.name}")
    assert done.returncode == 0, done.stderr
    (found / "etc/hosts").write_text("127.0.0.1 localhost\n")
    (found / "etc/machine-id").write_text("5ea11f7" * 4 + "0000\n")
    return found


@pytest.fixture
def board(root: Path, tmp_path: Path) -> Iterator[Board]:
    with world(tmp_path) as here:
        place = root / "etc/sealift"
        debian_tree.run(root, "rm", "-rf", "/etc/sealift", "/var/lib/sealift", "/boot")
        (root / "boot").mkdir()
        device = Device(place, here.vendor, here.server)
        here.device = device
        _settle(device, '["/usr/bin/true"]')
        machine = Machine(root, tmp_path)
        found = Board(machine, here)
        try:
            yield found
        finally:
            machine.off()
            debian_tree.run(
                root, "rm", "-rf", "/etc/systemd/system/sealift-agent.service.d"
            )


def _settle(device: Device, command: str) -> None:
    """State, slots and the loader's store where the unit lets the agent write."""
    root = device.directory.parents[1]
    device.configure(device_url(device), command=command, trial_seconds="15")
    text = device.config.read_text()
    text = text.replace('directory = "state"', 'directory = "/var/lib/sealift"')
    text = text.replace('runtime = "runtime.json"', "")
    text = text.replace('"boot"', '"/boot/sealift"')
    for slot in "ab":
        text = text.replace(f'"slot-{slot}.img"', f'"/var/lib/sealift/slot-{slot}.img"')
    device.config.write_text(text)
    state = root / "var/lib/sealift"
    if not state.exists():
        state.mkdir(mode=0o700, parents=True)
        for slot in "ab":
            (device.directory / f"slot-{slot}.img").rename(state / f"slot-{slot}.img")
        device.boot.rename(root / "boot/sealift")
    device.boot = root / "boot/sealift"


def device_url(device: Device) -> str:
    """The server's address, out of the configuration that was written first."""
    [line] = [x for x in device.config.read_text().splitlines() if x.startswith("url")]
    return line.split('"')[1]


def test_an_update_under_the_units_as_they_are(board: Board) -> None:
    """Ready, fenced; installs, has the machine restarted, confirms, settles."""
    machine = board.machine
    board.start()
    machine.wait(lambda: machine.show(AGENT)["ActiveState"] == "active", "agent")
    told = machine.show(AGENT)
    assert told["Type"] == "notify"
    assert told["WatchdogUSec"] == "3min"
    machine.wait(
        lambda: machine.show(AGENT)["StatusText"].startswith("waiting"), "rest"
    )
    status = Path(f"/proc/{_pid(machine)}/status").read_text()
    facts = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
    assert facts["NoNewPrivs"].strip() == "1"
    assert facts["Seccomp"].strip() == "2"
    assert int(facts["CapBnd"], 16) == 1 << 9  # CAP_LINUX_IMMUTABLE
    assert machine.run("test", "-e", "/run/sealift/settled").returncode == 0
    board.here.publish("1.0.0", 1)
    machine.wait_off()
    board.start()
    machine.wait(lambda: board.here.device.confirmed is Slot.B, "confirm")
    machine.wait(
        lambda: machine.run("test", "-e", "/run/sealift/settled").returncode == 0,
        "word that the trial is settled",
    )
    assert machine.run("/usr/lib/sealift/on-trial").returncode == 1
    machine.run("systemctl", "stop", AGENT)
    assert machine.show(AGENT)["Result"] == "success"
    assert machine.runs


def _pid(machine: Machine) -> int:
    """The agent's main process, as this machine numbers it."""
    inside = machine.show(AGENT)["MainPID"]
    for place in Path("/proc").glob("[0-9]*/status"):
        try:
            text = place.read_text()
        except OSError:
            continue
        numbers = next((x for x in text.splitlines() if x.startswith("NSpid")), "")
        if numbers.split()[2:] == [inside] and "sealift-agent" in text:
            return int(place.parent.name)
    raise AssertionError(f"no process {inside} in that machine")


def test_d06_an_agent_that_is_missing_in_its_trial_is_ended_by_the_timer(
    board: Board,
) -> None:
    """No Python runs; the timer restarts the machine, and home comes up."""
    machine = board.machine
    board.drop_in("sealift-trial.timer", "[Timer]\nOnBootSec=\nOnBootSec=8s\n")
    board.start()
    machine.wait(lambda: machine.show(AGENT)["ActiveState"] == "active", "agent")
    board.here.publish("1.0.0", 1)
    machine.wait_off()
    program = machine.root / "usr/bin/sealift-agent"
    program.rename(program.with_suffix(".gone"))
    try:
        board.start()
        machine.wait_off()  # by the timer, as there is nobody else
    finally:
        program.with_suffix(".gone").rename(program)
    board.start()
    machine.wait(
        lambda: "device.boot" in machine.run("sealift-agent", "history").stdout,
        "report of the failed trial",
    )
    assert board.here.device.confirmed is Slot.A
    assert machine.run("/usr/lib/sealift/on-trial").returncode == 1
    machine.wait(
        lambda: machine.show("sealift-trial.service")["Result"] == "exec-condition",
        "timer that finds nothing to do",
    )
    assert machine.runs


def test_d27_systemd_kills_an_agent_that_hangs_in_its_trial(board: Board) -> None:
    """A check that stops the process it runs in: no word, SIGABRT, a new agent, home."""
    machine = board.machine
    board.drop_in("sealift-trial.timer", "")
    program = machine.root / "usr/lib/sealift/quick"
    program.write_text(f"#!/usr/bin/python3 -I\n{QUICK}\n".replace("; ", "\n"))
    program.chmod(0o755)
    board.drop_in(
        AGENT,
        "[Service]\nWatchdogSec=6\nExecStart=\nExecStart=/usr/lib/sealift/quick run\n",
    )
    board.start()
    machine.wait(lambda: machine.show(AGENT)["ActiveState"] == "active", "agent")
    board.here.publish("1.0.0", 1)
    machine.wait_off()
    _settle(board.here.device, '["/bin/sh", "-c", "kill -STOP $PPID"]')
    board.start()
    machine.wait(lambda: "Watchdog timeout" in machine.journal(), "bite", 120)
    machine.wait_off(120)
    _settle(board.here.device, '["/usr/bin/true"]')
    board.start()
    machine.wait(
        lambda: "device.boot" in machine.run("sealift-agent", "history").stdout,
        "report of the failed trial",
    )
    assert board.here.device.confirmed is Slot.A


def test_a_restart_with_words_by_the_agents_own_program(board: Board) -> None:
    """As on a Raspberry Pi, with the drop-in of the package; no capability for it."""
    machine = board.machine
    program = machine.root / "usr/sbin/reboot"
    if not program.is_symlink():
        program.symlink_to("../bin/systemctl")  # as the package systemd-sysv has it
    config = board.here.device.config
    text = config.read_text()
    words = '["/usr/sbin/reboot", "0 tryboot"]'
    config.write_text(text.replace('restart = "exit"', f"restart = {words}"))
    board.drop_in(AGENT, (deb.PACKAGING / "systemd/tryboot.conf").read_text("utf-8"))
    board.start()
    machine.wait(lambda: machine.show(AGENT)["ActiveState"] == "active", "agent")
    board.here.publish("1.0.0", 1)
    machine.wait_off()
    board.start()
    machine.wait(lambda: board.here.device.confirmed is Slot.B, "confirm")
