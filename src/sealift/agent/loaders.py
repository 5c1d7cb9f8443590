"""Which boot loader a configuration means, and what comes with it.

A part of the composition root. Each function makes one boot control and imports what it
is made of, so a device loads the one it has.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from sealift.core.types import Slot

if TYPE_CHECKING:
    from sealift.agent.boot.systemd_boot import SystemdBoot
    from sealift.agent.boot.tryboot import TryBoot
    from sealift.agent.config import Config
    from sealift.agent.mounted import Mounted
    from sealift.agent.ports import BootFiles, Clock, Link, Loader

LINK_PAUSE_SECONDS = 1.0
"""How long a link to a microcontroller rests before it is tried again."""


def boot(config: Config) -> Loader:
    """The boot loader of the component: of this board, or at the end of a link.

    Raises:
        BootError: the loader's store cannot be used.
    """
    if config.components[0].link:
        from sealift.agent.boot.link import LinkBoot
        from sealift.agent.clock import SystemClock

        return LinkBoot(link(config, SystemClock()))
    return _LOADERS[config.boot.kind](config)


def boot_files(config: Config) -> BootFiles | None:
    """Where boot files go, for a loader that wants them outside the slots."""
    make = _FILES.get(config.boot.kind)
    return make(config) if make else None


def restart_words(config: Config) -> tuple[str, ...]:
    """What the program that restarts the machine is told besides, at this moment."""
    words = _WORDS.get(config.boot.kind)
    return words(config) if words else ()


def _file_boot(config: Config) -> Loader:
    from sealift.agent.boot.file import open_boot

    return open_boot(config.boot.store)


def _uboot(config: Config) -> Loader:
    from sealift.agent.boot.uboot import Tools, UbootBoot, UbootTools, chosen
    from sealift.agent.clock import SystemClock

    wanted, clock = config.boot, SystemClock()
    tools = Tools(
        wanted.fw_printenv, wanted.fw_setenv, wanted.uboot_config, wanted.seconds
    )
    return UbootBoot(
        UbootTools(tools, clock),
        mounted(config).slot,
        clock.boot_id,
        chosen=chosen,
    )


def _script(config: Config) -> Loader:
    from sealift.agent.boot.script import CommandProgram, ScriptBoot
    from sealift.agent.clock import SystemClock

    clock = SystemClock()
    program = CommandProgram(config.boot.program, clock, config.boot.seconds)
    return ScriptBoot(program, clock.boot_id)


def _systemd_boot(config: Config) -> SystemdBoot:
    from sealift.agent.boot.systemd_boot import SystemdBoot
    from sealift.agent.clock import SystemClock
    from sealift.agent.efivars import EfiVariables
    from sealift.agent.esp import Directory, Programs

    wanted, clock = config.boot, SystemClock()
    programs = Programs(
        clock,
        check=wanted.esp_check,
        mount=wanted.esp_mount,
        unmount=wanted.esp_unmount,
    )
    return SystemdBoot(
        EfiVariables() if wanted.efi_variables else None,
        Directory(wanted.esp, programs),
        mounted(config).slot,
        clock.boot_id,
    )


def _grub(config: Config) -> Loader:
    from sealift.agent.boot.grub import GrubBoot
    from sealift.agent.clock import SystemClock
    from sealift.agent.inplace import BlockFile

    path, slot = config.boot.grubenv, mounted(config).slot
    env, home = (
        BlockFile(name, f"grub-editenv {name} create")
        for name in (path, f"{path}.home")
    )
    return GrubBoot(env, home, slot, SystemClock().boot_id)


def _tryboot(config: Config) -> TryBoot:
    from sealift.agent.boot.tryboot import FileNote, TryBoot, chosen
    from sealift.agent.clock import SystemClock
    from sealift.agent.inplace import BlockFile

    wanted = config.boot
    return TryBoot(
        BlockFile(wanted.autoboot, "docs/boards/raspberry-pi.md"),
        FileNote(wanted.tryboot_note),
        dict(zip(Slot, wanted.partitions, strict=True)),
        mounted(config).slot,
        SystemClock().boot_id,
        booted=lambda: chosen("partition"),
    )


def mounted(config: Config) -> Mounted:
    """Who finds out which slot runs."""
    from sealift.agent.mounted import Mounted

    slots = dict(zip(Slot, config.components[0].slots, strict=True))
    return Mounted(config.boot.root, slots)


_LOADERS: dict[str, Callable[[Config], Loader]] = {
    "file": _file_boot,
    "uboot": _uboot,
    "systemd-boot": _systemd_boot,
    "grub": _grub,
    "tryboot": _tryboot,
    "script": _script,
}
"""Who makes the boot control of a ``[boot] kind``."""

_FILES: dict[str, Callable[[Config], BootFiles]] = {"systemd-boot": _systemd_boot}
"""Who places the boot files of a ``[boot] kind`` that wants them outside the slots."""

_WORDS: dict[str, Callable[[Config], tuple[str, ...]]] = {
    "tryboot": lambda config: _tryboot(config).words()
}
"""What the restart program of a ``[boot] kind`` is told besides."""


def link(config: Config, clock: Clock) -> Link:
    """The way to the microcontroller that the component is."""
    from sealift.agent.link import CommandLink, PatientLink

    part = config.components[0]
    way = CommandLink(part.link, clock, part.link_seconds)
    return PatientLink(way, lambda: clock.sleep(LINK_PAUSE_SECONDS))
