"""Desk, server, board and agent, each a real program: one signed update, end to end."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from sealift.sim.processes import Processes, wait_for
from sealift.sim.station import Station

IDLE = "state=idle"
MIB = 1 << 20


@pytest.fixture(scope="module")
def station(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Station]:
    """One vendor, one server and one device for the whole story."""
    place = tmp_path_factory.mktemp("station")
    place.chmod(0o700)
    with Processes(place / "logs") as run:
        found = Station(run, place, 16 * MIB)
        found.set_up()
        yield found


def image(station: Station, name: str, text: bytes = b"") -> Path:
    path = station.place / name
    path.write_bytes(text + os.urandom(8 * MIB))
    return path


def ended(station: Station, packed_id: str, state: str) -> None:
    """Wait until an operator sees the installation in that state."""
    wait_for(lambda: station.server.installations(packed_id) == [state], state)


def holds(station: Station, slot: str, path: Path) -> bool:
    content = path.read_bytes()
    return station.slot(slot).read_bytes()[: len(content)] == content


def fillers(station: Station, slot: str) -> list[int]:
    """Processes of the agent that have a slot open."""
    wanted = str(station.slot(slot))
    found = []
    for pid in station.agents():
        with contextlib.suppress(OSError):
            links = list(Path(f"/proc/{pid}/fd").iterdir())
            found += [pid for link in links if str(link.readlink()) == wanted]
    return found


def has_cryptography(pid: int) -> bool:
    """9 MiB that an installing process is better off without."""
    with contextlib.suppress(OSError):
        return "/cryptography/" in Path(f"/proc/{pid}/maps").read_text()
    return False


def test_the_whole_way_of_updates(station: Station) -> None:
    """A good one is confirmed, an unhealthy one returns, a killed one finishes."""
    station.power_on()
    station.wait("info wait")

    good = image(station, "good.img")
    deployment = station.order(station.release(good, "1.0.0"))
    station.wait(IDLE)
    assert station.confirmed == "b"
    assert holds(station, "b", good)
    ended(station, deployment, "succeeded")

    sick = image(station, "sick.img", b"UNHEALTHY")
    deployment = station.order(station.release(sick, "1.1.0"))
    station.wait(IDLE, times=2)
    assert station.confirmed == "b"
    ended(station, deployment, "rolled_back")
    assert station.tell("history")[-1]["code"] == "device.boot"
    assert station.tell("status")["components"][0]["release_floor"] == 1

    cut = image(station, "cut.img")
    deployment = station.order(station.release(cut, "1.2.0"))
    begins = cut.read_bytes()[: 64 * 1024]
    wait_for(lambda: bool(fillers(station, "a")), "a process that fills the slot")
    assert not any(has_cryptography(pid) for pid in fillers(station, "a"))
    wait_for(lambda: station.slot("a").read_bytes().startswith(begins), "bytes")
    for pid in station.agents():
        os.kill(pid, signal.SIGKILL)
    station.wait(IDLE, times=3)
    assert station.confirmed == "a"
    assert holds(station, "a", cut)
    ended(station, deployment, "succeeded")
    verdicts = [entry["verdict"] for entry in station.tell("history")]
    assert verdicts == ["succeeded", "rolled_back", "succeeded"]
    # The server has it before the device knows that it has it.
    wait_for(lambda: station.tell("status")["reports"]["waiting"] == 0, "reports")
    assert "Traceback" not in station.log
