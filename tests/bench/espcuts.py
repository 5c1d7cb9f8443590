"""Runs inside a guest: a hundred power cuts while the agent works on one EFI partition.

    python3 espcuts.py FACTS.json

A cut: the working process is killed at a random moment, and the partition is put back to
what the drive had then; what only the kernel's cache knew is lost. The drive is read
past that cache, by the disk and not by the partition, whose pages a read would flush.
"""

from __future__ import annotations

import contextlib
import json
import mmap
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from sealift.agent.boot.systemd_boot import SystemdBoot
from sealift.agent.clock import SystemClock
from sealift.agent.efivars import EfiVariables
from sealift.agent.esp import Directory, Programs
from sealift.agent.slot import PathSlots
from sealift.core.types import Artifact, Slot

DISK, ESP = "/dev/vda", "/dev/vda1"
SLOTS = {Slot.A: "/dev/vda2", Slot.B: "/dev/vda3"}
_PIECE = 1 << 20


def board(current: Slot) -> SystemdBoot:
    """The shipped boot control, with a partition that it checks and mounts itself."""
    programs = Programs(
        SystemClock(),
        check=["/bin/fsck.fat", "-a", ESP],
        mount=["/bin/mount", "-t", "vfat", ESP, "/esp"],
        unmount=["/bin/umount", "/esp"],
    )
    directory = Directory("/esp", programs)
    return SystemdBoot(
        EfiVariables("/vars"), directory, lambda: current, lambda: "boot"
    )


def work(image: Artifact) -> None:
    """An update of slot b up to the arming, and back."""
    boot = board(Slot.A)
    boot.accept(image)
    boot.mark_writing(Slot.B)
    device = PathSlots(SLOTS).open(Slot.B, writable=False)
    boot.place(Slot.B, image, device)
    device.close()
    boot.check(Slot.B, image)
    boot.set_next(Slot.B, 1)


def good(image: Artifact) -> None:
    """Home is a, b is updated and becomes home: a cut may come anywhere."""
    board(Slot.A).mark_good()
    work(image)
    board(Slot.B).mark_good()


def drive(first: int, length: int, back: mmap.mmap | None = None) -> mmap.mmap:
    """Read the partition as the drive has it, or put it back."""
    file = os.open(DISK, os.O_RDWR | os.O_DIRECT)
    pages = back or mmap.mmap(-1, length)
    view = memoryview(pages)
    for at in range(0, length, _PIECE):
        piece = view[at : at + _PIECE]
        if back is None:
            os.preadv(file, [piece], first + at)
        else:
            os.pwritev(file, [piece], first + at)
    view.release()
    os.close(file)
    return pages


def cut(image: Artifact, after: float, first: int, length: int) -> bool:
    """One run that ends at ``after`` seconds, if it did not end before."""
    child = os.fork()
    if not child:
        try:
            good(image)
        except BaseException as error:  # noqa: BLE001  (told by the status)
            print(f"FAILED {error!r}", flush=True)
            os._exit(1)
        os._exit(0)
    time.sleep(after)
    ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        _end_programs()
    elif status:
        raise SystemExit("the agent's code failed after a cut")
    drop = drive(first, length)
    subprocess.run(["/bin/umount", "/esp"], check=False, stderr=subprocess.DEVNULL)
    drive(first, length, drop)
    drop.close()
    return not ended


def _end_programs() -> None:
    """No program of the agent works on after the cut."""
    programs = {"mount", "umount", "fsck.fat", "busybox"}
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (place / "comm").read_text("ascii").strip() in programs:
                os.kill(int(place.name), signal.SIGKILL)
                while place.exists():
                    time.sleep(0.01)


def main(facts: dict[str, object]) -> None:
    """So many cuts, then one update that nobody cuts."""
    told = facts["image"]
    assert isinstance(told, dict)
    image = Artifact.from_json(told)
    first, length = int(str(facts["first"])), int(str(facts["length"]))
    chance = random.Random(int(str(facts["seed"])))
    started = time.monotonic()
    good(image)
    whole = time.monotonic() - started
    cuts = 0
    while cuts < int(str(facts["cuts"])):
        cuts += cut(image, chance.uniform(0, whole), first, length)
    good(image)
    print(f"CUTS {cuts}, a whole run takes {whole:.2f} s")


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as source:
        main(json.load(source))
