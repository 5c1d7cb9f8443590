"""What a board does between its loader and its programs, without root.

``python -m sealift.sim.mount --store DIR --slot-a FILE --slot-b FILE --root DIR --
PROGRAM ARGS`` takes the loader's word which slot runs, checks that slot's file system
as a kernel would, copies it out to ``--root`` in place of mounting it, and becomes
PROGRAM. An image without a sound file system ends here, as a kernel without a root
does.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from sealift.agent.boot.file import read_running
from sealift.core.errors import SealiftError
from sealift.core.types import Slot
from sealift.sim import ext4


def mount(image: Path, root: Path, tools: Path) -> None:
    """Have the file system of ``image`` below ``root``, and nothing else.

    Raises:
        SlotError: it is no sound file system.
    """
    programs = ext4.find(tools)
    programs.check(image)
    shutil.rmtree(root, ignore_errors=True)
    programs.extract(image, root)


def main(arguments: Sequence[str] | None = None) -> int:
    """Mount and become the program; returns only if that is not possible."""
    found = _parser().parse_args(arguments)
    try:
        slot = read_running(found.store).slot
        mount(found.slot_a if slot is Slot.A else found.slot_b, found.root, found.tools)
        os.execv(found.program[0], found.program)  # noqa: S606 -- becomes the agent
    except SealiftError as error:
        sys.stderr.write(f"mount: {error.message} [{error.code}]\n")
        return error.exit_status
    except OSError as error:
        sys.stderr.write(f"mount: {found.program[0]}: {error.strerror}\n")
        return 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sealift.sim.mount")
    parser.add_argument("--store", required=True, help="the loader's store")
    for name in ("--slot-a", "--slot-b", "--root", "--tools"):
        parser.add_argument(name, type=Path, required=True)
    parser.add_argument("program", nargs="+", help="-- PROGRAM ARGS")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
