"""Loaders on real files: the programs and backends that ship, not their doubles."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sealift.agent.boot.file import FileBoot, Started, Store, choose, open_store
from sealift.agent.boot.script import CommandProgram, ScriptBoot
from sealift.agent.boot.uboot import Tools, UbootBoot, UbootTools
from sealift.agent.clock import SystemClock
from sealift.core.types import Slot
from sealift.sim.loaders.file import FileWorld
from sealift.sim.loaders.uboot import (
    COMPILED_IN,
    FACTORY,
    Copies,
    UbootLoader,
    confirmed,
    pack_copy,
)
from sealift.sim.loaders.world import LoaderWorld
from tests.bench import toolbox
from tests.unit.agent.boot.small_boards import GrubOnDisk, TryBootOnDisk
from tests.unit.agent.boot.uefi_board import NamesOnDisk, UefiOnDisk

if TYPE_CHECKING:
    from collections.abc import Callable

    from sealift.agent.boot.file import LoaderStore

EXAMPLE = Path(__file__).parents[4] / "boards/script/sealift-boot"
ENV_BYTES = 0x2000


class FileOnDisk(FileWorld):
    """The reference loader's store in a directory."""

    def __init__(self, directory: Path, *, counts: bool = True) -> None:
        super().__init__(counts=counts)
        self.directory = directory

    def store(self) -> LoaderStore:
        return open_store(str(self.directory))

    def boot(self) -> FileBoot:
        started = Started(self.running, f"boot-{self.boots}")
        return FileBoot(self.store(), lambda: started, counts=self.counts)

    def stored(self) -> object:
        return contents(self.directory)


class FileCopies:
    """Two environment files as cells."""

    def __init__(self, *paths: Path) -> None:
        self.paths = paths

    def read(self, cell: int, limit: int) -> bytes | None:
        return self.paths[cell].read_bytes()[:limit]

    def write(self, cell: int, data: bytes) -> None:
        self.paths[cell].write_bytes(data)

    def flush(self, cell: int) -> None:
        """They are files of a test."""


class UbootOnDisk(LoaderWorld):
    """fw_setenv and fw_printenv of libubootenv on two environment files."""

    kind = "uboot"

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory
        self.copies = directory / "uboot.env", directory / "uboot-redund.env"
        self.config = directory / "fw_env.config"
        lines = [f"{path} 0 {ENV_BYTES:#x}\n" for path in self.copies]
        self.config.write_text("".join(lines))
        for flag, path in enumerate(self.copies):
            path.write_bytes(pack_copy(flag, FACTORY, ENV_BYTES))

    def tools(self, setter: str | None = None) -> UbootTools:
        """The environment by its two programs, or another one that sets."""
        printer = toolbox.program("fw_printenv")
        setter = setter or toolbox.program("fw_setenv")
        tools = Tools(printer, setter, str(self.config), 30.0)
        return UbootTools(tools, SystemClock(), toolbox.environment())

    def boot(self) -> UbootBoot:
        return UbootBoot(
            self.tools(), lambda: self.running, lambda: f"boot-{self.boots}"
        )

    def both(self) -> Copies:
        """The two files as U-Boot sees them."""
        return Copies(FileCopies(*self.copies), ENV_BYTES)

    def decide(self, starts: Callable[[Slot], bool]) -> Slot | None:
        return UbootLoader(self.both()).decide(starts)

    def home(self) -> Slot:
        return confirmed(self.both())

    def trials(self, tries: int) -> int:
        del tries
        return int(COMPILED_IN["bootlimit"])

    def stored(self) -> object:
        return contents(self.directory)


class ScriptOnDisk(LoaderWorld):
    """The example program of boards/script, run as it is, and its loader."""

    kind = "script"

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.directory = directory
        self.file = directory / "boot.txt"
        self.file.write_text(Store().to_text())

    def boot(self) -> ScriptBoot:
        running = self.directory / "running"
        running.write_text(f"{self.running}\n")
        program = [str(EXAMPLE), str(self.directory), str(running)]
        return ScriptBoot(
            CommandProgram(program, SystemClock(), 30.0), lambda: f"boot-{self.boots}"
        )

    def decide(self, starts: Callable[[Slot], bool]) -> Slot | None:
        slot, after = choose(Store.from_text(self.file.read_text()))
        self.file.write_text(after.to_text())
        return slot if starts(slot) else None

    def home(self) -> Slot:
        return Store.from_text(self.file.read_text()).default

    def trials(self, tries: int) -> int:
        return tries

    def stored(self) -> object:
        return self.file.read_bytes()


def contents(directory: Path) -> dict[str, bytes]:
    """Every file below a directory."""
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in sorted(directory.rglob("*"))
        if path.is_file()
    }


ON_DISK: dict[str, Callable[[Path], LoaderWorld]] = {
    "file on disk": FileOnDisk,
    "one-shot on disk": lambda path: FileOnDisk(path, counts=False),
    "systemd-boot on disk": UefiOnDisk,
    "names on disk": NamesOnDisk,
    "grub on disk": GrubOnDisk,
    "tryboot on disk": TryBootOnDisk,
    "uboot tools": UbootOnDisk,
    "example program": ScriptOnDisk,
}
