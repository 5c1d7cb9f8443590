"""An install takes as much memory as it takes, whatever the image and however it comes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import pytest

from sealift.core.container import Op
from sealift.core.delta import Base, Extent, encode_delta
from sealift.core.encryption import payload_context
from sealift.core.packer import ContainerWriter, Made, pack_full
from sealift.core.streams import pack
from sealift.core.types import Artifact, Container, Instruction, Seal, Wrap
from sealift.payload.sealing import seal_file
from tests.containers import noise, text
from tests.tls_server import Files, Pki, TlsServer

MIB = 1 << 20
KEY = bytes(range(32))
SEAL = Seal(Wrap("x25519", "0123456789abcdef", b"wrapped"))

# A device in a process of its own: what the agent loads, one install, its peak.
DEVICE = """
import json, sys, time
from pathlib import Path
from sealift.agent.payload import PayloadFill
from sealift.agent.slot import PathSlots, WorkFiles
from sealift.agent.transport import HttpsTransport, TlsFiles
from sealift.core.types import Artifact, Instruction, Slot
work, url, key = sys.argv[1:]
class Clock:
    monotonic = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)
def memory(name):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
order = Instruction.from_json(json.loads(Path(work, "order.json").read_bytes()))
base = Artifact.from_json(json.loads(Path(work, "base.json").read_bytes()))
files = TlsFiles(*(f"{work}/{name}" for name in ("ca.pem", "device.pem", "device.key")))
slots = PathSlots({Slot.A: f"{work}/old", Slot.B: f"{work}/slot"})
into, old = slots.open(Slot.B, writable=True), slots.open(Slot.A, writable=False)
way = HttpsTransport(url, files, Clock(), floor=lambda: 0)
way.get("nothing", limit=1000)
if order.sealed:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    AESGCM(bytes.fromhex(key)).encrypt(bytes(12), b"", None)
before = memory("VmRSS")
fill = PayloadFill(order, way, WorkFiles(work), base_image=base,
                   content_key=lambda _: bytes.fromhex(key))
