"""The x86-64 machine of bench L4: OVMF with Secure Boot, a disk, real firmware variables.

:func:`argv` is the command line of device.md, section 4; :class:`Pc` is a machine that
stands on a directory with ``disk.img`` (or ``.qcow2``) and ``vars.fd``.
"""

from __future__ import annotations

from pathlib import Path

from tests.bench import qemu, toolbox

MEMORY_MIB = 512
FIRMWARE = "usr/share/OVMF/OVMF_CODE_4M.secboot.fd"
EMPTY_VARIABLES = "usr/share/OVMF/OVMF_VARS_4M.fd"


def argv(
    disk: tuple[str, ...] | Path,
    variables: Path,
    *,
    port: int | None = None,
    memory: int = MEMORY_MIB,
) -> list[str]:
    """A PC with Secure Boot; ``port`` is the server it may reach on this machine.

    ``disk`` is a file, or words (``-blockdev …``) that end in a node called ``d0``.
    """
    code = toolbox.file(FIRMWARE)
    roms = toolbox.file("usr/share/qemu")
    if isinstance(disk, Path):
        disk = qemu.drive(disk, "d0", "if=none", "cache=writeback")
    return [
        *(toolbox.program("qemu-system-x86_64"), "-L", str(roms)),
        *("-M", "q35,smm=on", "-cpu", "max", "-smp", "1", "-m", str(memory)),
        *("-nodefaults", "-global", "driver=cfi.pflash01,property=secure,value=on"),
        *("-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={code}"),
        *qemu.drive(variables, "vars", "if=pflash", "unit=1"),
        *disk,
        *("-device", "virtio-blk-pci,drive=d0,bootindex=1"),
        *("-device", "virtio-rng-pci"),
        *qemu.network(port),
        *("-device", "virtio-net-pci,netdev=n0,romfile="),
    ]
