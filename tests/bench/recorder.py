"""A kernel that boots in seconds, runs one job on a disk, and a log of what it wrote.

No firmware, no loader: QEMU starts Debian's cloud kernel with an initramfs of busybox
and, if asked for, this Python and our own source. What the kernel's file systems do
with a disk is then on record, write by write (``tests.bench.blocklog``).
"""

from __future__ import annotations

import functools
import os
import re
import stat
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.bench import toolbox
from tools import debs

MODULES = ("virtio_pci", "virtio_blk", "nls_cp437", "nls_ascii", "vfat", "ext4")
_DONE = re.compile(r"JOB ENDED (\d+)")
_BOOT_SECONDS = 240.0

_INIT = """#!/bin/sh
mount -t devtmpfs dev /dev
mount -t proc proc /proc
mount -t sysfs sys /sys
for module in $(cat /modules.list); do insmod /modules/$module || echo "MODULE $module"; done
mkdir -p /esp /data /tmp
cd /
sh /job 2>&1
echo "JOB ENDED $?"
poweroff -f
"""


class RecorderError(Exception):
    """The guest did not do its job; the text is what it said."""


@dataclass(frozen=True, slots=True)
class Recording:
    """What one job left: the image from before, the log, and what the guest said."""

    base: Path
    log: Path
    said: str


def record(
    job: str,
    disk: Path,
    log: Path,
    *,
    files: Mapping[str, bytes] | None = None,
    python: bool = False,
) -> Recording:
    """Run the shell script ``job`` in a guest whose disk is a copy of ``disk``.

    The disk is ``/dev/vda``; ``disk`` itself stays as it is, it is the base of the log.
    ``python`` puts an interpreter and Sealift into the guest: ``python3`` on its path.

    Raises:
        RecorderError: the job failed, or the guest did not end.
    """
    image = log.with_suffix(".disk")
    subprocess.run(["cp", "--sparse=always", disk, image], check=True)
    log.unlink(missing_ok=True)
    log.touch()
    drives = [
        f"driver=file,filename={image},node-name=f0",
        f"driver=file,filename={log},node-name=l0",
        (
            "driver=blklogwrites,file=f0,log=l0,log-sector-size=512,"
            "log-super-update-interval=64,node-name=d0"
        ),
    ]
    try:
        said = _done(job, image, drives, files or {}, python=python)
    finally:
        image.unlink()
    return Recording(disk, log, said)


def run(job: str, disk: Path, files: Mapping[str, bytes], seconds: float) -> str:
    """Run a script in a guest on ``disk`` itself, with Python, without a log.

    Raises:
        RecorderError: the job failed, or the guest did not end.
    """
    drives = [f"driver=file,filename={disk},node-name=d0"]
    return _done(job, disk, drives, files, python=True, seconds=seconds)


def _done(
    job: str,
    image: Path,
    drives: Iterable[str],
    files: Mapping[str, bytes],
    *,
    python: bool,
    seconds: float = _BOOT_SECONDS,
) -> str:
    initrd = image.with_suffix(".cpio")
    initrd.write_bytes(_initramfs(job, files, python=python))
    try:
        said = start(initrd, drives, "d0", seconds)
    finally:
        initrd.unlink()
    found = _DONE.search(said)
    if found is None or found[1] != "0":
        raise RecorderError(f"the job failed in the guest:\n{said[-4000:]}")
    return said


