"""Bench L5 on the machine of L4, a slice of it: the whole is ``make bench-powercut``.

One log of a complete update with its mark-good, one of a release that returns; nine
kills; two kills inside SetVariable. Prefixes, reorderings and cuts are counted apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from sealift.sim.processes import Processes
from tests.bench import disk, gpt, l4, l5, powercut, qemu
from tests.bench.blocklog import Disk, Log, LogError, states
from tests.bench.judge import Judge, Signed, Variables

CUTS, VARIABLE_CUTS, REORDERINGS, SEED = 9, 2, 3, 20


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[l5.World]:
    """A vendor, a server, three releases."""
    place = tmp_path_factory.mktemp("l5")
    with Processes(place / "logs") as run:
        world = l5.World(run, place / "world")
        world.sick()
        yield world


@dataclass(frozen=True, slots=True)
class Life:
    """A recorded life of the machine, and what its states are."""

    recording: l5.Recorded
    states: l5.Replayed
    samples: dict[str, Path]


@pytest.fixture(scope="module")
def updated(world: l5.World) -> Life:
    """A complete update: install, arm, trial, mark-good."""
    return lived(world, "update", l5.NEXT, "succeeded", ("rebooting", "confirming"))


@pytest.fixture(scope="module")
def returned(world: l5.World) -> Life:
    """A release that is not well: back to home by itself."""
    return lived(world, "rollback", l5.SICK, "rolled_back", ())


def lived(
    world: l5.World, name: str, version: str, state: str, kinds: tuple[str, ...]
) -> Life:
    place = world.factory(name)
    deployment = world.station.order(world.packed[version], name)
    recording = l5.recorded(world, place, deployment, state)
    samples = {kind: place / f"{kind}.img" for kind in kinds}
    found = l5.replayed(
        world, recording, reorderings=REORDERINGS, seed=SEED, sample=samples
    )
    print(name, found.to_json())
    return Life(recording, found, samples)


def test_every_state_of_an_update_is_bootable_verified_and_truthful(
    world: l5.World, updated: Life
) -> None:
    found = updated.states
    assert not found.wrong, found.wrong[:5]
    assert found.prefixes > 200
    assert found.reorderings > 200
    assert found.runs.keys() == {world.name(l5.HOME), world.name(l5.NEXT)}
    wanted = {"idle", "staging", "staged", "arming", "rebooting", "trial", "confirming"}
    assert wanted <= found.journal.keys()


def test_every_state_of_a_rollback_is_bootable_verified_and_truthful(
    world: l5.World, returned: Life
) -> None:
    found = returned.states
    assert not found.wrong, found.wrong[:5]
    assert found.prefixes > 200
    assert "reverting" in found.journal
    assert world.name(l5.NEXT) not in found.runs


@pytest.mark.parametrize("kind", ["rebooting", "confirming"])
def test_what_the_judge_passes_really_boots(
    world: l5.World, updated: Life, tmp_path: Path, kind: str
) -> None:
    """The variables are as a device has them that never heard of the loader's."""
    l4.copy(updated.recording.base.parent, tmp_path)
    (tmp_path / "vars.fd").write_bytes(l4.variables().read_bytes())
    updated.samples[kind].replace(tmp_path / "disk.img")
    assert l5.cold_boot(tmp_path) in {l5.HOME, l5.NEXT}


def test_D36_the_base_is_the_one_the_log_was_made_on(
    world: l5.World, updated: Life, tmp_path: Path
) -> None:
    other = tmp_path / "base.img"
    other.write_bytes(bytes(1 << 20))
    wrong = l5.Recorded(other, updated.recording.sha256, updated.recording.log)
    with pytest.raises(LogError):
        l5.replayed(world, wrong, reorderings=0, seed=0)


def test_no_kill_makes_a_brick(world: l5.World, tmp_path: Path) -> None:
    found = powercut.cuts(world, tmp_path, CUTS, seed=SEED, boot_every=4, say=print)
    assert found.clean, found.to_json()
    assert sum(found.cuts.values()) == CUTS
    assert found.booted >= 2


def test_D8_a_cut_in_set_variable_leaves_the_old_or_the_new_value(
    tmp_path: Path,
) -> None:
    found = powercut.cut_in_set_variable(tmp_path, VARIABLE_CUTS, seed=SEED, say=print)
    assert not found.wrong, found.wrong
    assert found.cuts == VARIABLE_CUTS


def test_D34_neither_kills_nor_moments_under_qcow2(tmp_path: Path) -> None:
    l4.factory(tmp_path, l4.release(l5.HOME))
    base = (tmp_path / "disk.img").rename(tmp_path / "base.img")
    qemu.overlay(base, tmp_path / "disk.qcow2")
    with l4.Pc(tmp_path) as pc:
        with pytest.raises(qemu.BenchError, match="qcow2"):
            pc.cut()
        with pytest.raises(qemu.BenchError, match="qcow2"):
            l5.hold(pc, tmp_path / "moment")


def test_what_the_judge_flags_and_what_it_passes_is_what_boots(tmp_path: Path) -> None:
    """A rename on the machine's own vfat, recorded: a state it flags, and one it passes.

    Default names slot b. Where the rename lost its entry the judge says that the old
    release starts, and it does; elsewhere the new one, and it does.
    """
    place = tmp_path / "pc"
    l4.factory(place, l4.release(l5.HOME))
    image = place / "disk.img"
    new = l4.release(l5.NEXT)
    disk.write(image, disk.SLOT_B, new.image)
    esp = disk.Esp(image)
    for name in ("rescue-2026-01-15", "memtest86plus", "firmware-setup"):
        esp.put(f"{l4.LINUX}/{name}.efi", b"no entry")
    esp.put(f"{l4.LINUX}/sealift-b+3.efi", new.uki)
    base, log = tmp_path / "base.img", place / "writes.log"
    l5.keep(image, base)
    with l4.Pc(place, drive=l5.logged(place)) as pc:
        assert pc.up() == ("b", l5.NEXT)  # the newest, and counted by the loader
        pc.set_variable("LoaderEntryDefault", "sealift-b*")
        pc.mount_esp()
        pc.python(_RENAME)
        pc.cut()
    over = Disk(base, Log(log), gpt.of_file(base))
    home, there = l4.release(l5.HOME), new
    judge = Judge(over, [signed(l5.HOME, home), signed(l5.NEXT, there)])
    saved: dict[str | None, Path] = {}
    for _ in states(over, Log(log), reorderings=8, seed=SEED):
        verdict = judge.verdict(Variables("sealift-b*"))
        if verdict.release not in saved:
            saved[verdict.release] = tmp_path / f"{verdict.release}.img"
            over.save(saved[verdict.release])
    assert saved.keys() == {l5.HOME, l5.NEXT}
    for release, state in saved.items():
        state.replace(image)
        assert l5.cold_boot(place) == release


def signed(version: str, release: l4.Release) -> Signed:
    """What the judge may see run."""
    boot = release.bootable
    return Signed(version, release.image, boot.sha256, boot.data_blocks)


_RENAME = """
import os
directory = "/efi/EFI/Linux"
os.rename(directory + "/sealift-b+2-1.efi", directory + "/sealift-b.efi")
file = os.open(directory, os.O_RDONLY)
os.fsync(file)
os.sync()
os.fsync(file)
"""
