"""Bench L4: signed releases, disks with one of them confirmed, and the PC that runs them.

A release is one image with everything in it (root, hash tree, signed UKI), made by the
product's own verbs from a root with our real agent. Images, keys and firmware variables
are made once and kept by digest; a test works on copies below its own directory.
"""

from __future__ import annotations

import functools
import json
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sealift.core.types import Bootable
from sealift.sim.processes import program
from tests.bench import cache, disk, initramfs, qemu, rootfs, toolbox, x86

PRODUCT = "bench"
GUID = "5ea11f70-0000-4000-8000-0000000000aa"
COMMAND_LINE = "console=ttyS0 panic=3 quiet loglevel=4 no_timer_check"
"""The last word is for emulation: a busy host makes the kernel's check of the timer fail,
and it then hangs (``MP-BIOS bug: 8254 timer not connected to IO-APIC``)."""
KEYS = ("PK", "KEK", "db", "foreign")
"""Platform key, key exchange key, what the firmware believes, and what it does not."""
MODULES = (
    *("virtio_pci", "virtio_blk", "virtio_net", "virtio_rng", "dm_verity", "squashfs"),
    *("vfat", "nls_cp437", "nls_ascii", "efivarfs", "softdog"),
)
LOADER = "EFI/BOOT/BOOTX64.EFI"
LINUX = "EFI/Linux"
LOADER_CONF = Path(__file__).parents[2] / "boards/uefi/loader.conf"
UP_SECONDS = 240.0
SLOTS = ("/dev/vda2", "/dev/vda3")
BOOT = {
    "kind": '"systemd-boot"',
    "esp": '"/efi"',
    "esp_mount": '["/bin/mount", "-t", "vfat", "-o", "nosuid,nodev,noexec", '
    '"/dev/vda1", "/efi"]',
    "esp_unmount": '["/bin/umount", "/efi"]',
    "esp_check": '["/sbin/fsck.fat", "-a", "/dev/vda1"]',
    "verified": "true",
    "restart": '["/sbin/reboot"]',
}
"""``[boot]`` of the agent on this machine, values as TOML has them."""
_BUILDER = 2


@dataclass(frozen=True, slots=True)
class Release:
    """One release as files: the whole image, and the signed UKI that is in it."""

    version: str
    image: Path
    uki: Path

    @property
    def facts(self) -> Path:
        """How it boots verified, for ``release pack --bootable``."""
        return self.image.with_name(f"{self.image.name}.boot.json")

    @property
    def bootable(self) -> Bootable:
        """The same as a value."""
        return Bootable.from_json(json.loads(self.facts.read_text("ascii")))


