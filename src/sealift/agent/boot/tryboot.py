"""Boot control for the Raspberry Pi: two numbers in ``autoboot.txt``. Not on hardware.

The firmware reads the file, at most 512 bytes, from the first partition, and boots the
partition it names::

    [all]
    tryboot_a_b=1
    boot_partition=2        home
    [tryboot]
    boot_partition=3        for one start, if that was asked for at the restart

The flag that asks for the second number is an argument of the restart, ``reboot "0
tryboot"``, and lives in the chip, not in a file; the firmware clears it as it reads it.
So a trial is one start, and one that is armed does not survive a loss of power: home
starts (B5, not B1). That it is armed is noted in a file on a tmpfs, with the boot it
belongs to; :meth:`TryBoot.words` are the words for the restart program.

While nobody is armed both numbers are home's, so that no flag leads into a slot that is
written (B9). Arming changes the second, confirming the first: numbers have one digit,
so each step is one byte in one sector, in its place, and whole or not done.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from sealift.agent.files import read_all
from sealift.agent.ports import BootState
from sealift.core.errors import BootError
from sealift.core.types import Slot

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sealift.agent.inplace import Block

__all__ = ["MOST_BYTES", "FileNote", "Numbers", "TryBoot", "chosen", "understood"]

MOST_BYTES: Final = 512
"""The firmware reads no more of ``autoboot.txt``."""
ARGUMENT: Final = "0 tryboot"
"""What LINUX_REBOOT_CMD_RESTART2 gets: partition (0: not forced), and the flag."""
_CHOSEN: Final = "/proc/device-tree/chosen/bootloader"
_NOTE_BYTES: Final = 256
_NOTE: Final = re.compile(r"slot=([ab])\nboot_id=([0-9A-Za-z-]{1,64})\n")
_HINT: Final = "see docs/boards/raspberry-pi.md for the whole file"


class Note(Protocol):
    """A few bytes that do not survive a restart."""

    def read(self) -> bytes | None:
        """What was noted."""
        ...

    def write(self, data: bytes | None) -> None:
        """Note it, or forget it."""
        ...


@dataclass(frozen=True, slots=True)
class Numbers:
    """The file, and where in it the two numbers are."""

    raw: bytes
    home_at: int
    trial_at: int

    @property
    def home(self) -> int:
        """The partition that starts."""
        return self.raw[self.home_at] - 0x30

    @property
    def trial(self) -> int:
        """The partition that starts with the flag."""
        return self.raw[self.trial_at] - 0x30

    def changed(self, home: int, trial: int) -> bytes:
        """The same file with other numbers, as long as it was."""
        raw = bytearray(self.raw)
        raw[self.home_at], raw[self.trial_at] = home + 0x30, trial + 0x30
        return bytes(raw)


def understood(raw: bytes | None) -> Numbers:
    """The two numbers, each there exactly once, and the switch that makes them two.

    Raises:
        BootError: the file is missing, too long, or says anything else.
    """
    if raw is None or len(raw) > MOST_BYTES:
        raise BootError("autoboot.txt is not there, or too long", hint=_HINT)
    section, at = b"all", 0
    found: dict[tuple[bytes, bytes], list[int]] = {}
    for line in raw.splitlines(keepends=True):
        text = line.strip()
        if text.startswith(b"[") and text.endswith(b"]"):
            section = text[1:-1]
        elif b"=" in text and not text.startswith(b"#"):
            name, _, value = text.partition(b"=")
            offset = at + line.index(b"=") + 1
            if raw[offset : offset + len(value)] != value or len(value) != 1:
                value = b""
            if value.isdigit():
                found.setdefault((section, name), []).append(offset)
            else:
                found[section, name] = []
        at += len(line)
    switch = found.get((b"all", b"tryboot_a_b"), [])
    home = found.get((b"all", b"boot_partition"), [])
    trial = found.get((b"tryboot", b"boot_partition"), [])
    if [len(switch), len(home), len(trial)] != [1, 1, 1] or raw[switch[0]] != 0x31:
        raise BootError(
            "autoboot.txt does not name one partition in [all] and one in [tryboot], "
            "with tryboot_a_b=1",
            hint=_HINT,
        )
    return Numbers(raw, home[0], trial[0])


class TryBoot:
    """:class:`~sealift.agent.ports.BootControl` over ``autoboot.txt``.

    ``partitions`` are the numbers of the slots, ``booted`` is the number the firmware
    booted, if it says one.

    Raises:
        BootError: from every verb but ``current``, when the file says anything else
        than two of our partitions, or cannot be written.
    """

    def __init__(
        self,
        autoboot: Block,
        note: Note,
        partitions: Mapping[Slot, int],
        mounted: Callable[[], Slot],
        started: Callable[[], str],
        *,
        booted: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._autoboot = autoboot
        self._note = note
        self._partitions = dict(partitions)
        self._mounted = mounted
        self._started = started
        self._booted = booted

    def current(self) -> Slot:
        """The slot that is mounted (device-D2)."""
        return self._mounted()

    def boot_id(self) -> str:
        """Another text after every start of the machine."""
        return self._started()

    def next(self) -> Slot:
        """What an orderly restart by us leads to; after a loss of power it is home."""
        numbers = self._read()
        return self._armed(numbers) or self._slot(numbers.home)

    def words(self) -> tuple[str, ...]:
        """What the restart program has to be told besides, if a slot is armed."""
        return (ARGUMENT,) if self._armed(self._read()) is not None else ()

    def mark_writing(self, slot: Slot) -> None:
        """No flag leads into ``slot`` from now on (B9).

        Raises:
            BootError: it runs, or it is the confirmed one, or the file is refused.
        """
        home = self._slot(self._read().home)
        if slot in {self.current(), home}:
            raise BootError(f"slot {slot} is in use and cannot be written")
        self._disarm(home)

    def set_next(self, slot: Slot, tries: int) -> None:
        """Let the flag lead to ``slot``, then note that the restart has to set it.

        ``tries`` is always one.

        Raises:
            BootError: file or note is refused.
        """
        del tries
        home = self._slot(self._read().home)
        if slot is home:
            self._disarm(home)
            return
        self._write(home, slot)
        wanted = f"slot={slot}\nboot_id={self._started()}\n".encode()
        if self._note.read() != wanted:
            self._note.write(wanted)

    def mark_good(self) -> None:
        """What runs becomes home: on trial it is one byte that changes (B7).

        Raises:
            BootError: the firmware says it booted something else, or the file is
            refused; what booted before still boots.
        """
        current, booted = self.current(), self._booted()
        if booted is not None and booted != self._partitions[current]:
            raise BootError(
                f"slot {current} is mounted, but the firmware booted {booted}",
                hint="see [boot] partitions and root in the configuration",
            )
        self._disarm(current)

    def state(self) -> BootState:
        """What the file says, and what the firmware said."""
        try:
            numbers = self._read()
        except BootError as error:
            return self._lost(error.message)
        home, current = self._slot(numbers.home), self.current()
        slots = {home: "good", home.other: "empty"}
        if self._armed(numbers) is not None:
            slots[home.other] = "trial(1)"
        elif current is not home:
            slots[current] = "trial(0)"
        booted, remarks = self._booted(), []
        if booted is not None and booted != self._partitions[current]:
            remarks.append(
                f"slot {current} is mounted, but the firmware booted {booted}"
            )
        return BootState(
            "tryboot", slots, counts_attempts=False, remarks=tuple(remarks)
        )

    def _lost(self, why: str) -> BootState:
        current = self.current()
        slots = {current: "trial(0)", current.other: "empty"}
        return BootState("tryboot", slots, counts_attempts=False, missing=(why,))

    def _armed(self, numbers: Numbers) -> Slot | None:
        """The slot an orderly restart would try, by the note of this very boot."""
        noted = _NOTE.fullmatch((self._note.read() or b"").decode("ascii", "replace"))
        if noted is None or noted[2] != self._started():
            return None
        slot = Slot(noted[1])
        is_named = self._partitions[slot] == numbers.trial != numbers.home
        return slot if is_named else None

    def _disarm(self, home: Slot) -> None:
        """The note first: without it nobody sets the flag."""
        self._forget()
        self._write(home, home)

    def _forget(self) -> None:
        if self._note.read() is not None:
            self._note.write(None)

    def _read(self) -> Numbers:
        numbers = understood(self._autoboot.read(MOST_BYTES + 1))
        for number in (numbers.home, numbers.trial):
            self._slot(number)
        return numbers

    def _write(self, home: Slot, trial: Slot) -> None:
        """One byte or two, in their sector; nothing if they are so already.

        They are made durable, before they are believed: who wrote them may have been
        killed.
        """
        self._autoboot.settle()
        numbers = self._read()
        raw = numbers.changed(self._partitions[home], self._partitions[trial])
        if raw != numbers.raw:
            self._autoboot.write(raw)

    def _slot(self, number: int) -> Slot:
        for slot, partition in self._partitions.items():
            if partition == number:
                return slot
        raise BootError(
            f"autoboot.txt names partition {number}, which is no slot",
            hint="see [boot] partitions in the configuration",
        )


class FileNote:
    """:class:`Note` in a file; put it on a tmpfs."""

    def __init__(self, path: str) -> None:
        self._path = path

    def read(self) -> bytes | None:
        """What was noted.

        Raises:
            BootError: it cannot be read.
        """
        try:
            descriptor = os.open(self._path, os.O_RDONLY | _SAFE)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise self._refused(error) from error
        try:
            return read_all(descriptor, _NOTE_BYTES)
        except OSError as error:
            raise self._refused(error) from error
        finally:
            os.close(descriptor)

    def write(self, data: bytes | None) -> None:
        """Note it, or forget it; whole or not at all.

        Raises:
            BootError: it cannot be written.
        """
        beside = f"{self._path}.tmp"
        try:
            if data is None:
                os.unlink(self._path)
                return
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
            descriptor = os.open(beside, flags | _SAFE, 0o600)
            try:
                os.write(descriptor, data)
            finally:
                os.close(descriptor)
            os.rename(beside, self._path)
        except OSError as error:
            raise self._refused(error) from error

    def _refused(self, error: OSError) -> BootError:
        return BootError(
            f"cannot use {self._path}: {error.strerror}",
            hint="see [boot] tryboot_note in the configuration",
        )


_SAFE: Final = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK


def chosen(name: str, directory: str = _CHOSEN) -> int | None:
    """A number the firmware left in the device tree, such as ``partition``."""
    try:
        with open(os.path.join(directory, name), "rb") as file:
            raw = file.read(4)
    except OSError:
        return None
    return int.from_bytes(raw, "big") if len(raw) == 4 else None
