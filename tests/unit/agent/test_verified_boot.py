"""What the agent makes of `custom.boot`: checked in the slot, insisted on if so set."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from hashlib import sha256, shake_256
from pathlib import Path

import pytest

from sealift.agent import config, settings, wiring
from sealift.agent.boot.file import Started, running_text
from sealift.agent.clock import SystemClock
from sealift.agent.duties import Component
from sealift.agent.ports import Progress
from sealift.core.errors import BootError, SlotError
from sealift.core.types import Artifact, Slot
from sealift.sim.boot_files import joined, line_for, uki_file
from tests.unit.agent.delta_pair import Shelf, pair
from tests.unit.agent.memory import MemorySlot

PAIR = pair()
SALT = bytes(range(32))
ROOT = shake_256(b"root").digest(3 * 4096)
CONTENT, FACTS = joined(ROOT, SALT, uki_file(line_for(ROOT, SALT)))
IMAGE = replace(
    PAIR.artifact,
    length=len(CONTENT),
    sha256=sha256(CONTENT).digest(),
    bootable=FACTS,
)


def test_what_belongs_together_passes() -> None:
    """As long as the slot is, more than the image; and where nothing is said."""
    wiring._belongs(IMAGE, MemorySlot(CONTENT + b"\xff" * 5000))
    wiring._belongs(replace(IMAGE, bootable=None), MemorySlot(b"anything"))


def test_c_11_what_does_not_belong_together() -> None:
    """A boot file that admits another root: ``device.boot``."""
    other = shake_256(b"other").digest(3 * 4096)
    content, facts = joined(ROOT, SALT, uki_file(line_for(other, SALT)))
    with pytest.raises(BootError):
        wiring._belongs(replace(IMAGE, bootable=facts), MemorySlot(content))


def test_d_01_bytes_that_changed() -> None:
    """A block of the root: ``device.slot``."""
    with pytest.raises(SlotError):
        wiring._belongs(IMAGE, MemorySlot(b"x" + CONTENT[1:]))


def component(place: Path, boot: str) -> Component:
    """The wired component of a configuration with these settings of the boot loader."""
    for name in ("state", "boot"):
        (place / name).mkdir(mode=0o700)
    text = settings.example().replace("/var/lib/sealift", str(place / "state"))
    begin, _, rest = text.partition("[boot]")
    end = rest[rest.index("\n[") :]
    raw = f'{begin}[boot]\nstore = "{place}/boot"\n{boot}{end}'.encode()
    found = config.parse(raw, str(place / "agent.toml"))
    (place / "boot" / "running").write_bytes(running_text(Started(Slot.A, "1")))
    return wiring.component(found, Shelf(pair=PAIR), SystemClock(), Progress())


def test_a_device_that_insists_refuses_what_says_nothing(tmp_path: Path) -> None:
    """When the fill is made, before anything of the other slot is touched."""
    part = component(tmp_path, "verified = true\n")
    with pytest.raises(BootError) as caught:
        part.fill(PAIR.order(), None)
    assert "--bootable" in str(caught.value.hint)
    said: Artifact = replace(PAIR.artifact, bootable=FACTS)
    part.fill(replace(PAIR.order(), artifact=said), None)


def test_by_default_it_does_not(tmp_path: Path) -> None:
    """Boards without verified boot are boards, too."""
    component(tmp_path, "").fill(PAIR.order(), None)


# Imports what an install has in memory, then checks a slot; MiB before, and at most.
MEASURE = """
import json, sys
from sealift.agent import wiring
from sealift.agent.payload import PayloadFill
from sealift.agent.slot import PathSlots
from sealift.core.types import Artifact, Slot
def memory(name):
    for line in open("/proc/self/status"):
        if line.startswith(name):
            return int(line.split()[1]) / 1024
image = Artifact.from_json(json.load(open(sys.argv[2])))
slot = PathSlots({Slot.A: sys.argv[1], Slot.B: sys.argv[1]}).open(Slot.A, writable=False)
before = memory("VmRSS"), "sealift.core.bootable" in sys.modules
wiring._belongs(image, slot)
print(json.dumps([*before, memory("VmHWM")]))
"""


def test_the_check_takes_less_than_two_mib(tmp_path: Path) -> None:
    """Of an image of 130 MiB, its code included, which is loaded for it only."""
    data = bytes(128 << 20)
    content, facts = joined(data, SALT, uki_file(line_for(data, SALT)))
    (tmp_path / "slot").write_bytes(content)
    image = replace(IMAGE, length=len(content), bootable=facts)
    (tmp_path / "image.json").write_text(json.dumps(image.to_json()))
    del data, content
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, tmp_path / "slot", tmp_path / "image.json"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    before, loaded, most = json.loads(done.stdout)
    assert not loaded
    assert most - before < 2.0
