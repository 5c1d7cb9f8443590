"""The secure store: committed together or not at all, whoever pulls the plug."""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sealift.agent.storage import (
    RECORD_LIMIT,
    Forgiving,
    Overlay,
    Records,
    Store,
    claim,
    look,
)
from sealift.core.errors import (
    BusyError,
    LimitError,
    SpaceError,
    StateError,
    TrustAnchorError,
)
from tests.unit.agent.posix_disk import PosixDisk, PowerCut

DIRECTORY = 7  # any descriptor that is no file of the simulated disk
OLD = {"root.json": b"old root", "journal": b"one", "gone": b"x", "kept": b"k"}
CHANGES: dict[str, bytes | None] = {
    "root.json": b"new root",
    "journal": b"two",
    "gone": None,
    "fresh": b"f" * 50,
}
NEW = {"root.json": b"new root", "journal": b"two", "kept": b"k", "fresh": b"f" * 50}


def content(store: Records) -> dict[str, bytes | None]:
    return {name: store.read(name) for name in store.names()}


def settled(changes: dict[str, bytes]) -> PosixDisk:
    disk = PosixDisk()
    Store(DIRECTORY, disk).commit(dict(changes))
    return disk.copy()


# ── the power cut ────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("old", [{}, OLD], ids=["first commit", "later commit"])
def test_cut_at_any_call_leaves_the_old_state_or_the_new(old: dict[str, bytes]) -> None:
    """Whichever unsynced things last, the next start finds all of it or nothing."""
    new = {k: v for k, v in (old | CHANGES).items() if v is not None}
    count = settled(old)
    Store(DIRECTORY, count).commit(CHANGES)
    seen = set()
    for cut in range(1, count.calls + 1):
        for seed in range(40):
            disk = settled(old)
            disk.cut = cut
            with pytest.raises(PowerCut):
                Store(DIRECTORY, disk).commit(CHANGES)
            keep = (0.0, 1.0, 0.5, 0.9)[seed % 4]
            found = disk.after_cut(random.Random(seed), keep)
            store = Store(DIRECTORY, found)
            assert content(store) in (old, new), (cut, seed)
            assert not store.remarks
            seen.add(content(store) == new)
            store.commit({"after": b"1"})  # and it goes on working
            assert store.read("after") == b"1"
    assert seen == {False, True}


def test_commit_is_durable_when_it_returns() -> None:
    """Power lost right after the return, everything unsynced forgotten: new state."""
    disk = settled(OLD)
    Store(DIRECTORY, disk).commit(CHANGES)
    found = disk.after_cut(random.Random(1), 0.0)
    assert content(Store(DIRECTORY, found)) == NEW


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EIO, errno.EDQUOT])
def test_failing_call_changes_nothing_and_is_named(code: int) -> None:
    """Each call refused once: our error, the old state, no residue, and the next works."""
    count = settled(OLD)
    Store(DIRECTORY, count).commit(CHANGES)
    expected = SpaceError if code in {errno.ENOSPC, errno.EDQUOT} else StateError
    failures = 0
    for call in range(1, count.calls + 1):
        disk = settled(OLD)
        disk.fail = {call: code}
        store = Store(DIRECTORY, disk)
        try:
            store.commit(CHANGES)
        except expected:
            failures += 1
        found = content(store)
        assert found in (OLD, NEW)
        assert content(Store(DIRECTORY, disk)) == found
        store.commit(CHANGES)
        assert content(store) == NEW
    assert failures > 5


@given(
    steps=st.lists(
        st.dictionaries(
            st.sampled_from("abcd"), st.none() | st.binary(max_size=8), max_size=4
        ),
        max_size=6,
    ),
    cut=st.integers(1, 60),
    seed=st.integers(0, 9),
)
@settings(max_examples=200, deadline=None)
def test_any_history_any_cut(
    steps: list[dict[str, bytes | None]], cut: int, seed: int
) -> None:
    """After any history the store holds a state some commit had promised."""
    disk = PosixDisk(cut=cut)
    promised: list[dict[str, bytes]] = [{}]
    try:
        store = Store(DIRECTORY, disk)
        for step in steps:
            merged: dict[str, bytes | None] = {**promised[-1], **step}
            promised.append({k: v for k, v in merged.items() if v is not None})
            store.commit(step)
        promised = promised[-1:]
    except PowerCut:
        promised = promised[-2:]
    found = disk.after_cut(random.Random(seed), seed / 9)
    assert content(Store(DIRECTORY, found)) in promised


