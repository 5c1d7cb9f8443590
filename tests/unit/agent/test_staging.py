"""What lies in the state directory while an install is under way (crypto 7.1).

After every single write of the agent all files there are searched, at every offset, for
any 32 bytes of the image. Plain, sealed and delta orders stage heads, which hold
digests; a patch for a microcontroller holds pieces of the image and lies as ciphertext.
Nothing outside state, slots, loader and runtime file is written at all, so the root
file system may be read-only.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from sealift.agent import keyfile, pkcs11, record, slot
from sealift.agent.ciphertext import secret
from sealift.agent.payload import PATCH_FILE, PatchFile, clear
from sealift.agent.seal import Seal
from sealift.agent.slot import WorkFiles
from sealift.core.errors import DigestError, TrustAnchorError
from sealift.core.types import PatchKind
from sealift.sim.attacks import fence
from sealift.sim.attacks.scene import INSTALLED, Scene
from sealift.sim.attacks.simulated import Parts
from sealift.sim.shipping import delta_from
from sealift.sim.vendor import Release, Shape, served_at
from tests.mcu_gateway import order, patch
from tests.unit.agent.memory import MemoryTransport

RUN = 32
KEY = Seal(b"k" * 32)


class Watch:
    """Looks at every file below a directory whenever it is told that one changed."""

    def __init__(self, place: Path, *secrets: bytes) -> None:
        self._place = place
        self._runs = {
            run
            for content in secrets
            for at in range(len(content) - RUN)
            if len(set(run := content[at : at + RUN])) > 2  # zeros are no secret
        }
        self._seen: dict[str, bytes] = {}
        self.looks = 0
        self.names: set[str] = set()
        self.found: set[str] = set()

    def look(self) -> None:
        self.looks += 1
        for path in self._place.iterdir():
            raw = path.read_bytes()
            if self._seen.get(path.name) == raw:
                continue
            self._seen[path.name] = raw
            self.names.add(path.name.partition("@")[0])
            if any(raw[at : at + RUN] in self._runs for at in range(len(raw) - RUN)):
                self.found.add(path.name)


class Calls:
    """The store's system calls, with a look after each that changes something."""

    def __init__(self) -> None:
        self.looked: Callable[[], None] = lambda: None

    def write(self, fd: int, data: bytes, /) -> int:
        done = os.write(fd, data)
        self.looked()
        return done

    def __getattr__(self, name: str) -> object:
        return getattr(os, name)


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], None]]:
    """Who looks after each write to a work file, a slot, journal or floors."""
    lookers: list[Callable[[], None]] = []
    put, write_all = slot.OpenFile._put, record._write_all

    def watched_put(self: slot.OpenFile, offset: int, view: memoryview) -> None:
        put(self, offset, view)
        for look in lookers:
            look()

    def watched_write(descriptor: int, data: bytes) -> None:
        write_all(descriptor, data)
        for look in lookers:
            look()

    monkeypatch.setattr(slot.OpenFile, "_put", watched_put)
    monkeypatch.setattr(record, "_write_all", watched_write)
    return lookers


def scene(tmp_path: Path, shape: Shape, calls: Calls) -> tuple[Scene, Release]:
    """A device with a sealed state, and what runs on it."""
    found = Scene(tmp_path, shape, Parts(calls=calls))  # type: ignore[arg-type]
    found.device.seal_state()
    runs = found.next
    found.catch_up()
    return found, runs


@pytest.mark.parametrize("way", ["plain", "sealed", "delta"])
def test_no_file_ever_holds_a_piece_of_the_image(
    tmp_path: Path, looked: list[Callable[[], None]], way: str
) -> None:
    """Hundreds of writes, and after none of them 32 bytes of the image beside a slot."""
    calls = Calls()
    found, runs = scene(tmp_path, Shape(sealed=way == "sealed"), calls)
    if way == "delta":
        delta, raw = delta_from(runs, found.next)
        found.vendor.containers[served_at(delta)] = raw
        found.order(replace(found.order_for(found.next), delta=delta))
    watch = Watch(found.device.path("state"), found.next.content)
    looked.append(watch.look)
    calls.looked = watch.look
    assert found.attempt() == INSTALLED
    assert watch.found == set()
    assert watch.looks > 50
    heads = {"payload.delta.head"} if way == "delta" else {"payload.head"}
    assert heads <= watch.names
    assert "payload.spent" in watch.names
    left = {path.name for path in found.device.path("state").iterdir()}
    assert not any(name.startswith("payload.") for name in left)
    assert found.faults == []


