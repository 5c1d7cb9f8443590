"""The log of writes and the disk under it, on logs made by hand; the loader's order."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from tests.bench.blocklog import SECTOR, Disk, Flag, Log, LogError, states
from tests.bench.judge import Entry, Variables, chosen, compare_versions, expected

REGIONS = {"low": (0, 8), "high": (8, 8)}


def log_of(path: Path, *entries: tuple[int, Flag, bytes], sector: int = SECTOR) -> Log:
    """A log with these entries: first sector, flags, bytes; a discard of one sector."""
    raw = bytearray(struct.pack("<QQQI", 0x6A736677736872, 1, len(entries), sector))
    raw += bytes(SECTOR - len(raw))
    for at, flag, data in entries:
        sectors = 1 if Flag.DISCARD in flag else len(data) // SECTOR
        raw += struct.pack("<QQQQ", at, sectors, flag.value, 0).ljust(SECTOR, b"\0")
        raw += b"" if Flag.DISCARD in flag else data
    path.write_bytes(raw)
    return Log(path)


def full(byte: int, sectors: int = 1) -> bytes:
    return bytes([byte]) * SECTOR * sectors


@pytest.fixture
def base(tmp_path: Path) -> Path:
    path = tmp_path / "base"
    path.write_bytes(b"".join(full(at) for at in range(16)))
    return path


def test_prefixes_come_one_entry_at_a_time(tmp_path: Path, base: Path) -> None:
    log = log_of(
        tmp_path / "log",
        (1, Flag.NONE, full(0xA1, 2)),
        (9, Flag.NONE, full(0xB1)),
        (0, Flag.FLUSH, b""),
        (1, Flag.NONE, full(0xA2)),
    )
    disk = Disk(base, log, REGIONS)
    seen = [
        (it.entries, [disk.read(at * SECTOR, 1)[0] for at in (0, 1, 2, 9)])
        for it in states(disk, log, reorderings=0)
    ]
    assert seen == [
        (0, [0, 1, 2, 9]),
        (1, [0, 0xA1, 0xA1, 9]),
        (2, [0, 0xA1, 0xA1, 0xB1]),
        (4, [0, 0xA2, 0xA1, 0xB1]),
    ]
    assert (log.writes, log.flushes) == (3, 1)
    assert log.written_to(8, 8) == (1, SECTOR)
    saved = tmp_path / "saved"
    disk.save(saved)
    assert saved.read_bytes() == disk.read(0, disk.size)


def test_few_sectors_are_tried_in_every_way(tmp_path: Path, base: Path) -> None:
    log = log_of(tmp_path / "log", (1, Flag.NONE, full(0xA1, 3)))
    disk = Disk(base, log, REGIONS)
    seen = {
        disk.read(SECTOR, 3 * SECTOR)[::SECTOR]
        for _ in states(disk, log, reorderings=40, prefixes=False)
    }
    assert len(seen) == 8
    assert disk.read(SECTOR, 3 * SECTOR) == full(0xA1, 3)


def test_what_was_flushed_or_forced_stays(tmp_path: Path, base: Path) -> None:
    log = log_of(
        tmp_path / "log",
        (1, Flag.NONE, full(0xA1)),
        (0, Flag.FLUSH, b""),
        (2, Flag.FUA, full(0xA2)),
        (3, Flag.NONE, full(0xA3, 8)),
    )
    disk = Disk(base, log, REGIONS)
    kept = set()
    for state in states(disk, log, reorderings=60, prefixes=False):
        if state.epoch:
            assert disk.read(SECTOR, 1) == b"\xa1"
            kept.add(disk.read(2 * SECTOR, 1))
    # A cut before the forced write had ended is one of the states, too.
    assert b"\xa2" in kept


def test_a_discarded_sector_is_empty(tmp_path: Path, base: Path) -> None:
    log = log_of(tmp_path / "log", (5, Flag.DISCARD, b""))
    disk = Disk(base, log, REGIONS)
    assert {disk.read(5 * SECTOR, 1) for _ in states(disk, log)} == {b"\0", b"\x05"}


def test_equal_contents_have_equal_fingerprints(tmp_path: Path, base: Path) -> None:
    log = log_of(
        tmp_path / "log",
        (1, Flag.NONE, full(0xA1)),
        (9, Flag.NONE, full(0xB1)),
        (1, Flag.NONE, full(1)),
    )
    disk = Disk(base, log, REGIONS)
    prints = [
        (disk.fingerprint("low"), disk.fingerprint("high"))
        for _ in states(disk, log, reorderings=0)
    ]
    assert prints[0] == (0, 0)
    assert prints[1][0] == prints[2][0] != 0
    assert prints[2][1] != 0
    assert prints[3] == (0, prints[2][1])  # written back to what it was
    assert disk.region("high")[SECTOR : SECTOR + 1] == b"\xb1"


def test_marks_stand_beside_the_disk(tmp_path: Path, base: Path) -> None:
    regions = {"low": (0, 8), "marks": (8, 8)}
    log = log_of(
        tmp_path / "log",
        (8, Flag.NONE, b"one".ljust(SECTOR, b"\0")),
        (1, Flag.NONE, full(0xA1)),
        (9, Flag.NONE, b"two".ljust(SECTOR, b"\0")),
        (0, Flag.FLUSH, b""),
        (2, Flag.NONE, full(0xA2)),
    )
    disk = Disk(base, log, regions)
    told = [(it.kept is None, it.marks) for it in states(disk, log, reorderings=1)]
    assert (True, (b"two",)) in told
    assert (False, (b"", b"one", b"two")) in told
    assert (False, (b"two",)) in told
    assert disk.read(8 * SECTOR, 1) == b"\x08"


def test_what_is_no_log_is_refused(tmp_path: Path, base: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(bytes(SECTOR))
    with pytest.raises(LogError):
        Log(path)
    with pytest.raises(LogError):
        log_of(path, sector=4096)
    log = log_of(path, (15, Flag.NONE, full(1, 2)))
    with pytest.raises(LogError):
        list(states(Disk(base, log, REGIONS), log))
    whole = path.read_bytes()
    path.write_bytes(whole[: SECTOR + 8])
    with pytest.raises(LogError):
        Log(path)


def test_versions_are_ordered_as_the_loader_does() -> None:
    """The examples of the version format specification, section ordering."""
    ascending = ["122.1", "123~rc1-1", "123", "123-a", "123-a.1", "123-1", "123-1.1"]
    ascending += ["123^post1", "123.a-1", "123.1-1", "123a-1", "124-1"]
    for at, one in enumerate(ascending):
        for other in ascending[at + 1 :]:
            assert compare_versions(one, other) < 0, (one, other)
            assert compare_versions(other, one) > 0, (one, other)
    assert compare_versions("1.10", "1.9") > 0
    assert compare_versions("1.0", "1.0") == 0


def test_the_entry_is_chosen_as_the_bench_showed() -> None:
    """device.md 1.4: one-shot, default, then newest first, without attempts last."""

    def entry(name: str, version: str) -> Entry:
        return Entry(name, "bench", version, b"", 0)

    old, new = entry("sealift-a.efi", "1.9.0"), entry("sealift-b+3.efi", "1.10.0")
    spent = entry("sealift-b+0-3.efi", "1.10.0")
    nobody = Variables(None)
    assert chosen([old, new], nobody) is new
    assert chosen([old, spent], nobody) is old
    assert chosen([old, new], Variables("sealift-a*")) is old
    assert chosen([old, new], Variables("sealift-a*", "sealift-b+3.efi")) is new
    assert chosen([old, new], Variables("sealift-a*", "sealift-b+2-1.efi")) is old
    assert chosen([old, spent], Variables("sealift-b*")) is spent  # device-D3
    assert chosen([], nobody) is None
    assert new.used().name == "sealift-b+2-1.efi"
    assert new.used().used().used().name == spent.name
    assert old.used() is old


def test_what_may_run_is_what_the_journal_says() -> None:
    order = {"artifact": {"name": "new"}}
    attempt = {"base": {"name": "base"}, "order": order}
    assert expected({"state": "idle"}, "factory") == {"factory"}
    assert expected({"state": "idle", "installed": {"name": "x"}}, "f") == {"x"}
    assert expected({"state": "staging", "attempt": attempt}, "f") == {"base"}
    assert expected({"state": "trial", "attempt": attempt}, "f") == {"base", "new"}
    told = {"state": "reporting", "attempt": attempt}
    assert expected(told | {"result": {"verdict": "succeeded"}}, "f") == {"new"}
    assert expected(told | {"result": {"verdict": "failed"}}, "f") == {"base"}
