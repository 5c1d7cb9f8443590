"""Updates by the real agent on a booting UEFI board, from the real server (L4).

Secure Boot, systemd-boot, a UKI and dm-verity below; inside, the agent of this source
tree on Debian's Python. The first test is a device's life with its server. The others
begin where the agent has armed a release and the machine is about to restart, and see
what comes of it when slot, variables or agent are not as they should be; they have no
network, which a trial never needs.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sealift.core import verity
from sealift.core.bootable import tree_offset
from sealift.sim.processes import Processes
from sealift.sim.stage import Packed
from tests.bench import disk, l4, qemu
from tests.bench.figures import figure
from tests.bench.station import Station

pytestmark = pytest.mark.timeout(600, func_only=True)  # besides its fixtures
DEVICE = "pc-0001"
SECONDS = 400.0
VERSIONS = {"1.0.0": "good", "2.0.0": "good", "3.0.0": "bad"}
HOME, NEXT, SICK = VERSIONS
AGENT = "python3 -I -m sealift.agent"
CONFIG = "--config /data/agent/agent.toml"


@dataclass(frozen=True, slots=True)
class World:
    """A vendor with its server, three releases, and a disk of the factory."""

    station: Station
    packed: dict[str, Packed]
    factory: Path


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    place = tmp_path_factory.mktemp("l4")
    with Processes(place / "logs") as run:
        station = Station(run, place)
        station.set_up()
        packed = {
            version: station.release(l4.release(version, health).image, version)
            for version, health in VERSIONS.items()
        }
        tree = station.device(DEVICE, l4.SLOTS, l4.BOOT, packed[HOME])
        l4.factory(place / "pc", l4.release(HOME), tree)
        yield World(station, packed, place / "pc")


@dataclass(frozen=True, slots=True)
class Armed:
    """A machine at the instant of its restart into slot b, and what it was told."""

    place: Path
    deployment: str
    console: str


@pytest.fixture(scope="module")
def armed(world: World, tmp_path_factory: pytest.TempPathFactory) -> Armed:
    """The second release installed and armed by the agent, from the server."""
    place = tmp_path_factory.mktemp("armed")
    l4.copy(world.factory, place)
    deployment = world.station.order(world.packed[NEXT], DEVICE)
    with l4.Pc(place, port=world.station.port, more=("-no-reboot",)) as pc:
        assert pc.up() == ("a", HOME)
        began = time.monotonic()
        pc.expect("state=staged", SECONDS)
        figure("48 MB fetched, written, read back", time.monotonic() - began)
        pc.expect("bench: going down", SECONDS)
        figure("… and boot file placed, armed", time.monotonic() - began)
        pc.wait_off(SECONDS)
        return Armed(place, deployment, pc.text)


@pytest.fixture
def trial(armed: Armed, tmp_path: Path) -> Path:
    """A copy of it, about to start slot b for the first time."""
    l4.copy(armed.place, tmp_path)
    return tmp_path


def status(pc: l4.Pc) -> dict[str, Any]:
    """What ``sealift-agent status`` says on the device of its component."""
    found: dict[str, Any] = pc.json(f"{AGENT} status {CONFIG} --json")
    (component,) = found["components"]
    return dict(component)


def history(pc: l4.Pc) -> list[tuple[str, str]]:
    """Releases and verdicts the device remembers, oldest first."""
    found = pc.json(f"{AGENT} history {CONFIG} --json")
    return [(it["release"], it["verdict"]) for it in found if it["kind"] == "install"]


def entries(place: Path) -> list[str]:
    """The names the loader sees."""
    return disk.Esp(place / "disk.img").names(l4.LINUX)


# ── with the server ──────────────────────────────────────────────────────────────────
@pytest.fixture(scope="module")
def confirmed(
    world: World, armed: Armed, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The armed machine after its trial, which went well; looked at, and powered off."""
    place = tmp_path_factory.mktemp("confirmed")
    l4.copy(armed.place, place)
    with l4.Pc(place, port=world.station.port) as pc:
        assert pc.up(SECONDS) == ("b", NEXT)
        pc.expect("bench: health reads the whole root", SECONDS)
        pc.expect("verdict=succeeded", SECONDS)
        figure("trial: power on to confirmed", time.monotonic() - pc.started)
        world.station.ended(armed.deployment, "succeeded", SECONDS)
        _require_confirmed(pc)
        _require_mounts(pc)
        _require_only_the_server(pc)
        pc.off(SECONDS)
    return place


def test_a_device_updates_itself(armed: Armed, confirmed: Path) -> None:
    """All of it: recognised, fetched, checked, placed, armed, tried, confirmed."""
    assert "\nerror " not in armed.console
    assert "factory component=pc-0001-main release=1.0.0" in armed.console
    for state in ("staging", "staged", "arming", "rebooting"):
        assert f"component=pc-0001-main state={state}" in armed.console
    assert entries(armed.place) == ["sealift-a.efi", "sealift-b+3.efi"]
    assert entries(confirmed) == ["sealift-a.efi", "sealift-b.efi"]


