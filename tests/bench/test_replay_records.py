"""The agent's records on ext4 under the recorder: no cut loses one, or brings one back.

The journal is two files written in turn (``agent.record``), the store is one directory
with an index (``agent.storage``). Every state of the disk is read as after a restart.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.bench import datafs, gpt, small
from tests.bench.blocklog import Disk, Log, states
from tests.bench.recorder import Recording, record

COMMITS = 8
_JOB = """set -e
mount -t ext4 -o nosuid,nodev,noexec /dev/vda4 /data
PYTHONPATH=/sealift python3 - <<'END'
import json, mmap, os
from sealift.agent.record import FileCells, Record

marks = os.open("/dev/vda5", os.O_WRONLY | os.O_DIRECT)

def mark(at, value):
    page = mmap.mmap(-1, 4096)
    page.write(json.dumps(value).encode())
    os.pwrite(marks, page, at * 4096)

FSYNC
os.makedirs("/data/agent", mode=0o700, exist_ok=True)
journal = Record(FileCells("/data/agent", "journal"), limit=65536, what="journal")
mark(0, 0)
for number in range(1, COMMITS + 1):
    journal.write(b"%d " % number * (300 * number))
    mark(number, number)
END
umount /data
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("records")


@pytest.fixture(scope="module")
def disk(place: Path) -> Path:
    """The data partition without checksums of metadata, as on the benches' boards."""
    return small.disk(place, {}, {}, data="^metadata_csum")


def recorded(place: Path, disk: Path, name: str, fsync: str = "") -> Recording:
    job = _JOB.replace("COMMITS", str(COMMITS)).replace("FSYNC", fsync)
    return record(job, disk, place / f"{name}.log", python=True)


def replayed(recording: Recording, reorderings: int) -> tuple[int, int, list[str]]:
    """Prefixes, reorderings, and what was wrong: a commit lost that was durable."""
    log = Log(recording.log)
    disk = Disk(recording.base, log, gpt.of_file(recording.base))
    seen: dict[int, int] = {}
    prefixes = shuffled = 0
    wrong: list[str] = []
    for state in states(disk, log, reorderings=reorderings, seed=7):
        prefixes += state.kept is None
        shuffled += state.kept is not None
        key = disk.fingerprint("sealift-data")
        if key not in seen:
            base = "/agent/journal"
            found = datafs.files(
                disk.region("sealift-data"), [f"{base}.0", f"{base}.1"]
            )
            newest = datafs.record(found, base)
            seen[key] = int(newest.payload.split()[0]) if newest else 0
        told = [json.loads(mark) for mark in state.marks if mark]
        # Of an epoch the first mark was there when it began: that much was durable.
        durable = told[0] if told else 0
        if seen[key] < durable:
            wrong.append(f"{state.name}: commit {seen[key]}, {durable} was durable")
    return prefixes, shuffled, wrong


def test_no_cut_loses_a_durable_journal(place: Path, disk: Path) -> None:
    prefixes, shuffled, wrong = replayed(recorded(place, disk, "journal"), 20)
    assert not wrong, wrong[:5]
    assert prefixes > 2 * COMMITS
    assert shuffled > 100
    print("records", prefixes, shuffled)


def test_a_checksummed_superblock_can_be_torn(tmp_path: Path) -> None:
    """Why the boards' data partition has no ``metadata_csum``.

    The superblock of ext4 has 1024 bytes. Where a medium keeps 512 of them and loses
    the others its checksum is wrong, and Linux does not mount it: the state that the
    replay flags is booted, and so it is.
    """
    disk = small.disk(tmp_path, {}, {}, data="metadata_csum")
    recording = recorded(tmp_path, disk, "checksummed")
    log = Log(recording.log)
    torn = tmp_path / "torn.img"
    over = Disk(recording.base, log, gpt.of_file(recording.base))
    for state in states(over, log, reorderings=4, prefixes=False):
        paths = ["/agent/journal.0", "/agent/journal.1"]
        if state.sectors != 2 or state.kept != 1:
            continue
        try:
            datafs.files(over.region("sealift-data"), paths)
        except datafs.DataError:
            over.save(torn)
    assert torn.exists()
    job = "mount -t ext4 /dev/vda4 /data && exit 1; dmesg | grep superblock; exit 0"
    said = record(job, torn, tmp_path / "torn.log").said
    assert "invalid superblock checksum" in said


def test_without_fsync_it_would(place: Path, disk: Path) -> None:
    lazy = "os.fsync = lambda fd: None"
    _, _, wrong = replayed(recorded(place, disk, "lazy", lazy), 20)
    assert wrong
