"""SIGKILL cuts on the UEFI machine, and the replay of its logs: ``make bench-powercut``.

    python -m tests.bench.powercut --cuts 60 --seed 0 --json

A machine that stands before an install, and one in its trial, is resumed again and
again; killed at a random moment of the phase that is aimed at; its disk judged, and each
k-th one booted cold. A kill keeps every write QEMU had ended, so it finds wrong order;
lost caches are the replay's matter (``--replay``), which is counted apart. ``--variables``
cuts in SetVariable and judges by booting (device-D8).
"""

from __future__ import annotations

import argparse
import json
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from sealift.sim.processes import Processes
from tests.bench import l4, l5, qemu

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Phase:
    """What is aimed at: between which words on the console, from which moment."""

    name: str
    moment: str
    begins: str
    ends: str


PHASES = (
    Phase("install", "idle", "state=staging", "state=staged"),
    Phase("arm", "staged", "", "bench: going down"),
    Phase("confirm", "trial", "", "state=reporting"),
)


@dataclass
class Cuts:
    """What many cuts have shown."""

    seed: int
    cuts: Counter[str] = field(default_factory=Counter)
    journal: dict[str, Counter[str]] = field(default_factory=dict)
    booted: int = 0
    bricks: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def clean(self) -> bool:
        """Whether nothing was found."""
        return not self.bricks and not self.wrong

    def to_json(self) -> dict[str, object]:
        """The result as JSON values."""
        return {
            "seed": self.seed,
            "cuts": dict(self.cuts),
            "cuts_in_all": sum(self.cuts.values()),
            "journal_after": {name: dict(it) for name, it in self.journal.items()},
            "booted": self.booted,
            "bricks": len(self.bricks),
            "findings": [*self.bricks, *self.wrong],
            "seconds": round(self.seconds, 1),
        }


class Range:
    """Where the machines stand that are cut, and how long their phases last."""

    def __init__(self, world: l5.World, place: Path, say: Say) -> None:
        self._world = world
        self._place = place
        self._say = say
        self._moments: dict[str, l5.Moment] = {}
        self._lasts: dict[str, float] = {}

    def stand(self) -> None:
        """One whole update without a cut: the moments, and the length of each phase."""
        place = self._world.factory("target")
        with l4.Pc(place, port=self._world.port) as pc:
            pc.up()
            pc.expect("poll news", 120)
            self._moments["idle"] = l5.hold(pc, self._place / "idle")
        self._world.station.order(self._world.packed[l5.NEXT], "target")
        install, arm, confirm = PHASES
        pc = self._moments["idle"].resume(self._place / "whole", self._world.port)
        try:
            pc.expect(install.begins, 120)
            self._time(pc, install)
            self._hold(pc, "staged")
            self._time(pc, arm)
            pc.up()
            pc.expect("state=trial", 120)
            self._hold(pc, "trial")
            pc.monitor("set_link", name="n0", up=False)
            self._time(pc, confirm)
        finally:
            pc.stop()
        for name, seconds in self._lasts.items():
            self._say(f"{name} lasts {seconds:.1f} s")

    def _hold(self, pc: l4.Pc, name: str) -> None:
        self._moments[name] = l5.hold(pc, self._place / name)
        pc.monitor("cont")

    def _time(self, pc: l4.Pc, phase: Phase) -> None:
        started = time.monotonic()
        pc.expect(phase.ends, 300)
        self._lasts[phase.name] = time.monotonic() - started

    def cut(self, phase: Phase, chance: random.Random, into: Path) -> float:
        """Cut once in this phase; ``into`` holds what is left. When after its begin."""
        # Only an install needs the server; who was told of a success orders no more.
        port = self._world.port if phase.name == "install" else None
        pc = self._moments[phase.moment].resume(into, port)
        try:
            if phase.begins:
                pc.expect(phase.begins, 120)
            after = chance.uniform(0, self._lasts[phase.name] * 1.1)
            until = time.monotonic() + after
            while time.monotonic() < until:
                time.sleep(min(0.002, until - time.monotonic() + 0.0001))
            pc.cut()
        finally:
            pc.stop()
        return after


def cuts(
    world: l5.World,
    place: Path,
    count: int,
    *,
    seed: int = 0,
    boot_every: int = 6,
    say: Say = lambda _text: None,
) -> Cuts:
    """So many cuts, the phases in turn; every disk judged, some booted."""
    ground = Range(world, place, say)
    ground.stand()
    found, chance = Cuts(seed), random.Random(seed)
    started = time.monotonic()
    for number in range(count):
        phase = PHASES[number % len(PHASES)]
        into = place / "cut"
        shutil.rmtree(into, ignore_errors=True)
        after = ground.cut(phase, chance, into)
        found.cuts[phase.name] += 1
        verdicts, state = l5.judge_file(world, into / "disk.img")
        found.journal.setdefault(phase.name, Counter())[state] += 1
        told = f"cut {number} in {phase.name} after {after:.2f} s, journal {state}"
        faults = [fault for verdict in verdicts for fault in verdict.faults]
        flagged = bool(faults)
        if number % boot_every == 0 or flagged:
            may = {_version(world, it.release) for it in verdicts}
            found.booted += 1
            try:
                release = l5.cold_boot(into)
            except qemu.BenchError as error:
                found.bricks.append(f"{told}: {str(error)[-400:]}")
            else:
                told += f", boots {release}"
                if release not in may:
                    found.wrong.append(f"{told}, the judge said {may}")
        found.wrong += [f"{told}: {fault}" for fault in faults]
        say(f"{told}{': ' + '; '.join(faults) if faults else ''}")
    found.seconds = time.monotonic() - started
    return found


