"""The machine of the benches itself: what it refuses, and that images come out alike."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.bench import initramfs, qemu, rootfs, toolbox

PAUSED = ("-S", "-nodefaults")


def pc(place: Path, *more: str) -> qemu.Machine:
    """A machine that is there and does nothing."""
    program = toolbox.program("qemu-system-x86_64")
    roms = str(toolbox.file("usr/share/qemu"))
    return qemu.Machine(
        place, [program, "-L", roms, "-M", "q35", *PAUSED, *more], shell=None
    )


def disk(place: Path, name: str) -> tuple[str, ...]:
    """``-drive`` of a new disk in the format of its name."""
    path = place / name
    words = ("create", "-q", "-f", qemu.form(path), str(path), "1M")
    subprocess.run(
        [toolbox.program("qemu-img"), *words], check=True, env=toolbox.environment()
    )
    return qemu.drive(path, path.stem, "if=none")


@pytest.mark.parametrize(
    "words", [("-enable-kvm",), ("-accel", "kvm"), ("-machine", "q35,accel=kvm:tcg")]
)
def test_D35_another_accelerator_is_refused(
    tmp_path: Path, words: tuple[str, ...]
) -> None:
    with pytest.raises(qemu.BenchError, match="D35"):
        pc(tmp_path, *words).start()


def test_D35_the_machine_says_itself_that_it_is_emulated(tmp_path: Path) -> None:
    with pc(tmp_path) as machine:
        assert machine.monitor("query-kvm")["enabled"] is False


def test_D34_snapshots_want_qcow2_everywhere(tmp_path: Path) -> None:
    drives = (*disk(tmp_path, "one.qcow2"), *disk(tmp_path, "two.img"))
    with (
        pc(tmp_path, *drives) as machine,
        pytest.raises(qemu.BenchError, match="not qcow2"),
    ):
        machine.save("here")
    with pc(tmp_path, *drives[:2]) as machine:
        machine.save("here")


def test_D34_cuts_want_raw_everywhere(tmp_path: Path) -> None:
    drives = (*disk(tmp_path, "one.qcow2"), *disk(tmp_path, "two.img"))
    with pc(tmp_path, *drives) as machine:
        with pytest.raises(qemu.BenchError, match="cuts are made on raw"):
            machine.cut()
        assert machine.alive
    with pc(tmp_path, *drives[2:]) as machine:
        machine.cut()
        assert not machine.alive


def test_what_never_comes_is_an_error_that_shows_the_console(tmp_path: Path) -> None:
    with pc(tmp_path) as machine:
        with pytest.raises(qemu.BenchError, match="not within"):
            machine.expect("login", 0.2)
        machine.stop()
        with pytest.raises(qemu.BenchError, match="the machine is off"):
            machine.expect("login", 5)


def test_D37_the_same_root_is_the_same_image(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "etc").mkdir(parents=True)
    (tree / "etc/motd").write_text("hello\n", "utf-8")
    made = []
    for name in ("one", "two"):
        (tree / "etc/motd").touch()
        image = rootfs.squash(tree, tmp_path / name, {"etc/release": "1\n"})
        made.append(image.read_bytes())
    assert made[0] == made[1]
    assert len(made[0]) % 4096 == 0


def test_D37_the_same_initramfs_is_the_same_archive(tmp_path: Path) -> None:
    busybox = Path(toolbox.program("busybox"))
    program = initramfs.compile_verity_root(tmp_path / "verity-root")
    made = [
        initramfs.pack(tmp_path / name, busybox, program, []).read_bytes()
        for name in ("one", "two")
    ]
    assert made[0] == made[1]
