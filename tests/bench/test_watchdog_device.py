"""The kernel's own watchdog under the agent's hands: ``softdog`` in a machine of its own.

What `/dev/watchdog` does is not what a file does: it takes a time-out, resets the
machine when it is not fed, and is called off by one letter. A dead kernel it does not
see (device-D27): that takes hardware.
"""

from __future__ import annotations

import subprocess
from pathlib import Path

from tests.bench import initramfs, l4, qemu, rootfs, toolbox

INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
for module in {modules}; do /bin/busybox insmod /$module; done
/usr/bin/python3 -I /watch.py
/bin/busybox sleep 1000
"""
WATCH = """
import time
from sealift.agent.watchdog import DeviceDog, Guard

def guard():
    dog = DeviceDog("/dev/watchdog", 8)
    return Guard([dog], time.monotonic)

def look(guard, seconds, alive=lambda: None):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        alive()
        guard.tend()
        time.sleep(0.2)

first = guard()
look(first, 12, lambda: first.lives(5.0))
print("bench: fed for longer than its time-out", flush=True)
first.end()
time.sleep(12)
print("bench: called off", flush=True)
second = guard()
second.trial(0.0)
look(second, 1, lambda: second.lives(5.0))
second.end()
second._dogs[0]._close()  # as a process that dies: no letter
print("bench: not called off on trial", flush=True)
third = guard()
third.lives(3.0)
print("bench: silent from now on", flush=True)
look(third, 60)
print("bench: NOBODY CAME", flush=True)
"""


def test_d27_a_kernel_resets_a_machine_whose_agent_shows_no_life(
    tmp_path: Path,
) -> None:
    """Fed it lives, called off it lives, silent it is reset within its time-out."""
    names = [path.name for path in _modules()]
    archive = _initrd(tmp_path, {"init": INIT.format(modules=" ".join(names))})
    roms = toolbox.file("usr/share/qemu")
    words = [
        *(toolbox.program("qemu-system-x86_64"), "-L", str(roms)),
        *("-L", str(toolbox.file("usr/share/seabios"))),
        *("-M", "q35", "-cpu", "max", "-smp", "1", "-m", "768", "-nodefaults"),
        *("-no-reboot", "-kernel", str(l4.kernel()), "-initrd", str(archive)),
        *("-append", "console=ttyS0 quiet panic=1 softdog.soft_panic=0"),
    ]
    with qemu.Machine(tmp_path, words, shell=None) as machine:
        machine.expect("bench: fed for longer than its time-out", 240)
        assert "seconds=8" in machine.text
        machine.expect("bench: called off", 120)
        machine.expect("bench: silent from now on", 60)
        machine.wait_off(60)
        assert "NOBODY CAME" not in machine.text


def _modules() -> list[Path]:
    return initramfs.modules(l4.module_tree(), ["softdog"])


def _initrd(place: Path, files: dict[str, str]) -> Path:
    """The Debian of the benches with these files, the modules and the test."""
    more = place / "more"
    more.mkdir()
    for name, text in (files | {"watch.py": WATCH}).items():
        (more / name).write_text(text)
        (more / name).chmod(0o755)
    for module in _modules():
        (more / module.name).write_bytes(module.read_bytes())
    into = place / "initrd"
    with into.open("wb") as out:
        for root in (rootfs.tree(), more):
            listed = subprocess.run(
                ["find", ".", "-mindepth", "1"],
                cwd=root,
                stdout=subprocess.PIPE,
                check=True,
            )
            subprocess.run(
                [toolbox.program("cpio"), "--create", "--quiet", "--format=newc"],
                cwd=root,
                input=listed.stdout,
                stdout=out,
                env=toolbox.environment(),
                check=True,
            )
    return into