def start(
    initrd: Path, drives: Iterable[str], device: str, seconds: float = _BOOT_SECONDS
) -> str:
    """Boot the kernel with this initramfs until it powers off; what it said.

    Raises:
        RecorderError: it did not end in time.
    """
    command = [toolbox.program("qemu-system-x86_64"), "-M", "q35", "-accel", "tcg"]
    command += ["-cpu", "max", "-smp", "1", "-m", "512", "-nodefaults", "-no-reboot"]
    command += ["-display", "none", "-serial", "stdio"]
    command += ["-kernel", str(kernel()), "-initrd", str(initrd)]
    command += ["-append", "console=ttyS0 quiet panic=-1 tsc=unstable"]
    for drive in drives:
        command += ["-blockdev", drive]
    command += ["-device", f"virtio-blk-pci,drive={device},romfile="]
    try:
        done = subprocess.run(
            command,
            env=toolbox.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as error:
        said = (error.output or b"").decode("utf-8", "replace")
        raise RecorderError(f"the guest did not end:\n{said[-4000:]}") from error
    return done.stdout.decode("utf-8", "replace")


@functools.cache
def kernel() -> Path:
    """The kernel of the benches on this architecture.

    Raises:
        FileNotFoundError: the package brought none.
    """
    found = sorted((toolbox.root(toolbox.KERNEL) / "boot").glob("vmlinuz-*-cloud-*"))
    if not found:
        raise FileNotFoundError(f"no kernel in {' '.join(toolbox.KERNEL)}")
    return found[-1]


@functools.cache
def modules(names: tuple[str, ...] = MODULES) -> tuple[Path, ...]:
    """These modules and what they need, in the order in which they load."""
    version = kernel().name.removeprefix("vmlinuz-")
    tree = toolbox.root(toolbox.KERNEL) / "lib/modules" / version / "kernel"
    files = {path.stem.replace("-", "_"): path for path in tree.rglob("*.ko")}
    order: dict[str, Path] = {}

    def add(name: str) -> None:
        if name in order or name not in files:
            return  # not among the files: built in
        depends = re.search(rb"\0depends=([^\0]*)\0", files[name].read_bytes())
        for other in depends[1].decode().split(",") if depends else ():
            add(other.replace("-", "_"))
        order[name] = files[name]

    for name in names:
        add(name)
    if "ext4" in order:  # asked for at run time, so it is not among the needs
        crc = {name: files[name] for name in ("crc32c_generic",) if name in files}
        order = crc | order
    return tuple(order.values())


def _initramfs(job: str, files: Mapping[str, bytes], *, python: bool) -> bytes:
    busybox = Path(toolbox.program("busybox", ("busybox-static",)))
    applets = subprocess.run(
        [busybox, "--list"], capture_output=True, text=True, check=True
    ).stdout.split()
    found: dict[str, bytes | str] = {
        "init": _INIT.encode(),
        "job": job.encode(),
        "bin/busybox": busybox.read_bytes(),
        "modules.list": "\n".join(path.name for path in modules()).encode(),
    }
    found |= {f"bin/{name}": "busybox" for name in applets if name != "busybox"}
    found |= {f"modules/{path.name}": path.read_bytes() for path in modules()}
    head = _archive(found | dict(files), ("dev", "proc", "sys", "tmp"))
    return head + (_interpreter() if python else b"")


@functools.cache
def _interpreter() -> bytes:
    """This Python, its libraries and our source, as one more archive."""
    real = Path(os.path.realpath(sys.executable))
    library = Path(sysconfig.get_path("stdlib"))
    left_out = {"test", "idlelib", "tkinter", "site-packages", "dist-packages"}
    left_out |= {"ensurepip", "lib2to3", "turtledemo", "__pycache__", "unittest"}
    found: dict[str, bytes | str] = {"usr/bin/python3": real.read_bytes()}
    programs = [real]
    for path in library.rglob("*"):
        inside = path.relative_to(library)
        if left_out & set(inside.parts) or inside.parts[0].startswith("config-"):
            continue
        if path.is_file() and path.suffix in {".py", ".so"}:
            found[f"{library}/{inside}".lstrip("/")] = path.read_bytes()
            if path.suffix == ".so":
                programs.append(path)
    for path in _libraries(programs):
        found[str(path).lstrip("/")] = path.read_bytes()
    source = debs.ROOT / "src"
    for path in source.rglob("*.py"):
        found[f"sealift/{path.relative_to(source)}"] = path.read_bytes()
    return _archive(found, ())


def programs(*names: str) -> dict[str, bytes]:
    """Programs of the toolbox and their libraries, as files for a guest with Python."""
    found: dict[str, bytes] = {}
    for name in names:
        path = Path(toolbox.program(name))
        found[f"bin/{name}"] = path.read_bytes()
        libraries = _libraries([path])
        # The toolbox's own go where the machine's are: there the guest looks for them.
        home = next(it.parent for it in libraries if it.name.startswith("libc.so"))
        for library in libraries:
            there = library if library.is_relative_to("/lib64") else home / library.name
            found[str(there).lstrip("/")] = library.read_bytes()
    return found


def _libraries(paths: Iterable[Path]) -> set[Path]:
    listed = subprocess.run(
        ["ldd", *paths],
        env=toolbox.environment(),
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    found = re.findall(r"^\s+(?:\S+ => )?(/\S+) \(0x", listed, re.MULTILINE)
    return {Path(name) for name in found}


def _archive(files: Mapping[str, bytes | str], folders: Iterable[str]) -> bytes:
    """A cpio archive as the kernel unpacks it; a text is the target of a link."""
    found = bytearray()
    number = 0

    def add(name: str, mode: int, content: bytes) -> None:
        nonlocal number
        number += 1
        fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0]
        found.extend(b"070701" + b"".join(b"%08X" % it for it in fields))
        found.extend(name.encode() + b"\0")
        found.extend(bytes(-len(found) % 4))
        found.extend(content)
        found.extend(bytes(-len(found) % 4))

    above = {
        str(parent)
        for name in [*files, *(f"{it}/x" for it in folders)]
        for parent in Path(name).parents
        if str(parent) != "."
    }
    for name in sorted(above):
        add(name, stat.S_IFDIR | 0o755, b"")
    for name, content in files.items():
        if isinstance(content, str):
            add(name, stat.S_IFLNK | 0o777, content.encode())
        else:
            add(name, stat.S_IFREG | 0o755, content)
    add("TRAILER!!!", 0, b"")
    return bytes(found)
