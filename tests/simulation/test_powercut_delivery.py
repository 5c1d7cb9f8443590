"""No cut, anywhere, in an install by the shipped payload engine: plain and sealed."""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING

import pytest

from sealift.sim.delivery import DeliveredDevice, SealedDevice
from sealift.sim.device import Device, Kind, Scene
from sealift.sim.flash import AFTER, BEFORE, INSIDE, KILLED, REFUSED, Weather
from sealift.sim.powercut import REFERENCE, Run, survey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sealift.agent.shell import Component


@pytest.mark.parametrize("kind", [DeliveredDevice, SealedDevice])
def test_an_uncut_life_heals_one_segment(kind: type[DeliveredDevice]) -> None:
    """The delta, one malformed frame from the full container, a confirm, and rest."""
    lived = kind(Scene()).settle()
    assert lived.faults() == []
    assert lived.whole(lived.running) is lived.image


def singles(steps: int) -> Iterator[Run]:
    """Every step, every place of a cut; the weather in turn."""
    weathers = list(Weather)
    for step in range(1, steps + 3):
        for at, place in enumerate((BEFORE, INSIDE, AFTER, KILLED, REFUSED)):
            weather = weathers[(step + at) % len(weathers)]
            yield Run(Scene(weather=weather, seed=step), (step + place,))


def several(steps: int, count: int) -> Iterator[Run]:
    """Two or three cuts anywhere, any image, any loader."""
    chance = random.Random(3)
    places = [
        s + p for s in range(1, 2 * steps) for p in (BEFORE, INSIDE, AFTER, KILLED)
    ]
    for number in range(count):
        scene = Scene(
            chance.choice(list(Kind)),
            chance.choice(REFERENCE),
            chance.choice(list(Weather)),
            seed=number,
        )
        yield Run(scene, tuple(sorted(chance.sample(places, chance.randint(2, 3)))))


@pytest.mark.parametrize("kind", [DeliveredDevice, SealedDevice])
def test_no_cut_bricks_it_or_makes_it_lie(kind: type[Device]) -> None:
    """The device rests, whole, told the truth, and left no work file behind."""
    steps = kind(Scene()).settle().door.steps
    runs = [*singles(steps), *several(steps, 60)]
    found = survey(runs, device=kind)
    assert found.findings == []
    assert found.runs > 300


class Untidy(DeliveredDevice):
    """A device that keeps what an install needed."""

    def make_components(self) -> list[Component]:
        parts = super().make_components()
        return [dataclasses.replace(part, clear=lambda: None) for part in parts]


def test_what_is_left_behind_is_found() -> None:
    """Without the last step there is a fault in every life."""
    assert Untidy(Scene()).settle().faults() == ["work.payload.spent was left behind"]
