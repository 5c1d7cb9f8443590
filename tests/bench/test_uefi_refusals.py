"""What firmware and loader of a UEFI board refuse, on the booting machine (L4).

Each case is a boot file that must not run, reached by each of the three ways systemd-boot
has (device-D1): by one-shot with home pinned the machine is home in the same power-on;
by a counted name it needs a power cycle; by a plain name it is dead until somebody comes.
"""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from sealift.core.pe import Pe, read_pe
from tests.bench import disk, l4
from tests.bench.figures import figure, timed

REFUSED = r"Access Denied"
STUCK = r"Press any key"
HOME, NEXT = "1.0.0", "2.0.0"
SECONDS = 120.0


@pytest.fixture(scope="module")
def factory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A disk with the first release confirmed in slot a; nobody starts it."""
    place = tmp_path_factory.mktemp("factory")
    l4.factory(place, l4.release(HOME))
    return place


@pytest.fixture
def place(factory: Path, tmp_path: Path) -> Path:
    """A copy of that disk to start."""
    l4.copy(factory, tmp_path)
    return tmp_path


def headers(raw: bytes) -> Pe:
    """Those of a boot file."""
    return read_pe(lambda at, size: raw[at : at + size], len(raw))


def wrong(kind: str) -> bytes:
    """A boot file of the next release that must not run."""
    if kind == "foreign":
        return l4.release(NEXT, signer="foreign").uki.read_bytes()
    raw = l4.release(NEXT).uki.read_bytes()
    found = headers(raw)
    if kind == "unsigned":  # without the table of certificates, and the entry of it
        entry = found.table_entry
        return raw[:entry] + bytes(8) + raw[entry + 8 : found.signed_length]
    kernel = found.section(".linux")
    assert kernel is not None
    at = kernel.offset + kernel.length // 2
    return raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]


WRONG = ("unsigned", "foreign", "bit")


def test_one_shot_of_a_refused_boot_file_is_home_in_the_same_power_on(
    place: Path,
) -> None:
    esp = disk.Esp(place / "disk.img")
    for kind in WRONG:
        esp.put(f"EFI/wrong/{kind}.efi", wrong(kind))
    with l4.Pc(place) as pc:
        assert pc.up() == ("a", HOME)
        figure("power on to system up", time.monotonic() - pc.started)
        pc.set_variable("LoaderEntryDefault", "sealift-a*")
        for kind in WRONG:
            pc.mount_esp()
            pc.run(f"cp /efi/EFI/wrong/{kind}.efi '/efi/EFI/Linux/sealift-b+3.efi'")
            pc.unmount_esp()
            pc.set_variable("LoaderEntryOneShot", "sealift-b+3.efi")
            pc.reboot()
            pc.expect("bench: going down", SECONDS)
            began = time.monotonic()
            pc.expect(REFUSED, SECONDS, never="sealift: root")
            figure(f"one-shot, {kind}: refused after", time.monotonic() - began)
            assert pc.up(never=STUCK) == ("a", HOME)
            figure(f"one-shot, {kind}: home after", time.monotonic() - began)
            assert pc.variable("LoaderEntryOneShot") is None
            # D2: what the loader says it selected is not to be believed, the root is.
            assert pc.variable("LoaderEntryDefault") == "sealift-a*"


@pytest.mark.parametrize("kind", WRONG)
def test_a_counted_name_of_a_refused_boot_file_needs_a_power_cycle(
    place: Path, kind: str
) -> None:
    esp = disk.Esp(place / "disk.img")
    esp.put("EFI/Linux/sealift-b+3.efi", wrong(kind))
    with l4.Pc(place) as pc:
        pc.expect(REFUSED, SECONDS, never="sealift: root")
        pc.expect(REFUSED, SECONDS, never="sealift: root")
        pc.expect(STUCK, SECONDS, never="sealift: root")
        figure(f"counted name, {kind}: stuck after", time.monotonic() - pc.started)
        pc.stop()
        assert "sealift-b+1-2.efi" in esp.names(l4.LINUX)
        pc.start()
        pc.expect(REFUSED, SECONDS, never="sealift: root")
        assert pc.up() == ("a", HOME)
        figure(f"counted name, {kind}: home after", time.monotonic() - pc.started)
        pc.off()
    assert "sealift-b+0-3.efi" in esp.names(l4.LINUX)


@pytest.mark.parametrize("kind", WRONG)
def test_a_plain_name_of_a_refused_boot_file_is_a_dead_board(
    place: Path, kind: str
) -> None:
    disk.Esp(place / "disk.img").put("EFI/Linux/sealift-b.efi", wrong(kind))
    power_cycles = 2 if kind == WRONG[0] else 1  # a power cycle changes nothing
    with l4.Pc(place) as pc:
        for _ in range(power_cycles):
            pc.stop()
            pc.start()
            pc.expect(REFUSED, SECONDS, never="sealift: root")
            pc.expect(REFUSED, SECONDS, never="sealift: root")
            pc.expect(STUCK, SECONDS, never="sealift: root")


def test_a_boot_loader_without_our_signature_is_not_started(place: Path) -> None:
    esp = disk.Esp(place / "disk.img")
    esp.put(l4.LOADER, l4.unsigned_loader())
    with l4.Pc(place) as pc:
        pc.expect(REFUSED, SECONDS, never="sealift: root")
        figure("unsigned boot loader: refused after", time.monotonic() - pc.started)
        pc.stop()
        esp.put(l4.LOADER, l4.loader())
        pc.start()
        assert pc.up() == ("a", HOME)


def test_an_old_release_that_is_signed_starts_until_dbx_names_it(place: Path) -> None:
    """UEFI knows no floor: whoever can write the disk and the variables gets an old
    release started. What stops it is its digest in ``dbx``, or a newer agent's floor.
    """
    newer = l4.release(NEXT)
    path = place / "disk.img"
    esp = disk.Esp(path)
    esp.remove("EFI/Linux/sealift-a.efi")
    esp.put("EFI/Linux/sealift-a.efi", newer.uki)
    disk.write(path, disk.SLOT_A, newer.image)
    old = l4.release(HOME)
    esp.put("EFI/Linux/sealift-b+3.efi", old.uki)
    disk.write(path, disk.SLOT_B, old.image)
    with l4.Pc(place) as pc:
        assert pc.up() == ("a", NEXT)
        pc.set_variable("LoaderEntryDefault", "sealift-a*")
        pc.set_variable("LoaderEntryOneShot", "sealift-b+3.efi")
        pc.reboot()
        assert pc.up() == ("b", HOME), "signed and whole: nothing refuses it"
        pc.off()
    raw = old.uki.read_bytes()
    digest = headers(raw).digest(lambda at, size: raw[at : at + size])
    l4.revoke(place, digest)
    (counted,) = (it for it in esp.names(l4.LINUX) if it.startswith("sealift-b"))
    assert counted == "sealift-b+2-1.efi", (
        "the loader counts what it starts by one-shot"
    )
    with l4.Pc(place) as pc:
        assert pc.up() == ("a", NEXT)
        pc.set_variable("LoaderEntryOneShot", counted)
        pc.reboot()
        with timed("a release in dbx: home after"):
            pc.expect(REFUSED, SECONDS, never="sealift: root")
            assert pc.up(never=STUCK) == ("a", NEXT)
