"""A sealed state: whoever writes the medium without the key is found out.

What the attacker has is everything but the key: the code, the format, every byte that
ever lay there. What he may do is take away and put back; what he may not is make up.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sealift.agent.ciphertext import PIECE, secret
from sealift.agent.journal import Journal
from sealift.agent.machine import Idle
from sealift.agent.payload import PATCH_FILE
from sealift.agent.record import Copy as Written
from sealift.agent.record import FileCells, LostError, Record, pack, unpack
from sealift.agent.seal import UNKEYED, Seal
from sealift.agent.slot import WorkFiles
from sealift.agent.storage import DamagedError, ForeignError, Overlay, Records, Store
from sealift.agent.storage import claim as claimed
from sealift.agent.storage.codec import index_data, sealed
from sealift.core.errors import SpaceError
from tests.unit.agent.posix_disk import PosixDisk, PowerCut

KEY, OTHER = Seal(b"k" * 32), Seal(b"o" * 32)
DIRECTORY = 7
OLD = {"root.json": b"old root", "report.1": b"one", "kept": b"k"}
CHANGES: dict[str, bytes | None] = {"root.json": b"new root", "report.1": None}
NEW = {"root.json": b"new root", "kept": b"k"}


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[int]:
    """A claimed state directory with two commits under the key."""
    found = claimed(str(tmp_path / "state"))
    store = Store(found, seal=KEY)
    store.commit(dict(OLD))
    store.commit(dict(CHANGES))
    yield found
    os.close(found)


def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


def content(store: Records) -> dict[str, bytes | None]:
    return {name: store.read(name) for name in store.names()}


# ── the store ────────────────────────────────────────────────────────────────────────
def test_a_sealed_store_opens_with_its_key_only(directory: int) -> None:
    """The key opens it; no key, another key: refused, and nothing is swept away."""
    before = sorted(os.listdir(directory))
    assert content(Store(directory, seal=KEY)) == NEW
    assert content(Records(directory, seal=KEY)) == NEW
    assert Overlay(directory, KEY).read("kept") == b"k"
    for strange in (UNKEYED, OTHER):
        with pytest.raises(ForeignError) as caught:
            Store(directory, seal=strange)
        assert caught.value.code == "device.state"
        assert "docs/agent.md" in (caught.value.hint or "")
        with pytest.raises(ForeignError):
            Overlay(directory, strange).read("kept")
    assert sorted(os.listdir(directory)) == before


def test_a_store_without_tags_is_not_believed(tmp_path: Path) -> None:
    """Stripping the HMAC would be forging: a state made without the key is refused."""
    found = claimed(str(state(tmp_path)))
    Store(found).commit(dict(OLD))
    with pytest.raises(ForeignError, match="made without the key"):
        Store(found, seal=KEY)
    assert content(Store(found)) == OLD
    os.close(found)


def test_every_flipped_bit_is_found(directory: int, tmp_path: Path) -> None:
    """In every file, every byte: never another content, and no other record harmed."""
    for path in sorted(state(tmp_path).iterdir()):
        raw = path.read_bytes()
        for at in range(len(raw)):
            path.write_bytes(raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :])
            store = Records(directory, seal=KEY)
            for name, value in NEW.items():
                with contextlib.suppress(DamagedError, ForeignError):
                    assert store.read(name) == value
        path.write_bytes(raw)
    assert content(Store(directory, seal=KEY)) == NEW


def test_forged_files_with_right_digests_are_not_read(
    directory: int, tmp_path: Path
) -> None:
    """The attacker writes index and records anew, as a device without a key would."""
    forged = {"root.json": b"the attacker's root"}
    place = state(tmp_path)
    (place / "root.json@9").write_bytes(sealed("root.json@9", forged["root.json"]))
    (place / "root.json@9").chmod(0o600)
    (place / "index").write_bytes(sealed("index", index_data(9, {"root.json": 9})))
    with pytest.raises(ForeignError):
        Store(directory, seal=KEY)
    (place / "index").unlink()  # then the newest whole files count, and this is none
    found = Store(directory, seal=KEY)
    assert content(found) == NEW
    assert found.remarks


def test_one_forged_record_is_found_and_replaced(
    directory: int, tmp_path: Path
) -> None:
    """A record without a tag below a good index: damage like any other."""
    (path,) = state(tmp_path).glob("root.json@*")
    path.write_bytes(sealed(path.name, b"the attacker's root"))
    store = Store(directory, seal=KEY)
    with pytest.raises(DamagedError, match="without the key"):
        store.read("root.json")
    store.commit({"root.json": b"fetched again"})
    assert store.read("root.json") == b"fetched again"


def test_an_older_file_does_not_pass_for_a_newer_one(
    directory: int, tmp_path: Path
) -> None:
    """The tag binds the generation: yesterday's bytes under today's name are found."""
    old = {p.name: p.read_bytes() for p in state(tmp_path).glob("root.json@*")}
    store = Store(directory, seal=KEY)
    store.commit({"root.json": b"newer still"})
    (path,) = state(tmp_path).glob("root.json@*")
    path.write_bytes(*old.values())
    with pytest.raises(DamagedError, match="or forged"):
        store.read("root.json")


@given(st.integers(1, 40))
def test_a_cut_at_any_call_leaves_the_old_state_or_the_new(cut: int) -> None:
    """The order of steps is the same with a key."""
    disk = PosixDisk()
    Store(DIRECTORY, disk, KEY).commit(dict(OLD))
    found = disk.copy()
    found.cut = found.calls + cut
    try:
        Store(DIRECTORY, found, KEY).commit(dict(CHANGES))
    except PowerCut:
        after = content(Store(DIRECTORY, found.copy(), KEY))
        assert after in (OLD, NEW)
    else:
        assert content(Store(DIRECTORY, found.copy(), KEY)) == NEW


# ── journal and floors ───────────────────────────────────────────────────────────────
def test_records_are_sealed_as_documented() -> None:
    """docs/formats: the same line with a 2, an HMAC over the same bytes."""
    seal = KEY.of("record journal")
    raw = pack(Written(7, b"hello"), seal)
    assert raw.startswith(b"sealift-record 2 00000000000000000007 0000000005 ")
    assert len(raw) == 114 + 5
    assert unpack(raw, seal) == Written(7, b"hello")
    for strange in (UNKEYED, OTHER.of("record journal"), KEY.of("record floors")):
        assert unpack(raw, strange) is None
    assert unpack(pack(Written(8, b"forged")), seal) is None


def test_a_forged_journal_is_a_lost_one(tmp_path: Path) -> None:
    """Nothing is confirmed, armed or installed on its word: it counts as lost."""

    def journal(seal: Seal) -> Journal:
        cells = FileCells(str(tmp_path), "journal")
        return Journal(Record(cells, limit=4096, what="journal", seal=seal))

    journal(KEY).write("main", Idle())
    journal(KEY).read()
    forger = journal(UNKEYED)
    for _ in range(2):
        forger.write("attacker", Idle())
        forger.write("again", Idle())
    with pytest.raises(LostError, match="journal are damaged") as caught:
        journal(KEY).read()
    assert caught.value.code == "device.state"


# ── work files ───────────────────────────────────────────────────────────────────────
def test_the_patch_lies_as_ciphertext(tmp_path: Path) -> None:
    """No run of 32 bytes of it on the medium; read back it is whole."""
    plain = b"".join(sha256(b"%d" % at).digest() for at in range(4 * PIECE // 32 + 9))
    work = secret(WorkFiles(str(tmp_path)), {PATCH_FILE}, KEY.of("work").derived())
    file = work.open(PATCH_FILE, len(plain))
    for at in range(0, len(plain), PIECE):
        file.write(at, plain[at : at + PIECE])
    file.write(PIECE - 5, plain[PIECE - 5 : 2 * PIECE + 7])  # and in part
    file.flush()
    assert file.read(0, len(plain)) == plain
    assert file.read(len(plain) - 3, 100) == plain[-3:]
    raw = (tmp_path / PATCH_FILE).read_bytes()
    assert not any(plain[at : at + 32] in raw for at in range(0, len(plain) - 32, 32))
    with pytest.raises(SpaceError):
        file.write(len(plain) - 1, b"xx")
    file.close()
    work.remove(PATCH_FILE)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("at", [0, 11, 12, PIECE, PIECE + 28, 2 * PIECE])
def test_tampered_pieces_read_as_zeros(tmp_path: Path, at: int) -> None:
    """Whatever was changed, moved or of another key: zeros, which no digest is of."""
    plain = bytes([7]) * (3 * PIECE)
    work = secret(WorkFiles(str(tmp_path)), {PATCH_FILE}, KEY.of("work").derived())
    with_key = work.open(PATCH_FILE, len(plain))
    with_key.write(0, plain)
    path = tmp_path / PATCH_FILE
    raw = bytearray(path.read_bytes())
    raw[at] ^= 1
    path.write_bytes(raw)
    found = with_key.read(0, len(plain))
    piece = at // (PIECE + 28)
    assert found[piece * PIECE : (piece + 1) * PIECE] == bytes(PIECE)
    assert found.count(7) == 2 * PIECE
    with_key.close()
    other = secret(WorkFiles(str(tmp_path)), {PATCH_FILE}, OTHER.of("work").derived())
    file = other.open(PATCH_FILE, len(plain))
    assert file.read(0, len(plain)) == bytes(len(plain))
    file.close()


def test_without_a_key_work_files_are_as_they_were(tmp_path: Path) -> None:
    """No key, no secret: the same workspace."""
    work = WorkFiles(str(tmp_path))
    assert secret(work, {PATCH_FILE}, UNKEYED.of("work").derived()) is work


def test_keys_are_in_no_text() -> None:
    """Logs and tracebacks show what a value says of itself: not its key."""
    assert "k" * 8 not in repr(KEY)
    assert KEY.key_id != OTHER.key_id
    assert len(KEY.key_id) == 16
