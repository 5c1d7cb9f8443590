"""The rules of the game: what a row may do, and how what it saw is put into words.

An attack function gets a :class:`Ground` and builds scenes on it (``scene``): a vendor
whose first release runs on a device, confirmed by an honest cycle, and a second release
that waits. Then

* ``ground.play(plan)`` gives a plan such a scene, and lets the device live an honest
  cycle after it, which has to install what waits;
* ``ground.observed(case, …)`` joins the cases to what the row observed.

Whatever breaks the intact set stands in the observed text, so the row cannot hold. The
control is a scene of the same shape without an attack: if that does not install, the
row proves nothing and says so.
"""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

from sealift.core.errors import SealiftError
from sealift.sim.attacks.outcome import code_of
from sealift.sim.attacks.scene import DEVICE, INSTALLED, NO_NEWS, OTHER, Scene, Seat
from sealift.sim.attacks.simulated import Parts
from sealift.sim.vendor import Shape

__all__ = [
    "DEVICE",
    "INSTALLED",
    "NO_NEWS",
    "OTHER",
    "THEN",
    "Ground",
    "Observed",
    "Plan",
    "Scene",
    "Seat",
    "bounded",
    "each",
    "refusal",
]

THEN = " → "
PLAIN = Shape()


@dataclass(frozen=True, slots=True)
class Observed:
    """What came of an attack: one text per case, and what it broke beside that."""

    cases: tuple[str, ...]
    faults: tuple[str, ...] = ()

    def __str__(self) -> str:
        found = THEN.join(self.cases)
        return f"{found}; {'; '.join(self.faults)}" if self.faults else found


def each(outcomes: Iterable[str]) -> str:
    """One case out of several variants: their common outcome, or all that differ."""
    found = list(dict.fromkeys(outcomes))
    return " | ".join(found) if found else "nothing happened"


Plan = Callable[[Scene], str]
"""One variant of an attack: what it came to."""


@dataclass
class Ground:
    """Where the scenes of one row are built; keeps what they break."""

    directory: Path
    parts: Parts = field(default_factory=Parts)
    scenes: list[Scene] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    controlled: set[Shape] = field(default_factory=set)

    def scene(self, shape: Shape = PLAIN) -> Scene:
        """A new scene; the first of its shape is tried without an attack as well."""
        if shape not in self.controlled:
            self.controlled.add(shape)
            self._control(shape)
        return self._scene(shape, self.parts)

    def play(self, plan: Plan, shape: Shape = PLAIN) -> str:
        """A scene, a plan, the honest cycle after it; what the plan came to."""
        scene = self.scene(shape)
        outcome = plan(scene)
        scene.recovers()
        return outcome

    def each(self, plans: Iterable[Plan], shape: Shape = PLAIN) -> str:
        """Several variants of one case, each in a scene of its own."""
        return each(self.play(plan, shape) for plan in plans)

    def together(self, plans: Iterable[Plan], shape: Shape = PLAIN) -> str:
        """Several variants one after the other in one scene; for those that refuse."""
        return self.play(lambda scene: each([plan(scene) for plan in plans]), shape)

    def _scene(self, shape: Shape, parts: Parts) -> Scene:
        place = self.directory / f"scene-{len(self.scenes)}"
        place.mkdir()
        found = Scene(place, shape, parts)
        self.scenes.append(found)
        return found

    def _control(self, shape: Shape) -> None:
        found = self._scene(shape, self.parts)
        outcome = found.attempt()
        if outcome != INSTALLED:
            self.faults.append(f"the control ended with {outcome}")

    def observed(self, *cases: str) -> Observed:
        """The cases, joined, with everything that was broken in any scene."""
        faults = [*self.faults, *(f for scene in self.scenes for f in scene.faults)]
        return Observed(cases, tuple(dict.fromkeys(faults)))


def refusal(act: Callable[[], object]) -> str:
    """The code with which ``act`` refuses; ``accepted`` if it does not."""
    try:
        act()
    except SealiftError as error:
        return code_of(error)
    return "accepted"


def bounded(plan: Plan, most: int = 10 << 20) -> Plan:
    """The same plan, while this process may not use more than so many bytes."""

    def act(scene: Scene) -> str:
        tracemalloc.start()
        try:
            outcome = plan(scene)
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        return outcome if peak <= most else f"{outcome}, at {peak >> 20} MiB"

    return act