def test_a_sick_release_goes_by_itself(
    world: World, confirmed: Path, tmp_path: Path
) -> None:
    """It starts, its health check says no, and the machine is back where it was."""
    l4.copy(confirmed, tmp_path)
    station = world.station
    sick = station.order(world.packed[SICK], DEVICE)
    with l4.Pc(tmp_path, port=station.port) as pc:
        assert pc.up(SECONDS) == ("b", NEXT)
        assert pc.up(SECONDS) == ("a", SICK)
        began = time.monotonic()
        assert pc.up(SECONDS) == ("b", NEXT)
        figure("unhealthy release up to home up", time.monotonic() - began)
        station.ended(sick, "rolled_back", SECONDS)
        assert history(pc) == [(NEXT, "succeeded"), (SICK, "rolled_back")]
        found = status(pc)
        assert (found["running"], found["next_start"]) == ("b", "b")
        assert (found["release_floor"], found["state"]) == (2, "idle")
        assert pc.variable("LoaderEntryDefault") == "sealift-b*"
        pc.off(SECONDS)
    assert entries(tmp_path) == ["sealift-b.efi"]


def test_an_older_release_is_refused_before_a_byte_of_it_is_fetched(
    world: World, tmp_path: Path
) -> None:
    """Rightly signed, and ordered by a server that lies about what the device runs."""
    name, station = "pc-0002", world.station
    tree = station.device(name, l4.SLOTS, l4.BOOT, world.packed[NEXT])
    l4.factory(tmp_path, l4.release(NEXT), tree)
    with _database(station) as database:
        database.execute(_LIE.format(name=name))
    old = station.order(world.packed[HOME], name)
    with l4.Pc(tmp_path, port=station.port) as pc:
        assert pc.up() == ("a", NEXT)
        pc.expect(r"metadata\.counter", SECONDS, never="state=staging")
        assert status(pc)["release_floor"] == 2
        first = pc.run("head -c 4096 /dev/vda3 | tr -d '\\0' | wc -c")
        assert first == "0", "slot b was written"
        _require_variables_change(pc)
        pc.off()
    assert "succeeded" not in station.server.installations(old)
    assert entries(tmp_path) == ["sealift-a.efi"]


_LIE = """
    CREATE TRIGGER lie AFTER UPDATE ON ecu
    WHEN NEW.device_id = '{name}' AND NEW.release_counter > 0
    BEGIN UPDATE ecu SET release_counter = 0 WHERE device_id = '{name}'; END
"""


@contextlib.contextmanager
def _database(station: Station) -> Iterator[sqlite3.Connection]:
    path = station.server.directory / "sealift.db"
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as database, database:
        yield database


def _require_variables_change(pc: l4.Pc) -> None:
    """Set, set again and deleted, twice over, on the real efivarfs (D7)."""
    for _ in range(2):
        for text in ("sealift-b*", "sealift-a*"):
            pc.set_variable("LoaderEntryDefault", text)
            assert pc.variable("LoaderEntryDefault") == text
        pc.delete_variable("LoaderEntryDefault")
        assert pc.variable("LoaderEntryDefault") is None
    pc.set_variable("LoaderEntryDefault", "sealift-a*")


def _require_confirmed(pc: l4.Pc) -> None:
    """Variable, status and history agree (D2, D3); one-shot and counter are gone."""
    assert pc.variable("LoaderEntryDefault") == "sealift-b*"
    assert pc.variable("LoaderEntryOneShot") is None
    # What the loader says it selected is a name there is no more (D2).
    assert pc.variable("LoaderEntrySelected") == "sealift-b+3.efi"
    found = status(pc)
    assert (found["running"], found["next_start"]) == ("b", "b")
    assert found["slots"] == {"a": "good", "b": "good"}
    assert found["loader"]["missing"] == []
    assert found["installed"]["release"] == NEXT
    assert history(pc) == [(NEXT, "succeeded")]
    pc.mount_esp("ro")
    names = pc.run("ls /efi/EFI/Linux /efi/EFI/sealift").split()
    pc.unmount_esp()
    assert "sealift-b.efi" in names
    assert not [name for name in names if "+" in name or name.endswith(".tmp")]


def _require_mounts(pc: l4.Pc) -> None:
    """The root cannot be written, the ESP is not mounted, nothing is sync (D5, D11)."""
    mounts = [line.split() for line in pc.run("cat /proc/mounts").splitlines()]
    options = {words[1]: words[3].split(",") for words in mounts}
    assert "ro" in options["/"]
    assert "/efi" not in options
    assert {"nosuid", "nodev", "noexec"} <= set(options["/data"])
    for found in options.values():
        assert not {"sync", "dirsync"} & set(found)


def _require_only_the_server(pc: l4.Pc) -> None:
    """The guest reaches the one port of the test server, and nothing else (D38)."""
    nc = "busybox nc -w 3"
    reached = pc.run(
        f"{nc} {qemu.GUEST_SERVER} {qemu.GUEST_PORT} </dev/null && echo yes"
    )
    assert reached.endswith("yes")
    for address in ("10.0.2.2 22", f"{qemu.GUEST_SERVER} 80", "192.0.2.1 443"):
        assert "yes" not in pc.run(
            f"{nc} {address} </dev/null && echo yes", check=False
        )


