"""U-Boot's part: two copies of an environment, ``bootcount``, ``altbootcmd``.

The copies are byte for byte those of ``SYS_REDUNDAND_ENVIRONMENT``: CRC-32 of what
follows the flag, one flag byte, ``name=value`` NUL-separated, zeros. A write goes to
the copy that is not in use, with the flag one higher; 255 is followed by 0.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from sealift.agent.boot.uboot import LOOKED_AT, WRITTEN, UbootBoot
from sealift.core.errors import BootError, StateError
from sealift.core.types import Slot
from sealift.sim.flash import FlashCells
from sealift.sim.loaders.world import LoaderWorld

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sealift.agent.boot.uboot import Environment
    from sealift.agent.ports import BootControl, Cells
    from sealift.sim.flash import Flash

__all__ = [
    "COMPILED_IN",
    "FACTORY",
    "Copies",
    "FlashEnvironment",
    "UbootLoader",
    "UbootWorld",
    "confirmed",
    "pack_copy",
    "unpack_copy",
]

SIZE = 512
"""Bytes of one copy in the simulation; a board has some thousand."""
COMPILED_IN = {
    "bootlimit": "3",
    "bootcmd": "run start_slot; reset",
    "altbootcmd": "run start_good; reset",
}
FACTORY = {
    **COMPILED_IN,
    "slot": "a",
    "good": "a",
    "bootcount": "0",
    "upgrade_available": "0",
    "a_state": "good",
    "b_state": "empty",
}
"""As the factory provisions it: all of the compiled-in ones, and the agent's."""


def pack_copy(flag: int, variables: Mapping[str, str], size: int = SIZE) -> bytes:
    """The bytes of one copy."""
    text = "".join(f"{name}={value}\0" for name, value in variables.items())
    data = text.encode().ljust(size - 5, b"\0")
    if len(data) != size - 5 or not data.endswith(b"\0\0"):
        raise StateError("the environment does not fit")
    return zlib.crc32(data).to_bytes(4, "little") + bytes([flag]) + data


def unpack_copy(raw: bytes | None) -> tuple[int, dict[str, str]] | None:
    """Flag and variables; ``None`` if it is torn."""
    if raw is None or len(raw) < 6:
        return None
    if zlib.crc32(raw[5:]) != int.from_bytes(raw[:4], "little"):
        return None
    text = raw[5:].partition(b"\0\0")[0].decode("utf-8", "replace")
    pairs = (line.partition("=") for line in text.split("\0") if line)
    return raw[4], {name: value for name, _, value in pairs}


class Copies:
    """Both copies as one value, as U-Boot and libubootenv see them."""

    def __init__(self, cells: Cells, size: int = SIZE) -> None:
        self._cells = cells
        self._size = size

    def read(self) -> dict[str, str] | None:
        """The variables of the newer valid copy; ``None``: both are torn."""
        found = self._newest()
        return None if found is None else found[2]

    def settle(self) -> None:
        """Flush both."""
        for at in (0, 1):
            self._cells.flush(at)

    def write(self, variables: Mapping[str, str]) -> None:
        """Replace the older copy, and flush it.

        Raises:
            StateError: the medium refuses, or they do not fit.
        """
        newest = self._newest()
        at, flag = (0, 0) if newest is None else (1 - newest[0], newest[1] + 1)
        self._cells.write(at, pack_copy(flag % 256, variables, self._size))
        self._cells.flush(at)

    def _newest(self) -> tuple[int, int, dict[str, str]] | None:
        found = [unpack_copy(self._cells.read(at, self._size)) for at in (0, 1)]
        valid = [(at, *copy) for at, copy in enumerate(found) if copy is not None]
        if len(valid) < 2:
            return valid[0] if valid else None
        first, second = valid
        newer = (second[1] - first[1]) % 256 in range(1, 128)
        return second if newer else first


