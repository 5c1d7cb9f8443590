"""Runs inside a guest: verbs of the shipped boot control, on a disk that is recorded.

    python3 verbs.py update|good|revert FACTS.json

``without`` in the facts leaves out what must not be left out, to see that it shows:
``mark`` does not mark the slot before it is written, ``flush`` makes every fsync of the
agent a no-operation.

What happens beside the disk, in the firmware's variables, is noted in the partition
``marks``: before a change both values may hold, after it the new one.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import sys
from collections.abc import Iterator, Sequence

from sealift.agent.boot.systemd_boot import DEFAULT, ONE_SHOT, SystemdBoot
from sealift.agent.clock import SystemClock
from sealift.agent.efivars import LOADER, EfiVariables, as_text
from sealift.agent.esp import Directory, Programs
from sealift.agent.slot import PathSlots
from sealift.core.types import Artifact, Slot

ESP, VARIABLES, MARKS = "/esp", "/vars", "/dev/vda5"
SLOTS = {Slot.A: "/dev/vda2", Slot.B: "/dev/vda3"}
_PIECE = 1 << 17


class Marks:
    """Notes in a partition of their own, past every cache, without a flush."""

    def __init__(self, path: str, may: Sequence[str]) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_DIRECT)
        self._at = 0
        self.may = list(may)

    def write(self, *variables: dict[str, str]) -> None:
        """Any of these may be the variables from here on."""
        page = mmap.mmap(-1, 4096)  # aligned, as direct writing wants it
        told = {"variables": list(variables), "may": self.may}
        page.write(json.dumps(told).encode())
        os.pwrite(self._file, page, self._at)
        self._at += 4096


class Noted:
    """Variables in files, each change of which is noted before and after."""

    def __init__(self, marks: Marks) -> None:
        self._inner = EfiVariables(VARIABLES)
        self._marks = marks
        self._marks.write(self._all())

    def read(self, name: str, vendor: str = LOADER) -> bytes | None:
        """The value."""
        return self._inner.read(name, vendor)

    def write(self, name: str, value: bytes) -> None:
        """Set it."""
        with self._change({name: as_text(value)}):
            self._inner.write(name, value)

    def delete(self, name: str) -> None:
        """Remove it."""
        with self._change({name: ""}):
            self._inner.delete(name)

    @contextlib.contextmanager
    def _change(self, new: dict[str, str]) -> Iterator[None]:
        before = self._all()
        self._marks.write(before, before | new)
        yield
        self._marks.write(self._all())

    def _all(self) -> dict[str, str]:
        return {
            name: as_text(self._inner.read(name, LOADER))
            for name in (DEFAULT, ONE_SHOT)
        }


def main(verb: str, facts: dict[str, object]) -> None:
    """One verb, as the installer calls it."""
    old, new = str(facts["old"]), str(facts["new"])
    marks = Marks(MARKS, [new, old] if verb == "good" else [old])
    variables = Noted(marks)
    current = Slot.B if verb == "good" else Slot.A
    programs = Programs(SystemClock())
    boot = SystemdBoot(
        variables, Directory(ESP, programs), lambda: current, lambda: "boot"
    )
    if verb == "update":
        image = facts["image"]
        assert isinstance(image, dict)
        _update(
            boot, Artifact.from_json(image), marks, [old, new], facts.get("without")
        )
    elif verb == "good":
        boot.mark_good()
        marks.may = [new]
    else:
        boot.set_next(Slot.A, 3)
    marks.write(variables._all())
    assert boot.next() is (Slot.A if verb == "revert" else Slot.B)


def _update(
    boot: SystemdBoot,
    image: Artifact,
    marks: Marks,
    may: list[str],
    without: object,
) -> None:
    """Mark, write, place, arm: in the installer's order."""
    boot.accept(image)
    if without != "mark":
        boot.mark_writing(Slot.B)
    if without == "flush":
        os.fsync = os.fdatasync = lambda fd: None
    into = PathSlots(SLOTS).open(Slot.B, writable=True)
    with open("/image", "rb") as source:
        at = 0
        while piece := source.read(_PIECE):
            into.write(at, piece)
            at += len(piece)
    into.flush()
    boot.place(Slot.B, image, into)
    into.close()
    boot.check(Slot.B, image)
    marks.may = may
    boot.set_next(Slot.B, 1)


if __name__ == "__main__":
    with open(sys.argv[2], encoding="utf-8") as told:
        main(sys.argv[1], json.load(told))
