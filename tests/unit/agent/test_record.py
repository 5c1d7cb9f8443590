"""One record in two copies: torn, lost, foreign and damaged bytes cost a change at most."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from sealift.agent.record import Copy, FileCells, LostError, Record, pack, unpack
from sealift.core.errors import (
    SealiftError,
    SpaceError,
    StateError,
    TrustAnchorError,
)
from sealift.sim.flash import Door, Flash, FlashCells, Killed, PowerCut, Weather

LIMIT = 4096


def record(flash: Flash) -> Record:
    return Record(FlashCells(flash, "r"), limit=LIMIT)


def test_the_frame_is_as_documented() -> None:
    """docs/formats: one line of 114 bytes, then the payload."""
    raw = pack(Copy(7, b"hello"))
    line, payload = raw.split(b"\n", 1)
    assert len(line) + 1 == 114
    assert line.startswith(b"sealift-record 1 00000000000000000007 0000000005 ")
    assert payload == b"hello"
    assert unpack(raw) == Copy(7, b"hello")
    assert unpack(raw + b"older and longer") == Copy(7, b"hello")


def test_no_change_of_any_byte_goes_unseen() -> None:
    """Every byte of a copy, every bit: flipped, it is no copy any more."""
    raw = pack(Copy(3, b"payload"))
    for at in range(len(raw)):
        for bit in range(8):
            bad = bytearray(raw)
            bad[at] ^= 1 << bit
            assert unpack(bytes(bad)) is None, (at, bit)
    for length in range(len(raw)):
        assert unpack(raw[:length]) is None


@pytest.mark.parametrize("new", [b"short", b"much longer than what was there before"])
def test_a_write_torn_at_any_byte_leaves_the_old_value(new: bytes) -> None:
    """New bytes up to anywhere, old bytes behind: the value before, or the new one."""
    flash = Flash(Door())
    first = record(flash)
    for value in (b"one", b"two of them", b"three"):
        first.write(value)
    target = "r.1"  # one, two, three lie in 0, 1, 0
    old = bytes(flash.medium[target])
    raw = pack(Copy(4, new))
    for length in range(len(raw) + 1):
        torn = raw[:length] + old[length:]
        flash.make(target, torn)
        assert record(flash).read() == (new if length == len(raw) else b"three")


@pytest.mark.parametrize("weather", list(Weather))
def test_a_cut_anywhere_leaves_the_old_or_the_new_value(weather: Weather) -> None:
    """Before, inside and after every step of every write."""
    for point in (step + part for step in range(1, 9) for part in (0, 0.25, 0.5)):
        flash = Flash(Door([point]), weather)
        written = [b"nothing"]
        try:
            for value in (b"a", b"bb", b"ccc", b"dddd"):
                written.append(value)
                record(flash).write(value)
        except PowerCut:
            flash.lose_power()
        found = record(flash).read() or b"nothing"
        assert found in written[-2:], point


def test_a_value_left_by_a_killed_agent_is_flushed_before_it_is_believed() -> None:
    """Killed between write and flush, read by the next agent, then a power cut."""
    flash = Flash(Door([3.75]), Weather.LOST)  # step 3: the second value's write
    with pytest.raises(Killed):
        record(flash).write(b"old")
        record(flash).write(b"new")
    assert record(flash).read() == b"new"
    flash.lose_power()
    assert record(flash).read() == b"new"


def test_the_same_value_is_not_written_again() -> None:
    """No change, no wear."""
    flash = Flash(Door())
    record(flash).write(b"same")
    steps = flash.door.steps
    record(flash).write(b"same")
    assert flash.door.steps == steps


def test_copies_alternate_and_the_newest_counts() -> None:
    """Ten writes, opened anew each time: always the last one."""
    flash = Flash(Door())
    for number in range(10):
        opened = record(flash)
        opened.write(b"%d" % number)
        assert opened.sequence == number + 1
        assert record(flash).read() == b"%d" % number


def test_too_long_is_refused_before_anything_is_written() -> None:
    """The limit holds for writing and for reading."""
    flash = Flash(Door())
    with pytest.raises(StateError):
        record(flash).write(bytes(LIMIT + 1))
    assert flash.door.steps == 0
    for fill in (b"x", b"y"):
        Record(FlashCells(flash, "r"), limit=LIMIT * 2).write(fill * (LIMIT + 1))
    with pytest.raises(StateError):
        record(flash).read()


@pytest.mark.parametrize("value", [b"again", b"new"])
def test_a_medium_that_cannot_be_read_now_is_not_a_lost_record(value: bytes) -> None:
    """Only damage allows a new beginning; an error of the moment changes nothing."""
    flash = Flash(Door([1.75, 2.125, 3.125]), Weather.KEPT)
    with pytest.raises(Killed):
        record(flash).write(b"again")
    with pytest.raises(StateError) as refused:
        record(flash).read()
    assert not isinstance(refused.value, LostError)
    with pytest.raises(StateError) as refused:
        record(flash).write(value)
    assert not isinstance(refused.value, LostError)
    assert record(flash).read() == b"again"


def test_both_copies_damaged_is_lost() -> None:
    """And the next write begins anew."""
    flash = Flash(Door())
    for cell in ("r.0", "r.1"):
        flash.make(cell, b"rotten")
    with pytest.raises(LostError):
        record(flash).read()
    record(flash).write(b"new")
    assert record(flash).read() == b"new"


# ── files ────────────────────────────────────────────────────────────────────────────
def test_files_are_private_and_no_link_is_followed(tmp_path: Path) -> None:
    """Mode 0600 whatever the umask is; a link in the place of a copy is refused."""
    cells = FileCells(str(tmp_path), "journal")
    Record(cells, limit=LIMIT).write(b"state")
    assert (tmp_path / "journal.0").stat().st_mode & 0o777 == 0o600
    (tmp_path / "elsewhere").write_bytes(b"x")
    (tmp_path / "journal.1").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(TrustAnchorError):
        cells.write(1, b"y")
    with pytest.raises(TrustAnchorError):
        cells.read(1, 10)
    assert (tmp_path / "elsewhere").read_bytes() == b"x"


def test_a_copy_others_may_write_is_not_believed(tmp_path: Path) -> None:
    """Loose modes are device.trust (D-10)."""
    Record(FileCells(str(tmp_path), "journal"), limit=LIMIT).write(b"state")
    (tmp_path / "journal.0").chmod(0o666)
    with pytest.raises(SealiftError) as refused:
        Record(FileCells(str(tmp_path), "journal"), limit=LIMIT).read()
    assert refused.value.code == "device.trust"


def test_a_missing_directory_is_a_state_error(tmp_path: Path) -> None:
    """No such directory: nothing there to read, device.state when written."""
    cells = FileCells(str(tmp_path / "none"), "journal")
    assert Record(cells, limit=LIMIT).read() is None
    with pytest.raises(StateError):
        Record(cells, limit=LIMIT).write(b"state")
    with pytest.raises(StateError):
        cells.flush(0)


def test_a_full_disk_is_device_space(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """ENOSPC in the middle of a copy: device.space, and the old value stands."""
    opened = Record(FileCells(str(tmp_path), "journal"), limit=LIMIT)
    opened.write(b"old")

    def full(descriptor: int, data: bytes, offset: int) -> int:
        if offset:
            raise OSError(errno.ENOSPC, "No space left on device")
        os.write(descriptor, data[:60])
        return 60

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(SpaceError):
        opened.write(b"new")
    monkeypatch.undo()
    assert Record(FileCells(str(tmp_path), "journal"), limit=LIMIT).read() == b"old"
