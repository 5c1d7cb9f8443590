"""Releases for the arm64 machine: a verified root and a signed FIT in one slot image.

Made by the product's own verbs (``sealift release secure-boot``) from a root with our
real agent. Keys, kernel, initramfs and images are made once and kept by digest.
"""

from __future__ import annotations

import functools
import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sealift.core.bootable import words
from sealift.core.types import Bootable
from sealift.sign.secure_boot import fit, image, verity
from sealift.sign.secure_boot import keys as secure_boot_keys
from sealift.sign.secure_boot.keys import SigningKey
from sealift.sign.secure_boot.tools import Tools
from sealift.sim import debian
from tests.bench import cache, initramfs, rootfs, toolbox, uboot, uboot_build

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
COMMAND_LINE = "console=ttyAMA0 panic=2 quiet loglevel=4"
LOAD = 0x40400000
KEY = "fit"
KEYS = (KEY, "foreign")
"""What U-Boot believes, and what it does not."""
MADE = datetime(2026, 11, 1, tzinfo=UTC)
_BUILDER = 2
_INITTAB = """\
# busybox init of the bench's arm64 device: its shell is on the virtio console.
::sysinit:/usr/libexec/start
::respawn:/usr/libexec/agent
hvc0::respawn:/usr/libexec/shell
::shutdown:/usr/libexec/end
"""


@dataclass(frozen=True, slots=True)
class Release:
    """One release as files: the whole image, its FIT alone, and the facts about both."""

    version: str
    image: Path
    fit: Path
    bootable: Bootable

    @property
    def command_line(self) -> str:
        """What the FIT says to the kernel."""
        facts = self.bootable
        said = words(facts.root_hash, facts.salt, facts.data_blocks)
        return " ".join([COMMAND_LINE, *said])

    @property
    def tree(self) -> int:
        """Where the hash tree begins in the image, its top block first."""
        return (self.bootable.data_blocks + 1) * 4096


def tools() -> Tools:
    """The programs of the toolbox, for the verbs."""
    return Tools(toolbox.environment())


@functools.cache
def keys() -> Path:
    """The keys of the boot chain, ``NAME.key`` and ``NAME.crt``. For tests only."""
    facts = cache.digest(_BUILDER, list(KEYS))
    return cache.built(
        "fit-keys", facts, lambda into: _ignore(secure_boot_keys.make(into, KEYS, MADE))
    )


def _ignore(_made: object) -> None:
    pass


def key(name: str = KEY) -> SigningKey:
    """One of them."""
    return SigningKey(str(keys() / f"{name}.key"), keys() / f"{name}.crt")


@functools.cache
def root() -> Path:
    """The root directory that all releases share."""
    more = {"etc/inittab": _INITTAB, "etc/fw_env.config": uboot.fw_env_config()}
    return rootfs.tree(ARCHITECTURE, PACKAGES, more)


@functools.cache
def parts() -> Path:
    """``kernel``, ``initrd``, ``base.dtb``, and ``modules`` in their order."""
    debs = rootfs.packages(ARCHITECTURE, KERNEL)
    busybox = (root() / "bin/busybox").resolve()

    def build(into: Path) -> None:
        tree = into / "tree"
        tree.mkdir()
        (deb,) = debs.glob("linux-image-[0-9]*.deb")
        debian.unpack(deb, tree)
        (kernel,) = tree.glob("boot/vmlinuz-*")
        shutil.copyfile(kernel, into / "kernel")
        (version,) = tree.glob("lib/modules/*")
        drivers = initramfs.modules(version, DRIVERS)
        verity_root = initramfs.compile_verity_root(
            into / "verity-root", [uboot_build.compiler()]
        )
        initramfs.pack(into / "initrd", busybox, verity_root, drivers)
        (into / "modules").mkdir()
        for number, driver in enumerate(drivers, 100):
            shutil.copyfile(driver, into / f"modules/{number}-{driver.name}")
        uboot.base_tree(into / "base.dtb")
        shutil.rmtree(tree)

    names = sorted(deb.name for deb in debs.iterdir())
    facts = [
        _BUILDER,
        names,
        list(DRIVERS),
        initramfs.SOURCE,
        busybox,
        uboot.firmware(),
    ]
    return cache.built("uboot-parts", cache.digest(*facts), build)


@functools.cache
def control() -> Path:
    """U-Boot's own tree: the machine's, and the key that FITs must be signed with."""

    def build(into: Path) -> None:
        sign(into, ("roothash=0",), (parts() / "base.dtb", into / "control.dtb"))
        (into / "image.fit").unlink()

    facts = cache.digest(_BUILDER, str(parts()), str(keys()))
    return cache.built("control", facts, build) / "control.dtb"


def sign(
    into: Path,
    facts: tuple[str, ...],
    trees: tuple[Path, Path] | None = None,
    signer: str = KEY,
) -> fit.Made:
    """``into/image.fit`` with ``facts`` on its command line; the key in ``trees``."""
    return fit.make(
        fit.Fit(
            kernel=parts() / "kernel",
            tree=parts() / "base.dtb",
            ramdisk=parts() / "initrd",
            command_line=" ".join([COMMAND_LINE, *facts]),
            load=LOAD,
        ),
        into / "image.fit",
        key(signer),
        tools(),
        name=KEY,
        control=trees,
    )


@functools.cache
def release(version: str, health: str = "good", *, signer: str = KEY) -> Release:
    """A release; another ``health`` than ``good`` never earns its confirm."""

    def build(into: Path) -> None:
        texts = {"etc/sealift-release": version, "etc/sealift-health": health}
        files = {name: f"{text}\n" for name, text in texts.items()}
        squashed = rootfs.squash(root(), into / "root.squashfs", files)
        verified = into / "root.verity"
        found = verity.append(squashed, verified, verity.salt_of(version), tools())
        made = sign(into, found.words, signer=signer)
        assert made.length <= uboot.FIT_BYTES_MAX
        image.join(verified, made.path, into / "image", offset=uboot.FIT_OFFSET)
        squashed.unlink()
        verified.unlink()

    facts = [_BUILDER, version, health, signer, COMMAND_LINE, uboot.FIT_OFFSET]
    sources = [str(root()), str(parts()), str(keys())]
    place = cache.built(f"fit-{version}", cache.digest(*facts, *sources), build)
    bootable = image.read_facts(place / f"image{image.FACTS}")
    return Release(version, place / "image", place / "image.fit", bootable)