def _version(world: l5.World, name: str | None) -> str | None:
    for version in world.packed:
        if world.name(version) == name:
            return version
    return None


# ── variables ────────────────────────────────────────────────────────────────────────
_WRITER = """
from sealift.agent.efivars import EfiVariables, as_text, as_value
v = EfiVariables()
n = int((as_text(v.read("SealiftBench")) or "0").split()[0])
print("BEGINS AT", n, flush=True)
while True:
    n += 1
    v.write("SealiftBench", as_value(f"{n} " + "x" * 60))
    print("SET", n, flush=True)
"""


@dataclass
class VariableCuts:
    """Cuts inside SetVariable, each judged by the next cold boot."""

    cuts: int = 0
    old: int = 0
    new: int = 0
    wrong: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, object]:
        """The result as JSON values."""
        return {
            "cuts": self.cuts,
            "value_before_the_write": self.old,
            "value_of_the_write": self.new,
            "wrong": self.wrong,
        }


def cut_in_set_variable(
    place: Path, count: int, *, seed: int = 0, say: Say = lambda _text: None
) -> VariableCuts:
    """Kill the machine while it sets a variable over and over (device-D8).

    The value of the next boot must be that of the last write that returned, or of the
    one after it, and Secure Boot must still be on.
    """
    l4.factory(place, l4.release(l5.HOME))
    found, chance, told = VariableCuts(), random.Random(seed), 0
    for number in range(count + 1):
        with l4.Pc(place) as pc:
            pc.up()
            secure = pc.run(f"tail -c 1 {_SECURE} | od -An -tu1").strip()
            if secure != "1":
                found.wrong.append(f"boot {number}: Secure Boot says {secure}")
            writer = json.dumps(_WRITER)
            pc.mark()
            pc.send("")
            pc.run(f"python3 -I -c 'exec({writer})' >/dev/console 2>&1 &")
            value = int(pc.expect(r"BEGINS AT (\d+)\n", 60)[1])
            if number:
                found.cuts += 1
                found.old += value == told
                found.new += value == told + 1
                if value not in {told, told + 1}:
                    found.wrong.append(f"cut {number}: {value}, {told} was durable")
                say(f"cut {number}: {told} was set, {value} is there")
            if number == count:
                break
            pc.expect(r"SET \d+\n", 60)
            time.sleep(chance.uniform(0, 1.5))
            pc.cut()
            told = max(map(int, _SET.findall(pc.news)), default=value)
    return found


_SET = re.compile(r"SET (\d+)\n")
_SECURE = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.powercut")
    parser.add_argument("--cuts", type=int, default=60, help="SIGKILL cuts in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--boot-every", type=int, default=6, help="cold-boot each k-th")
    parser.add_argument("--variables", type=int, default=20, help="cuts in SetVariable")
    parser.add_argument(
        "--replay", type=int, default=40, help="reorderings of each epoch; 0: no replay"
    )
    parser.add_argument(
        "--work", type=Path, help="keep everything below this directory"
    )
    parser.add_argument("--json", action="store_true", help="figures as JSON")
    asked = parser.parse_args()
    place = asked.work or Path(tempfile.mkdtemp(prefix="sealift-powercut-"))
    try:
        return _run(asked, place)
    finally:
        if asked.work is None:
            shutil.rmtree(place, ignore_errors=True)


def _run(asked: argparse.Namespace, place: Path) -> int:
    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    figures: dict[str, object] = {}
    clean = True
    if asked.variables:
        found = cut_in_set_variable(
            place / "variables", asked.variables, seed=asked.seed, say=say
        )
        figures["variables"] = found.to_json()
        clean &= not found.wrong
    if asked.cuts or asked.replay:
        with Processes(place / "logs") as run:
            world = l5.World(run, place / "world")
            if asked.cuts:
                made = cuts(
                    world,
                    place / "range",
                    asked.cuts,
                    seed=asked.seed,
                    boot_every=asked.boot_every,
                    say=say,
                )
                figures["cuts"] = made.to_json()
                clean &= made.clean
            if asked.replay:
                for name, replay in _replays(world, asked.replay, asked.seed).items():
                    figures[name] = replay.to_json()
                    clean &= not replay.wrong
    if asked.json:
        print(json.dumps(figures, indent=2))
    else:
        for name, values in figures.items():
            print(name, json.dumps(values))
    return 0 if clean else 1


def _replays(world: l5.World, reorderings: int, seed: int) -> dict[str, l5.Replayed]:
    """Logs of a whole update and of one that returns, each state judged."""
    world.sick()
    found: dict[str, l5.Replayed] = {}
    for name, version, state in (
        ("update", l5.NEXT, "succeeded"),
        ("rollback", l5.SICK, "rolled_back"),
    ):
        place = world.factory(name)
        deployment = world.station.order(world.packed[version], name)
        recording = l5.recorded(world, place, deployment, state)
        found[f"replay_{name}"] = l5.replayed(
            world, recording, reorderings=reorderings, seed=seed
        )
    return found


if __name__ == "__main__":
    sys.exit(main())
