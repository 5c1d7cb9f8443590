"""The commands of docs/boards/raspberry-pi.md on a disk image, and its shell functions.

No Raspberry Pi takes part: the firmware's word is believed, and the page says so.
"""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from sealift.agent import config
from sealift.agent.boot.tryboot import understood
from tests.bench import toolbox

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs" / "boards" / "raspberry-pi.md"
SLOT_ROOT = ROOT / "boards" / "raspberrypi" / "slot-root"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", GUIDE.read_text(), re.DOTALL)


def shell(text: str, place: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-euc", text],
        cwd=place,
        env=toolbox.environment() | {"BOARDS": str(ROOT / "boards")},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_disk_is_made_as_the_guide_says(tmp_path: Path) -> None:
    """Four partitions; ``autoboot.txt`` in the first, the whole slot in the second."""
    (tmp_path / "boot").mkdir()
    for name in ("kernel8.img", "cmdline.txt", "root.squashfs"):
        (tmp_path / "boot" / name).write_bytes(name.encode() * 1000)
    [commands] = blocks("sh")
    made = shell(commands, tmp_path)
    assert made.returncode == 0, made.stderr
    table = json.loads(shell("sfdisk --json disk.img", tmp_path).stdout)
    parts = table["partitiontable"]["partitions"]
    names = ["autoboot", "sealift-a", "sealift-b", "sealift-data"]
    assert [it["name"] for it in parts] == names
    slot = (tmp_path / "slot.img").read_bytes()
    for part in parts[1:3]:
        assert part["size"] * 512 >= len(slot)
    disk = tmp_path / "disk.img"
    start = parts[0]["start"] * 512
    read = shell(f"mtype -i {disk}@@{start} ::/autoboot.txt", tmp_path).stdout
    found = understood(read.encode())
    assert (found.home, found.trial) == (2, 2)
    with disk.open("rb") as held:
        held.seek(parts[1]["start"] * 512)
        assert held.read(len(slot)) == slot
    listed = shell("mdir -b -i slot.img ::/", tmp_path).stdout
    assert "root.squashfs" in listed


def test_a_slot_image_made_twice_is_the_same(tmp_path: Path) -> None:
    """``--invariant`` and a fixed volume id: nothing of the day is in the file system."""
    [commands] = blocks("sh")
    first = [line for line in commands.splitlines() if "slot.img" in line][:2]
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        assert shell("\n".join(first), tmp_path / name).returncode == 0
    one, two = ((tmp_path / it / "slot.img").read_bytes() for it in ("one", "two"))
    assert one == two


def test_the_settings_of_the_guide_are_settings() -> None:
    """The page's lines, in the example configuration, are read by the agent."""
    import tomllib

    from sealift.agent import settings

    [text] = blocks("toml")
    shown = tomllib.loads(text)
    whole = tomllib.loads(settings.example())
    whole["boot"] = shown["boot"]
    whole["component"][0] |= shown["component"][0]
    lines = []
    for section, values in whole.items():
        several = isinstance(values, list)
        for table in values if several else [values]:
            lines.append(f"[[{section}]]" if several else f"[{section}]")
            lines += [f"{name} = {toml(value)}" for name, value in table.items()]
    found = config.parse("\n".join(lines).encode(), "/etc/sealift/agent.toml")
    assert found.boot.kind == "tryboot"
    assert found.boot.partitions == (2, 3)


def toml(value: object) -> str:
    """A value as TOML writes it."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{n} = {toml(v)}" for n, v in value.items()) + " }"
    return json.dumps(value)


@pytest.mark.parametrize(
    ("raw", "number"),
    [
        (b"\0\0\0\2", "2"),
        (b"\0\0\0\3", "3"),
        (b"\0\0\0\0", None),
        (b"\0\0\1\2", None),
        (b"\0\0\0\x0c", None),
        (b"\2", None),
        (b"\0\0\0\2\0\0\0\2", None),
        (b"", None),
    ],
)
def test_the_partition_the_firmware_booted(
    tmp_path: Path, raw: bytes, number: str | None
) -> None:
    """``booted_partition`` of boards/raspberrypi/slot-root: one digit, or a failure."""
    where = tmp_path / "chosen" / "bootloader"
    where.mkdir(parents=True)
    (where / "partition").write_bytes(raw)
    found = shell(f". {SLOT_ROOT}; booted_partition {tmp_path}", tmp_path)
    assert (found.stdout.strip() or None) == number
    assert (found.returncode == 0) == (number is not None)