# ── from the armed machine on, without a network ─────────────────────────────────────
def _flip(place: Path, where: str) -> None:
    bootable = l4.release(NEXT).bootable
    last = bootable.data_blocks - 1
    at = {
        "first": 7,
        "tree": tree_offset(bootable.data_blocks) + 11,
        "middle": last // 2 * verity.BLOCK + 13,
        "last": last * verity.BLOCK + 17,
    }[where]
    disk.flip(place / "disk.img", disk.SLOT_B, at)


@pytest.mark.parametrize("where", ["first", "tree", "other image"])
def test_a_slot_that_does_not_answer_to_the_root_hash_never_runs(
    trial: Path, where: str
) -> None:
    """The first block, the top of the tree, another image below the right UKI (D15)."""
    if where == "other image":
        disk.write(trial / "disk.img", disk.SLOT_B, l4.release(SICK, "bad").image)
    else:
        _flip(trial, where)
    with l4.Pc(trial) as pc:
        pc.expect("sealift: REFUSED", SECONDS, never="sealift: root")
        figure(f"{where} changed: refused after", time.monotonic() - pc.started)
        assert pc.up() == ("a", HOME)
        figure(f"{where} changed: home after", time.monotonic() - pc.started)
        _require_home(pc)


@pytest.mark.parametrize("where", ["middle", "last"])
def test_a_wrong_block_further_in_panics_and_is_never_confirmed(
    trial: Path, where: str
) -> None:
    """Only the full read of the health check finds it in time (D17)."""
    _flip(trial, where)
    with l4.Pc(trial) as pc:
        pc.expect("sealift: root sealift-b", SECONDS)
        pc.expect(r"Kernel panic .*dm-verity", SECONDS, never="verdict=succeeded")
        figure(f"{where} block changed: panic after", time.monotonic() - pc.started)
        assert pc.up() == ("a", HOME)
        figure(f"{where} block changed: home after", time.monotonic() - pc.started)
        _require_home(pc)


def _require_home(pc: l4.Pc) -> None:
    """The agent has given the release up and says so; home is what starts next."""
    pc.expect("verdict=rolled_back", SECONDS)
    found = status(pc)
    assert (found["running"], found["next_start"]) == ("a", "a")
    assert found["release_floor"] == 1
    assert pc.variable("LoaderEntryDefault") == "sealift-a*"
    assert pc.variable("LoaderEntryOneShot") is None
    assert history(pc) == [(NEXT, "rolled_back")]


_STOP = """
import os, signal
for name in filter(str.isdigit, os.listdir("/proc")):
    with open(f"/proc/{name}/cmdline", "rb") as words:
        if b"sealift.agent" in words.read().split(b"\\0"):
            os.kill(int(name), signal.SIGSTOP)
"""


def test_an_agent_that_hangs_is_reset_by_the_watchdog(trial: Path) -> None:
    """Nobody feeds the kernel's watchdog any more: reset, and home (D27)."""
    with l4.Pc(trial) as pc:
        assert pc.up() == ("b", NEXT)
        pc.expect("info watchdog device=/dev/watchdog", SECONDS)
        pc.python(_STOP)
        began = time.monotonic()
        assert pc.up(never="verdict=succeeded") == ("a", HOME)
        figure("agent stopped: home after", time.monotonic() - began)
        _require_home(pc)


def test_lost_variables_leave_the_names_and_the_trial_goes_on(trial: Path) -> None:
    """All variables of the loader are gone with the battery: the counted name starts,
    is confirmed, and home is pinned anew (D9, B8).
    """
    (trial / "vars.fd").write_bytes(l4.variables().read_bytes())
    with l4.Pc(trial) as pc:
        assert pc.up() == ("b", NEXT)
        pc.expect("verdict=succeeded", SECONDS)
        assert pc.variable("LoaderEntryDefault") == "sealift-b*"
        # Confirmed, and lost again: the newest confirmed name starts.
        pc.delete_variable("LoaderEntryDefault")
        pc.reboot()
        assert pc.up() == ("b", NEXT)
        found = status(pc)
        assert (found["running"], found["next_start"]) == ("b", "b")


def test_a_confirmed_slot_that_rots_panics_at_every_start(
    world: World, tmp_path: Path
) -> None:
    """What dm-verity cannot help (D18): the block is read at each start, the machine
    restarts, and no counter leads to the other slot. docs/boards/uefi-x86.md says so.
    """
    l4.copy(world.factory, tmp_path)
    bootable = l4.release(HOME).bootable
    at = bootable.data_blocks // 2 * verity.BLOCK
    disk.flip(tmp_path / "disk.img", disk.SLOT_A, at)
    with l4.Pc(tmp_path) as pc:
        for _ in range(2):
            pc.expect("sealift: root sealift-a", SECONDS)
            pc.expect("bench: release", SECONDS)
            pc.settle()
            pc.run("dd if=/dev/dm-0 of=/dev/null bs=1M & true")
            pc.expect(r"Kernel panic .*dm-verity", SECONDS)
