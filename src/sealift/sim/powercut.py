"""The power-cut test: cut everywhere, start again, look at what is left.

For every scene (a kind of image, a kind of loader) one run without a cut counts the
durable steps. Then come a cut before, inside and after each of them, and the agent
killed after it, or the medium refusing it, under every weather; writes that a bad
medium keeps wrongly; pairs;
triples of the early and of the late steps; and, if more runs are asked for, chance. The
device is ``sim.device``, with the shipped agent inside.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sealift.core.errors import InvalidInputError
from sealift.sim.device import Device, Kind, Scene
from sealift.sim.flash import AFTER, BEFORE, INSIDE, KILLED, REFUSED, Weather
from sealift.sim.loaders.table import WORLDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

REFERENCE = ("counting", "one-shot")
"""The reference loader, with and without an attempt counter."""
FULL_RUNS = 100_000
QUICK_RUNS = 12_000
FINDINGS_KEPT = 20
_EARLY_STEPS = 10
_LATE_STEPS = 12
"""From the arming on: enough cuts here use up a trial's attempts."""
_CUTS = (BEFORE, INSIDE, AFTER, KILLED)
_PLACES = (*_CUTS, REFUSED)


@dataclass(frozen=True, slots=True)
class Run:
    """One life: a scene, and where it is cut."""

    scene: Scene
    cuts: tuple[float, ...] = ()

    def replay(self) -> str:
        """The command that lives this life again, with its trace."""
        scene = self.scene
        words = ["sealift sim powercut", f"--cuts {written(self.cuts) or 'none'}"]
        words += [f"--image {scene.kind}", f"--loader {scene.loader}"]
        words += [f"--weather {scene.weather}", f"--seed {scene.seed}"]
        if scene.spoiled:
            words.append(f"--spoil {scene.spoiled}")
        return " ".join(words)


@dataclass(slots=True)
class Survey:
    """What many runs have shown."""

    seed: int
    runs: int = 0
    cuts: int = 0
    bricks: int = 0
    untruths: int = 0
    seen: set[int] = field(default_factory=set)
    kinds: Counter[str] = field(default_factory=Counter)
    findings: list[dict[str, object]] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.bricks and not self.untruths

    def note(self, run: Run, faults: Sequence[str]) -> None:
        """Count one run."""
        self.runs += 1
        self.cuts += len(run.cuts)
        self.kinds[f"{run.scene.kind}/{run.scene.loader}"] += 1
        if not faults:
            return
        if any(_is_brick(fault) for fault in faults):
            self.bricks += 1
        else:
            self.untruths += 1
        if len(self.findings) < FINDINGS_KEPT:
            self.findings.append({"faults": list(faults), "replay": run.replay()})

    def to_json(self) -> dict[str, object]:
        """The result as JSON values."""
        return {
            "runs": self.runs,
            "states": len(self.seen),
            "bricks": self.bricks,
            "untruths": self.untruths,
            "cuts": self.cuts,
            "seed": self.seed,
            "scenes": dict(sorted(self.kinds.items())),
            "findings": self.findings,
        }


def survey(
    runs: Iterable[Run],
    *,
    seed: int = 0,
    device: type[Device] = Device,
    progress: Callable[[int], None] = lambda _done: None,
) -> Survey:
    """Live all these lives in a ``device`` and count what went wrong."""
    found = Survey(seed)
    for run in runs:
        lived = device(run.scene, run.cuts, found.seen).settle()
        found.note(run, lived.faults())
        progress(found.runs)
    return found


def cases(limit: int, seed: int = 0, names: Sequence[str] = REFERENCE) -> Iterator[Run]:
    """``limit`` runs: no cut, every single one, then pairs and triples, then chance.

    All loaders have their share. The same for the same seed. The part that does not fit
    is left out evenly: pairs and triples come in an order that the seed decides.
    """
    scenes = [Scene(kind, load, seed=seed) for kind in Kind for load in names]
    steps = {scene: Device(scene).settle().door.steps for scene in scenes}
    chance = random.Random(seed)
    systematic = itertools.chain(
        (Run(scene) for scene in scenes),
        (Run(bad) for scene in scenes for bad in _spoiled(scene)),
        _in_turn(_singles(scene, steps[scene]) for scene in scenes),
        _in_turn(_spoiled_and_cut(scene, steps[scene]) for scene in scenes),
        _several(scenes, steps, chance),
        _chance(scenes, steps, chance),
    )
    yield from itertools.islice(systematic, limit)


