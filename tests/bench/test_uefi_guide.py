"""docs/boards/uefi-x86.md: its commands run, in order, and the disk they make starts."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.bench import initramfs, l4, rootfs, station, toolbox

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs/boards/uefi-x86.md"
BLOCK = re.compile(r"^```sh\n(.*?)^```", re.MULTILINE | re.DOTALL)
SETTINGS = re.compile(r"^```toml\n(.*?)^```", re.MULTILINE | re.DOTALL)


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """What the guide says is there: a root, a kernel with modules, and ``boards``."""
    shutil.copytree(rootfs.tree(), tmp_path / "rootfs", symlinks=True)
    for name, text in (("release", "1.0.0"), ("health", "good")):
        (tmp_path / f"rootfs/etc/sealift-{name}").write_text(f"{text}\n", "ascii")
    (tmp_path / "vmlinuz").symlink_to(l4.kernel())
    (tmp_path / "boards").symlink_to(ROOT / "boards")
    (tmp_path / "device/agent").mkdir(parents=True)
    drivers = initramfs.modules(l4.module_tree(), l4.MODULES)
    (tmp_path / "modules").mkdir()
    for driver in drivers:
        shutil.copy(driver, tmp_path / "modules")
    order = "".join(f"{driver.name}\n" for driver in drivers)
    (tmp_path / "modules/modules.order").write_text(order, "ascii")
    return tmp_path


def test_the_commands_of_the_guide_make_a_disk_that_starts(desk: Path) -> None:
    blocks = BLOCK.findall(GUIDE.read_text("utf-8"))
    assert len(blocks) == 4
    environment = toolbox.environment()
    beside = Path(sys.executable).parent
    for block in blocks:
        done = subprocess.run(
            ["sh", "-e", "-c", block],
            cwd=desk,
            env={**environment, "PATH": f"{beside}{os.pathsep}{environment['PATH']}"},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
    with l4.Pc(desk) as pc:
        assert pc.up() == ("a", "1.0.0")
        assert pc.run("ls -d /data/agent") == "/data/agent"
        pc.off()


def test_the_settings_of_the_guide_are_those_of_the_bench() -> None:
    (text,) = SETTINGS.findall(GUIDE.read_text("utf-8"))
    boot = "".join(f"{key} = {value}\n" for key, value in l4.BOOT.items())
    assert tomllib.loads(text) == tomllib.loads(f"[boot]\n{boot}{station.AGENT_TOML}")
