"""U-Boot's environment and GRUB's blocks under the recorder: every cut starts a slot.

The shipped boot controls write them by ``fw_setenv`` and in place; each state of the
log is read as the loader reads it, and what would start is what may start then.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from sealift.agent.boot.grub import Store, pack, unpack
from sealift.core.types import Slot
from sealift.sim.loaders.uboot import FACTORY, pack_copy, unpack_copy
from tests.bench import gpt, small
from tests.bench.blocklog import Disk, Log, states
from tests.bench.fat import Fat, FatError
from tests.bench.recorder import programs, record

COPIES, SIZE = (0, 0x40000), 0x4000
_JOB = """set -e
mount -t vfat /dev/vda1 /esp
PYTHONPATH=/sealift python3 /environments.py
umount /esp
"""


@dataclass
class Found:
    """How many states, and in which something else would start."""

    prefixes: int = 0
    reorderings: int = 0
    wrong: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Found]:
    place = tmp_path_factory.mktemp("environments")
    store = Store(Slot.A, states={Slot.A: "g", Slot.B: "e"})
    boot_files = {
        "grubenv": pack(store.lines()),
        "grubenv.home": pack({"good": b"a"}),
    }
    disk = small.disk(place, {}, boot_files)
    regions = gpt.of_file(disk)
    with disk.open("r+b") as file:
        for number, at in enumerate(COPIES):
            file.seek(regions["sealift-data"][0] * gpt.SECTOR + at)
            file.write(pack_copy(number, FACTORY, SIZE))
    config = "".join(f"/dev/vda4 {at:#x} {SIZE:#x}\n" for at in COPIES)
    files = {
        "environments.py": (Path(__file__).parent / "environments.py").read_bytes(),
        "env.cfg": config.encode(),
        **programs("fw_setenv", "fw_printenv"),
    }
    recording = record(_JOB, disk, place / "verbs.log", files=files, python=True)
    log = Log(recording.log)
    over = Disk(recording.base, log, regions)
    result = {"uboot": Found(), "grub": Found()}
    for state in states(over, log, reorderings=100, seed=3):
        told = [json.loads(mark) for mark in state.marks if mark]
        for name, starts in (("uboot", uboot(over)), ("grub", grub(over))):
            count = result[name]
            count.prefixes += state.kept is None
            count.reorderings += state.kept is not None
            may = {slot for mark in told for slot in mark[name]} or {"a"}
            if starts not in may:
                count.wrong.append(f"{state.name}: {starts} starts, not {may}")
    return result


@pytest.mark.parametrize("loader", ["uboot", "grub"])
def test_every_cut_starts_what_may_start(found: dict[str, Found], loader: str) -> None:
    count = found[loader]
    assert not count.wrong, count.wrong[:5]
    assert count.prefixes > 20
    assert count.reorderings > 500
    print(loader, count.prefixes, count.reorderings)


def uboot(disk: Disk) -> str:
    """What U-Boot would start: the valid copy with the newer counter decides."""
    start = disk.regions["sealift-data"][0] * gpt.SECTOR
    copies = [unpack_copy(disk.read(start + at, SIZE)) for at in COPIES]
    valid = [copy for copy in copies if copy is not None]
    if not valid:
        return "nothing valid"
    flags = [flag for flag, _ in valid]
    newest = flags.index(0 if sorted(flags) == [0, 255] else max(flags))
    variables = valid[newest][1]
    return variables["slot"]


def grub(disk: Disk) -> str:
    """What GRUB's script would start, from the two files on the FAT."""
    start = disk.regions["esp"][0] * gpt.SECTOR
    fat = Fat(lambda at, size: disk.read(start + at, size))
    raw: dict[str, bytes | None] = {}
    for name in ("grubenv", "grubenv.home"):
        node = fat.find(name)
        try:
            raw[name] = fat.content(node) if node else None
        except FatError:
            raw[name] = None
    env, home = unpack(raw["grubenv"]), unpack(raw["grubenv.home"])
    store = Store.of(env) if env is not None else None
    if store is not None:
        return store.next.value
    return (home or {}).get("good", b"a").decode()
