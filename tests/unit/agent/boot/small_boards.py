"""Boards whose loader reads one small file: the shipped code on real files."""

from __future__ import annotations

from pathlib import Path

from sealift.agent.boot.grub import BLOCK_BYTES
from sealift.agent.boot.tryboot import FileNote, TryBoot
from sealift.agent.inplace import BlockFile
from sealift.core.types import Slot
from sealift.sim.loaders.grub import GrubWorld
from sealift.sim.loaders.tryboot import TryBootWorld

PARTITIONS = {Slot.A: 2, Slot.B: 3}


class GrubOnDisk(GrubWorld):
    """Two files of 1024 bytes."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        super().__init__()

    def put(self, name: str, content: bytes) -> None:
        assert len(content) == BLOCK_BYTES
        (self.directory / name).write_bytes(content)

    def block(self, name: str) -> BlockFile:
        return BlockFile(str(self.directory / name), "grub-editenv")

    def stored(self) -> object:
        return {path.name: path.read_bytes() for path in self.directory.iterdir()}


class TryBootOnDisk(TryBootWorld):
    """``autoboot.txt``, and the note beside it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        super().__init__()

    def put(self, content: bytes) -> None:
        (self.directory / "autoboot.txt").write_bytes(content)

    def file(self) -> BlockFile:
        return BlockFile(str(self.directory / "autoboot.txt"), "the how-to")

    def tmpfs(self) -> FileNote:
        return FileNote(str(self.directory / "note"))

    def boot(self) -> TryBoot:
        return TryBoot(
            self.file(),
            self.tmpfs(),
            PARTITIONS,
            lambda: self.running,
            lambda: f"boot-{self.boots}",
            booted=lambda: PARTITIONS[self.running],
        )

    def restarting(self) -> None:
        self.flag = bool(self.boot().words())
        (self.directory / "note").unlink(missing_ok=True)

    def stored(self) -> object:
        held = {path.name: path.read_bytes() for path in self.directory.iterdir()}
        return held, self.flag
