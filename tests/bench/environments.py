"""Runs inside a guest: every verb of two boot controls over their loaders' own stores.

    python3 environments.py

U-Boot's environment lies raw in a partition and is written by ``fw_setenv``, GRUB's two
blocks are files on a FAT. What may start is noted in ``marks`` before and after each
verb, which stand in the order of an update, its mark-good, and one that is given up.
"""

from __future__ import annotations

import json
import mmap
import os
from collections.abc import Callable

from sealift.agent.boot.grub import GrubBoot
from sealift.agent.boot.uboot import Tools, UbootBoot, UbootTools
from sealift.agent.clock import SystemClock
from sealift.agent.inplace import BlockFile
from sealift.core.types import Slot

RUNS = [Slot.A]
"""What runs, changed as the story goes."""


class Marks:
    """Notes past every cache, each in a page of its own."""

    def __init__(self) -> None:
        self._file = os.open("/dev/vda5", os.O_WRONLY | os.O_DIRECT)
        self._at = 0

    def write(self, told: object) -> None:
        """One note."""
        page = mmap.mmap(-1, 4096)
        page.write(json.dumps(told).encode())
        os.pwrite(self._file, page, self._at)
        self._at += 4096


def main() -> None:
    """The story, by both loaders at once."""
    tools = Tools("/bin/fw_printenv", "/bin/fw_setenv", "/env.cfg", 30.0)
    boots: dict[str, UbootBoot | GrubBoot] = {
        "uboot": UbootBoot(
            UbootTools(tools, SystemClock()), lambda: RUNS[0], lambda: "boot"
        ),
        "grub": GrubBoot(
            BlockFile("/esp/grubenv", "grub-editenv"),
            BlockFile("/esp/grubenv.home", "grub-editenv"),
            lambda: RUNS[0],
            lambda: "boot",
        ),
    }
    marks = Marks()
    may = {name: ["a"] for name in boots}
    marks.write(may)
    # What runs then, the verb, what starts after it.
    story: list[tuple[Slot, Callable[[UbootBoot | GrubBoot], None], str]] = [
        (Slot.A, lambda it: it.mark_writing(Slot.B), "a"),
        (Slot.A, lambda it: it.set_next(Slot.B, 3), "b"),
        (Slot.B, lambda it: it.mark_good(), "b"),
        (Slot.B, lambda it: it.mark_writing(Slot.A), "b"),
        (Slot.B, lambda it: it.set_next(Slot.A, 3), "a"),
        (Slot.B, lambda it: it.set_next(Slot.B, 3), "b"),
    ]
    for runs, verb, after in story:
        RUNS[0] = runs
        for name, boot in boots.items():
            marks.write(may | {name: sorted({*may[name], after})})
            verb(boot)
            may = may | {name: [after]}
            marks.write(may)
            assert boot.next().value == after


if __name__ == "__main__":
    main()