def test_a_patch_lies_as_ciphertext_and_is_gone_afterwards(
    tmp_path: Path, looked: list[Callable[[], None]]
) -> None:
    """The patch of a plain order for a microcontroller, at every write of it."""
    wanted, raw = patch(PatchKind.SEQUENTIAL)
    work = secret(WorkFiles(str(tmp_path)), {PATCH_FILE}, KEY.of("work").derived())
    watch = Watch(tmp_path, raw)
    looked.append(watch.look)
    way = MemoryTransport(raw)
    source = PatchFile(order(PatchKind.SEQUENTIAL), wanted, way, work)
    source.fetch()
    with source.opened() as file:
        assert file.read(0, file.size) == raw
    assert watch.looks > 1
    assert watch.names == {PATCH_FILE, "payload.spent"}
    assert watch.found == set()
    clear(WorkFiles(str(tmp_path)))
    assert list(tmp_path.iterdir()) == []


def test_the_watch_would_see_it(tmp_path: Path) -> None:
    """Without a key the patch lies as it came: the search finds it."""
    wanted, raw = patch(PatchKind.SEQUENTIAL)
    work = WorkFiles(str(tmp_path))
    PatchFile(order(PatchKind.SEQUENTIAL), wanted, MemoryTransport(raw), work).fetch()
    watch = Watch(tmp_path, raw)
    watch.look()
    assert watch.found == {PATCH_FILE}


@pytest.mark.parametrize("at", [0, 20, -1])
def test_a_patch_tampered_with_between_two_starts_is_fetched_again(
    tmp_path: Path, at: int
) -> None:
    """Any byte of it: not opened, not used, fetched once more, and right then."""
    wanted, raw = patch(PatchKind.SEQUENTIAL)
    work = secret(WorkFiles(str(tmp_path)), {PATCH_FILE}, KEY.of("work").derived())
    way = MemoryTransport(raw)
    source = PatchFile(order(PatchKind.SEQUENTIAL), wanted, way, work)
    source.fetch()
    path = tmp_path / PATCH_FILE
    changed = bytearray(path.read_bytes())
    changed[at] ^= 1
    path.write_bytes(changed)
    with pytest.raises(DigestError), source.opened():
        pass
    source.fetch()
    with source.opened() as file:
        assert file.read(0, file.size) == raw
    assert way.sent == 2 * len(raw)


@pytest.mark.parametrize("mode", [0o604, 0o640, 0o606, 0o660])
def test_a_work_file_open_to_others_is_refused(tmp_path: Path, mode: int) -> None:
    """Somebody put it there or can read what comes into it: `device.trust`, a hint."""
    path = tmp_path / "payload.head"
    path.touch()
    path.chmod(mode)
    with pytest.raises(TrustAnchorError) as caught:
        WorkFiles(str(tmp_path)).open("payload.head", 10)
    assert caught.value.hint == f"chmod 600 {path}"


Use = Callable[[Path], object]
OWNED: dict[str, Use] = {
    "work file": lambda path: WorkFiles(str(path.parent)).open(path.name, 10),
    "store key": lambda path: keyfile.store_key(str(path)),
    "report key": lambda path: keyfile.FileKey(str(path)),
    "decryption key": lambda path: keyfile.decryption_key(str(path)),
    "record": lambda path: record.FileCells(str(path.parent), path.stem).read(0, 9),
    "PIN": lambda path: pkcs11.TokenKey(
        f"pkcs11:object=a?module-path=/m.so&pin-source=file:{path}"
    ),
}


@pytest.mark.parametrize("what", OWNED)
def test_what_another_user_owns_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Whoever owns a file can change it at any time: `device.trust`, and the repair."""
    path = tmp_path / "file.0"
    path.touch(mode=0o600)
    path.write_bytes(b"something")
    fstat = os.fstat

    def foreign(descriptor: int) -> os.stat_result:
        found = list(fstat(descriptor))
        found[stat.ST_UID] = 4711
        return os.stat_result(found)

    monkeypatch.setattr(os, "fstat", foreign)
    with pytest.raises(TrustAnchorError, match="belongs to user 4711") as caught:
        OWNED[what](path)
    assert caught.value.hint == f"chown {os.geteuid()} {path}"


def test_nothing_is_written_beside_state_slots_and_loader(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every open, rename, mkdir, … of a whole update: `/` may be read-only."""
    found, _ = scene(tmp_path, Shape(), Calls())
    device = found.device
    ours = [device.path(name) for name in ("state", "slots", "boot")]
    told = [device.path(name) for name in ("runtime.json", "settled")]
    strayed: list[str] = []

    def judge(_: fence.Fence, event: str, path: object) -> None:
        name = Path(os.fsdecode(path)) if isinstance(path, str | bytes | Path) else None
        if name is None or not name.is_absolute() or "__pycache__" in name.parts:
            return
        if not any(name.is_relative_to(place) for place in (*ours, *told)):
            strayed.append(f"{event} {name}")

    monkeypatch.setattr(fence.Fence, "_judge", judge)
    assert found.attempt() == INSTALLED
    assert strayed == []
