"""A UEFI board whose partition and variables are plain directories."""

from __future__ import annotations

from pathlib import Path

from sealift.agent.clock import SystemClock
from sealift.agent.efivars import ATTRIBUTES, LOADER, EfiVariables
from sealift.agent.esp import Directory, Programs
from sealift.sim.loaders.systemd_boot import SystemdBootWorld


class UefiOnDisk(SystemdBootWorld):
    """The shipped partition and variables, below one directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.esp = directory / "esp"
        self.efivars = directory / "efivars"
        super().__init__()

    def format(self) -> None:
        (self.esp / "EFI" / "Linux").mkdir(parents=True)
        self.efivars.mkdir()

    def provide(self, name: str, value: bytes, vendor: str = LOADER) -> None:
        raw = ATTRIBUTES.to_bytes(4, "little") + value
        (self.efivars / f"{name}-{vendor}").write_bytes(raw)

    def partition(self) -> Directory:
        return Directory(str(self.esp), Programs(SystemClock()))

    def variables(self) -> EfiVariables | None:
        return EfiVariables(str(self.efivars))

    def stored(self) -> object:
        return {
            str(path): path.read_bytes()
            for path in sorted(self.directory.rglob("*"))
            if path.is_file()
        }

    def lose(self, loss: str) -> None:
        del loss
        for path in self.efivars.glob(f"*-{LOADER}"):
            path.unlink()

    def names(self) -> list[str]:
        """What lies in ``EFI/Linux``."""
        return sorted(path.name for path in (self.esp / "EFI" / "Linux").iterdir())


class NamesOnDisk(UefiOnDisk):
    """Without variables."""

    variables_kept = False
    losses = ()
    standing = ("the firmware keeps no variables",)

    def provide(self, name: str, value: bytes, vendor: str = LOADER) -> None:
        """There are none."""

    def variables(self) -> None:
        return None

    def trials(self, tries: int) -> int:
        return tries