class FlashEnvironment:
    """What libubootenv's programs do, over copies in memory."""

    def __init__(self, copies: Copies) -> None:
        self._copies = copies

    def read(self) -> Mapping[str, str]:
        """The variables the agent asks for.

        Raises:
            BootError: both copies are torn.
        """
        found = self._held()
        return {name: found.get(name, "") for name in (*WRITTEN, *LOOKED_AT)}

    def settle(self) -> None:
        """What a killed process left in the cache is durable from now on.

        Raises:
            BootError: the medium refuses.
        """
        try:
            self._copies.settle()
        except StateError as error:
            raise BootError(f"the environment: {error.message}") from error

    def write(self, changes: Mapping[str, str]) -> None:
        """Merge and write, in one step.

        Raises:
            BootError: both copies are torn, or the medium refuses.
        """
        merged = {**self._held(), **changes}
        try:
            self._copies.write(merged)
        except StateError as error:
            raise BootError(f"fw_setenv: {error.message}") from error

    def _held(self) -> dict[str, str]:
        found = self._copies.read()
        if found is None:
            raise BootError("no copy of U-Boot's environment is valid")
        return found


class UbootLoader:
    """U-Boot from its environment to its ``bootm``, and ``reset`` behind that."""

    def __init__(self, copies: Copies) -> None:
        self._copies = copies

    def decide(self, starts: Callable[[Slot], bool]) -> Slot | None:
        """One run of it: load, count and save, compare with ``bootlimit``, start."""
        stored = self._copies.read() or {}
        # ENV_WRITEABLE_LIST: of the stored ones only the named variables are taken.
        found = COMPILED_IN | {name: stored.get(name, "") for name in WRITTEN}
        count = _number(found["bootcount"]) + 1
        counting = _number(found["upgrade_available"]) != 0
        if counting:
            self._save(found | {"bootcount": str(count)})
        if not {found["slot"], found["good"]} <= set(Slot):  # lost: any that starts
            return next((slot for slot in Slot if starts(slot)), None)
        over = counting and count > _number(found["bootlimit"])
        slot = Slot(found["good" if over else "slot"])
        return slot if starts(slot) else None

    def _save(self, variables: Mapping[str, str]) -> None:
        try:
            self._copies.write(variables)
        except StateError:
            return  # U-Boot says so on its console and goes on


def _number(text: str) -> int:
    """As U-Boot reads numbers: leading digits, else 0."""
    digits = text[: len(text) - len(text.lstrip("0123456789"))]
    return int(digits or 0)


def confirmed(copies: Copies) -> Slot:
    """What starts with nobody on trial."""
    good = (copies.read() or {}).get("good")
    return Slot(good) if good in set(Slot) else Slot.A


class UbootWorld(LoaderWorld):
    """U-Boot with a redundant environment and ``bootlimit`` 3."""

    kind = "uboot"
    losses = ("torn", "empty")
    remembers_home = False

    def __init__(self, flash: Flash | None = None) -> None:
        super().__init__(flash)
        for at in (0, 1):
            self.flash.make(f"env.{at}", pack_copy(at, FACTORY))

    def copies(self) -> Copies:
        """The environment's two copies, opened anew."""
        return Copies(FlashCells(self.flash, "env"))

    def environment(self) -> Environment:
        """The programs' view of them."""
        return FlashEnvironment(self.copies())

    def boot(self) -> BootControl:
        """The agent's boot control, opened anew."""
        return UbootBoot(
            self.environment(), lambda: self.running, lambda: f"boot-{self.boots}"
        )

    def decide(self, starts: Callable[[Slot], bool]) -> Slot | None:
        """U-Boot itself."""
        return UbootLoader(self.copies()).decide(starts)

    def home(self) -> Slot:
        """What ``altbootcmd`` starts."""
        return confirmed(self.copies())

    def trials(self, tries: int) -> int:
        """As many as are compiled in."""
        del tries
        return int(COMPILED_IN["bootlimit"])

    def lose(self, loss: str) -> None:
        """Both copies."""
        for region in ("env.0", "env.1"):
            held = bytes(self.flash.medium[region])
            lost = bytes([held[0] ^ 1]) + held[1:] if loss == "torn" else b"\xff" * SIZE
            self.flash.make(region, lost)
