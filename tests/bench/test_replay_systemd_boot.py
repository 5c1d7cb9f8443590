"""The shipped boot control for systemd-boot under the recorder: every cut is judged.

Update, mark-good and disarming run on the kernel's own vfat, in a guest whose disk is
logged. Each prefix of the log and random parts of every epoch must start a verified
image, one that may run at that moment, with no entry pointing at a slot being written.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sealift.agent.efivars import LOADER as VENDOR
from sealift.agent.efivars import as_value
from sealift.core.types import Artifact, Bootable, BootKind
from tests.bench import gpt, small
from tests.bench.blocklog import Disk, Log, State, states
from tests.bench.disk import run
from tests.bench.judge import Judge, Variables, Verdict
from tests.bench.recorder import Recording, record

REORDERINGS = 200
_COUNTED = ("::EFI/Linux/sealift-b+3.efi", "::EFI/Linux/sealift-b+2-1.efi")
_JOB = """set -e
mount -t vfat /dev/vda1 /esp
PYTHONPATH=/sealift python3 /verbs.py {verb} /facts.json
umount /esp
"""


@dataclass
class Replayed:
    """How many states were looked at, and those in which something is wrong."""

    prefixes: int = 0
    reorderings: int = 0
    wrong: list[tuple[str, str]] = field(default_factory=list)
    runs: set[str] = field(default_factory=set)
    last: Verdict | None = None
    leaked: int = 0


@dataclass
class Board:
    """A disk with one release confirmed, and what was recorded on it."""

    place: Path
    disk: Path
    releases: tuple[small.Release, ...]
    update: Recording
    good: Recording
    revert: Recording


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """Slot a runs release 2, slot b holds release 1; 3 comes, is confirmed, or not."""
    place = tmp_path_factory.mktemp("systemd-boot")
    one, two, three = (small.release(place, number) for number in (1, 2, 3))
    files = {
        "EFI/Linux/sealift-a.efi": two.boot,
        "EFI/Linux/sealift-b.efi": one.boot,
        "EFI/BOOT/BOOTX64.EFI": b"a boot loader",
    }
    disk = small.disk(place, {"a": two, "b": one}, files)
    update = _recorded(place, "update", disk, three)
    tried = _started_once(place, update)
    good = _recorded(place, "good", tried, three)
    revert = _recorded(place, "revert", tried, three)
    return Board(place, disk, (one, two, three), update, good, revert)


@pytest.fixture(scope="session")
def replays(board: Board) -> dict[str, Replayed]:
    """All three logs, judged."""
    return {
        verb: _replay(board, getattr(board, verb))
        for verb in ("update", "good", "revert")
    }


@pytest.mark.parametrize("verb", ["update", "good", "revert"])
def test_every_cut_leaves_a_bootable_verified_truthful_disk(
    replays: dict[str, Replayed], verb: str
) -> None:
    found = replays[verb]
    assert not found.wrong, found.wrong[:5]
    assert found.prefixes > 3
    print(verb, found.prefixes, found.reorderings)


def test_an_update_and_a_mark_good_are_many_states(
    replays: dict[str, Replayed],
) -> None:
    assert replays["update"].prefixes > 20
    assert replays["update"].reorderings > 500
    assert replays["good"].prefixes > 15
    assert replays["good"].reorderings > 300


@pytest.mark.parametrize(
    ("without", "fault"), [("mark", "B9: sealift-b"), ("flush", "unverified|B9|runs")]
)
def test_the_judge_sees_what_was_left_out(
    board: Board, without: str, fault: str
) -> None:
    """A slot that is not marked before it is written; an agent that never flushes."""
    new = board.releases[2]
    found = _replay(board, _recorded(board.place, "update", board.disk, new, without))
    assert any(re.search(fault, text) for _, text in found.wrong), found.wrong[:5]


def test_what_runs_changes_where_it_should(replays: dict[str, Replayed]) -> None:
    assert replays["update"].runs == {"os-2.img", "os-3.img"}
    assert replays["good"].runs == {"os-2.img", "os-3.img"}
    assert replays["revert"].runs == {"os-2.img"}
    for verb, release in (("good", "os-3.img"), ("revert", "os-2.img")):
        last = replays[verb].last
        assert last is not None
        assert last.release == release


def _recorded(
    place: Path, verb: str, disk: Path, new: small.Release, without: str = ""
) -> Recording:
    facts = {
        "old": "os-2.img",
        "new": new.signed.name,
        "image": artifact(new).to_json(),
        "without": without,
    }
    pinned = (7).to_bytes(4, "little") + as_value("sealift-a*")
    files = {
        "verbs.py": (Path(__file__).parent / "verbs.py").read_bytes(),
        "facts.json": json.dumps(facts).encode(),
        "image": new.image if verb == "update" else b"",
        f"vars/LoaderEntryDefault-{VENDOR}": pinned,
    }
    log = place / f"{verb}{without}.log"
    return record(_JOB.format(verb=verb), disk, log, files=files, python=True)


def _started_once(place: Path, update: Recording) -> Path:
    """The disk after the update, and after the loader has counted one start."""
    log = Log(update.log)
    disk = Disk(update.base, log, gpt.of_file(update.base))
    for _ in states(disk, log, reorderings=0, prefixes=False):
        pass
    found = place / "tried.img"
    disk.save(found)
    at = disk.regions["esp"][0] * gpt.SECTOR
    run("mren", "-i", f"{found}@@{at}", *_COUNTED)
    return found


def _replay(board: Board, recording: Recording) -> Replayed:
    log = Log(recording.log)
    disk = Disk(recording.base, log, gpt.of_file(recording.base))
    loader = hashlib.sha256(b"a boot loader").digest()
    judge = Judge(disk, [it.signed for it in board.releases], loader=loader)
    found = Replayed()
    for state in states(disk, log, reorderings=REORDERINGS, seed=11):
        if state.kept is None:
            found.prefixes += 1
        else:
            found.reorderings += 1
        _look(state, judge, found)
    return found


def _look(state: State, judge: Judge, found: Replayed) -> None:
    """One state, with every variables it may have, against what may run then."""
    told = [json.loads(mark) for mark in state.marks if mark]
    may = {name for mark in told for name in mark["may"]} or {"os-2.img"}
    options = [
        Variables(it["LoaderEntryDefault"] or None, it["LoaderEntryOneShot"] or None)
        for mark in told
        for it in mark["variables"]
    ]
    for variables in dict.fromkeys(options or [Variables("sealift-a*")]):
        verdict = judge.verdict(variables)
        found.last = verdict
        found.runs.add(str(verdict.release))
        found.wrong += [(state.name, fault) for fault in verdict.faults]
        if verdict.release not in may:
            found.wrong.append((state.name, f"{verdict.release} runs, not {may}"))
    found.leaked = max(found.leaked, judge.partition().lost)


def artifact(release: small.Release) -> Artifact:
    """The release as signed metadata tells it."""
    image = release.image
    boot = Bootable(
        kind=BootKind.UKI,
        offset=release.offset,
        length=len(release.boot),
        sha256=release.signed.boot_sha256,
        root_hash=release.root_hash,
        salt=small.SALT,
        data_blocks=release.signed.data_blocks,
    )
    return Artifact(
        name=release.signed.name,
        length=len(image),
        sha256=hashlib.sha256(image).digest(),
        sha512=None,
        segment_size=1 << 20,
        segment_root=bytes(32),
        hardware_ids=("bench",),
        release_counter=1,
        version="1",
        bootable=boot,
    )
