"""Bench L5 on the machine of L4: what is recorded, cut and judged.

A :class:`World` is a vendor, a server and a factory disk. From it comes a log of a whole
update on the real machine (:func:`recorded`), judged in every state (:func:`replayed`);
and a :class:`Moment`, a machine stopped at a place of interest, from which cuts start in
half a second: memory by QEMU's migration into a file, disk and variables as raw copies,
for a kill under qcow2 would lose what had been flushed (device-D34).
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sealift.sim.processes import Processes
from tests.bench import datafs, gpt, l4, qemu
from tests.bench.blocklog import Disk, Log, LogError, states
from tests.bench.judge import Entry, Judge, Signed, Variables, Verdict
from tests.bench.station import Station

JOURNAL = "/agent/state/journal"
HOME, NEXT, SICK = "1.0.0", "2.0.0", "3.0.0"
_FATAL = r"config\.invalid|config\.missing"
_LOG = "log-sector-size=512,log-super-update-interval=64"
_SETTLE = 0.05


# ── the world ────────────────────────────────────────────────────────────────────────
class World:
    """A vendor with releases, a server that listens, and disks as factories leave them."""

    def __init__(self, run: Processes, place: Path) -> None:
        self.place = place
        vendor = place / "vendor"
        vendor.mkdir(parents=True)
        self.station = Station(run, vendor)
        self.station.set_up()
        self.releases = {HOME: l4.release(HOME), NEXT: l4.release(NEXT)}
        self.packed = {
            version: self.station.release(it.image, version)
            for version, it in self.releases.items()
        }

    def sick(self) -> None:
        """Publish a release that never earns its confirm, too."""
        found = l4.release(SICK, "bad")
        self.releases[SICK] = found
        self.packed[SICK] = self.station.release(found.image, SICK)

    def factory(self, name: str) -> Path:
        """A place with a device of this name: disk and variables, home confirmed."""
        tree = self.station.device(name, l4.SLOTS, l4.BOOT, self.packed[HOME])
        place = self.place / name
        l4.factory(place, self.releases[HOME], tree)
        return place

    @property
    def port(self) -> int:
        """Where the server listens for devices."""
        return self.station.port

    def name(self, version: str) -> str:
        """The name of a release's image in signed metadata."""
        told = (self.packed[version].directory / "release.json").read_text("utf-8")
        return str(json.loads(told)["artifact"]["name"])

    def signed(self) -> list[Signed]:
        """What the judge may see run; the first is home."""
        return [
            Signed(
                self.name(version),
                it.image,
                it.bootable.sha256,
                it.bootable.data_blocks,
            )
            for version, it in self.releases.items()
        ]

    def judge(self, disk: Disk) -> Judge:
        """A judge of this world's disks."""
        loader = hashlib.sha256(l4.loader().read_bytes()).digest()
        return Judge(
            disk,
            self.signed(),
            loader=loader,
            journal=lambda it: datafs.state(it, JOURNAL),
        )


def options(
    said: Mapping[str, object] | None, entries: Iterable[Entry] = ()
) -> list[Variables]:
    """The variables there may be while the journal says this: old or new.

    The journal is durable before a verb begins and is written after it returned, so its
    state bounds what the firmware was told. Home is pinned before the slot's entry is
    taken away, and so before there is a counted one.
    """
    kind = said["state"] if said else "lost"
    attempt = said.get("attempt") if said else None
    if said is None or not isinstance(attempt, dict):
        # At rest; what is installed tells which way the last decision went.
        return [Variables(None), Variables("sealift-a*"), Variables("sealift-b*")]
    home, slot = attempt["home"], attempt["slot"]
    old, new = f"sealift-{home}*", f"sealift-{slot}*"
    armed = f"sealift-{slot}+3.efi"
    if kind in {"staging", "staged"}:
        pinned = kind == "staged" or any(entry.left is not None for entry in entries)
        return [Variables(old)] if pinned else [Variables(None), Variables(old)]
    if kind in {"arming", "rebooting", "reverting"}:
        return [Variables(old), Variables(old, armed)]
    if kind == "trial":
        return [Variables(old)]
    if kind == "confirming":
        return [Variables(old), Variables(new)]
    result = said["result"]
    assert isinstance(result, dict)
    return [Variables(new if result["verdict"] == "succeeded" else old)]


# ── record and replay ────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Recorded:
    """A log of a machine's life: the image from before with its digest, and the log."""

    base: Path
    sha256: bytes
    log: Path


def recorded(world: World, place: Path, deployment: str, state: str) -> Recorded:
    """Run the machine of ``place`` under the recorder until the server knows the end."""
    base = place / "base.img"
    keep(place / "disk.img", base)
    with l4.Pc(place, port=world.port, drive=logged(place)) as pc:
        pc.up()
        pc.expect("state=staging", 120, never=_FATAL)
        world.station.ended(deployment, state, 300.0)
        pc.off()
    return Recorded(base, _sha256(base), place / "writes.log")


def keep(source: Path, into: Path) -> None:
    """A copy, holes left as they are."""
    words = ("cp", "--sparse=always", "--reflink=auto")
    subprocess.run([*words, source, into], check=True)


