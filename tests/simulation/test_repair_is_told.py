"""A base that changed by itself is healed, and the server is told of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sealift.core.reports import EcuReport
from sealift.sim.attacks.device import flip
from sealift.sim.attacks.scene import INSTALLED, Scene
from sealift.sim.attacks.simulated import Parts
from sealift.sim.shipping import delta_from
from sealift.sim.vendor import Shape, make_release, served_at


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """A device that is ordered a delta of what it runs."""
    made = Scene(tmp_path, Shape(), Parts())
    first = made.first.content
    made.next = make_release("1.3", 4, content=first[:50] + b"fixed" + first[55:])
    made.vendor.release(made.next)
    container, raw = delta_from(made.first, made.next)
    made.vendor.containers[served_at(container)] = raw
    made.order(replace(made.order_for(made.next), delta=container))
    return made


def told(scene: Scene) -> EcuReport:
    """The newest report with a result."""
    found = (it.reports[0] for it in reversed(scene.reports()))
    return next(it for it in found if it.results)


def work_files(scene: Scene) -> list[str]:
    state = scene.device.path("state")
    return sorted(it.name for it in state.iterdir() if it.name.startswith("payload."))


def test_a_clean_delta_is_told_as_such(scene: Scene) -> None:
    """Method and bytes in the result; no remark; no work file stays."""
    assert scene.attempt() == INSTALLED
    report = told(scene)
    [result] = report.results
    assert (result.method, result.repaired) == ("delta", 0)
    assert result.transferred is not None
    assert 0 < result.transferred < scene.next.container.length
    assert report.detail == ""
    assert work_files(scene) == []


def test_a_changed_base_is_healed_and_told(scene: Scene) -> None:
    """How many segments, in the result and in words; the base is left as it is."""
    slot = scene.device.path(f"slots/{scene.device.running}")
    flip(slot, 100)
    changed = slot.read_bytes()
    lived = scene.attempted()
    assert lived.outcome == INSTALLED
    assert scene.runs() == scene.next.artifact.sha256
    report = told(scene)
    [result] = report.results
    assert (result.method, result.repaired) == ("delta", 1)
    assert "1 segments could not be made of what runs" in report.detail
    assert report.attack is None
    assert any("repaired from the full container" in line for line in lived.lines)
    assert slot.read_bytes() == changed
    assert work_files(scene) == []
