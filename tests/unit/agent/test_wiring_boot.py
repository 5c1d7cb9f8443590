"""The composition root: what of ``[boot]`` reaches which loader's boot control."""

from __future__ import annotations

from pathlib import Path

import pytest

from sealift.agent import config, loaders, settings, wiring
from sealift.agent.boot.grub import GrubBoot, Store, pack
from sealift.agent.boot.systemd_boot import SystemdBoot
from sealift.agent.boot.tryboot import TryBoot
from sealift.agent.clock import SystemClock
from sealift.agent.config import Config
from sealift.agent.install.ab import AbInstaller
from sealift.agent.ports import Progress
from sealift.core.errors import BootError, InvalidConfigError
from sealift.core.types import Slot
from sealift.sim.loaders.tryboot import AUTOBOOT


def configured(place: Path, boot: str) -> Config:
    """The example configuration with these settings of ``[boot]``."""
    text = settings.example()
    begin, _, rest = text.partition("[boot]")
    _, _, end = rest.partition("\n[")
    raw = f"{begin}[boot]\n{boot}\n[{end}".replace("/var/lib/sealift", str(place))
    return config.parse(raw.encode(), str(place / "agent.toml"))


def restart(found: Config) -> None:
    """What the installed component does to start the machine anew."""
    part = wiring.component(found, wiring.Offline(), SystemClock(), Progress())
    part.restart()


def test_grub_reads_its_two_blocks(tmp_path: Path) -> None:
    """``grubenv``, and the one beside it."""
    states = {Slot.A: "g", Slot.B: "t"}
    (tmp_path / "env").write_bytes(pack(Store(Slot.A, Slot.B, 2, states).lines()))
    (tmp_path / "env.home").write_bytes(pack({"good": b"a"}))
    boot = loaders.boot(configured(tmp_path, 'kind = "grub"\ngrubenv = "env"'))
    assert isinstance(boot, GrubBoot)
    assert boot.next() is Slot.B
    assert boot.boot_id() == SystemClock().boot_id()


def test_systemd_boot_places_files_and_looks_where_it_is_told(tmp_path: Path) -> None:
    """``esp``, ``esp_mount``, ``efi_variables``; the installer places boot files."""
    lines = 'kind = "systemd-boot"\nesp = "esp"\nefi_variables = false\n'
    found = configured(tmp_path, lines)
    boot = loaders.boot(found)
    assert isinstance(boot, SystemdBoot)
    part = wiring.component(found, wiring.Offline(), SystemClock(), Progress())
    assert isinstance(part.installer, AbInstaller)
    assert isinstance(part.installer._files, SystemdBoot)
    with pytest.raises(BootError, match="holds no directory EFI"):
        boot.next()
    (tmp_path / "esp" / "EFI").mkdir(parents=True)
    with pytest.raises(BootError, match="nothing"):
        boot.next()
    mounts = 'esp_mount = ["/bin/false"]\n'
    with pytest.raises(InvalidConfigError, match="esp_unmount"):
        configured(tmp_path, lines + mounts)
    mounts += 'esp_unmount = ["/bin/true"]'
    failing = loaders.boot(configured(tmp_path, lines + mounts))
    with pytest.raises(BootError, match="/bin/false"):
        failing.next()


def tryboot(place: Path) -> Config:
    program = place / "restart"
    program.write_text(f'#!/bin/sh\nprintf "%s|" "$#" "$@" > {place}/told\n')
    program.chmod(0o700)
    (place / "autoboot.txt").write_bytes(AUTOBOOT)
    return configured(
        place,
        'kind = "tryboot"\nautoboot = "autoboot.txt"\ntryboot_note = "note"\n'
        f'partitions = {{ a = 2, b = 3 }}\nrestart = ["{program}", "-f"]',
    )


def test_a_trial_by_tryboot_is_started_with_the_argument(tmp_path: Path) -> None:
    """One more argument, a single one, and only while a slot is armed."""
    found = tryboot(tmp_path)
    restart(found)
    assert (tmp_path / "told").read_text() == "1|-f|"
    boot = loaders.boot(found)
    assert isinstance(boot, TryBoot)
    boot.set_next(Slot.B, 1)
    restart(found)
    assert (tmp_path / "told").read_text() == "2|-f|0 tryboot|"
    boot.set_next(Slot.A, 1)
    restart(found)
    assert (tmp_path / "told").read_text() == "1|-f|"


def test_tryboot_needs_a_program_that_restarts(tmp_path: Path) -> None:
    """An exit status carries no argument: the configuration is refused."""
    with pytest.raises(InvalidConfigError, match="restart"):
        configured(tmp_path, 'kind = "tryboot"\nrestart = "exit"')


@pytest.mark.parametrize(
    "value",
    ["{ a = 2, b = 2 }", "{ a = 2 }", "{ a = 0, b = 3 }", "{ a = 2, b = 10 }", "[2, 3]", '{ a = "2", b = 3 }'],
)  # fmt: skip
def test_partitions_are_two_digits(tmp_path: Path, value: str) -> None:
    """Two of them, from 1 to 9, and not the same."""
    with pytest.raises(InvalidConfigError, match="partitions"):
        configured(tmp_path, f"partitions = {value}")