def loaders(name: str) -> tuple[str, ...]:
    """What ``--loader`` names: one of them, ``file`` for both of its kinds, ``all``.

    Raises:
        InvalidInputError: there is no such loader.
    """
    if name in {"file", "all"}:
        return REFERENCE if name == "file" else tuple(WORLDS)
    if name not in WORLDS:
        raise InvalidInputError(
            f"{name[:80]!r} is no loader",
            hint=f"known: all, file, {', '.join(WORLDS)}",
        )
    return (name,)


def parse_cuts(text: str) -> tuple[float, ...]:
    """Read points as ``--cuts`` takes them: ``3.5,7``, or ``none``.

    Raises:
        InvalidInputError: not a number, below 1, or no place of a cut.
    """
    if text.strip() in {"", "none"}:
        return ()
    try:
        points = tuple(float(point) for point in text.split(","))
    except ValueError as error:
        raise _no_cut(text) from error
    if any(point < 1 or point % 1 not in _PLACES for point in points):
        raise _no_cut(text)
    return points


def written(cuts: Sequence[float]) -> str:
    """Points as :func:`parse_cuts` reads them."""
    return ",".join(f"{point:g}" for point in cuts)


def _no_cut(text: str) -> InvalidInputError:
    return InvalidInputError(
        f"{text[:80]!r} is no list of cuts",
        hint="steps from 1 on, plus .25 (inside), .5 (after), .75 (killed) or "
        ".125 (refused): 3.5,7",
    )


def _is_brick(fault: str) -> bool:
    return fault.startswith(("brick", "never", "slot"))


def _in_turn(several: Iterable[Iterable[Run]]) -> Iterator[Run]:
    """One of each, until all are used up: whatever the limit is, none is left out."""
    for row in itertools.zip_longest(*several):
        yield from (run for run in row if run is not None)


def _points(steps: Iterable[int], places: Sequence[float] = _PLACES) -> list[float]:
    return [step + place for step in steps for place in places]


def _singles(scene: Scene, steps: int) -> Iterator[Run]:
    # A cut makes a life longer; twice the steps reach the end of the longest.
    for weather in Weather:
        under = dataclasses.replace(scene, weather=weather)
        for point in _points(range(1, 2 * steps + 2)):
            yield Run(under, (point,))


def _spoiled(scene: Scene) -> Iterator[Scene]:
    """One slot write goes bad; an image has three, and a cut repeats one."""
    for write in range(1, 5):
        yield dataclasses.replace(scene, spoiled=write)


def _spoiled_and_cut(scene: Scene, steps: int) -> Iterator[Run]:
    for bad in _spoiled(scene):
        for point in _points(range(1, steps + 1), (INSIDE, AFTER)):
            yield Run(bad, (point,))


def _several(
    scenes: Sequence[Scene], steps: dict[Scene, int], chance: random.Random
) -> Iterator[Run]:
    """Pairs everywhere, triples of the early and of the late steps, in turn."""
    pairs, triples = [], []
    for scene in scenes:
        last = steps[scene]
        everywhere = _points(range(1, last + 7), _CUTS)
        pairs += [Run(scene, it) for it in itertools.combinations(everywhere, 2)]
        for part in (
            range(1, _EARLY_STEPS + 1),
            range(last - _LATE_STEPS, last + 1),
        ):
            points = _points(part, (BEFORE, INSIDE, AFTER))
            triples += [Run(scene, it) for it in itertools.combinations(points, 3)]
    chance.shuffle(pairs)
    chance.shuffle(triples)
    yield from _in_turn([pairs, triples])


def _chance(
    scenes: Sequence[Scene], steps: dict[Scene, int], chance: random.Random
) -> Iterator[Run]:
    """For ever: any scene, weather and medium, two to six cuts anywhere."""
    while True:
        scene = chance.choice(scenes)
        under = Scene(
            scene.kind,
            scene.loader,
            chance.choice(list(Weather)),
            chance.choice([0, 0, 0, 1, 2, 3, 4]),
            chance.randrange(1 << 30),
        )
        points = _points(range(1, 2 * steps[scene]))
        yield Run(under, tuple(sorted(chance.sample(points, chance.randint(2, 6)))))
