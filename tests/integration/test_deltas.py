"""Deltas end to end: a real server makes one, a real agent is sent it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sealift.client.answers import Delta, Installation
from sealift.client.api import Operator
from sealift.sim.processes import Processes, wait_for
from sealift.sim.station import DEVICE, Station

MIB = 1 << 20
IDLE = "state=idle"
SECRET = b"what nobody on the way may read "


@pytest.fixture
def station(tmp_path: Path) -> Iterator[Station]:
    """One vendor, one server and one device."""
    tmp_path.chmod(0o700)
    with Processes(tmp_path / "logs") as run:
        found = Station(run, tmp_path, 4 * MIB)
        found.set_up(deltas=True)
        yield found


def images(place: Path) -> tuple[Path, Path]:
    """An image, and one that differs from it by few bytes in both segments."""
    content = bytearray(SECRET * 100 + os.urandom(2 * MIB))[: 2 * MIB]
    first, second = place / "first.img", place / "second.img"
    first.write_bytes(content)
    content[5000:5010] = b"0123456789"
    content[MIB + 7 : MIB + 8] = bytes([content[MIB + 7] ^ 1])
    second.write_bytes(content)
    return first, second


def delta(operator: Operator) -> Delta:
    (found,) = operator.deltas()
    return found


def installation(operator: Operator, deployment: str) -> Installation:
    (found,) = operator.deployment(deployment)["installations"]
    return found


def abilities(operator: Operator) -> list[str]:
    return operator.device(DEVICE)["device"]["abilities"]


def running(operator: Operator) -> Any:
    (ecu,) = operator.device(DEVICE)["device"]["ecus"]
    return ecu["installed"]["version"]


def test_delta_made_chosen_and_installed(station: Station, operator: Operator) -> None:
    """The server makes the delta of a new release for what the device runs."""
    first, second = images(station.place)
    station.power_on()
    station.wait("info wait")
    full = station.order(station.release(first, "1.0.0"))
    station.wait(IDLE)
    wait_for(lambda: running(operator) == "1.0.0", "the report")
    told = installation(operator, full)
    assert told["offer"]
    assert told["offer"]["method"] == "full"
    assert told["done"]
    assert told["done"]["method"] == "full"

    packed = station.release(second, "1.1.0")
    wait_for(lambda: delta(operator)["state"] == "ready", "the delta", seconds=60)
    made = delta(operator)
    assert made["length"] is not None
    assert made["length"] < packed.length // 20
    assert made["cpu_ms"] is not None

    deployment = station.order(packed)
    station.wait(IDLE, times=2)
    wait_for(lambda: running(operator) == "1.1.0", "the report")
    told = installation(operator, deployment)
    assert told["offer"]
    assert told["offer"]["method"] == "delta"
    assert told["offer"]["bytes"] == made["length"]
    assert told["done"]
    assert told["done"]["method"] == "delta"
    assert told["done"]["transferred"] is not None
    assert told["done"]["transferred"] < packed.length // 20
    assert station.slot("a").read_bytes()[: 2 * MIB] == second.read_bytes()


def restarted(station: Station, operator: Operator, settings: str) -> None:
    """The server again, with more settings in its last table, ``[delta]``."""
    station.server.stop()
    with (station.server.directory / "server.toml").open("a") as file:
        file.write(settings)
    station.server.start()
    assert operator.status()["version"]


def plain_in(directory: Path) -> list[Path]:
    """Files that hold a text of the image, or the magic of a container."""
    files = (file for file in directory.rglob("*") if file.is_file())
    return [
        file
        for file in files
        if any(text in file.read_bytes() for text in (SECRET, b"SEALPAY"))
    ]


def test_sealed_delta_made_by_the_server(station: Station, operator: Operator) -> None:
    """With leave the server makes it, sealed again; on its disk nothing is plain."""
    restarted(station, operator, "sealed = true\n")
    seal = ("--content-key", station.server.directory / "public/content-key.json")
    first, second = images(station.place)
    station.power_on()
    wait_for(lambda: "cobblestone-256" in abilities(operator), "the first report")
    station.order(station.release(first, "1.0.0", *seal))
    station.wait(IDLE)
    wait_for(lambda: running(operator) == "1.0.0", "the report")

    packed = station.release(second, "1.1.0", *seal)
    wait_for(lambda: delta(operator)["state"] == "ready", "the delta", seconds=60)
    made = delta(operator)
    assert made["container"] is not None
    assert made["container"].endswith(".delta.sealed")
    deployment = station.order(packed)
    station.wait(IDLE, times=2)
    wait_for(lambda: running(operator) == "1.1.0", "the report")
    told = installation(operator, deployment)
    assert told["done"]
    assert told["done"]["method"] == "delta"
    assert station.slot("a").read_bytes()[: 2 * MIB] == second.read_bytes()
    assert plain_in(station.server.directory) == []
