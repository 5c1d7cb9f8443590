"""The device side of `benchmarks.delta`; run by its path in a fresh `python -I`.

`python -I _delta_device.py JOB` reads a job as JSON and does what an agent does with an
order: `AbInstaller.stage` with a `PayloadFill`, into a slot file that is flushed, read
back and hashed. Everything the installing agent has in memory is imported; only the
network is missing, its place is taken by a transport that reads files. What it did goes
into the job's `result`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import sealift.agent.assembly
import sealift.agent.service
import sealift.agent.transport  # noqa: F401  (these three: for their weight alone)
from sealift.agent.boot.file import FileBoot, Started, open_store
from sealift.agent.install.ab import AbInstaller
from sealift.agent.payload import PayloadFill
from sealift.agent.slot import PathSlots, WorkFiles
from sealift.core.types import Artifact, Instruction, Slot

PIECE = 1 << 16


class FileTransport:
    """Containers out of files, by their names: the port `Transport`."""

    def __init__(self, files: dict[str, str]) -> None:
        self._files = files
        self.received = 0

    def stream(self, path: str, *, start: int, stop: int, **_: int) -> Iterator[bytes]:
        """The bytes asked for, and no others."""
        name = path.rpartition("/")[2].partition(".")[2]
        with open(self._files[name], "rb") as file:
            file.seek(start)
            while start < stop and (piece := file.read(min(PIECE, stop - start))):
                start += len(piece)
                self.received += len(piece)
                yield piece

    def get(self, path: str, **_: object) -> NoReturn:
        """Nobody asks."""
        raise AssertionError(path)

    def put(self, path: str, body: bytes, **_: object) -> NoReturn:
        """Nobody tells."""
        raise AssertionError(path, body)


def install(job: dict[str, Any]) -> dict[str, object]:
    """Carry out the order of a job; what it took."""
    order = Instruction.from_json(job["order"])
    base = job["base"] and Artifact.from_json(job["base"])
    key = bytes.fromhex(job["key"]) if job["key"] else None
    slots = PathSlots({Slot.A: job["old"], Slot.B: job["slot"]})
    boot = FileBoot(open_store(job["home"]), lambda: Started(Slot.A, "benchmark"))
    transport = FileTransport(job["files"])
    fill = PayloadFill(
        order,
        transport,
        WorkFiles(job["home"]),
        base_image=base,
        content_key=(lambda _: key) if key else None,
    )
    AbInstaller(boot, slots, lambda: "benchmark").stage(order, Slot.B, fill)
    return {"received": transport.received, "method": fill.moved.method}


def main() -> None:
    """One job."""
    job = json.loads(Path(sys.argv[1]).read_bytes())
    Path(job["result"]).write_text(json.dumps(install(job)), "utf-8")


if __name__ == "__main__":
    main()
