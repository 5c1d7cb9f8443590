"""Files of an ext4 in the middle of a change, read as a mount would find them.

The journal of the file system is replayed by ``e2fsck`` (its own code, not the kernel's,
for one format), the files are read by ``debugfs``: nothing is mounted, nothing repaired.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from sealift.agent.record import COPIES, Copy, unpack
from tests.bench import toolbox
from tests.bench.blocklog import Disk

_PIECE = 64 * 1024
_SOUND = {0, 1}
"""How e2fsck ends: nothing to do, or the journal was replayed."""


class DataError(Exception):
    """No file system, or one whose journal cannot be replayed."""


def files(raw: bytes, paths: Iterable[str]) -> dict[str, bytes | None]:
    """The content of files, ``None`` where there is none.

    Raises:
        DataError: the file system is beyond what a journal mends.
    """
    with tempfile.TemporaryDirectory(prefix="sealift-data-", dir=_memory()) as place:
        image = Path(place) / "data"
        _write_sparse(image, raw)
        found: dict[str, bytes | None] = {}
        wanted = {path: Path(place) / f"out{at}" for at, path in enumerate(paths)}
        dumps = "".join(f"dump {path} {out}\n" for path, out in wanted.items())
        asked = Path(place) / "script"
        asked.write_text(dumps)
        done = _run("e2fsck", "-y", "-E", "journal_only", str(image))
        if done.returncode not in _SOUND:
            raise DataError(f"e2fsck ended with {done.returncode}: {done.stdout}")
        _run("debugfs", "-f", str(asked), str(image))
        for path, out in wanted.items():
            found[path] = out.read_bytes() if out.exists() else None
        return found


def record(found: Mapping[str, bytes | None], base: str) -> Copy | None:
    """The newest valid copy of a record of the agent; ``None``: there is none."""
    cells = [found.get(f"{base}.{at}") for at in range(COPIES)]
    copies = [copy for cell in cells if cell and (copy := unpack(cell)) is not None]
    return max(copies, key=lambda copy: copy.sequence, default=None)


def state(disk: Disk, base: str) -> Mapping[str, object] | None:
    """The state of the one component in the journal at ``base``, on this disk now.

    ``idle`` before the first journal, ``None`` if there was one and none is whole.
    """
    try:
        paths = [f"{base}.{at}" for at in range(COPIES)]
        found = files(disk.region("sealift-data"), paths)
    except DataError:
        return None
    newest = record(found, base)
    if newest is None:
        # As the agent has it: without a second cell, a torn first one is no loss.
        return {"state": "idle"} if not found[f"{base}.1"] else None
    components = json.loads(newest.payload)["components"]
    states = list(components.values())
    return states[0] if states else {"state": "idle"}


def _write_sparse(path: Path, raw: bytes) -> None:
    with path.open("wb") as file:
        for at in range(0, len(raw), _PIECE):
            piece = raw[at : at + _PIECE]
            if any(piece):
                file.seek(at)
                file.write(piece)
        file.truncate(len(raw))


def _memory() -> str | None:
    """Where files cost no disk, if there is such a place."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def _run(program: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [toolbox.program(program), *words],
        env=toolbox.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
