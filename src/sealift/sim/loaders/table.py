"""Every simulated loader by its name on the command line."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sealift.sim.loaders.file import CountingWorld, OneShotWorld
from sealift.sim.loaders.grub import GrubWorld
from sealift.sim.loaders.script import ScriptWorld
from sealift.sim.loaders.systemd_boot import NamesWorld, SystemdBootWorld
from sealift.sim.loaders.tryboot import TryBootWorld
from sealift.sim.loaders.uboot import UbootWorld

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sealift.sim.loaders.world import LoaderWorld

__all__ = ["WORLDS"]

WORLDS: Final[Mapping[str, type[LoaderWorld]]] = {
    "counting": CountingWorld,
    "one-shot": OneShotWorld,
    "systemd-boot": SystemdBootWorld,
    "systemd-boot-names": NamesWorld,
    "grub": GrubWorld,
    "script": ScriptWorld,
    "tryboot": TryBootWorld,
    "uboot": UbootWorld,
}