# ── no change, no write ──────────────────────────────────────────────────────────────
def test_no_change_no_write() -> None:
    """A commit that changes nothing costs no mutating call, and neither does a start."""
    disk = settled(OLD)
    store = Store(DIRECTORY, disk)
    store.commit({**OLD, "never": None})
    assert disk.calls == 0


def test_old_generations_are_swept() -> None:
    """The directory holds one file per record and the index."""
    disk = settled(OLD)
    store = Store(DIRECTORY, disk)
    for number in range(20):
        store.commit({"journal": str(number).encode()})
    assert len(disk.names) == len(OLD) + 1


# ── damage ───────────────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("damage", ["torn", "absent", "zeros", "foreign"])
def test_lost_index_is_rebuilt_from_the_newest_whole_records(damage: str) -> None:
    """Counters and floors survive the loss of the index; the repair is told."""
    disk = settled(OLD)
    Store(DIRECTORY, disk).commit({"journal": b"two"})
    index = disk.names["index"]
    match damage:
        case "torn":
            index.data = index.data[:60]
        case "absent":
            del disk.names["index"]
        case "zeros":
            index.data = bytes(len(index.data))
        case _:
            index.data = disk.names["kept@1"].data
    store = Store(DIRECTORY, disk)
    assert store.remarks
    assert content(store) == {**OLD, "journal": b"two"}
    store.commit({"journal": b"three"})
    assert content(Store(DIRECTORY, disk)) == {**OLD, "journal": b"three"}


def test_rotten_record_is_device_state_and_can_be_replaced() -> None:
    """One flipped bit is `device.state`; writing the record again repairs it."""
    disk = settled(OLD)
    inode = disk.names["journal@1"]
    inode.data = inode.data[:-1] + b"?"
    store = Store(DIRECTORY, disk)
    with pytest.raises(StateError, match="journal"):
        store.read("journal")
    store.commit({"journal": b"one"})
    assert store.read("journal") == b"one"


def test_records_cannot_be_swapped() -> None:
    """A whole record under another's name is damage: the digest binds the name."""
    disk = settled(OLD)
    disk.names["kept@1"].data = disk.names["journal@1"].data
    with pytest.raises(StateError):
        Store(DIRECTORY, disk).read("kept")


def test_unreadable_index_sweeps_nothing(tmp_path: Path) -> None:
    """An index that cannot be read for another reason than damage ends the start."""
    directory = claim(str(tmp_path / "s"))
    Store(directory).commit({"a": b"1"})
    Store(directory).commit({"a": b"2"})
    (tmp_path / "s/index").unlink()
    (tmp_path / "s/index").symlink_to("a@2")
    with pytest.raises(TrustAnchorError):
        Store(directory)
    assert (tmp_path / "s/a@2").exists()
    os.close(directory)


# ── names and sizes ──────────────────────────────────────────────────────────────────
@pytest.mark.parametrize("name", ["", "a/b", "../x", "A", "a@1", "a\0", "a" * 201])
def test_unsafe_names_are_refused(name: str) -> None:
    """A record name is never a path."""
    with pytest.raises(StateError):
        Store(DIRECTORY, PosixDisk()).commit({name: b""})


def test_record_limit() -> None:
    """At the limit yes, above it no."""
    store = Store(DIRECTORY, PosixDisk())
    store.commit({"big": bytes(RECORD_LIMIT)})
    assert len(store.read("big") or b"") == RECORD_LIMIT
    with pytest.raises(LimitError):
        store.commit({"big": bytes(RECORD_LIMIT + 1)})


# ── the real directory ───────────────────────────────────────────────────────────────
def test_real_directory_is_private_whatever_the_umask(tmp_path: Path) -> None:
    """0700 and 0600 under the most careless umask (D-10)."""
    before = os.umask(0)
    try:
        directory = claim(str(tmp_path / "s"))
        Store(directory).commit({"a": b"1"})
    finally:
        os.umask(before)
    modes = {p.name: p.stat().st_mode & 0o777 for p in (tmp_path / "s").iterdir()}
    assert modes == {"a@1": 0o600, "index": 0o600}
    assert (tmp_path / "s").stat().st_mode & 0o777 == 0o700
    os.close(directory)


