"""Logs of reference: ways to mark a boot file good, recorded and replayed (D4, D5)."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.bench import gpt, small
from tests.bench.blocklog import Disk, Flag, Log, State, states
from tests.bench.fat import Fat, Read
from tests.bench.judge import Judge, Variables, Verdict
from tests.bench.recorder import Recording, record

COUNTED, PLAIN = "sealift-b+2-1.efi", "sealift-b.efi"
_HEAD = """set -e
mount -t vfat $OPTIONS /dev/vda1 /esp
python3 - <<'END'
import os, shutil
directory = "/esp/EFI/Linux"
old, new = directory + "/sealift-b+2-1.efi", directory + "/sealift-b.efi"
aside = "/esp/EFI/sealift/new.tmp"

def sync(path):
    descriptor = os.open(path, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
"""
RENAME = """
os.rename(old, new)
sync(directory)
os.sync()
"""
COPY = """
shutil.copyfile(old, aside)
sync(aside)
os.rename(aside, new)
sync(new)
sync(directory)
os.remove(old)
sync(directory)
"""
SYNCED = """
shutil.copyfile(old, aside)
sync(aside)
os.rename(aside, new)
sync(directory)
os.sync()
os.remove(old)
sync(directory)
os.sync()
"""
PLACE = """
shutil.copyfile(old, aside)
sync(aside)
"""
_TAIL = """
END
umount /esp
"""


@dataclass
class Replayed:
    """What came of a replay: states counted, those that lose the entry."""

    prefixes: int = 0
    reorderings: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    verdicts: list[tuple[State, Verdict]] = field(default_factory=list)
    leaked: int = 0


@dataclass
class Board:
    """The small disk before the mark-good: slot a is home, slot b on trial."""

    place: Path
    disk: Path
    releases: tuple[small.Release, small.Release]

    def record(self, name: str, job: str, options: str = "") -> Recording:
        """Run a job on the disk; the log is kept for the tests of this session."""
        text = _HEAD.replace("$OPTIONS", options) + job + _TAIL
        return record(text, self.disk, self.place / f"{name}.log", python=True)

    def replay(self, recording: Recording, variables: Variables) -> Replayed:
        """Judge every prefix, and reorderings of every epoch."""
        log = Log(recording.log)
        disk = Disk(recording.base, log, gpt.of_file(recording.base))
        judge = Judge(disk, [it.signed for it in self.releases])
        found = Replayed()
        for state in states(disk, log, reorderings=40, seed=4):
            verdict = judge.verdict(variables)
            kind = "prefixes" if state.kept is None else "reorderings"
            setattr(found, kind, getattr(found, kind) + 1)
            names = {entry.name for entry in judge.partition().entries}
            if not names & {COUNTED, PLAIN}:
                found.lost[kind] += 1
            found.leaked = max(found.leaked, judge.partition().lost)
            found.verdicts.append((state, verdict))
        return found


def _part(disk: Disk, start: int) -> Read:
    return lambda at, size: disk.read(start + at, size)


@pytest.fixture(scope="session")
def board(tmp_path_factory: pytest.TempPathFactory) -> Board:
    """Made as an agent leaves it after an update that was started once."""
    place = tmp_path_factory.mktemp("reference")
    old, new = small.release(place, 1), small.release(place, 2)
    files = {
        "EFI/Linux/sealift-a.efi": old.boot,
        "EFI/Linux/rescue-2026-01-15.efi": b"nothing the loader shows",
        "EFI/Linux/memtest86plus.efi": b"neither",
        "EFI/Linux/firmware-setup.efi": b"nor this one",
        f"EFI/Linux/{COUNTED}": new.boot,
    }
    disk = small.disk(place, {"a": old, "b": new}, files)
    return Board(place, disk, (old, new))


@pytest.fixture(scope="session")
def renamed(board: Board) -> Recording:
    """Mark-good as systemd-bless-boot does it."""
    return board.record("rename", RENAME)


@pytest.fixture(scope="session")
def copied(board: Board) -> Recording:
    """Mark-good by copy, flush, remove."""
    return board.record("copy", COPY)


@pytest.fixture(scope="session")
def synced(board: Board) -> Recording:
    """The same with the directory and the whole file system synced, not the file."""
    return board.record("synced", SYNCED)


# The variable is the decision and comes first (D4): the new slot is the default.
GOOD = Variables("sealift-b*")


def test_D4_a_rename_as_a_commit_loses_the_entry(
    board: Board, renamed: Recording
) -> None:
    found = board.replay(renamed, GOOD)
    assert found.prefixes >= 4
    assert found.lost["prefixes"] > 0
    assert found.lost["reorderings"] > 0
    # The device then runs the old version, and nobody says so; the clusters are lost.
    worst = [it for _, it in found.verdicts if it.release == "os-1.img"]
    assert worst
    assert found.leaked >= len(board.releases[1].boot)


def test_D4_copy_then_remove_loses_it_nowhere(board: Board, copied: Recording) -> None:
    found = board.replay(copied, GOOD)
    assert not found.lost
    assert found.prefixes >= 8
    assert found.reorderings >= 100
    for state, verdict in found.verdicts:
        assert verdict.passed, (state.name, verdict)
        assert verdict.release == "os-2.img", (state.name, verdict)


def test_D4_sync_of_vfat_flushes_no_drive_cache(
    board: Board, synced: Recording
) -> None:
    """What renamed the file is durable only after an fsync of the file itself.

    Linux writes length and first cluster of a renamed file with its inode: an fsync of
    the directory comes before that, and sync(2) sends no flush to the drive.
    """
    found = board.replay(synced, GOOD)
    assert not found.lost["prefixes"]
    assert found.lost["reorderings"] > 0


def test_the_end_of_both_logs_is_what_linux_left(
    board: Board, copied: Recording, renamed: Recording
) -> None:
    for recording in (copied, renamed):
        log = Log(recording.log)
        regions = gpt.of_file(recording.base)
        disk = Disk(recording.base, log, regions)
        for _ in states(disk, log, reorderings=0, prefixes=False):
            pass
        start = regions["esp"][0] * 512
        fat = Fat(_part(disk, start))
        assert not fat.survey().faults
        names = {node.name for node in fat.inside("EFI/Linux")}
        assert PLAIN in names
        assert COUNTED not in names
        node = fat.find(f"EFI/Linux/{PLAIN}")
        assert node is not None
        digest = hashlib.sha256(fat.content(node)).digest()
        assert digest == board.releases[1].signed.boot_sha256


def test_D5_sync_writes_a_thousand_times_and_flushes_no_more(board: Board) -> None:
    plain = Log(board.record("plain", PLACE).log)
    synced = Log(board.record("sync", PLACE, "-o sync").log)
    partition = gpt.of_file(board.disk)["esp"]
    few, few_bytes = plain.written_to(*partition)
    many, many_bytes = synced.written_to(*partition)
    assert many > 10 * few
    assert many_bytes > 2 * few_bytes
    assert synced.flushes <= plain.flushes + 2


def test_the_log_has_writes_and_flushes(copied: Recording) -> None:
    log = Log(copied.log)
    assert log.writes >= 8
    assert log.flushes >= 3
    assert all(entry.flags in {Flag.NONE, Flag.FLUSH} for entry in log.entries)
