"""Sealed releases end to end: desk, server and agent, each a real program."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sealift.client.answers import Installation
from sealift.client.api import Operator
from sealift.sign.release import read_release
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
        found.set_up()
        yield found


def image(place: Path, name: str, content: bytes) -> Path:
    path = place / name
    path.write_bytes(content)
    return path


def plain_in(*places: Path) -> list[Path]:
    """The files below that hold a text of the image, or the magic of a container."""
    files = (file for place in places for file in place.rglob("*") if file.is_file())
    return [
        file
        for file in files
        if "slot-" not in file.name
        and any(text in held(file) for text in (SECRET, b"SEALPAY"))
    ]


def held(file: Path) -> bytes:
    """What a file holds; nothing, if the running agent has removed it meanwhile."""
    try:
        return file.read_bytes()
    except FileNotFoundError:
        return b""


def ended(operator: Operator, deployment: str) -> Installation:
    def state() -> str:
        (found,) = operator.deployment(deployment)["installations"]
        return found["state"]

    wait_for(lambda: state() == "succeeded", "success")
    (found,) = operator.deployment(deployment)["installations"]
    return found


def knows_its_key(operator: Operator) -> bool:
    """The device has said which key it has: the server seals for nobody before."""
    key = operator.device(DEVICE)["device"]["decryption_key"]
    return key is not None and key["reported"] == key["kid"]


def test_C7_sealed_full_then_sealed_delta_made_at_the_desk(
    station: Station, operator: Operator
) -> None:
    """Both are installed, and neither server nor device keeps a plain byte of them."""
    content = SECRET * 1000 + os.urandom(2 * MIB)
    first = image(station.place, "first.img", content)
    second = image(station.place, "second.img", content[:MIB] + b"!" + content[MIB:])
    seal = ("--content-key", station.server.directory / "public/content-key.json")
    station.power_on()
    wait_for(lambda: knows_its_key(operator), "the first report")

    deployment = station.order(station.release(first, "1.0.0", *seal))
    told = ended(operator, deployment)
    station.wait(IDLE)
    assert told["done"]
    assert told["done"]["method"] == "full"
    assert station.slot("b").read_bytes()[: len(content)] == content

    packed = station.release(second, "1.1.0", *seal, "--base", first)
    (delta,) = read_release(packed.directory).deltas
    deployment = station.order(packed)
    told = ended(operator, deployment)
    station.wait(IDLE, times=2)
    assert told["offer"]
    assert told["done"]
    assert (told["offer"]["method"], told["done"]["method"]) == ("delta", "delta")
    assert told["offer"]["bytes"] == delta.length < packed.length // 10
    assert station.slot("a").read_bytes()[: len(content) + 1] == second.read_bytes()
    kept = (station.server.directory, station.device, packed.directory)
    assert plain_in(*kept) == []
    assert "Traceback" not in station.log


def test_C7_a_device_whose_key_is_gone_is_sent_nothing_sealed(
    station: Station, operator: Operator
) -> None:
    """It says that it has no key, and the server says why the order waits."""
    config = station.config
    text = config.read_text().replace('decryption_key = "decrypt.key"\n', "")
    config.write_text(text)
    seal = ("--content-key", station.server.directory / "public/content-key.json")
    station.power_on()

    def reported() -> bool:
        return operator.device(DEVICE)["device"]["reported_at"] is not None

    wait_for(reported, "the first report")
    path = image(station.place, "first.img", SECRET * 100)
    deployment = station.order(station.release(path, "1.0.0", *seal))

    def held() -> bool:
        (told,) = operator.deployment(deployment)["installations"]
        return told["offer"] is not None and told["offer"]["held"] is not None

    wait_for(held, "a reason")
    (found,) = operator.deployment(deployment)["installations"]
    assert (found["state"], found["done"]) == ("waiting", None)