fill(into, old)
print(json.dumps([before, memory("VmHWM"), fill.moved.method]))
"""


@dataclass(frozen=True)
class Peak:
    """What the process took before the install, and at most; MiB."""

    before: float
    most: float
    method: str


@dataclass(frozen=True)
class Images:
    """Two sparse images in files; every eighth begins with two full segments."""

    work: Path
    length: int

    def make(self) -> None:
        """Old: noise and text. New: noise changed in half of its bytes, other text."""
        old, new = noise(MIB), bytearray(noise(MIB))
        new[: MIB // 2] = noise(MIB * 3 // 2)[MIB:]
        self._write("old", [old, text(MIB)])
        self._write("new", [bytes(new), text(MIB, 7)])

    def _write(self, name: str, contents: list[bytes]) -> None:
        with (self.work / name).open("wb") as file:
            for number in range(8):
                file.seek(number * (self.length // 8))
                file.write(b"".join(contents))
            file.truncate(self.length)


def packed(images: Images) -> tuple[Artifact, Artifact, Container, Container]:
    """New and old image as they are signed, the full container and the delta."""
    work, length = images.work, images.length
    with ExitStack() as stack:

        def opened(name: str, mode: str = "w+b"):  # type: ignore[no-untyped-def]
            return stack.enter_context((work / name).open(mode))

        old, new = opened("old", "rb"), opened("new", "rb")
        found = pack_full(
            lambda at, n: os.pread(new.fileno(), n, at),
            length,
            spool=opened("spool"),
            out=opened("x.full"),
            preset=0,
        )
        artifact = Artifact(
            "demo-board/rootfs-1.img", length, found.image_sha256, None,
            found.segment_size, found.segment_root, ("demo-board-r1",), 1, "1",
        )  # fmt: skip
        digest = sha256()
        for at in range(0, length, MIB):
            digest.update(os.pread(old.fileno(), MIB, at))
        base = replace(artifact, name="old", sha256=digest.digest())
        writer = ContainerWriter(
            length,
            MIB,
            spool=opened("spool-2"),
            out=opened("x.delta"),
            base=(length, base.sha256),
        )
        for made in deltas(old.fileno(), new.fileno(), length):
            writer.add(made)
        delta = writer.finish(found.image_sha256)
    return artifact, base, found.container("x.full"), delta.container("x.delta")


def deltas(old: int, new: int, length: int) -> Iterator[Made]:
    """Segments as a delta has them, with frames as large as they come.

    Places are told relative to the segment, so equal segments have equal frames.
    """
    base = Base(lambda at, n: os.pread(old, n, at), length)
    half = MIB // 2
    known: dict[bytes, Made] = {}
    for at in range(0, length, MIB):
        plain = os.pread(new, MIB, at)
        if plain not in known:
            extents = [
                Extent(Op.REPLACE, half - 64),
                Extent(Op.DELTA, half + 64, at + half - 64),
            ]
            frame = encode_delta(plain, at, extents, base, pack) if any(plain) else b""
            known[plain] = Made.of(Op.DELTA if frame else Op.ZERO, plain, frame)
        yield known[plain]


def shut(
    work: Path, container: Container, artifact: Artifact, salt: bytes
) -> Container:
    """The same file, sealed."""
    name = f"{container.name}.sealed"
    with (work / container.name).open("rb") as file, (work / name).open("wb") as out:
        length, digest = seal_file(
            file,
            out,
            content_key=KEY,
            context=payload_context(artifact.sha256, container.head_sha256),
            salt=salt * 24,
        )
    return replace(container, name=name, length=length, sha256=digest)


def peak(work: Path, length: int, *, delta: bool, sealed: bool) -> Peak:
    """One install of an image of this length in a process of its own."""
    images = Images(work, length)
    images.make()
    artifact, base, full, other = packed(images)
    if sealed:
        full, other = (
            shut(work, it, artifact, it.name[-1:].encode()) for it in (full, other)
        )
    order = Instruction(
        "d", "demo-board-r1", artifact, full, other if delta else None, None, 1,
        bytes(32), None, SEAL if sealed else None,
    )  # fmt: skip
    (work / "order.json").write_text(json.dumps(order.to_json()))
    (work / "base.json").write_text(json.dumps(base.to_json()))
    with (work / "slot").open("wb") as file:
        file.truncate(length)
    served: dict[str, Path | bytes] = {
        f"/director/targets/{it.sha256.hex()}.{it.name}": work / it.name
        for it in (full, other)
    }
    with TlsServer(Pki(work), Files(served)) as server:
        command = [sys.executable, "-c", DEVICE, str(work), server.url, KEY.hex()]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
    return Peak(*json.loads(done.stdout))


@pytest.mark.parametrize(
    ("delta", "sealed"), [(False, False), (True, False), (True, True)]
)
def test_memory_is_bounded_and_does_not_grow(
    tmp_path: Path, delta: bool, sealed: bool
) -> None:
    """32 and 256 MiB peak alike, less than 5.5 MiB above what the process had before.

    It had the agent's modules and a TLS connection, and for sealed ones the cipher.
    """
    peaks = []
    for length in (32 * MIB, 256 * MIB):
        work = tmp_path / str(length)
        work.mkdir()
        peaks.append(peak(work, length, delta=delta, sealed=sealed))
    assert {it.method for it in peaks} == {"delta" if delta else "full"}
    if sys.gettrace() is not None or os.environ.get("COVERAGE_PROCESS_CONFIG"):
        pytest.skip("memory is not measured under a tracer")
    assert max(it.most for it in peaks) < (40 if sealed else 32)
    assert max(it.most - it.before for it in peaks) < 5.5
    assert peaks[1].most - peaks[0].most < 2
