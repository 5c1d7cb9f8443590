"""An install takes as much memory as it takes, whatever the size of the image."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sealift.core.packer import pack_full
from sealift.core.types import Artifact, Instruction
from tests.tls_server import Files, Pki, TlsServer
from tests.containers import noise, text

MIB = 1 << 20

# A device in a process of its own: what the agent loads, one install, its peak.
DEVICE = """
import json, sys, time
from pathlib import Path
from sealift.agent.payload import PayloadFill
from sealift.agent.slot import PathSlots, WorkFiles
from sealift.agent.transport import HttpsTransport, TlsFiles
from sealift.core.types import Instruction, Slot
work, url = sys.argv[1:]
class Clock:
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)
order = Instruction.from_json(json.loads(Path(work, "order.json").read_bytes()))
files = TlsFiles(*(f"{work}/{name}" for name in ("ca.pem", "device.pem", "device.key")))
slot = PathSlots({Slot.B: f"{work}/slot"}).open(Slot.B, writable=True)
way = HttpsTransport(url, files, Clock(), floor=lambda: 0)
PayloadFill(order, way, WorkFiles(work))(slot, None)
for line in Path("/proc/self/status").read_text().splitlines():
    if line.startswith("VmHWM"):
        print(int(line.split()[1]) / 1024)
"""


def peak_mib(work: Path, length: int) -> float:
    """Peak resident memory of one install of an image of this length."""
    image = work / "image"
    contents = [text(MIB), noise(MIB)]
    with image.open("wb") as file:
        for number in range(16):
            file.seek(number * (length // 16))
            file.write(contents[number % 2])
        file.truncate(length)
    with (
        image.open("rb") as source,
        (work / "spool").open("w+b") as spool,
        (work / "x.full").open("wb") as out,
    ):
        packed = pack_full(
            lambda at, n: os.pread(source.fileno(), n, at), length, spool=spool, out=out
        )
    artifact = Artifact(
        "demo-board/rootfs-1.img", length, packed.image_sha256, None,
        packed.segment_size, packed.segment_root, ("demo-board-r1",), 1, "1",
    )  # fmt: skip
    container = packed.container("x.full")
    order = Instruction("d", "demo-board-r1", artifact, container, None, None, 1, b"")
    (work / "order.json").write_text(
        json.dumps({**order.to_json(), "targets_sha256": "00" * 32})
    )
    with (work / "slot").open("wb") as file:
        file.truncate(length)
    target = f"/director/targets/{container.sha256.hex()}.x.full"
    with TlsServer(Pki(work), Files({target: work / "x.full"})) as server:
        command = [sys.executable, "-c", DEVICE, str(work), server.url]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return float(done.stdout)


def test_memory_is_bounded_and_does_not_grow(tmp_path: Path) -> None:
    """32 MiB and 1 GiB peak alike, and below 40 MiB, with all the agent needs for it."""
    peaks = []
    for length in (32 * MIB, 1024 * MIB):
        work = tmp_path / str(length)
        work.mkdir()
        peaks.append(peak_mib(work, length))
    if sys.gettrace() is not None or os.environ.get("COVERAGE_PROCESS_CONFIG"):
        pytest.skip("memory is not measured under a tracer")
    assert max(peaks) < 40
    assert peaks[1] - peaks[0] < 2.5