def test_second_writer_is_busy_and_a_reader_is_not(tmp_path: Path) -> None:
    """One writer (D-17); `status` reads beside it and sees each commit."""
    path = str(tmp_path / "s")
    directory = claim(path)
    store = Store(directory)
    store.commit({"a": b"1"})
    with pytest.raises(BusyError) as caught:
        claim(path)
    assert caught.value.code == "device.busy"
    reader = look(path)
    assert Records(reader).read("a") == b"1"
    store.commit({"a": b"2", "b": b"3"})
    assert content(Records(reader)) == {"a": b"2", "b": b"3"}
    os.close(reader)
    os.close(directory)
    os.close(claim(path))


def test_reader_beside_a_busy_writer_never_sees_a_hole(tmp_path: Path) -> None:
    """The index and the file it names are found together, however fast they change."""
    path = str(tmp_path / "s")
    directory = claim(path)
    store = Store(directory)
    store.commit({"a": b"0"})
    reader = Records(look(path))
    stop = threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            store.commit({"a": str(number).encode()})

    writer = threading.Thread(target=write)
    writer.start()
    found = [int(reader.read("a") or b"-1") for _ in range(300)]
    stop.set()
    writer.join()
    assert found == sorted(found)
    assert found[0] >= 0
    os.close(reader._directory)
    os.close(directory)


def spoil_loose(path: Path) -> None:
    path.mkdir(mode=0o700)
    path.chmod(0o755)


def spoil_link(path: Path) -> None:
    (path.parent / "elsewhere").mkdir(mode=0o700)
    path.symlink_to("elsewhere")


def spoil_file(path: Path) -> None:
    path.write_bytes(b"")


def spoil_parent(path: Path) -> None:
    path.mkdir(mode=0o700)
    path.parent.chmod(0o777)


@pytest.mark.parametrize(
    "spoil",
    [spoil_loose, spoil_link, spoil_file, spoil_parent],
    ids=lambda f: f.__name__,
)
def test_d10_open_or_foreign_directory_is_device_trust(
    tmp_path: Path, spoil: Callable[[Path], None]
) -> None:
    """Loose mode, symbolic link, not a directory, swappable: `device.trust` (D-10)."""
    parent = tmp_path / "p"
    parent.mkdir(mode=0o700)
    spoil(parent / "s")
    with pytest.raises(TrustAnchorError) as caught:
        claim(str(parent / "s"))
    assert caught.value.code == "device.trust"


def test_d10_loose_record_is_device_trust(tmp_path: Path) -> None:
    """A record that others may read is refused with the command that repairs it."""
    directory = claim(str(tmp_path / "s"))
    store = Store(directory)
    store.commit({"a": b"1"})
    (tmp_path / "s/a@1").chmod(0o644)
    with pytest.raises(TrustAnchorError) as caught:
        store.read("a")
    assert "chmod 600" in (caught.value.hint or "")
    os.close(directory)


def test_missing_parent_is_device_state(tmp_path: Path) -> None:
    """A state directory that cannot be made is named, with the reason."""
    with pytest.raises(StateError, match="cannot be made"):
        claim(str(tmp_path / "no/where"))


# ── views of a store ─────────────────────────────────────────────────────────────────
def test_forgiving_store_takes_damage_for_absence_and_tells() -> None:
    """What can be fetched again may be missing; other trouble is still raised."""
    disk = settled(OLD)
    disk.names["journal@1"].data = b"rotten"
    told: list[StateError] = []
    store = Forgiving(Store(DIRECTORY, disk), told.append)
    assert store.read("journal") is None
    assert store.read("kept") == b"k"
    assert [error.fields["record"] for error in told] == ["journal"]
    disk.names["kept@1"].mode = 0o644
    with pytest.raises(TrustAnchorError):
        store.read("kept")
    store.commit({"journal": b"new"})
    assert store.read("journal") == b"new"
    assert list(store.names("j")) == ["journal"]


def test_overlay_writes_nothing(tmp_path: Path) -> None:
    """A dry run sees its own changes, and nobody else ever does."""
    path = str(tmp_path / "s")
    directory = claim(path)
    Store(directory).commit({"a": b"1", "b": b"2"})
    overlay = Overlay(directory)
    overlay.commit({"a": b"x", "b": None, "c": b"3"})
    assert (overlay.read("a"), overlay.read("b"), overlay.read("c")) == (
        b"x",
        None,
        b"3",
    )
    assert list(overlay.names()) == ["a", "c"]
    assert content(Records(directory)) == {"a": b"1", "b": b"2"}
    assert Overlay(None).read("a") is None
    os.close(directory)
