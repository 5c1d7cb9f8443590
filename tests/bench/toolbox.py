"""The programs the benches drive: Debian's own, unpacked without root beside .venv.

What this machine has is used as it is; what it lacks ``tools.debs`` fetches into
``.venv/debs``. One environment serves them all: :func:`environment` for a program that
is started, :func:`file` for data such as firmware.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
from pathlib import Path

from tools import debs

SECURE_BOOT = ("binutils", "sbsigntool", "systemd-boot-efi", "cryptsetup-bin")
FIT = ("u-boot-tools", "device-tree-compiler", "libubootenv-tool")
TRACE = ("strace",)
IMAGES = (
    *("squashfs-tools", "cpio", "zstd", "fdisk", "e2fsprogs", "dosfstools", "mtools"),
    *("busybox-static", "kmod"),
)
X86 = ("qemu-system-x86", "qemu-utils", "ovmf")
ARM64 = ("qemu-system-arm", "u-boot-qemu")
TPM = ("swtpm", "swtpm-tools", "tpm2-tools", "libtss2-tcti-swtpm0")
NETWORK = ("iproute2",)
TOKENS = ("softhsm2", "opensc", "libengine-pkcs11-openssl")
GRUB = ("grub-common", "grub-efi-amd64-bin")
KERNEL = ("linux-image-cloud-amd64",)
"""Only by name, ``root(KERNEL)``: below ``boot`` and ``lib/modules``."""
ALL = (*SECURE_BOOT, *FIT, *IMAGES, *X86, *ARM64, *TPM, *TOKENS, *GRUB, *TRACE)

_TRIPLE = f"{platform.machine()}-linux-gnu"
_PROGRAMS = ("usr/bin", "usr/sbin", "bin", "sbin")
_LIBRARIES = (
    *(f"usr/lib/{_TRIPLE}", f"lib/{_TRIPLE}", "usr/lib", f"usr/lib/{_TRIPLE}/swtpm"),
)


@functools.cache
def root(packages: tuple[str, ...] = ALL) -> Path:
    """Where the packages lie; their programs are in ``usr/bin`` below it."""
    return debs.fetch(packages)


@functools.cache
def environment(packages: tuple[str, ...] = ALL) -> dict[str, str]:
    """The environment in which the tools find each other and their libraries."""
    content = root(packages)
    programs = [str(content / name) for name in _PROGRAMS]
    libraries = [str(content / name) for name in _LIBRARIES]
    return {
        **os.environ,
        "PATH": os.pathsep.join(
            [*os.environ["PATH"].split(os.pathsep), "/usr/sbin", "/sbin", *programs]
        ),
        "LD_LIBRARY_PATH": os.pathsep.join(libraries),
        "MTOOLS_SKIP_CHECK": "1",
        "LC_ALL": "C.UTF-8",
    }


def program(name: str, packages: tuple[str, ...] = ALL) -> str:
    """The absolute path of a program.

    Raises:
        FileNotFoundError: none of the packages has it.
    """
    found = shutil.which(name, path=environment(packages)["PATH"])
    if found is None:
        raise FileNotFoundError(f"none of {', '.join(packages)} has {name}")
    return found


def file(name: str, packages: tuple[str, ...] = ALL) -> Path:
    """A data file by its name below ``/``, such as ``usr/share/OVMF/OVMF_CODE_4M.fd``.

    Raises:
        FileNotFoundError: none of the packages has it.
    """
    for place in (Path("/"), root(packages)):
        if (place / name).exists():
            return place / name
    raise FileNotFoundError(f"none of {', '.join(packages)} has {name}")
