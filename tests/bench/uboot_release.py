"""Releases for the arm64 machine: a verified root and a signed FIT in one slot image.

Made by the product's own verbs (``sealift release secure-boot``); what is the same in
all releases (kernel, initramfs, root directory) is kept between runs.
"""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

from sealift.sim import debian
from tests.bench import cache, initramfs, rootfs, uboot, uboot_build

ARCHITECTURE = "arm64"
PACKAGES = (
    *(name for name in rootfs.PACKAGES if name != "dosfstools"),
    "libubootenv-tool",
)
KERNEL = ("linux-image-cloud-arm64",)
DRIVERS = (
    *("virtio_mmio", "virtio_blk", "virtio_net", "virtio_console"),
    *("dm_verity", "squashfs", "softdog"),
)
_INITTAB = """\
# busybox init of the bench's arm64 device: its shell is on the virtio console.
::sysinit:/usr/libexec/start
::respawn:/usr/libexec/agent
hvc0::respawn:/usr/libexec/shell
::shutdown:/usr/libexec/end
"""


def root() -> Path:
    """The root directory that all releases share."""
    more = {"etc/inittab": _INITTAB, "etc/fw_env.config": uboot.fw_env_config()}
    return rootfs.tree(ARCHITECTURE, PACKAGES, more)


def parts() -> Path:
    """A directory with ``kernel.gz``, ``initrd`` and ``base.dtb``."""
    debs = rootfs.packages(ARCHITECTURE, KERNEL)
    busybox = (root() / "bin/busybox").resolve()

    def build(into: Path) -> None:
        tree = into / "tree"
        tree.mkdir()
        (deb,) = debs.glob("linux-image-[0-9]*.deb")
        debian.unpack(deb, tree)
        (kernel,) = tree.glob("boot/vmlinuz-*")
        packed = gzip.compress(kernel.read_bytes(), 6, mtime=0)
        (into / "kernel.gz").write_bytes(packed)
        (version,) = tree.glob("lib/modules/*")
        drivers = initramfs.modules(version, DRIVERS)
        verity_root = initramfs.compile_verity_root(
            into / "verity-root", [uboot_build.compiler()]
        )
        initramfs.pack(into / "initrd", busybox, verity_root, drivers)
        uboot.base_tree(into / "base.dtb")
        shutil.rmtree(tree)

    key = cache.digest(
        "1",
        [deb.name for deb in debs.iterdir()],
        list(DRIVERS),
        initramfs.SOURCE,
        busybox,
    )
    return cache.built("uboot-parts", key, build)