# ── what is made once ────────────────────────────────────────────────────────────────
def secure_boot(*words: str | Path) -> dict[str, Any]:
    """A verb of ``sealift release secure-boot``, as users run it; its answer."""
    argv = [program("sealift"), "release", "secure-boot", *words, "--json"]
    done = subprocess.run(
        list(map(str, argv)),
        env=toolbox.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{words}: {done.stderr}{done.stdout}"
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@functools.cache
def keys() -> Path:
    """The keys of the boot chain, ``NAME.key`` and ``NAME.crt``. For tests only."""

    def build(into: Path) -> None:
        secure_boot("keys", into / "made", *KEYS)

    return cache.built("keys", cache.digest(_BUILDER, list(KEYS)), build) / "made"


@functools.cache
def kernel() -> Path:
    """Debian's cloud kernel, signed modules and all."""
    (found,) = (toolbox.root(toolbox.KERNEL) / "boot").glob("vmlinuz-*-cloud-amd64")
    return found


def module_tree() -> Path:
    """Where its modules are."""
    version = kernel().name.removeprefix("vmlinuz-")
    return toolbox.root(toolbox.KERNEL) / "lib/modules" / version


@functools.cache
def initrd() -> Path:
    """The initramfs of ``boards/initramfs`` with this kernel's modules."""
    tree = module_tree()
    version = tree.name
    facts = [_BUILDER, version, list(MODULES), initramfs.SOURCE]

    def build(into: Path) -> None:
        verity_root = initramfs.compile_verity_root(into / "verity-root")
        drivers = initramfs.modules(tree, MODULES)
        busybox = Path(toolbox.program("busybox"))
        initramfs.pack(into / "initrd", busybox, verity_root, drivers)

    return cache.built("initrd", cache.digest(*facts), build) / "initrd"


def release(version: str, health: str = "good", *, signer: str = "db") -> Release:
    """A release; another ``health`` than ``good`` never earns its confirm.

    ``signer`` is the key its UKI is signed with; the firmware believes ``db`` only.
    """
    return _release(version, health, signer)


@functools.cache
def _tree() -> Path:
    """The same for all releases of one test run, whoever edits the sources meanwhile."""
    return rootfs.tree()


@functools.cache
def _release(version: str, health: str, signer: str) -> Release:
    root = _tree()
    facts = [_BUILDER, version, health, COMMAND_LINE, kernel().name]
    sources = [str(root), str(initrd()), str(keys()), signer, *_verbs()]

    def build(into: Path) -> None:
        texts = {"etc/sealift-release": version, "etc/sealift-health": health}
        files = {name: f"{text}\n" for name, text in texts.items()}
        squashed = rootfs.squash(root, into / "root.squashfs", files)
        rooted, made = into / "root.verity", into / "uki.efi"
        secure_boot("verity", squashed, "--name", f"bench-{version}", "--out", rooted)
        secure_boot("uki", *_uki_words(rooted, version, signer), "--out", made)
        secure_boot("image", rooted, made, "--out", into / "image")
        squashed.unlink()
        rooted.unlink()

    key = cache.digest(*facts, *sources)
    place = cache.built(f"release-{version}", key, build)
    return Release(version, place / "image", place / "uki.efi")


def _verbs() -> list[Path]:
    """What makes an image: releases are made anew when it changed."""
    source = Path(__file__).parents[2] / "src/sealift"
    return sorted((source / "sign/secure_boot").glob("*.py"))


def _uki_words(rooted: Path, version: str, signer: str) -> list[str | Path]:
    return [
        *("--kernel", kernel(), "--initrd", initrd(), "--root", rooted),
        *("--command-line", COMMAND_LINE, "--product", PRODUCT, "--version", version),
        *("--uname", kernel().name.removeprefix("vmlinuz-")),
        *("--stub", toolbox.file("usr/lib/systemd/boot/efi/linuxx64.efi.stub")),
        *("--key", keys() / f"{signer}.key"),
    ]


@functools.cache
def loader() -> Path:
    """systemd-boot, signed with the key the firmware believes."""
    source = unsigned_loader()

    def build(into: Path) -> None:
        words = ("--key", keys() / "db.key", "--out", into / "loader.efi")
        secure_boot("loader", source, *words)

    facts = [_BUILDER, source, str(keys())]
    return cache.built("loader", cache.digest(*facts), build) / "loader.efi"


def unsigned_loader() -> Path:
    """systemd-boot as Debian ships it: its own signature is not among our keys."""
    return toolbox.file("usr/lib/systemd/boot/efi/systemd-bootx64.efi")


@functools.cache
def variables() -> Path:
    """The firmware's variables with our keys in them, Secure Boot on; nothing else."""

    def build(into: Path) -> None:
        template = toolbox.file(x86.EMPTY_VARIABLES)
        words = ("--keys", keys(), "--template", template)
        secure_boot("enrol", *words, "--store", into / "vars.fd")

    return cache.built("vars", cache.digest(_BUILDER, str(keys())), build) / "vars.fd"


# ── disks ────────────────────────────────────────────────────────────────────────────
def factory(place: Path, running: Release, device: Path | None = None) -> Path:
    """``place/disk.img`` and ``place/vars.fd`` as a factory leaves them; the disk.

    ``running`` is confirmed in slot a, slot b is empty. ``device`` is what lies on the
    data partition, ``agent/agent.toml`` in it; without it no agent runs.
    """
    place.mkdir(parents=True, exist_ok=True)
    path = disk.format_disk(place / "disk.img")
    esp = disk.Esp(path)
    esp.put(LOADER, loader())
    esp.put("loader/loader.conf", LOADER_CONF)
    esp.put(f"{LINUX}/sealift-a.efi", running.uki)
    disk.write(path, disk.SLOT_A, running.image)
    tree = place / "data"
    if device is not None:
        shutil.copytree(device, tree)
    tree.mkdir(exist_ok=True)
    disk.write_data(path, tree, place)
    shutil.rmtree(tree)
    shutil.copyfile(variables(), place / "vars.fd")
    return path


def copy(source: Path, place: Path) -> Path:
    """Disk and variables of another place, raw, holes kept; the disk."""
    place.mkdir(parents=True, exist_ok=True)
    words = ("cp", "--sparse=always", "--reflink=auto")
    for name in ("disk.img", "vars.fd"):
        subprocess.run([*words, source / name, place / name], check=True)
    return place / "disk.img"


def revoke(place: Path, digest: bytes) -> None:
    """Put the digest of a boot file into the firmware's ``dbx``, as a factory would."""
    path = place / "vars.fd"
    words = ("--inplace", str(path), "--add-dbx-hash", GUID, digest.hex())
    argv = [str(program("virt-fw-vars")), *words]
    subprocess.run(argv, check=True, capture_output=True)


class Pc(qemu.Machine):
    """The machine of ``place``: ``disk.img`` (or ``disk.qcow2``) and its variables."""

    def __init__(
        self,
        place: Path,
        *,
        port: int | None = None,
        drive: Sequence[str] | None = None,
        more: Sequence[str] = (),
    ) -> None:
        self.disk = _either(place, "disk", "img")
        variables = _either(place, "vars", "fd")
        what = self.disk if drive is None else tuple(drive)
        super().__init__(place, [*x86.argv(what, variables, port=port), *more])

    def up(self, seconds: float = UP_SECONDS, *, never: str = "") -> tuple[str, str]:
        """Wait for the next start of a system: its slot and its release."""
        root = self.expect(r"sealift: root sealift-([ab]) ", seconds, never=never)
        what = self.expect(r"bench: release (\S+) up", seconds)
        self.settle()
        return root[1], what[1]

    def variable(self, name: str) -> str | None:
        """A variable of the loader, as the running system sees it."""
        path = f"{_VARIABLES}/{name}-{VENDOR}"
        if self.run(f"[ -e {path} ] && echo yes", check=False) != "yes":
            return None
        return self.read(path)[4:].decode("utf-16-le").rstrip("\0")

    def set_variable(self, name: str, text: str) -> None:
        """Set one by the product's own code, in the running system."""
        call = f"EfiVariables().write({name!r}, as_value({text!r}))"
        self.python(f"from sealift.agent.efivars import *; {call}")

    def delete_variable(self, name: str) -> None:
        """Delete one, the same way."""
        call = f"EfiVariables().delete({name!r})"
        self.python(f"from sealift.agent.efivars import *; {call}")

    def python(self, text: str, seconds: float = 60.0) -> str:
        """Run a line of Python in the guest."""
        return self.run(f"python3 -I -c {shlex.quote(text)}", seconds)

    def mount_esp(self, *more: str) -> None:
        """Mount the EFI system partition at ``/efi``, as the product would."""
        options = ",".join(("nosuid", "nodev", "noexec", *more))
        self.run(f"mount -t vfat -o {options} /dev/vda1 /efi")

    def unmount_esp(self) -> None:
        """Unmount it; what was written is on the disk."""
        self.run("sync; umount /efi")

    def reboot(self) -> None:
        """Ask the running system to restart."""
        self.mark()
        self.run("reboot")

    def off(self, seconds: float = 60.0) -> None:
        """Ask the running system to power off, and wait for it."""
        self.run("poweroff")
        self.wait_off(seconds)


_VARIABLES = "/sys/firmware/efi/efivars"
VENDOR = "4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"


def _either(place: Path, name: str, raw: str) -> Path:
    qcow2 = place / f"{name}.qcow2"
    return qcow2 if qcow2.exists() else place / f"{name}.{raw}"