def logged(place: Path) -> list[str]:
    """The disk of ``place`` as words for QEMU, each write logged in ``writes.log``."""
    log = place / "writes.log"
    log.touch()
    return [
        *("-blockdev", f"driver=file,filename={place / 'disk.img'},node-name=f0"),
        *("-blockdev", f"driver=file,filename={log},node-name=l0"),
        *("-blockdev", f"driver=blklogwrites,file=f0,log=l0,{_LOG},node-name=d0"),
    ]


@dataclass
class Replayed:
    """What came of every state of a log."""

    prefixes: int = 0
    reorderings: int = 0
    wrong: list[tuple[str, str]] = field(default_factory=list)
    runs: Counter[str] = field(default_factory=Counter)
    journal: Counter[str] = field(default_factory=Counter)
    different: int = 0
    seconds: float = 0.0

    def to_json(self) -> dict[str, object]:
        """The figures as JSON values."""
        return {
            "prefixes": self.prefixes,
            "reorderings": self.reorderings,
            "different_states": self.different,
            "wrong": self.wrong[:20],
            "runs": dict(self.runs),
            "journal": dict(self.journal),
            "seconds": round(self.seconds, 1),
        }


def replayed(
    world: World,
    recording: Recorded,
    *,
    reorderings: int,
    seed: int,
    sample: Mapping[str, Path] | None = None,
) -> Replayed:
    """Judge every prefix and random reorderings; save samples of journal states.

    ``sample`` names files for the first state in which the journal is so.

    Raises:
        LogError: the base image is not the one the log was recorded on (device-D36).
    """
    if _sha256(recording.base) != recording.sha256:
        raise LogError("the base image is not the one the log was recorded on")
    log = Log(recording.log)
    disk = Disk(recording.base, log, gpt.of_file(recording.base))
    judge = world.judge(disk)
    found, started = Replayed(), time.monotonic()
    wanted = dict(sample or {})
    for state in states(disk, log, reorderings=reorderings, seed=seed):
        if state.kept is None:
            found.prefixes += 1
        else:
            found.reorderings += 1
        verdicts = judged(judge)
        said = judge.journal()
        kind = str(said["state"]) if said else "lost"
        found.journal[kind] += 1
        for verdict in verdicts:
            found.runs[str(verdict.release)] += 1
            found.wrong += [(state.name, fault) for fault in verdict.faults]
        if kind in wanted and (state.kept is not None) is (kind == "trial"):
            disk.save(wanted.pop(kind))
    found.different = judge.looked
    found.seconds = time.monotonic() - started
    return found


def judged(judge: Judge) -> list[Verdict]:
    """The verdicts on a disk, one for each way its variables may be.

    At rest not every variable fits every disk: those are taken under which what the
    journal says is installed would run, and there must be one.
    """
    said = judge.journal()
    found = [judge.verdict(it) for it in options(said, judge.partition().entries)]
    if said is not None and said["state"] == "idle":
        fine = [verdict for verdict in found if verdict.passed]
        return fine or found[:1]
    return found


def _sha256(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


# ── moments ──────────────────────────────────────────────────────────────────────────
@dataclass(frozen=True, slots=True)
class Moment:
    """A machine that stands still: its memory in a file, disk and variables raw."""

    place: Path

    def resume(self, into: Path, port: int | None) -> l4.Pc:
        """The machine again, in a place of its own, running; end it with ``cut``."""
        l4.copy(self.place, into)
        pc = l4.Pc(into, port=port)
        pc.start("-incoming", f"exec:cat {self.place / 'memory'}")
        while pc.monitor("query-status")["status"] == "inmigrate":
            time.sleep(_SETTLE)
        pc.mark()
        pc.monitor("cont")
        return pc


def hold(pc: l4.Pc, place: Path) -> Moment:
    """Stop a machine and keep it as it is.

    Raises:
        BenchError: a disk of it is not raw, or its memory could not be written.
    """
    for block in pc.monitor("query-block"):
        inserted = block.get("inserted") or {}
        if inserted and not inserted["ro"] and inserted["drv"] != "raw":
            raise qemu.BenchError(f"{inserted['file']} is {inserted['drv']}, not raw")
    pc.monitor("stop")
    place.mkdir(parents=True)
    pc.monitor("migrate", uri=f"exec:cat > {place / 'memory'}")
    while (told := pc.monitor("query-migrate")).get("status") != "completed":
        if told.get("status") == "failed":
            raise qemu.BenchError(f"the memory was not written: {told}")
        time.sleep(_SETTLE)
    l4.copy(pc.place, place)
    return Moment(place)


def judge_file(world: World, image: Path) -> tuple[list[Verdict], str]:
    """Verdicts on a disk that was cut, and the state its journal is in."""
    judge = world.judge(Disk(image, None, gpt.of_file(image)))
    verdicts = judged(judge)
    said = judge.journal()
    return verdicts, str(said["state"]) if said else "lost"


def cold_boot(place: Path, seconds: float = 200.0) -> str:
    """Power on what a cut left, without a network; the release that came up first."""
    with l4.Pc(place) as pc:
        _, release = pc.up(seconds)
        return release
