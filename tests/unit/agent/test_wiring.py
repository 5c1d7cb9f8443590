"""The composition root: what of the configuration reaches the parts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sealift.agent import config, settings, wiring
from sealift.agent.boot.file import Started, running_text
from sealift.agent.clock import SystemClock
from sealift.agent.duties import Component
from sealift.agent.ports import Moved, Progress
from sealift.core.errors import ForbiddenError, KeyUnreadableError, RefusedError
from sealift.core.types import Slot
from tests.unit.agent.delta_pair import OLD, Shelf, pair, sealed
from tests.unit.agent.memory import MemorySlot

PAIR = pair()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for name in ("state", "boot"):
        (tmp_path / name).mkdir(mode=0o700)
    return tmp_path


def component(place: Path, way: Shelf, transfer: str) -> Component:
    """The wired component of a configuration with these settings of transfers."""
    text = settings.example().replace("/var/lib/sealift", str(place / "state"))
    begin, _, rest = text.partition("[transfer]")
    _, _, end = rest.partition("[boot]")
    raw = f"{begin}[transfer]\n{transfer}\n[boot]{end}".encode()
    found = config.parse(raw, str(place / "agent.toml"))
    (place / "boot" / "running").write_bytes(running_text(Started(Slot.A, "1")))
    return wiring.component(found, way, SystemClock(), Progress())


def test_a_device_that_takes_sealed_orders_only_refuses_others(place: Path) -> None:
    """When the fill is made, before anything of the other slot is touched."""
    part = component(place, Shelf(pair=PAIR), "sealed_only = true")
    with pytest.raises(ForbiddenError):
        part.fill(PAIR.order(), None)
    part.fill(sealed(PAIR).order(), None)


def test_by_default_a_plain_order_is_taken_and_told_of(place: Path) -> None:
    """The delta of the recorded base; how it came; and then nothing is left."""
    order = PAIR.order()
    part = component(place, Shelf(pair=PAIR), "")
    assert part.moved(order) is None
    slot = MemorySlot(b"\xee" * order.artifact.length)
    part.fill(order, PAIR.base)(slot, MemorySlot(OLD))
    assert part.moved(order) == Moved("delta", PAIR.delta.container.length, 0)
    assert part.moved(replace(order, deployment="another")) is None
    part.clear()
    assert part.moved(order) is None


def test_the_devices_own_budget_holds(place: Path) -> None:
    """``[transfer] bytes_max`` reaches the install."""
    part = component(place, Shelf(pair=PAIR), "bytes_max = 1000")
    slot = MemorySlot(b"\xee" * PAIR.artifact.length)
    with pytest.raises(RefusedError):
        part.fill(PAIR.order(), None)(slot, None)


def test_a_sealed_order_without_a_decryption_key(place: Path) -> None:
    """Nothing is fetched; the code says what is missing."""
    found = sealed(PAIR)
    way = Shelf(pair=found)
    part = component(place, way, "")
    slot = MemorySlot(b"\xee" * PAIR.artifact.length)
    with pytest.raises(KeyUnreadableError):
        part.fill(found.order(), None)(slot, None)
    assert way.asked == []
