"""docs/boards/qemu-uboot-arm64.md: its commands run, and the disk they make starts."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.bench import (
    initramfs,
    station,
    toolbox,
    uboot,
    uboot_board,
    uboot_build,
    uboot_release,
)

ROOT = Path(__file__).parents[2]
GUIDE = ROOT / "docs/boards/qemu-uboot-arm64.md"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def fenced(language: str) -> list[str]:
    """The blocks of the guide in a language; ``""`` has none."""
    found = FENCE.findall(GUIDE.read_text("utf-8"))
    return [text for name, text in found if name == language]


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Path]:
    """What the guide says is there: root, kernel, modules, ``boards``, U-Boot."""
    shutil.copytree(uboot_release.root(), tmp_path / "rootfs", symlinks=True)
    for name, text in (("release", "1.0.0"), ("health", "good")):
        (tmp_path / f"rootfs/etc/sealift-{name}").write_text(f"{text}\n", "ascii")
    (tmp_path / "Image").symlink_to(uboot_release.parts() / "kernel")
    (tmp_path / "boards").symlink_to(ROOT / "boards")
    (tmp_path / "u-boot.bin").symlink_to(uboot.firmware())
    (tmp_path / "device/agent").mkdir(parents=True)
    drivers = sorted((uboot_release.parts() / "modules").iterdir())
    (tmp_path / "modules").mkdir()
    for driver in drivers:
        shutil.copy(driver, tmp_path / "modules" / driver.name.partition("-")[2])
    order = "".join(f"{driver.name.partition('-')[2]}\n" for driver in drivers)
    (tmp_path / "modules/modules.order").write_text(order, "ascii")
    yield tmp_path
    shutil.rmtree(tmp_path)


def test_the_commands_of_the_guide_make_a_disk_that_starts(desk: Path) -> None:
    blocks = fenced("sh")
    assert len(blocks) == 4
    environment = toolbox.environment()
    beside = [Path(sys.executable).parent, Path(uboot_build.compiler()).parent]
    path = os.pathsep.join([*map(str, beside), environment["PATH"]])
    for block in blocks:
        done = subprocess.run(
            ["sh", "-e", "-c", block],
            cwd=desk,
            env={**environment, "PATH": path},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"
    with uboot_board.Board(desk) as board:
        assert board.tries() == ("a", False)
        assert board.up() == ("a", "1.0.0")
        assert board.run("fw_printenv -n good") == "a"
        assert board.run("ls -d /data/agent") == "/data/agent"
        board.off()


def test_the_settings_of_the_guide_are_those_of_the_bench() -> None:
    (text,) = fenced("toml")
    boot = "".join(f"{key} = {value}\n" for key, value in uboot_board.BOOT.items())
    assert tomllib.loads(text) == tomllib.loads(f"[boot]\n{boot}{station.AGENT_TOML}")


def test_what_the_guide_shows_is_what_the_bench_runs() -> None:
    """The build of U-Boot, where the copies lie, and the machine, word for word."""
    shown = fenced("")
    before, after = uboot_build.steps("../out", f"../boards/uboot/{_name()}")
    lines = [shlex.join(step) for step in (*before, after)]
    (build,) = (block for block in shown if block.startswith("patch"))
    assert build.splitlines()[2:] == lines
    assert uboot.fw_env_config() in shown
    (start,) = (block for block in shown if block.startswith("qemu-system-aarch64"))
    words = uboot.argv(Path())
    plain = [Path(words[0]).name, *words[3:]]  # without -L and where Debian's files lie
    plain[plain.index("-bios") + 1] = "u-boot.bin"
    machine = " ".join(shlex.split(start.replace("\\\n", ""))).partition(" -accel")[0]
    assert machine == " ".join(plain)


def _name() -> str:
    return uboot_build.CONFIG.name


def test_the_initramfs_of_the_bench_has_the_modules_the_guide_names() -> None:
    text = GUIDE.read_text("utf-8")
    for name in ("virtio_mmio", "virtio_blk", "virtio_net"):
        assert name in uboot_release.DRIVERS
        assert name in text
    assert (initramfs.SOURCE / "init").exists()
