"""Real updates on the arm64 machine: our server, our agent, U-Boot's own counting.

The story begins on a disk that is armed: the agent fetched a release over the network,
filled slot b and put it on trial; the machine ended at the restart it asked for.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sealift.sim.processes import Processes
from sealift.sim.stage import Packed
from tests.bench import disk, qemu, uboot_board, uboot_release
from tests.bench.figures import figure
from tests.bench.station import Station
from tests.bench.uboot_board import Board

DEVICE = "dev-0001"
HOME, NEXT, SICK = "1.0.0", "1.1.0", "1.2.0"
SECONDS = 240.0
STATUS = "python3 -I -m sealift.agent {} --config /data/agent/agent.toml --json"


@dataclass(frozen=True)
class Armed:
    """A vendor, and a device that is about to start what it was ordered."""

    station: Station
    place: Path
    home: Packed
    new: Packed
    deployment: str


@pytest.fixture(scope="module")
def armed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Armed]:
    """Release, order, fetch, fill, arm; the machine is off."""
    place = tmp_path_factory.mktemp("station")
    place.chmod(0o700)
    with Processes(place / "logs") as run:
        station = Station(run, place)
        station.set_up()
        home = station.release(uboot_release.release(HOME).image, HOME)
        new = station.release(uboot_release.release(NEXT).image, NEXT)
        device = station.device(DEVICE, uboot_board.SLOTS, uboot_board.BOOT, home)
        machine = place / "machine"
        uboot_board.factory(machine, uboot_release.release(HOME), device)
        deployment = station.order(new, DEVICE)
        with Board(machine, port=station.port, once=True) as board:
            assert board.tries() == ("a", False)
            assert board.runs() == ("a", HOME)
            figure("power on to system up", time.monotonic() - board.started)
            began = time.monotonic()
            board.expect("state=staging", SECONDS, never="error: ")
            board.expect("state=arming", SECONDS, never="error ")
            figure(f"{new.length >> 20} MiB fetched", time.monotonic() - began)
            board.wait_off(SECONDS)
            assert board.environment.values()["b_state"] == "trial"
        yield Armed(station, machine, home, new, deployment)
    shutil.rmtree(place)


@pytest.fixture
def place(armed: Armed, tmp_path: Path) -> Iterator[Path]:
    """A copy of the armed device."""
    uboot_board.copy(armed.place, tmp_path)
    yield tmp_path
    (tmp_path / "disk.img").unlink()


def test_the_whole_way_of_updates(armed: Armed, place: Path) -> None:
    """A good release is confirmed, an older one refused, an unhealthy one returns."""
    station = armed.station
    with Board(place, port=station.port) as board:
        assert board.tries() == ("b", True)
        assert board.up() == ("b", NEXT)
        board.expect("verdict=succeeded", SECONDS)
        figure("restart to confirmed", time.monotonic() - board.started)
        station.ended(armed.deployment, "succeeded")
        found = board.json(STATUS.format("status"))["components"][0]
        assert (found["running"], found["next_start"]) == ("b", "b")
        assert found["installed"]["release"] == NEXT
        _reaches_nobody_else(board)
        _an_older_release_is_refused(armed, board)

        sick = uboot_release.release(SICK, "sick").image
        order = station.order(
            station.release(sick, SICK, "--base", armed.new.directory), DEVICE
        )
        assert board.tries(SECONDS) == ("a", True)
        began = time.monotonic()
        assert board.tries(SECONDS) == ("b", False)
        figure("unhealthy: trial to home", time.monotonic() - began)
        board.expect("verdict=rolled_back", SECONDS)
        station.ended(order, "rolled_back")
        board.settle()
        board.off()
    found = board.environment.values()
    assert (found["slot"], found["good"], found["upgrade_available"]) == ("b", "b", "0")
    assert (found["a_state"], found["b_state"]) == ("bad", "good")


def _an_older_release_is_refused(armed: Armed, board: Board) -> None:
    """Rightly signed, by all keys, and ordered by a server that lies about the device.

    An honest one refuses the order itself: the device reported what it runs.
    """
    with _database(armed) as database:
        database.execute(_LIE)
        database.execute("UPDATE ecu SET release_counter = release_counter")
    armed.station.order(armed.home, DEVICE)
    board.expect("code=metadata.counter", SECONDS, never="state=staging")
    with _database(armed) as database:
        database.execute("DROP TRIGGER lie")


_LIE = """
    CREATE TRIGGER lie AFTER UPDATE ON ecu WHEN NEW.release_counter > 0
    BEGIN UPDATE ecu SET release_counter = 0; END
"""


@contextlib.contextmanager
def _database(armed: Armed) -> Iterator[sqlite3.Connection]:
    path = armed.station.server.directory / "sealift.db"
    with contextlib.closing(sqlite3.connect(path, timeout=30)) as database, database:
        yield database


def _reaches_nobody_else(board: Board) -> None:
    """The guest's network ends at the test server (device-D38)."""
    for address in ("10.0.2.2", "10.0.2.3", "192.0.2.1"):
        assert board.run(f"nc -w 2 {address} 22 </dev/null", check=False) != "0"
        assert "1" in board.run(f"nc -w 2 {address} 22 </dev/null; echo $?")
    port = qemu.GUEST_PORT
    board.run(f"nc -w 5 {qemu.GUEST_SERVER} {port} </dev/null")


def _blocks() -> dict[str, int]:
    blocks = uboot_release.release(NEXT).bootable.data_blocks
    return {"middle": blocks // 2 * 4096, "last": (blocks - 1) * 4096}


@pytest.mark.parametrize("where", ["middle", "last"])
def test_a_block_that_changes_behind_the_agents_back_is_never_confirmed(
    place: Path, where: str
) -> None:
    """D17: the first block answers, so it starts; the trial reads every block.

    The last block has tables of squashfs: with that one wrong no mount comes to an end.
    """
    disk.flip(place / "disk.img", disk.SLOT_B, _blocks()[where])
    with Board(place) as board:
        assert board.tries() == ("b", True)
        if where == "middle":
            assert board.runs() == ("b", NEXT)
        while board.tries(SECONDS) == ("b", True):
            pass
        assert board.up(never="confirming") == ("a", HOME)
        figure(f"{where} block changed: home after", time.monotonic() - board.started)
        board.expect("verdict=", SECONDS)
        board.off()
        assert "confirming" not in board.text
        assert "is corrupted" in board.text
    found = board.environment.values()
    assert (found["good"], found["upgrade_available"]) == ("a", "0")
    assert found["b_state"] == "bad"
